"""Puzzle Mix: its costs against loops over blocks, what its masks do, its settings; nothing waits for the device."""

import math

import numpy as np
import pytest
import torch

from randomix import functional
from tests.puzzle_images import MEAN, STD, batch

# --- Costs -----------------------------------------------------------------------------------------------------------


def reference_costs(saliency, partner, lam, own, other, blocks, n_labels, beta, gamma, eta, pools):
    """One sample and its partner, block by block, in float64; images (C, H, W) in [0, 1]."""
    (height, width), grid = saliency.shape, range(blocks)
    tall, wide = height // blocks, width // blocks

    def block(image, i, j):
        return image[..., i * tall : (i + 1) * tall, j * wide : (j + 1) * wide]

    def pooled(image, i, j):
        part = block(image, i, j)
        return part.reshape(len(part), tall // pools[0], pools[0], wide // pools[1], pools[1]).mean((2, 4))

    lose = [[[block(s, i, j).mean() / s.mean() / blocks**2 for j in grid] for i in grid] for s in (partner, saliency)]
    smooth = beta / blocks / 16
    weights = {}
    for i in grid:
        for j in grid:
            for axis, (k, m) in enumerate([(i + 1, j), (i, j + 1)]):
                if max(k, m) == blocks:
                    continue
                gap = np.zeros((2, 2))
                for a, first in enumerate((other, own)):
                    for b, second in enumerate((other, own)):
                        near, far = pooled(first, i, j), pooled(second, k, m)
                        lines = (near[:, -1], far[:, 0]) if axis == 0 else (near[:, :, -1], far[:, :, 0])
                        gap[a, b] = np.abs(lines[0] - lines[1]).mean() * smooth * gamma
                lose[0][i][j] += gap[1].mean()
                lose[0][k][m] += gap[:, 1].mean()
                lose[1][i][j] += gap[0].mean()
                lose[1][k][m] += gap[:, 0].mean()
                weights[axis, i, j] = (gap[1, 0] + gap[0, 1] - gap[1, 1] - gap[0, 0]) / 2 + smooth
    parts = n_labels - 1
    unary = np.zeros((blocks, blocks, n_labels))
    for label in range(n_labels):
        chance = math.comb(parts, label) * lam ** (parts - label) * (1 - lam) ** label
        blend = (1 - label / parts) * np.array(lose[0]) + label / parts * np.array(lose[1])
        unary[..., label] = blend - eta / blocks**2 * math.log(chance + 1e-8)
    down = [[weights[0, i, j] for j in grid] for i in range(blocks - 1)]
    right = [[weights[1, i, j] for j in range(blocks - 1)] for i in grid]
    return [np.array(part) * 1000 * blocks**2 for part in (unary, down, right)]


@pytest.mark.parametrize(
    ("size", "blocks", "neigh_size", "pools", "n_labels"),
    [
        ((16, 24), 2, 4, (4, 4), 3),
        ((16, 24), 4, 4, (4, 3), 3),  # 4 divides blocks of 4 x 6 one way only
        ((12, 12), 4, 2, (1, 1), 2),
        ((16, 32), 16, 4, (1, 2), 3),
        ((14, 28), 2, 5, (1, 2), 4),
    ],
)
@pytest.mark.parametrize("lam", [0.2, 0.9])
def test_costs_are_those_of_the_formula(size, blocks, neigh_size, pools, n_labels, lam):
    images, saliency, perm = batch(size=size)
    given = dict(n_labels=n_labels, beta=1.1, gamma=0.6, eta=0.3, neigh_size=neigh_size, mean=MEAN, std=STD)
    costs = functional.puzzlemix_costs(saliency, perm, lam, images, blocks, **given)
    pools = tuple(max(p for p in range(1, neigh_size + 1) if size[i] // blocks % p == 0) for i in (0, 1))
    pixels = (images.double() * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)).numpy()
    for i, j in enumerate(perm.tolist()):
        expected = reference_costs(
            saliency[i].double().numpy(),
            saliency[j].double().numpy(),
            lam,
            pixels[i],
            pixels[j],
            blocks,
            n_labels,
            1.1,
            0.6,
            0.3,
            pools,
        )
        for ours, theirs in zip(costs, expected, strict=True):
            assert np.abs(ours[i].numpy() - theirs).max() < 1.01  # truncated to integers


def test_lam_may_be_one_for_each_sample():
    images, saliency, perm = batch()
    lam = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    together = functional.puzzlemix_costs(saliency, perm, lam, images, 4)
    for i, value in enumerate(lam.tolist()):
        alone = functional.puzzlemix_costs(saliency, perm, value, images, 4)
        assert all(torch.equal(a[i], b[i]) for a, b in zip(together, alone, strict=True))


def test_only_relative_saliency_counts_and_none_counts_as_uniform():
    images, saliency, perm = batch()
    plain = functional.puzzlemix_costs(saliency, perm, 0.4, images, 4)
    scaled = functional.puzzlemix_costs(saliency * 1024, perm, 0.4, images, 4)
    assert all(torch.equal(a, b) for a, b in zip(plain, scaled, strict=True))
    uniform = saliency.clone()
    uniform[:3] = 1
    for nothing in (0.0, float("nan"), float("inf")):
        spoilt = saliency.clone()
        spoilt[:3] = nothing
        expected = functional.puzzlemix(images, torch.eye(6), perm, 0.4, uniform, 4)
        found = functional.puzzlemix(images, torch.eye(6), perm, 0.4, spoilt, 4)
        torch.testing.assert_close(found.inputs, expected.inputs)
        torch.testing.assert_close(found.lam, expected.lam)


# --- Masks and images ------------------------------------------------------------------------------------------------


def test_each_sample_keeps_what_is_salient():
    images, targets, perm = torch.zeros(2, 1, 16, 16), torch.eye(2), torch.tensor([1, 0])
    images[1] = 1.0
    saliency = torch.full((2, 16, 16), 0.01)
    saliency[0, :, :8] = 1.0  # left half
    saliency[1, :, 8:] = 1.0  # right half
    mixed = functional.puzzlemix(images, targets, perm, 0.5, saliency, 4)
    assert (mixed.inputs[0, 0, :, :8] == 0).all()
    assert (mixed.inputs[0, 0, :, 8:] == 1).all()
    assert (mixed.inputs[1, 0, :, :8] == 0).all()  # its partner's
    assert (mixed.inputs[1, 0, :, 8:] == 1).all()
    assert mixed.lam.tolist() == [0.5, 0.5]
    torch.testing.assert_close(mixed.targets, torch.full((2, 2), 0.5))


def test_a_salient_cell_moves_to_where_it_is_seen():
    image, mask, saliency = torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 2), torch.full((1, 8, 8), 0.01)
    image[:, :, :2, :2] = 5.0
    saliency[:, :2, :2] = 1.0
    mask[0, 0, 1] = 1.0  # only the right top block is seen
    moved = functional.puzzlemix_transport(image, mask, saliency, t_size=2)
    assert (moved[0, 0, :2, 4:6] == 5).all()
    whole = functional.puzzlemix_transport(image, mask, saliency, t_eps=0.2, t_size=-1)
    assert torch.equal(whole[0, 0, :4, 4:], image[0, 0, :4, :4])
    dear = functional.puzzlemix_transport(image, mask, saliency, t_eps=100.0, t_size=2)
    assert (dear[..., 4:] == 0).all()


def test_lam_and_targets_follow_the_mask():
    images, saliency, perm = batch()
    _, mask = functional.puzzlemix_mask(saliency, perm, 0.3, images, 4, mean=MEAN, std=STD)
    targets = torch.eye(6)
    mixed = functional.puzzlemix(images, targets, perm, 0.3, saliency, 4, mean=MEAN, std=STD)
    torch.testing.assert_close(mixed.lam, mask.mean((1, 2)))
    share = mixed.lam[:, None]
    torch.testing.assert_close(mixed.targets, share * targets + (1 - share) * targets[perm])
    assert set(mask.unique().tolist()) <= {0.0, 0.5, 1.0}
    means = [functional.puzzlemix_mask(saliency, perm, lam, images, 4)[1].mean() for lam in (0.02, 0.5, 0.98)]
    assert means[0] < means[1] < means[2]


def test_without_transport_each_pixel_is_where_it_was():
    images, saliency, perm = batch()
    _, mask = functional.puzzlemix_mask(saliency, perm, 0.5, images, 8)
    mixed = functional.puzzlemix(images, torch.eye(6), perm, 0.5, saliency, 8, transport=False)
    weight = mask.repeat_interleave(2, 1).repeat_interleave(3, 2)[:, None]
    torch.testing.assert_close(mixed.inputs, weight * images + (1 - weight) * images[perm])


def test_the_parts_make_the_whole():
    images, saliency, perm = batch()
    options = dict(n_labels=3, beta=0.8, gamma=0.4, eta=0.1, neigh_size=2, mean=MEAN, std=STD)
    _, mask = functional.puzzlemix_mask(saliency, perm, 0.6, images, 4, **options)
    mixed = functional.puzzlemix(images, torch.eye(6), perm, 0.6, saliency, 4, **options, t_eps=0.3, t_size=2)
    own = functional.puzzlemix_transport(images, mask, saliency, 0.3, 2)
    partner = functional.puzzlemix_transport(images[perm], 1 - mask, saliency[perm], 0.3, 2)
    weight = mask.repeat_interleave(4, 1).repeat_interleave(6, 2)[:, None]
    torch.testing.assert_close(mixed.inputs, weight * own + (1 - weight) * partner)
    assert not torch.equal(own, images * (mask > 0).repeat_interleave(4, 1).repeat_interleave(6, 2)[:, None])


def test_noise_is_added_in_units_of_pixels_and_clamped():
    images, _, _ = batch()
    noise = torch.full_like(images, 0.3)
    seen = functional.puzzlemix_perturb(images, noise, MEAN, STD)
    std, mean = torch.tensor(STD).view(3, 1, 1), torch.tensor(MEAN).view(3, 1, 1)
    torch.testing.assert_close(seen * std + mean, (images * std + mean + noise).clamp(0, 1))
    assert functional.puzzlemix_perturb(images.half(), noise, MEAN, STD).dtype == torch.float16


@pytest.mark.parametrize("noise_on", [(True, False), (False, True), (True, True)])
def test_noise_comes_with_the_sides_it_is_for(noise_on):
    images, saliency, perm = batch()
    noise, options = torch.rand(images.shape) * 0.1, dict(mean=MEAN, std=STD, transport=False)
    noised = functional.puzzlemix_perturb(images, noise, MEAN, STD)
    _, mask = functional.puzzlemix_mask(saliency, perm, 0.5, images, 4, mean=MEAN, std=STD)
    weight = mask.repeat_interleave(4, 1).repeat_interleave(6, 2)[:, None]
    expected = torch.lerp((noised if noise_on[1] else images)[perm], noised if noise_on[0] else images, weight)
    mixed = functional.puzzlemix(
        images, torch.eye(6), perm, 0.5, saliency, 4, **options, noise=noise, noise_on=noise_on
    )
    torch.testing.assert_close(mixed.inputs, expected)


def test_one_sample_and_one_block():
    images, saliency, _ = batch(count=1, size=(6, 9))
    perm = torch.tensor([0])
    for blocks in (1, 3):
        mixed = functional.puzzlemix(images, torch.ones(1, 1), perm, 0.5, saliency, blocks, transport=False)
        torch.testing.assert_close(mixed.inputs, images)


def test_misuse_is_named():
    images, saliency, perm = batch()
    targets = torch.eye(6)
    with pytest.raises(ValueError, match=r"block_num 5 does not divide the size \(16, 24\) of the images"):
        functional.puzzlemix(images, targets, perm, 0.5, saliency, 5)
    with pytest.raises(ValueError, match=r"got \(6, 3, 16, 24\) and \(6, 16, 16\)"):
        functional.puzzlemix(images, targets, perm, 0.5, saliency[:, :, :16], 4)
    with pytest.raises(ValueError, match="mean has 2 values but the images have 3 channels"):
        functional.puzzlemix(images, targets, perm, 0.5, saliency, 4, mean=(0.5, 0.5))
    with pytest.raises(ValueError, match="n_labels must be >= 2, got 1"):
        functional.puzzlemix(images, targets, perm, 0.5, saliency, 4, n_labels=1)
