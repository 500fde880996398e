"""The laws of the draws, on fixed seeds: lam, pasted areas, mask means, pairings."""

import numpy as np
import pytest
import torch
from scipy import stats

from randomix import CutMix, FMix, Mixup, ResizeMix, StepRng

INPUTS, TARGETS = torch.zeros(1, 1, 32, 32), torch.eye(2)[:1]


def lams(mixer, count=4000):
    if mixer.granularity == "batch":
        return np.array([float(mixer(INPUTS, TARGETS, StepRng(0, step)).lam) for step in range(count)])
    return mixer(INPUTS.expand(count, 1, 32, 32), TARGETS.expand(count, 2), StepRng(0)).lam.numpy()


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("alpha", [1.0, 0.2, 2.0])
def test_mixup_draws_lam_from_beta(granularity, alpha):
    found = lams(Mixup(alpha=alpha, granularity=granularity), 1500)
    assert stats.kstest(found, "beta", (alpha, alpha)).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [1.0, 0.2])
def test_fmix_draws_lam_from_beta(alpha):
    assert stats.kstest(lams(FMix(alpha=alpha), 800), "beta", (alpha, alpha)).pvalue > 1e-3


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_cutmix_pastes_the_area_of_clipped_boxes(granularity):
    own = lams(CutMix(granularity=granularity))
    # 200,000 draws of the authors' code: mean pasted area .2995, empty .4 %, quantiles of lam .367 / .719 / .965
    assert 1 - own.mean() == pytest.approx(0.2995, abs=0.012)
    assert np.mean(own == 1) == pytest.approx(0.004, abs=0.004)
    np.testing.assert_allclose(np.quantile(own, [0.05, 0.5, 0.95]), [0.367, 0.719, 0.965], atol=0.025)


@pytest.mark.parametrize("granularity", ["batch", "sample"])
def test_resizemix_pastes_whole_patches(granularity):
    own = lams(ResizeMix(granularity=granularity))
    assert 1 - own.mean() == pytest.approx(0.230, abs=0.012)
    assert own.min() >= 0.36
    sides = np.sqrt((1 - own) * 1024)
    np.testing.assert_allclose(sides, np.round(sides), atol=1e-3)
    assert set(np.round(sides)) == set(range(3, 26))


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("spectrum", ["paper", "code"])
def test_fmix_masks_cover_their_lam(granularity, spectrum):
    count = 60
    inputs, targets = torch.eye(2)[:, :1, None, None].expand(2, 1, 12, 20), torch.eye(2)
    drawn, covered = [], []
    for step in range(count):
        mixed = FMix(granularity=granularity, spectrum=spectrum)(inputs, targets, StepRng(0, step))
        share = (mixed.inputs == inputs).float().mean((1, 2, 3))
        paired = mixed.targets[:, 0] != targets[:, 0]
        drawn.append(mixed.lam[paired])
        covered.append(share[paired])
    drawn, covered = torch.cat(drawn), torch.cat(covered)
    assert len(drawn) > 30
    assert (drawn - covered).abs().max() <= 1 / 240 + 1e-6
    assert (covered > drawn).any()
    assert (covered < drawn).any()


def test_published_fmix_cuts_audio_in_one_interval_and_the_paper_mostly():
    def runs(spectrum, step):
        signal = torch.tensor([0.0, 1.0])[:, None, None].expand(2, 1, 64)
        mixed = FMix(spectrum=spectrum)(signal, torch.eye(2), StepRng(0, step)).inputs[0, 0]
        return int((mixed != mixed.roll(1)).sum()) // 2

    published = [runs("code", step) for step in range(60)]
    paper = [runs("paper", step) for step in range(200)]
    assert max(published) == 1
    assert max(paper) > 1


def test_pairings_are_uniform():
    inputs, targets = torch.zeros(6, 1, 4), torch.eye(6)
    counts = torch.zeros(6, 6)
    for step in range(1200):
        own = Mixup()(inputs, targets, StepRng(0, step))
        counts += own.targets > 0
    counts[range(6), range(6)] = 0
    pairs = counts[~torch.eye(6, dtype=torch.bool)]
    assert stats.chisquare(pairs.numpy()).pvalue > 1e-3


def test_boxes_of_cutmix_are_centred_uniformly():
    inputs, targets = torch.zeros(2000, 1, 16, 24), torch.eye(2)[torch.arange(2000) % 2]
    inputs[1::2] = 1.0
    mixed = CutMix(granularity="sample")(inputs, targets, 0).inputs
    changed = (mixed != inputs).float().mean((0, 1))
    # symmetric about the middle, and thinner at the border
    np.testing.assert_allclose(changed, changed.flip(0, 1), atol=0.06)
    assert changed[0, 0] < changed[8, 12] / 2
