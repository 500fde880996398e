"""Manifold Mixup and PatchUp as functions: against slow loops, their layouts, types and gradients."""

import numpy as np
import pytest
import torch

from randomix import PatchUp, functional
from randomix.losses import soft_cross_entropy, softmax_bce

SPATIAL = {"1d": (20,), "2d": (12, 9), "3d": (5, 12, 7)}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
shapes = pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)


def batch(spatial, count=6, channels=4, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, channels, *spatial, generator=draw).to(dtype)
    targets = torch.softmax(torch.randn(count, 5, generator=draw), 1)
    mask = torch.rand(channels, *spatial, generator=draw) < 0.4
    return hidden, targets, torch.randperm(count, generator=draw), mask


@shapes
@pytest.mark.parametrize("count", [1, 6])
def test_manifold_mixup_is_linear(spatial, count):
    hidden, targets, perm, _ = batch(spatial, count)
    each = torch.rand(count, generator=torch.Generator().manual_seed(2))
    for lam in (0.3, torch.tensor(0.3), each):
        mixed = functional.manifold_mixup(hidden, targets, perm, lam)
        for i, share in enumerate(torch.as_tensor(lam).expand(count)):
            torch.testing.assert_close(mixed.inputs[i], share * hidden[i] + (1 - share) * hidden[perm[i]])
            torch.testing.assert_close(mixed.targets[i], share * targets[i] + (1 - share) * targets[perm[i]])
            torch.testing.assert_close(mixed.lam[i], share)


@shapes
@pytest.mark.parametrize("block_size", [1, 3, 5, 7, 9])
def test_a_mask_is_made_of_blocks_cut_at_the_border(spatial, block_size):
    draw = np.random.default_rng(block_size)
    for chance in (0.0, 0.01, 0.1, 1.0):
        centers = draw.random((3, *spatial)) < chance
        expected = np.zeros_like(centers)
        for channel, *center in np.argwhere(centers):
            low = [max(c - block_size // 2, 0) for c in center]
            region = tuple(slice(lo, c + block_size // 2 + 1) for lo, c in zip(low, center, strict=True))
            expected[(channel, *region)] = True
        given = torch.from_numpy(centers)
        assert np.array_equal(functional.patchup_mask(given, block_size).numpy(), expected)
        assert np.array_equal(given.numpy(), centers)


def test_the_probability_of_a_centre():
    assert functional.patchup_gamma(0.9, (16, 16), 5) == pytest.approx(0.064, abs=1e-12)
    assert functional.patchup_gamma(0.5, (100,), 7) == pytest.approx(0.5 * 100 / (7 * 94))
    wide = functional.patchup_gamma(0.75, (20, 11), 3)
    assert wide == pytest.approx(0.75 * (20 * 11) / (9 * 18 * 9))
    assert functional.patchup_gamma(0.4, (7, 7), 7) == pytest.approx(0.4)  # one place for a whole block
    assert functional.patchup_gamma(1.0, (9, 9), 1) == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: functional.patchup_gamma(0.5, (32, 6), 7),
            r"block_size is 7, .* size \(32, 6\); lower .* to 5 or less",
        ),
        (lambda: functional.patchup_gamma(0.5, (4, 5), 7), r"size \(4, 5\); lower block_size to 3 or less"),
        (lambda: functional.patchup_gamma(0.5, (32, 32), 4), "block_size must be odd and >= 1, .*; got 4"),
        (lambda: functional.patchup_mask(torch.zeros(2, 8, 8, dtype=torch.bool), 0), "got 0"),
        (
            lambda: functional.patchup_mask(torch.zeros(2, 8, 8), 3),
            r"centers must be bool .* torch.float32 \(2, 8, 8\)",
        ),
    ],
)
def test_wrong_blocks_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_wrong_features_and_masks_are_named():
    hidden, targets, perm, mask = batch((8, 9))
    with pytest.raises(ValueError, match=r"mask must be bool \(4, 8, 9\), .*, got torch.bool \(8, 9\)"):
        functional.patchup(hidden, targets, perm, mask[0], 0.5)
    with pytest.raises(ValueError, match=r"got torch.float32 \(4, 8, 9\)"):
        functional.patchup(hidden, targets, perm, mask.float(), 0.5)
    for call in (
        lambda p: functional.patchup(hidden, targets, p, mask, 0.5),
        lambda p: functional.manifold_mixup(hidden, targets, p, 0.5),
    ):
        with pytest.raises(ValueError, match="hidden has 6 samples, targets has 6 and perm has 5"):
            call(perm[:5])
    with pytest.raises(ValueError, match=r"hidden must be floating \(N, C, \*spatial\), got torch.int64"):
        functional.manifold_mixup(hidden.long(), targets, perm, 0.5)


@shapes
@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("count", [1, 6])
def test_patchup_against_a_loop_over_everything(spatial, hard, count):
    hidden, targets, perm, mask = batch(spatial, count)
    lam, before = 0.3, hidden.clone()
    found = functional.patchup(hidden, targets, perm, mask, lam, hard)
    weight = 0.0 if hard else lam
    expected, changed = hidden.clone(), 0
    for i in range(count):
        for place in np.ndindex(*hidden.shape[1:]):
            if mask[place]:
                changed += 1
                expected[(i, *place)] = weight * hidden[(i, *place)] + (1 - weight) * hidden[(int(perm[i]), *place)]
    share = changed / hidden.numel()
    altered = weight * targets + (1 - weight) * targets[perm]
    torch.testing.assert_close(found.hidden, expected)
    torch.testing.assert_close(found.unchanged, torch.tensor(1 - share))
    assert torch.equal(found.own, targets)
    torch.testing.assert_close(found.altered, altered)
    torch.testing.assert_close(found.targets, (1 - share) * targets + share * altered)
    torch.testing.assert_close(found.lam, torch.full((count,), 1 - share + share * weight))
    assert torch.equal(hidden, before)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("loss", [soft_cross_entropy, softmax_bce])
def test_the_three_terms_are_twice_the_loss_of_the_mixed_targets(loss, hard):
    hidden, targets, perm, mask = batch((8, 9))
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(9)) * 5
    mixed = functional.patchup(hidden, targets, perm, mask, 0.37, hard)
    terms = mixed.unchanged * loss(logits, mixed.own) + (1 - mixed.unchanged) * loss(logits, mixed.altered)
    torch.testing.assert_close(terms + loss(logits, mixed.targets), PatchUp.loss_weight * loss(logits, mixed.targets))


