"""Mixers of hidden features: what they draw, settings, refused networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from randomix import ManifoldMixup, PatchUp, StepRng, mixers
from randomix.types import MixedMode

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mixer"


class Watched(nn.Module):
    """Hands its input from tap to tap and keeps what each returned; ``cuts`` crops the features before that tap."""

    num_taps = 4

    def __init__(self, channels=3, classes=5, cuts=None):
        super().__init__()
        self.head, self.cuts, self.seen = nn.Linear(channels, classes), cuts or {}, []

    def forward(self, inputs, tap=None):
        self.seen = [inputs]
        for index in range(self.num_taps):
            if index in self.cuts:
                inputs = inputs[..., : self.cuts[index], : self.cuts[index]]
            before = inputs
            inputs = inputs if tap is None else tap(index, inputs)
            self.seen.append((before, inputs))
        return self.head(inputs.flatten(2).mean(2))


def forward(mixer, step, count=6, shape=(3, 16, 12), rank=0, model=None):
    """One step on samples whose values tell them apart: (result, index of the tap that mixed, before, after)."""
    inputs = torch.arange(count).float().reshape(-1, *[1] * len(shape)).expand(count, *shape).contiguous()
    model = model or Watched(shape[0])
    result = mixer.forward_mixed(model, inputs, torch.eye(count), StepRng(3, step, rank))
    if not torch.equal(model.seen[0], inputs):
        return result, 0, inputs, model.seen[0]
    places = [i for i, (before, after) in enumerate(model.seen[1:]) if not torch.equal(before, after)]
    assert len(places) <= 1
    where = places[0] if places else None
    return result, where, *(model.seen[1:][where] if places else (inputs, inputs))


def own_weight(before, after, targets):
    """Weight (N, C, *S) of each sample's own value in ``after``, for samples that have a partner; and who has one."""
    count = len(before)
    others = targets.clone().fill_diagonal_(0)
    paired = others.sum(1) > 0
    partner = before[others.argmax(1)]
    shape = [count] + [1] * (before.ndim - 1)
    gap = torch.where(paired.reshape(shape), before - partner, 1.0)
    return (after - partner) / gap, paired


@pytest.mark.parametrize("name", ["manifold_mixup", "patchup"])
def test_taps_are_drawn_equally_often_and_alike_on_all_ranks(name):
    mixer = mixers.build({"name": name, "taps": [0, 1, 3]}, num_classes=6)
    found = [[forward(mixer, step, rank=rank) for step in range(300)] for rank in (0, 1)]
    places = [[place for _, place, _, _ in run] for run in found]
    assert all(a == b for a, b in zip(*places, strict=True) if None not in (a, b))  # None: nobody had a partner
    for tap in (0, 1, 3):
        assert 70 < places[0].count(tap) < 130
    assert 2 not in places[0]
    assert any(not torch.equal(a[0].targets, b[0].targets) for a, b in zip(*found, strict=True))


def test_manifold_mixup_blends_at_one_tap_by_the_label_s_lam():
    mixer, lams = ManifoldMixup(alpha=2.0, num_classes=6), []
    for step in range(500):
        result, place, before, after = forward(mixer, step)
        if place is None:
            continue
        assert place in (0, 2, 3)
        weight, paired = own_weight(before, after, result.targets)
        torch.testing.assert_close(
            weight[paired], result.lam[paired].reshape(-1, 1, 1, 1).expand_as(weight[paired]), atol=1e-4, rtol=0
        )
        assert result.loss_weight == 1.0
        assert result.name == "manifold_mixup"
        lams.append(float(result.lam[0]))
    assert np.mean(lams) == pytest.approx(0.5, abs=0.03)
    assert np.var(lams) == pytest.approx(0.05, abs=0.008)  # of Beta(2, 2)


@pytest.mark.parametrize("hard", [False, True])
def test_patchup_alters_the_same_blocks_of_all_samples_and_labels_follow_their_share(hard):
    mixer, places = PatchUp(hard=hard, prob=1.0, block_size=5, num_classes=6), set()
    for step in range(60):
        result, place, before, after = forward(mixer, step)
        assert result.loss_weight == 2.0
        if place is None:
            continue
        places.add(place)
        weight, paired = own_weight(before, after, result.targets)
        weight = weight[paired]
        torch.testing.assert_close(weight.flatten(1).mean(1), result.lam[paired], atol=1e-4, rtol=0)
        torch.testing.assert_close(weight, weight[:1].expand_as(weight), atol=1e-4, rtol=0)
        values = weight[0].round(decimals=3).unique()
        assert len(values) <= 2
        assert values[-1] == 1.0 or len(values) == 1
        if place == 0 or hard:
            assert set(values.tolist()) <= {0.0, 1.0}
        if place == 0:  # one box in all channels
            assert torch.equal(weight[:, 0], weight[:, 1])
            rows, columns = (weight[0, 0] == 0).nonzero().unbind(1)
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        elif len(values) == 2:
            assert not torch.equal(weight[:, 0], weight[:, 1])
    assert places == {0, 1, 2}


