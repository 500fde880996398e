"""The mixing functions against slow, obvious loops on odd sizes, one sample, 1-D to 3-D, every dtype and layout."""

import math

import numpy as np
import pytest
import torch

from randomix import functional, masks

SPATIAL = {"1d": (20,), "2d": (12, 20), "3d": (5, 12, 7)}
FORMATS = {"2d": torch.channels_last, "3d": torch.channels_last_3d}
shapes = pytest.mark.parametrize("spatial", SPATIAL.values(), ids=SPATIAL)
counts = pytest.mark.parametrize("count", [1, 7])


def batch(spatial, count=7, channels=3, classes=5, dtype=torch.float32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, channels, *spatial, generator=draw).to(dtype)
    targets = torch.nn.functional.one_hot(torch.randint(classes, (count,), generator=draw), classes).float()
    return inputs, targets, torch.randperm(count, generator=draw)


def loop_targets(targets, perm, shares):
    return torch.stack([s * targets[i] + (1 - s) * targets[perm[i]] for i, s in enumerate(shares)])


def loop_paste(inputs, perm, boxes, patch):
    """Write patch(sample, position in the box) of each partner into each sample's box, pixel by pixel."""
    out, dims = inputs.clone(), inputs.ndim - 2
    for i, box in enumerate(boxes):
        starts, ends = box[:dims], box[dims:]
        for offset in np.ndindex(*(hi - lo for lo, hi in zip(starts, ends, strict=True))):
            here = tuple(lo + o for lo, o in zip(starts, offset, strict=True))
            out[(i, slice(None), *here)] = patch(inputs[perm[i]], here, offset)
    return out


def random_boxes(spatial, count, seed=1):
    draw = np.random.default_rng(seed)
    corners = np.sort(draw.integers(0, np.array(spatial) + 1, (count, 2, len(spatial))), axis=1)
    return [[int(v) for v in row.reshape(-1)] for row in corners]


def share(box):
    dims = len(box) // 2
    return math.prod(hi - lo for lo, hi in zip(box[:dims], box[dims:], strict=True))


@shapes
@counts
def test_mixup_is_the_formula(spatial, count):
    inputs, targets, perm = batch(spatial, count)
    for lam in (0.3, torch.linspace(0, 1, count)):
        shares = [float(v) for v in torch.as_tensor(lam).expand(count)]
        mixed = functional.mixup(inputs, targets, perm, lam)
        expected = torch.stack([s * inputs[i] + (1 - s) * inputs[perm[i]] for i, s in enumerate(shares)])
        torch.testing.assert_close(mixed.inputs, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed.targets, loop_targets(targets, perm, shares), atol=1e-6, rtol=0)
        torch.testing.assert_close(mixed.lam, torch.tensor(shares))


@shapes
@counts
def test_cutmix_pastes_pixel_by_pixel(spatial, count):
    inputs, targets, perm = batch(spatial, count)
    boxes = random_boxes(spatial, count)
    for given, each in ((boxes[0], [boxes[0]] * count), (torch.tensor(boxes), boxes)):
        mixed = functional.cutmix(inputs, targets, perm, given)
        assert torch.equal(mixed.inputs, loop_paste(inputs, perm, each, lambda x, here, _: x[(slice(None), *here)]))
        shares = [1 - share(box) / math.prod(spatial) for box in each]
        torch.testing.assert_close(mixed.lam, torch.tensor(shares))
        torch.testing.assert_close(mixed.targets, loop_targets(targets, perm, shares), atol=1e-6, rtol=0)


def test_cutmix_takes_one_box_as_a_tensor():
    inputs, targets, perm = batch((12, 20))
    one = functional.cutmix(inputs, targets, perm, torch.tensor([2, 3, 9, 20]))
    shared = functional.cutmix(inputs, targets, perm, (2, 3, 9, 20))
    assert torch.equal(one.inputs, shared.inputs)
    assert one.lam.shape == (7,)
    torch.testing.assert_close(one.lam, shared.lam)


