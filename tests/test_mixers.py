"""The mixers' own settings: what they refuse, how they are built, prob, granularity, label_lam."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from randomix import CutMix, FMix, Mixup, RandoMix, ResizeMix, StepRng, mixers
from randomix.mixers.base import choose_rows, unmixed
from randomix.types import MixedMode

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mixer"


def batch(count=8, spatial=(16, 16)):
    inputs = torch.randn(count, 3, *spatial, generator=torch.Generator().manual_seed(0))
    return inputs, torch.eye(count)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Mixup(alpha=0), "alpha must be a number > 0 and finite, got 0"),
        (lambda: CutMix(alpha=float("nan")), "alpha must be a number > 0 and finite, got nan"),
        (lambda: CutMix(prob=1.5), r"prob must be a number in \[0, 1\], got 1.5"),
        (lambda: Mixup(granularity="image"), "granularity must be one of batch, sample, got 'image'"),
        (lambda: FMix(spectrum="fourier"), "spectrum must be one of paper, code, got 'fourier'"),
        (lambda: FMix(label_lam="area"), "label_lam must be one of drawn, mask, got 'area'"),
        (lambda: FMix(max_soft=0.6), r"max_soft must be a number in \[0, 0.5\], got 0.6"),
        (lambda: FMix(decay_power=-1), "decay_power must be a number > 0"),
        (lambda: Mixup(alpha="1"), "alpha must be a number > 0 and finite, got '1'"),
        (lambda: Mixup(prob=None), r"prob must be a number in \[0, 1\], got None"),
        (
            lambda: RandoMix(weights=[1, "3", 1, 1]),
            r"weights must be numbers >= 0 and finite .*, got \[1, '3'",
        ),
        (lambda: ResizeMix(scale=(0.8, 0.1)), r"got \(0.8, 0.1\)"),
        (lambda: ResizeMix(scale=(0.1, 0.5, 0.8)), r"got \(0.1, 0.5, 0.8\)"),
        (lambda: Mixup(num_classes=0), "num_classes must be an integer >= 1 or None, got 0"),
        (lambda: RandoMix(num_classes="10"), "num_classes must be an integer >= 1 or None, got '10'"),
        (lambda: RandoMix(weights="1111"), "weights must be a list of numbers, got '1111'"),
        (lambda: mixers.build("mixupp"), "unknown mixer 'mixupp'; choose from .*cutmix"),
        (lambda: mixers.build({"alpha": 1.0}), "a mixer needs its name; choose from .*cutmix"),
        (lambda: mixers.build({"name": "mixup", "beta": 1.0}), "'mixup' has no setting beta; it has alpha"),
    ],
)
def test_bad_settings_are_named_with_their_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_labels_elsewhere_are_named_with_both_places():
    inputs, targets = batch()
    with pytest.raises(ValueError, match="labels are on meta and inputs on cpu; move them to one device"):
        CutMix()(inputs, targets.to("meta"))


def test_weights_may_be_a_tensor():
    assert RandoMix(weights=torch.tensor([3, 1, 1, 1])).weights == [3.0, 1.0, 1.0, 1.0]


def test_repr_names_the_changed_settings():
    assert repr(CutMix()) == "CutMix()"
    found = RandoMix(candidates=["mixup", {"name": "fmix", "alpha": 0.2}], num_classes=4)
    fmix = "FMix(alpha=0.2, num_classes=4)"
    assert repr(found) == f"RandoMix(candidates=[Mixup(num_classes=4), {fmix}], weights=[1.0, 1.0], num_classes=4)"


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_prob_is_the_share_that_is_mixed(granularity):
    inputs, targets = batch()
    mixer = CutMix(prob=0.3, granularity=granularity)
    mixed = [mixer(inputs, targets, seed) for seed in range(600)]
    untouched = np.mean([[torch.equal(a, b) for a, b in zip(m.inputs, inputs, strict=True)] for m in mixed])
    # of the mixed samples 1 in 8 is its own partner, and a few boxes are empty
    assert 0.7 < untouched < 0.82
    each = [len({float(v) for v in m.lam}) for m in mixed]
    assert max(each) == 1 if granularity == "batch" else max(each) > 1
    for m in mixed:
        assert torch.equal(m.targets[m.lam == 1], targets[m.lam == 1])


def test_prob_zero_and_one():
    inputs, targets = batch()
    assert all(torch.equal(Mixup(prob=0.0)(inputs, targets, seed).inputs, inputs) for seed in range(20))
    assert all((Mixup(prob=1.0)(inputs, targets, seed).lam < 1).all() for seed in range(20))


@pytest.mark.parametrize("name", ["mixup", "cutmix", "fmix", "resizemix"])
def test_granularity_sets_who_shares_a_draw(name):
    inputs, targets = batch(32)
    shared = [mixers.build(name)(inputs, targets, seed).lam for seed in range(10)]
    assert all(len(set(lam.tolist())) == 1 for lam in shared)
    each = [mixers.build({"name": name, "granularity": "sample"})(inputs, targets, seed).lam for seed in range(10)]
    assert all(len(set(lam.tolist())) > 8 for lam in each)


def test_resizemix_places_each_patch_on_its_own_for_one_scale():
    inputs = torch.zeros(16, 1, 16, 16)
    inputs[::2] = 1.0
    mixed = ResizeMix(scale=(0.3, 0.3))(inputs, torch.eye(16), 0)
    changed = [
        tuple((m != x).nonzero()[0].tolist()) for m, x in zip(mixed.inputs, inputs, strict=True) if (m != x).any()
    ]
    assert len(changed) > 4
    assert len(set(changed)) > 2
    assert set(mixed.lam.tolist()) == {1 - 16 / 256}


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_fmix_labels_follow_the_draw_or_the_mask(granularity):
    inputs = torch.arange(8.0)[:, None, None, None].expand(8, 1, 7, 9).contiguous()
    rng = StepRng(4)
    drawn = FMix(granularity=granularity)(inputs, torch.eye(8), rng)
    mask = FMix(granularity=granularity, label_lam="mask")(inputs, torch.eye(8), rng)
    assert torch.equal(drawn.inputs, mask.inputs)
    kept = (mask.inputs == inputs).float().mean((1, 2, 3))
    paired = kept < 1
    torch.testing.assert_close(mask.lam[paired], kept[paired])
    assert not torch.equal(drawn.lam, mask.lam)
    assert (drawn.lam - mask.lam).abs().max() <= 1 / 63 + 1e-6


def test_choose_rows_takes_each_sample_from_its_batch():
    inputs, targets = batch(4)
    chosen = choose_rows([unmixed(inputs, targets), unmixed(-inputs, targets * 2)], np.array([0, 1, 1, 0]))
    sign = torch.tensor([1.0, -1, -1, 1])[:, None, None, None]
    assert torch.equal(chosen.inputs, inputs * sign)
    assert chosen.targets.sum(1).tolist() == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("file", "mode"),
    [
        ("baseline", "-"),
        ("mixup", "l"),
        ("cutmix", "m"),
        ("fmix", "m"),
        ("fmix_as_published", "m"),
        ("resizemix", "m"),
        ("saliencymix", "m"),
        ("saliencymix_as_published", "m"),
        ("cutout", "-"),
        ("cutout_cifar100", "-"),
        ("cutout_8px", "-"),
        ("randomix", "l+m"),
        ("randomix_3111", "l+m"),
        ("randomix_4111", "l+m"),
    ],
)
def test_configs_build_with_every_setting_spelled_out(file, mode):
    config = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())
    mixer = mixers.build(config, num_classes=10)
    assert mixer.mode is MixedMode(mode)
    assert mixer.name == config["name"] == type(mixer).__name__.lower() == config["label"].lower()
    for key, value in config.items():
        if key not in {"name", "label", "candidates"}:
            found = getattr(mixer, key)
            assert found == (tuple(value) if isinstance(found, tuple) else value)


def test_configs_state_the_weights_of_their_names():
    weights = {
        f: yaml.safe_load((CONFIGS / f"{f}.yaml").read_text())["weights"]
        for f in ("randomix", "randomix_3111", "randomix_4111")
    }
    assert weights == {"randomix": [1, 1, 1, 1], "randomix_3111": [3, 1, 1, 1], "randomix_4111": [4, 1, 1, 1]}
    assert yaml.safe_load((CONFIGS / "fmix_as_published.yaml").read_text())["spectrum"] == "code"