def test_the_altered_share_follows_the_size_of_the_features_or_the_first_tap_s():
    """Expected shares at gamma 0.75 and block 7: 0.637 at 32 x 32, 0.772 at 16 x 16, 0.588 there with the first's."""
    for gamma_per, expected in (("layer", {1: 0.637, 2: 0.772}), ("first_layer", {1: 0.637, 2: 0.588})):
        mixer, shares = (
            PatchUp(hard=True, gamma=0.75, prob=1.0, taps=[0, 2, 1], gamma_per=gamma_per, num_classes=2),
            {1: [], 2: []},
        )
        model = Watched(96, 2, cuts={2: 16})
        for step in range(60):
            result, place, _, _ = forward(mixer, step, 2, (96, 32, 32), model=model)
            if place in shares:
                shares[place].append(1 - float(result.lam[0]))
        for tap, share in expected.items():
            assert np.mean(shares[tap]) == pytest.approx(share, abs=0.012)


def test_prob_is_the_share_of_batches_that_are_mixed():
    results = [forward(PatchUp(hard=True, num_classes=6), step)[0] for step in range(300)]
    plain = [r for r in results if r.loss_weight == 1.0]
    assert 0.22 < len(plain) / 300 < 0.38  # 1 - 0.7
    assert all(torch.equal(r.targets, torch.eye(6)) and (r.lam == 1).all() for r in plain)
    assert all(forward(ManifoldMixup(prob=0.0, num_classes=6), step)[1] is None for step in range(20))
    assert all(forward(PatchUp(num_classes=6), step)[0].loss_weight == 2.0 for step in range(20))


def test_defaults_of_soft_and_hard():
    soft, hard = PatchUp(), PatchUp(hard=True)
    assert (soft.gamma, soft.prob, soft.mode) == (0.75, 1.0, MixedMode.BOTH)
    assert (hard.gamma, hard.prob, hard.mode) == (0.5, 0.7, MixedMode.MASK)
    assert (PatchUp(hard=True, gamma=0.1, prob=0.2).gamma, PatchUp(hard=True, gamma=0.1, prob=0.2).prob) == (0.1, 0.2)
    assert ManifoldMixup().mode is MixedMode.LINEAR
    assert mixers.build({"name": "randomix", "candidates": ["cutmix", "manifold_mixup"]}).mode is MixedMode.BOTH


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ManifoldMixup(alpha=0), "alpha must be a number > 0 and finite, got 0"),
        (lambda: ManifoldMixup(prob=1.1), r"prob must be a number in \[0, 1\], got 1.1"),
        (lambda: ManifoldMixup(taps=[]), r"taps must be a list of tap indices >= 0, got \[\]"),
        (lambda: ManifoldMixup(taps=[0, -1]), r"got \[0, -1\]"),
        (lambda: ManifoldMixup(taps=[1.5]), r"got \[1.5\]"),
        (lambda: ManifoldMixup(taps="012"), "got '012'"),
        (lambda: ManifoldMixup(taps=2), "got 2"),
        (lambda: PatchUp(gamma=1.5), r"gamma must be a number in \[0, 1\], got 1.5"),
        (lambda: PatchUp(block_size=4), "block_size must be an odd integer >= 1, got 4"),
        (lambda: PatchUp(block_size=-1), "got -1"),
        (lambda: PatchUp(block_size=3.0), "got 3.0"),
        (lambda: PatchUp(gamma_per="batch"), "gamma_per must be one of layer, first_layer, got 'batch'"),
        (lambda: PatchUp(alpha=float("nan")), "alpha must be a number > 0"),
    ],
)
def test_bad_settings_are_named_with_their_value(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_networks_that_do_not_fit_are_refused_before_training():
    shape = (3, 16, 12)
    with pytest.raises(ValueError, match="taps has 4, but Watched has taps 0 to 3"):
        ManifoldMixup(taps=[0, 4]).check_network(Watched(), shape)
    with pytest.raises(ValueError, match=r"block_size is 7, but the features at tap 2 have size \(5, 5\); lower"):
        PatchUp().check_network(Watched(cuts={2: 5}), shape)
    with pytest.raises(ValueError, match="Linear has no taps"):
        PatchUp().check_network(nn.Linear(1, 1), shape)
    ManifoldMixup(taps=[0]).check_network(nn.Linear(1, 1), shape)  # mixes before the network
    PatchUp(taps=[0, 1]).check_network(Watched(cuts={2: 5}), shape)
    PatchUp(taps=[0, 1]).check_network(Watched().double(), shape)
    composite = mixers.build({"name": "randomix", "candidates": ["mixup", {"name": "patchup", "block_size": 13}]})
    with pytest.raises(ValueError, match="block_size is 13, but the features at tap 1"):
        composite.check_network(Watched(), shape)


@pytest.mark.parametrize(
    "mixer", [ManifoldMixup(taps=[1, 5], num_classes=6), PatchUp(taps=[1], block_size=15, num_classes=6)]
)
def test_they_are_refused_in_a_loop_of_one_s_own_too(mixer):
    with pytest.raises(ValueError, match=r"taps has 5, but Watched|block_size is 15, but the features at tap 1"):
        forward(mixer, 0)


@pytest.mark.parametrize(
    ("file", "mode"),
    [("manifold_mixup", "l"), ("patchup", "l+m"), ("patchup_hard", "m"), ("patchup_as_published", "l+m")],
)
def test_configs_build_with_every_setting_spelled_out(file, mode):
    config = yaml.safe_load((CONFIGS / f"{file}.yaml").read_text())
    mixer = mixers.build(config, num_classes=10)
    assert mixer.mode is MixedMode(mode)
    assert set(config) - {"name", "label"} >= {"alpha", "taps", "prob"}
    for key, value in config.items():
        if key not in {"name", "label"}:
            found = getattr(mixer, key)
            assert (list(found) if isinstance(found, tuple) else found) == value