@pytest.mark.parametrize("spatial", [(31,), (32, 32), (12, 20), (1, 16000), (5, 12, 7)])
def test_cutmix_box_truncates_twice_and_clips(spatial):
    draw = np.random.default_rng(0)
    for _ in range(50):
        lam, center = draw.random(), tuple(int(draw.integers(size)) for size in spatial)
        box = functional.cutmix_box(spatial, lam, center)
        for axis, size in enumerate(spatial):
            half = int(size * (1 - lam) ** (1 / len(spatial))) // 2
            assert box[axis] == max(center[axis] - half, 0)
            assert box[axis + len(spatial)] == min(center[axis] + half, size)


def test_cutmix_box_for_each_sample_equals_one_by_one():
    draw = np.random.default_rng(0)
    lam, centers = draw.random(40), draw.integers(0, (12, 20), (40, 2))
    expected = [functional.cutmix_box((12, 20), float(one), center) for one, center in zip(lam, centers, strict=True)]
    assert functional.cutmix_box((12, 20), lam, centers).tolist() == [list(box) for box in expected]
    shared_lam = functional.cutmix_box((12, 20), 0.4, torch.from_numpy(centers))
    assert shared_lam.tolist() == [list(functional.cutmix_box((12, 20), 0.4, center)) for center in centers]
    assert functional.cutmix_box((12, 20), 0.4, torch.tensor([3, 4])).shape == (4,)


def test_cutmix_in_one_dimension_cuts_the_length_not_its_root():
    start, end = functional.cutmix_box((16000,), 0.75, (8000,))
    assert end - start == 4000


@shapes
@counts
def test_resizemix_shrinks_and_pastes_pixel_by_pixel(spatial, count):
    inputs, targets, perm = batch(spatial, count)
    draw = np.random.default_rng(2)
    centers = draw.integers(0, spatial, (count, len(spatial)))
    for scale in (0.55, torch.from_numpy(draw.uniform(0.1, 0.8, count))):
        scales = [float(v) for v in torch.as_tensor(scale).expand(count)]
        boxes = functional.resizemix_boxes(spatial, scale, centers)
        expected, shares = inputs.clone(), []
        for i, box in enumerate(boxes.tolist()):
            sides = [int(size * scales[i]) for size in spatial]
            assert sides == [hi - lo for lo, hi in zip(box[: len(spatial)], box[len(spatial) :], strict=True)]
            for offset in np.ndindex(*sides):
                here = tuple(lo + o for lo, o in zip(box, offset, strict=False))
                steps = zip(offset, spatial, strict=True)
                source = tuple(min(int(np.float32(o) * np.float32(1 / scales[i])), size - 1) for o, size in steps)
                expected[(i, slice(None), *here)] = inputs[(perm[i], slice(None), *source)]
            shares.append(1 - share(box) / math.prod(spatial))
        mixed = functional.resizemix(inputs, targets, perm, scale, boxes)
        assert torch.equal(mixed.inputs, expected)
        torch.testing.assert_close(mixed.lam, torch.tensor(shares))
        torch.testing.assert_close(mixed.targets, loop_targets(targets, perm, shares), atol=1e-6, rtol=0)


