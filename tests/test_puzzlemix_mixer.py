"""Puzzle Mix as a mixer: its settings, what it draws and hands on, its adversarial noise."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from randomix import functional, mixers
from randomix.mixers.puzzlemix import PuzzleMix
from randomix.rng import StepRng
from randomix.types import MixedMode
from tests.puzzle_images import MEAN, STD, batch

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mixer"


def mixer_of(**settings):
    return PuzzleMix(num_classes=5, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0}, "alpha must be a number > 0"),
        ({"t_eps": 0.0}, "t_eps must be a number > 0"),
        ({"beta": -1}, r"beta must be a number in \[0, 1000.0\], got -1"),
        ({"gamma": 1.5}, r"gamma must be a number in \[0, 1\], got 1.5"),
        ({"adv_prob": 2}, r"adv_prob must be a number in \[0, 1\], got 2"),
        ({"adv_eps": 300}, r"adv_eps must be a number in \[0, 255\], got 300"),
        ({"n_labels": 1}, "n_labels must be an integer >= 2, got 1"),
        ({"neigh_size": 2.0}, "neigh_size must be an integer >= 1, got 2.0"),
        ({"t_size": 0}, "t_size must be an integer >= 1, got 0"),
        ({"block_nums": []}, r"block_nums must be a list of integers >= 1 or None, got \[\]"),
        ({"block_nums": [0, 2]}, r"got \[0, 2\]"),
        ({"clean_weight": -1.0}, "clean_weight must be a number in"),
    ],
)
def test_bad_settings_are_named_with_their_value(settings, message):
    with pytest.raises(ValueError, match=message):
        mixer_of(**settings)


def test_cells_that_move_are_whole_blocks_in_large_images():
    """A grid of 56 or 112 cells a side would take seconds for a sample."""
    assert [PuzzleMix()._cell((size, size)) for size in (8, 32, 64, 224)] == [4, 4, -1, -1]
    assert PuzzleMix(t_size=2)._cell((224, 224)) == 2
    with pytest.raises(ValueError, match=r"t_size 2 makes more than 64 cells a side .*use t_size -1"):
        PuzzleMix(t_size=2).check_shape((3, 224, 224))


def test_sizes_it_cannot_take_are_named_before_training():
    mixer_of().check_shape((3, 12, 20))
    with pytest.raises(ValueError, match=r"block_nums \[2, 4, 8, 16\] do not divide images of size \(15, 20\)"):
        mixer_of().check_shape((3, 15, 20))
    with pytest.raises(ValueError, match=r"block_nums \[16\] do not divide images of size \(24, 24\)"):
        mixer_of(block_nums=[2, 16]).check_shape((3, 24, 24))
    with pytest.raises(ValueError, match="std has 3 entries for images of 1 channels"):
        mixer_of(std=STD).check_shape((1, 16, 16))
    with pytest.raises(ValueError, match="puzzlemix mixes 2-D samples only"):
        mixer_of().check_shape((3, 16))


def calls(monkeypatch):
    """What the mixer hands to the function, for each call."""
    seen, original = [], functional.puzzlemix

    def record(*arguments, **options):
        seen.append((arguments, options))
        return original(*arguments, **options)

    monkeypatch.setattr(functional, "puzzlemix", record)
    return seen


def test_ranks_share_the_number_of_blocks_and_nothing_else(monkeypatch):
    images, saliency, _ = batch(size=(16, 32))
    seen, targets = calls(monkeypatch), torch.eye(6)
    for step in range(16):
        for rank in (0, 1):
            mixer_of().mix(images, targets, saliency[:, None].expand_as(images), StepRng(0, step, rank))
    blocks = [arguments[5] for arguments, _ in seen]
    assert blocks[::2] == blocks[1::2]
    assert set(blocks) == {2, 4, 8, 16}
    lams = [arguments[3] for arguments, _ in seen]
    assert all(a != b for a, b in zip(lams[::2], lams[1::2], strict=True))
    assert any(not torch.equal(a[0][2], b[0][2]) for a, b in zip(seen[::2], seen[1::2], strict=True))


def test_settings_reach_the_function(monkeypatch):
    images, _, _ = batch()
    seen = calls(monkeypatch)
    settings = dict(n_labels=2, beta=0.7, gamma=0.1, eta=0.05, neigh_size=2, transport=False, t_eps=0.3, t_size=-1)
    mixer = mixer_of(**settings, mean=MEAN, std=STD, block_nums=[8])
    mixer.mix(images, torch.eye(6), torch.randn(images.shape), StepRng(0))
    ((arguments, options),) = seen
    assert arguments[5] == 8
    assert {key: options[key] for key in settings} == settings
    assert (options["mean"], options["std"], options["noise"]) == (MEAN, STD, None)
    assert mixer.mode is MixedMode.MASK
    assert mixer_of().mode is MixedMode.BOTH


def test_saliency_is_the_gradient_s_norm(monkeypatch):
    images, _, _ = batch()
    seen, gradient = calls(monkeypatch), torch.randn(6, 3, 16, 24)
    mixer_of().mix(images, torch.eye(6), gradient, StepRng(0))
    torch.testing.assert_close(seen[0][0][4], gradient.square().mean(1).sqrt())


def test_adversarial_noise_comes_as_often_as_asked_and_is_limited(monkeypatch):
    images, _, _ = batch(size=(8, 8))
    seen, gradient = calls(monkeypatch), torch.randn(6, 3, 8, 8)
    gradient[0] = float("nan")
    mixer, std, mean = (
        mixer_of(adv_prob=0.3, adv_eps=12.0, mean=MEAN, std=STD, block_nums=[2], transport=False),
        torch.tensor(STD),
        torch.tensor(MEAN),
    )
    probed = 0
    for step in range(100):
        rng = StepRng(0, step)
        probe = mixer.probe(images, rng)
        mixed = mixer.mix(images, torch.eye(6), gradient, rng)
        assert mixed.inputs.isfinite().all()
        noise, noise_on = seen[-1][1]["noise"], seen[-1][1]["noise_on"]
        assert (noise is None) == (probe is images) == (not any(noise_on))
        if noise is not None:
            probed += 1
            assert noise.abs().max() <= 12.0 / 255 + 1e-7
            moved = (probe - images) * std.view(3, 1, 1)
            assert moved.abs().max() <= 12.0 / 255 + 1e-6
            pixels = probe * std.view(3, 1, 1) + mean.view(3, 1, 1)
            assert pixels.min() >= -1e-6
            assert pixels.max() <= 1 + 1e-6
    sides = np.mean([options["noise_on"] for _, options in seen], axis=0)
    assert np.abs(sides - 0.3).max() < 0.15
    assert abs(probed / 100 - (1 - 0.7**2)) < 0.15


def test_adversarial_noise_climbs_the_gradient(monkeypatch):
    images, _, _ = batch(size=(8, 8))
    seen, gradient = calls(monkeypatch), torch.randn(6, 3, 8, 8)
    mixer_of(adv_prob=1.0).mix(images.clamp(0, 1), torch.eye(6), gradient, StepRng(0))
    noise = seen[0][1]["noise"]
    assert (noise * gradient.sign()).min() >= 0  # a step of eps + 2 / 255 from at most eps the other way
    assert (noise != 0).float().mean() > 0.9


@pytest.mark.parametrize("file", ["puzzlemix", "puzzlemix_as_published"])
def test_configs_build_with_every_setting_spelled_out(file):
    config = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())
    mixer = mixers.build(config, num_classes=10)
    assert isinstance(mixer, PuzzleMix)
    assert config["label"] == "Puzzle Mix"
    for key, value in config.items():
        if key not in {"name", "label"}:
            found = getattr(mixer, key)
            assert (list(found) if isinstance(found, tuple) else found) == value
    mixer.check_shape((3, 32, 32))
