"""RandoMix: which candidate is drawn, how often, by whom, and what is refused."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from randomix import Baseline, CutMix, FMix, Mixup, RandoMix, StepRng
from randomix.mixers.base import Mixer, dense_targets
from randomix.types import MixedForward, MixedMode

FOUR = ["mixup", "cutmix", "resizemix", "fmix"]


class Hidden(Mixer):
    """A method that mixes inside the network and notes what it was handed."""

    mode = MixedMode.LINEAR
    name = "hidden"

    def __init__(self):
        super().__init__(num_classes=4)
        self.seen = []

    def forward_mixed(self, model, inputs, labels, rng):
        self.seen.append((labels, rng))
        return MixedForward(model(inputs, tap=lambda _, x: x), dense_targets(labels, 4), torch.ones(len(inputs)))


class Network(nn.Module):
    def forward(self, inputs, tap=None):
        return inputs.flatten(2).mean(2)


def batch(count=4):
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(count) % 4


def drawn(mixer, steps):
    inputs, labels = batch()
    return [mixer(inputs, labels, StepRng(0, step)).name for step in range(steps)]


@pytest.mark.parametrize("weights", [None, [3, 1, 1, 1], [0.5, 0, 0.25, 0.25], [0, 0, 0, 2]])
def test_methods_come_as_often_as_their_weights(weights):
    names = drawn(RandoMix(weights=weights, num_classes=4), 1200)
    shares = np.array(weights or [1, 1, 1, 1], dtype=float) / sum(weights or [1, 1, 1, 1])
    counts = np.array([names.count(name) for name in FOUR])
    assert (counts[shares == 0] == 0).all()
    assert stats.chisquare(counts[shares > 0], 1200 * shares[shares > 0]).pvalue > 1e-3 or (shares > 0).sum() == 1


def test_per_sample_methods_come_as_often_as_their_weights():
    # lam tells them apart: Baseline leaves 1, ResizeMix of one scale a constant, Mixup anything else
    candidates = ["baseline", {"name": "resizemix", "scale": (0.5, 0.5)}, "mixup"]
    mixer = RandoMix(candidates=candidates, weights=[1, 1, 2], granularity="sample")
    inputs, targets = torch.randn(400, 1, 8, 8), torch.eye(400)
    lam = torch.cat([mixer(inputs, targets, StepRng(0, step)).lam for step in range(3)])
    counts = [int((lam == 1).sum()), int((lam == 0.75).sum()), int(((lam != 1) & (lam != 0.75)).sum())]
    assert stats.chisquare(counts, [300, 300, 600]).pvalue > 1e-3


def test_per_sample_partners_come_from_the_whole_batch():
    mixer = RandoMix(candidates=["mixup", "cutmix"], granularity="sample")
    inputs, targets = torch.randn(16, 1, 8, 8), torch.eye(16)
    seen = sum(mixer(inputs, targets, StepRng(0, step)).targets > 0 for step in range(400))
    assert (seen > 0).all()


def test_every_rank_draws_the_same_method_and_its_own_partners():
    inputs, labels = batch()
    mixer = RandoMix(num_classes=4)
    a, b = ([mixer(inputs, labels, StepRng(0, step, rank)) for step in range(40)] for rank in (0, 3))
    assert [m.name for m in a] == [m.name for m in b]
    assert len({m.name for m in a}) == 4
    assert sum(not torch.equal(m.inputs, n.inputs) for m, n in zip(a, b, strict=True)) > 30


def test_any_mixer_can_be_a_candidate():
    inputs, labels = batch()
    hidden = Hidden()
    mixer = RandoMix(candidates=[hidden, "mixup"], weights=[1, 1], num_classes=4)
    results = [mixer.forward_mixed(Network(), inputs, labels, StepRng(0, step)) for step in range(40)]
    names = [r.name for r in results]
    assert set(names) == {"hidden", "mixup"}
    assert len(hidden.seen) == names.count("hidden")
    seen_labels, seen_rng = hidden.seen[0]
    assert seen_labels.shape == (4, 4)
    step = names.index("hidden")
    assert seen_rng == StepRng(0, step).child("hidden")
    with pytest.raises(ValueError, match=r"candidates hidden mix inside the network.*forward_mixed"):
        mixer(inputs, labels, 0)
    with pytest.raises(ValueError, match="granularity 'batch'"):
        RandoMix(candidates=[hidden, "mixup"], granularity="sample")


def test_a_candidate_mixes_as_it_would_alone():
    inputs, labels = batch()
    mixer, alone = RandoMix(num_classes=4), {"mixup": Mixup(num_classes=4), "cutmix": CutMix(num_classes=4)}
    compared = 0
    for step in range(20):
        rng = StepRng(0, step)
        mixed = mixer(inputs, labels, rng)
        forward = mixer.forward_mixed(Network(), inputs, labels, rng)
        assert forward.name == mixed.name
        assert torch.equal(forward.logits, Network()(mixed.inputs))
        if mixed.name in alone:
            compared += 1
            assert torch.equal(mixed.inputs, alone[mixed.name](inputs, labels, rng.child(mixed.name)).inputs)
    assert compared > 4


def test_alpha_and_granularity_reach_the_candidates_that_take_them():
    own = CutMix(alpha=3.0)
    mixer = RandoMix(
        candidates=["mixup", {"name": "fmix", "alpha": 0.7}, "resizemix", "baseline", own],
        alpha=0.2,
        granularity="sample",
        num_classes=4,
    )
    mixup, fmix, resizemix, _, cutmix = mixer.candidates
    assert (mixup.alpha, fmix.alpha, cutmix.alpha) == (0.2, 0.7, 3.0)
    assert (mixup.granularity, resizemix.granularity, cutmix.granularity) == ("sample", "sample", "batch")
    assert mixup.num_classes == 4
    assert cutmix is own


@pytest.mark.parametrize(
    ("candidates", "weights", "mode"),
    [
        (FOUR, None, MixedMode.BOTH),
        (["mixup"], None, MixedMode.LINEAR),
        (["cutmix", "fmix"], None, MixedMode.MASK),
        (["cutmix", "baseline"], None, MixedMode.MASK),
        (["baseline"], None, MixedMode.NONE),
        (["mixup", "cutmix"], [0, 1], MixedMode.MASK),
        ([RandoMix(), "mixup"], None, MixedMode.BOTH),
    ],
)
def test_mode_is_that_of_the_candidates_in_use(candidates, weights, mode):
    assert RandoMix(candidates=candidates, weights=weights).mode is mode


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": [1, 2]}, "weights has 2 entries but candidates has 4"),
        ({"weights": [1, -1, 1, 1]}, r"weights must be numbers >= 0 .* got \[1, -1, 1, 1\]"),
        ({"weights": [0, 0, 0, 0]}, "sum > 0"),
        ({"weights": [1, 1, 1, float("inf")]}, "finite"),
        ({"candidates": []}, r"at least 1 mixer, got \[\]"),
        ({"candidates": "mixup"}, "must be a list of at least 1 mixer, got 'mixup'"),
        ({"candidates": ["mixup", "nosuch"]}, "unknown mixer 'nosuch'"),
        ({"alpha": -1.0}, "alpha must be a number > 0"),
        ({"granularity": "rank"}, "granularity must be one of batch, sample"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RandoMix(**settings)


def test_lists_of_a_configuration_file_work():
    from omegaconf import OmegaConf

    config = OmegaConf.create({"candidates": ["mixup", {"name": "fmix", "spectrum": "code"}], "weights": [1, 2]})
    mixer = RandoMix(candidates=config.candidates, weights=config.weights)
    assert [type(c) for c in mixer.candidates] == [Mixup, FMix]
    assert mixer.candidates[1].spectrum == "code"
    assert mixer.weights == [1.0, 2.0]
    assert isinstance(RandoMix(candidates=["baseline"]).candidates[0], Baseline)


def test_alpha_is_that_of_beta_alone():
    """Candidates with another law have another name for its parameter."""
    mixer = RandoMix(candidates=["mixup", "comixup", "manifold_mixup"], alpha=0.3, num_classes=4)
    assert [getattr(c, "alpha", None) for c in mixer.candidates] == [0.3, None, 0.3]
    assert mixer.candidates[1].dirichlet_alpha == 2.0


def test_a_candidate_that_is_never_drawn_asks_for_nothing():
    drawn = RandoMix(candidates=["mixup", "puzzlemix"], weights=[1, 1], num_classes=4)
    never = RandoMix(candidates=["mixup", "puzzlemix"], weights=[1, 0], num_classes=4)
    assert (drawn.reads_statistics, never.reads_statistics) == (True, False)