@shapes
def test_resizemix_equals_torch_nearest(spatial):
    inputs, targets, perm = batch(spatial)
    for scale in (0.1, 0.33, 0.5, 0.7368384665467105, 0.8):
        if min(int(size * scale) for size in spatial) == 0:
            continue
        small = torch.nn.functional.interpolate(inputs, scale_factor=scale)[perm]
        box = functional.resizemix_boxes(spatial, scale, tuple(size // 2 for size in spatial))
        mixed = functional.resizemix(inputs, targets, perm, scale, box)
        assert isinstance(box, tuple)
        assert torch.equal(mixed.inputs[(..., *masks.box_slices(box))], small)


def test_resizemix_of_a_patch_without_pixels_changes_nothing():
    inputs, targets, perm = batch((7, 9))
    boxes = functional.resizemix_boxes((7, 9), 0.1, perm[:, None].expand(7, 2))
    mixed = functional.resizemix(inputs, targets, perm, 0.1, boxes)
    assert torch.equal(mixed.inputs, inputs)
    assert torch.equal(mixed.lam, torch.ones(7))


def test_resizemix_boxes_are_whole_and_shifted_inwards():
    boxes = functional.resizemix_boxes((12, 20), 0.5, [[0, 0], [11, 19], [6, 10]])
    assert boxes.tolist() == [[0, 0, 6, 10], [6, 10, 12, 20], [3, 5, 9, 15]]
    assert functional.resizemix_boxes((12, 20), 0.5, (11, 0)) == (6, 0, 12, 10)


@shapes
@counts
def test_fmix_is_the_formula(spatial, count):
    inputs, targets, perm = batch(spatial, count)
    soft = torch.rand(count, *spatial)
    for mask in (soft[0], soft[0] > 0.4, soft, soft > 0.4):
        each = mask.expand(count, *spatial).float()
        lam = 0.4 if mask.ndim == len(spatial) else torch.linspace(0, 1, count)
        mixed = functional.fmix(inputs, targets, perm, mask, lam)
        expected = torch.stack([each[i] * inputs[i] + (1 - each[i]) * inputs[perm[i]] for i in range(count)])
        torch.testing.assert_close(mixed.inputs, expected, atol=1e-6 if mask.is_floating_point() else 0, rtol=0)
        shares = [float(v) for v in torch.as_tensor(lam).expand(count)]
        torch.testing.assert_close(mixed.targets, loop_targets(targets, perm, shares), atol=1e-6, rtol=0)


CALLS = {
    "mixup": lambda x, t, p: functional.mixup(x, t, p, 0.3),
    "mixup each": lambda x, t, p: functional.mixup(x, t, p, torch.linspace(0, 1, len(x))),
    "cutmix": lambda x, t, p: functional.cutmix(x, t, p, functional.cutmix_box(x.shape[2:], 0.4, [4] * (x.ndim - 2))),
    "cutmix each": lambda x, t, p: functional.cutmix(x, t, p, torch.tensor(random_boxes(x.shape[2:], len(x)))),
    "fmix": lambda x, t, p: functional.fmix(x, t, p, torch.rand(x.shape[2:]) > 0.5, 0.5),
    "fmix soft": lambda x, t, p: functional.fmix(x, t, p, torch.rand(len(x), *x.shape[2:]), 0.5),
    "resizemix": lambda x, t, p: functional.resizemix(
        x, t, p, 0.6, functional.resizemix_boxes(x.shape[2:], 0.6, torch.full((len(x), x.ndim - 2), 3))
    ),
    "resizemix one box": lambda x, t, p: functional.resizemix(
        x, t, p, 0.6, functional.resizemix_boxes(x.shape[2:], 0.6, [3] * (x.ndim - 2))
    ),
    "resizemix each": lambda x, t, p: functional.resizemix(
        x,
        t,
        p,
        torch.full((len(x),), 0.6),
        functional.resizemix_boxes(x.shape[2:], 0.6, torch.full((len(x), x.ndim - 2), 3)),
    ),
}
calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes_agree_with_float32(call, dtype):
    inputs, targets, perm = batch((12, 20), dtype=dtype)
    torch.manual_seed(0)
    mixed = call(inputs, targets, perm)
    torch.manual_seed(0)
    expected = call(inputs.float(), targets, perm)
    assert mixed.inputs.dtype == dtype
    assert mixed.targets.dtype == mixed.lam.dtype == torch.float32
    # one rounding of the float32 result, not a chain of rounded steps
    torch.testing.assert_close(mixed.inputs.float(), expected.inputs.to(dtype).float(), atol=1e-6, rtol=8e-3)
    assert torch.equal(mixed.targets, expected.targets)


@calls
@shapes
def test_layout_is_kept_and_changes_nothing(call, spatial):
    inputs, targets, perm = batch(spatial)
    channels_last = inputs.movedim(1, -1).contiguous().movedim(-1, 1)
    assert not channels_last.is_contiguous()
    torch.manual_seed(0)
    plain = call(inputs, targets, perm)
    torch.manual_seed(0)
    mixed = call(channels_last, targets, perm)
    assert torch.equal(mixed.inputs, plain.inputs)
    assert plain.inputs.is_contiguous()
    assert mixed.inputs.stride() == channels_last.stride()


@calls
def test_views_with_gaps_work(call):
    inputs, targets, perm = batch((12, 20))
    wide = torch.zeros(7, 3, 12, 40)
    wide[..., ::2] = inputs
    torch.manual_seed(0)
    plain = call(inputs, targets, perm)
    for view in (wide[..., ::2], inputs.transpose(2, 3).contiguous().transpose(2, 3)):
        torch.manual_seed(0)
        assert torch.equal(call(view, targets, perm).inputs, plain.inputs)


@calls
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_under_autograd_the_same_comes_out_with_its_gradient(call, layout):
    """What writes through NumPy on a CPU, and by indices on a GPU, must agree; a gradient needs the latter."""
    inputs, targets, perm = batch((12, 20))
    perm = perm.clone()
    perm[2] = perm[3]  # two samples with the same partner
    inputs = inputs.contiguous(memory_format=layout)
    torch.manual_seed(0)
    plain = call(inputs, targets, perm).inputs
    leaf = inputs.clone().requires_grad_()
    torch.manual_seed(0)
    mixed = call(leaf, targets, perm).inputs
    assert torch.equal(mixed, plain)
    assert mixed.stride() == inputs.stride()
    mixed.sum().backward()  # every mixed pixel has the weight 1 in all
    torch.testing.assert_close(leaf.grad.sum(), torch.tensor(float(inputs.numel())), atol=0.05, rtol=0)


@calls
def test_arguments_are_not_modified(call):
    inputs, targets, perm = batch((12, 20))
    before = inputs.clone(), targets.clone(), perm.clone()
    mixed = call(inputs, targets, perm)
    assert all(torch.equal(a, b) for a, b in zip(before, (inputs, targets, perm), strict=True))
    assert mixed.inputs.data_ptr() != inputs.data_ptr()


@calls
def test_sizes_that_disagree_are_named(call):
    inputs, targets, perm = batch((12, 20))
    with pytest.raises(ValueError, match="inputs has 7 samples, targets has 6 and perm has 7"):
        call(inputs, targets[:6], perm)
    with pytest.raises(ValueError, match=r"floating.*uint8"):
        call((inputs * 50).to(torch.uint8), targets, perm)


@pytest.mark.parametrize("targets", [torch.arange(4), torch.eye(4).long(), torch.rand(4)], ids=["labels", "int", "1-D"])
def test_labels_in_the_place_of_targets_are_refused(targets):
    """They would broadcast to blended class numbers."""
    inputs, perm, saliency = torch.rand(4, 3, 8, 8), torch.tensor([1, 2, 3, 0]), torch.rand(4, 8, 8)
    calls = [
        lambda: functional.mixup(inputs, targets, perm, 0.5),
        lambda: functional.manifold_mixup(inputs, targets, perm, 0.5),
        lambda: functional.cutmix(inputs, targets, perm, (0, 0, 4, 4)),
        lambda: functional.saliencymix(inputs, targets, perm, 0.5, (4, 4)),
        lambda: functional.patchup(inputs, targets, perm, inputs[0] > 0.5, 0.5),
        lambda: functional.puzzlemix(inputs, targets, perm, 0.5, saliency, 4),
        lambda: functional.comixup(inputs, targets, saliency, torch.rand(4), torch.randint(4, (4, 4, 4))),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"targets must be floating \(N, K\), got .*; use .*one_hot"):
            call()


@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan")])
def test_shares_outside_of_0_to_1_are_refused(lam):
    inputs, targets, perm = torch.rand(4, 3, 8, 8), torch.eye(4), torch.tensor([1, 2, 3, 0])
    calls = [
        lambda: functional.mixup(inputs, targets, perm, lam),
        lambda: functional.manifold_mixup(inputs, targets, perm, lam),
        lambda: functional.fmix(inputs, targets, perm, inputs[0, 0] > 0.5, lam),
        lambda: functional.cutmix_box((8, 8), lam, (4, 4)),
        lambda: functional.saliencymix(inputs, targets, perm, lam, (4, 4)),
        lambda: functional.patchup(inputs, targets, perm, inputs[0] > 0.5, lam),
        lambda: functional.puzzlemix(inputs, targets, perm, lam, torch.rand(4, 8, 8), 4),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"lam must be in \[0, 1\], got "):
            call()
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\]"):
        functional.patchup_gamma(lam, (8, 8), 3)