def mixes(hidden, targets, perm, mask):
    """Each way to mix features, as a function of them."""
    return {
        "manifold": lambda h: functional.manifold_mixup(h, targets, perm, 0.37).inputs,
        "manifold tensor": lambda h: (
            functional.manifold_mixup(h, targets, perm, torch.tensor(0.37, device=h.device)).inputs
        ),
        "soft": lambda h: functional.patchup(h, targets, perm, mask, 0.37).hidden,
        "soft tensor": lambda h: functional.patchup(h, targets, perm, mask, torch.tensor(0.37, device=h.device)).hidden,
        "hard": lambda h: functional.patchup(h, targets, perm, mask, 0.37, hard=True).hidden,
    }


@pytest.mark.parametrize("dims", SPATIAL)
@pytest.mark.parametrize("channels", [1, 4])
def test_memory_formats_strides_and_types_are_kept(dims, channels):
    for dtype in DTYPES:
        hidden, targets, perm, mask = batch(SPATIAL[dims], channels=channels, dtype=dtype)
        last = torch.empty(len(hidden), *SPATIAL[dims], channels, dtype=dtype).movedim(-1, 1).copy_(hidden)
        reference = mixes(hidden.double(), targets, perm, mask)
        for name, mix in mixes(hidden, targets, perm, mask).items():
            plain, other = mix(hidden), mix(last)
            assert plain.dtype == other.dtype == dtype
            assert plain.stride() == hidden.stride()
            assert other.stride() == last.stride()
            assert torch.equal(plain, other)
            torch.testing.assert_close(plain, reference[name](hidden.double()).to(dtype), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features_are_mixed_by_the_same_lam_as_the_labels(dtype):
    """Own and partner's value almost cancel, so that lam rounded to half precision would show 100 times over."""
    lam, own = 0.37, torch.tensor(64.0)
    other = (-own * lam / (1 - lam)).to(dtype)
    hidden = torch.stack([own.to(dtype), other])[:, None, None].expand(2, 4, 16).contiguous()
    exact = lam * float(own) + (1 - lam) * float(other)
    _, targets, _, _ = batch((3,), 2)
    mask, perm = torch.ones(4, 16, dtype=torch.bool), torch.tensor([1, 0])
    for name, mix in mixes(hidden, targets, perm, mask).items():
        if name != "hard":
            assert float(mix(hidden)[0, 0, 0]) == pytest.approx(exact, abs=1e-3), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_go_to_both_samples(layout):
    hidden, targets, perm, mask = batch((6, 5))
    hidden = hidden.contiguous(memory_format=layout)
    direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(5))
    for name, mix in mixes(hidden, targets, perm, mask).items():
        leaf = hidden.clone().requires_grad_()
        (found,) = torch.autograd.grad(mix(leaf), leaf, direction)
        lam = 0.0 if name == "hard" else 0.37
        weight = (
            torch.where(mask, lam, 1.0) if name in ("soft", "soft tensor", "hard") else torch.full_like(hidden[0], lam)
        )
        expected = weight * direction
        for i, partner in enumerate(perm.tolist()):
            expected[partner] += (1 - weight) * direction[i]
        torch.testing.assert_close(found, expected)
