"""Cutout against a slow loop in 1-D to 3-D, every dtype and layout, and the law of its squares."""

import numpy as np
import pytest
import torch

from randomix import Cutout, StepRng, functional
from randomix.types import MixedMode

SPATIAL = {"1d": (20,), "2d": (12, 7), "3d": (5, 12, 7)}
shapes = pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)


def batch(spatial, count=5, channels=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    centers = np.random.default_rng(seed).integers(0, spatial, (count, len(spatial)))
    return torch.randn(count, channels, *spatial, generator=draw), centers


def loop(inputs, centers, length):
    out = inputs.clone()
    for i, center in enumerate(centers):
        for place in np.ndindex(*inputs.shape[2:]):
            if all(c - length // 2 <= p < c + length // 2 for p, c in zip(place, center, strict=True)):
                out[(i, slice(None), *place)] = 0
    return out


@shapes
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("length", [1, 2, 5, 8, 50])
def test_equals_a_loop_over_pixels(spatial, count, length):
    inputs, centers = batch(spatial, count)
    before = inputs.clone()
    expected = loop(inputs, centers, length)
    for given in (centers, torch.from_numpy(centers)):
        assert torch.equal(functional.cutout(inputs, given, length), expected)
    assert torch.equal(inputs, before)


@shapes
@pytest.mark.parametrize("channels", [1, 3])
def test_layout_is_kept_and_changes_nothing(spatial, channels):
    inputs, centers = batch(spatial, channels=channels)
    last = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    plain, found = functional.cutout(inputs, centers, 6), functional.cutout(last, centers, 6)
    assert torch.equal(found, plain)
    assert plain.stride() == inputs.stride()
    assert found.stride() == last.stride()
    assert torch.equal(functional.cutout(inputs.repeat_interleave(2, -1)[..., ::2], centers, 6), plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_dtype_is_exact(dtype, layout):
    inputs, centers = batch((12, 7))
    given = inputs.to(dtype).contiguous(memory_format=layout)
    found = functional.cutout(given, centers, 6)
    assert found.dtype == dtype
    assert torch.equal(found, loop(given, centers, 6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, c: functional.cutout(x, c[:2], 4), r"centers must be \(5, 2\) for inputs .*, got \(2, 2\)"),
        (lambda x, c: functional.cutout(x, c[:, :1], 4), r"got \(5, 1\)"),
        (lambda x, c: functional.cutout(x, c, 0), "length must be at least 1 pixel, got 0"),
        (lambda x, c: functional.cutout(x.to(torch.uint8), c, 4), "floating.*uint8"),
        (lambda x, c: Cutout(length=0), "length must be an integer >= 1, got 0"),
        (lambda x, c: Cutout(length=4.0), "length must be an integer >= 1, got 4.0"),
        (lambda x, c: Cutout(prob=1.1), r"prob must be a number in \[0, 1\], got 1.1"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(*batch((12, 7)))


def test_targets_stay_and_each_sample_has_a_square_of_its_own():
    inputs, targets = torch.ones(200, 2, 32, 32), torch.eye(10)[torch.arange(200) % 10]
    mixed = Cutout(length=16)(inputs, targets, StepRng(0))
    assert Cutout.mode is MixedMode.NONE
    assert torch.equal(mixed.targets, targets)
    assert torch.equal(mixed.lam, torch.ones(200))
    assert mixed.name == "cutout"
    assert len({one.numpy().tobytes() for one in mixed.inputs}) > 180
    # a clipped square of 16 on 32 x 32 covers (14 / 32) ** 2 in the mean
    many = torch.cat([Cutout(length=16)(inputs, targets, StepRng(0, step)).inputs for step in range(20)])
    assert float(1 - many.mean()) == pytest.approx((14 / 32) ** 2, abs=0.004)
    sides = {int((one == 0).any(1).sum()) for one in many[:, 0]}
    assert (min(sides), max(sides)) == (8, 16)
    erased = 1 - many.mean((0, 1))
    torch.testing.assert_close(erased[1:], erased[1:].flip(0), atol=0.04, rtol=0)  # an even square has no centre
    assert erased[0, 0] < erased[16, 16] / 2


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_prob_is_the_share_of_samples_that_lose_a_square(prob):
    inputs = torch.ones(2000, 1, 8, 8)
    mixed = Cutout(length=4, prob=prob)(inputs, torch.eye(2)[torch.arange(2000) % 2], 0)
    assert float((mixed.inputs == 0).flatten(1).any(1).float().mean()) == pytest.approx(prob, abs=0.04)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_erases_the_same_without_being_waited_for():
    inputs, _ = batch((12, 7))
    there, targets = inputs.cuda(), torch.eye(5, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        mixed = Cutout(length=5)(there, targets, 3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(mixed.inputs.cpu(), Cutout(length=5)(inputs, targets.cpu(), 3).inputs)
