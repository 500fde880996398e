"""The mixing methods as pure functions: every random draw is an argument, no argument is modified.

Shapes: inputs (N, C, *spatial) in 1-D, 2-D or 3-D, any floating dtype, device and memory format, all three kept;
targets (N, K), mixed in float32; perm (N,) integers on the inputs' device: sample i is paired with perm[i].
lam is the share of each sample's own label: a float for the whole batch, or a tensor (N,), one for each sample.
The batch functions raise ValueError where the sizes disagree; none of them waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from randomix import masks
from randomix.devices import to_device
from randomix.masks import Box, Spatial
from randomix.types import MixedBatch


def _check(inputs: Tensor, targets: Tensor, perm: Tensor) -> None:
    if inputs.ndim < 3 or not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating (N, C, *spatial), got {inputs.dtype} {tuple(inputs.shape)}")
    if not len(inputs) == len(targets) == len(perm):
        raise ValueError(f"inputs has {len(inputs)} samples, targets has {len(targets)} and perm has {len(perm)}")


def _blend(partner: Tensor, inputs: Tensor, weight: float | Tensor) -> Tensor:
    """weight * inputs + (1 - weight) * partner; a weight tensor must broadcast with the inputs."""
    if not isinstance(weight, Tensor):
        return torch.lerp(partner, inputs, weight)
    if weight.dtype == torch.bool or weight.dtype == inputs.dtype:
        # exact for a mask and finite values: lerp is either end itself at weight 0 and 1; 5 times torch.where's speed
        return torch.lerp(partner, inputs, weight.to(inputs.dtype))
    wide = torch.promote_types(weight.dtype, inputs.dtype)  # a weight rounded to half would not be the label's
    return torch.lerp(partner.to(wide), inputs.to(wide), weight.to(wide)).to(inputs.dtype)


def _blend_masked(partner: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
    """mask * inputs + (1 - mask) * partner for a mask (*S) or (N, *S)."""
    mask = mask if mask.ndim == inputs.ndim - 1 else mask[None]
    if masks.memory_order(inputs) is inputs:
        return _blend(partner, inputs, mask[:, None])
    # with the channels innermost, a mask that broadcasts over them costs a CPU 6 to 18 times as much as a written one
    weight = mask[..., None].expand(*mask.shape, inputs.shape[1]).contiguous().movedim(-1, 1)
    return _blend(partner, inputs, weight)


def _mixed(mixed: Tensor, inputs: Tensor, targets: Tensor, perm: Tensor, lam: float | Tensor) -> MixedBatch:
    """The result for mixed inputs: in the inputs' strides; targets blended by lam and lam (N,), both float32."""
    mixed = masks.restride(mixed, inputs)
    targets, count = targets.float(), len(targets)
    partner = targets.index_select(0, perm)
    if not isinstance(lam, Tensor):
        shares = torch.full((count,), lam, dtype=torch.float32, device=targets.device)
        return MixedBatch(mixed, torch.lerp(partner, targets, lam), shares)
    shares = lam.to(torch.float32).reshape(-1).expand(count).contiguous()
    return MixedBatch(mixed, torch.lerp(partner, targets, shares[:, None]), shares)


def mixup(inputs: Tensor, targets: Tensor, perm: Tensor, lam: float | Tensor) -> MixedBatch:
    """Mix inputs (N, C, *S) and targets (N, K) linearly: lam * x + (1 - lam) * x[perm].

    lam in [0, 1], a float or (N,). Source: Zhang et al., mixup (ICLR 2018), section 2.
    """
    _check(inputs, targets, perm)
    weight = lam.reshape(-1, *[1] * (inputs.ndim - 1)) if isinstance(lam, Tensor) else lam
    return _mixed(_blend(masks.take_rows(inputs, perm), inputs, weight), inputs, targets, perm, lam)


def cutmix_box(
    spatial: Spatial, lam: float | np.ndarray | Tensor, center: Sequence[int] | np.ndarray | Tensor
) -> tuple[int, ...] | Tensor:
    """The box (2 d,) that covers the share 1 - lam around center (d,), clipped to spatial (d sizes); all in pixels.

    Python integers for a float lam and a center of d integers; else an int64 tensor (2 d,), or (N, 2 d) where lam is
    (N,) or center is (N, d). Sides are S * (1 - lam) ** (1 / d), truncated, then halved and truncated, hence even.
    Source: Yun et al., CutMix (ICCV 2019), equation 2 and the authors' ``rand_bbox``; the exponent 1 / d is the square
    root of the paper in 2-D and the plain share in 1-D, where the root would cut far too much and theirs nothing.
    """
    centers, sizes = masks.per_axis(center), masks.cut_sizes(spatial, masks.as_number(lam))
    low = [masks.clip(c - size // 2, end) for c, size, end in zip(centers, sizes, spatial, strict=True)]
    high = [masks.clip(c + size // 2, end) for c, size, end in zip(centers, sizes, spatial, strict=True)]
    return masks.join(low + high)


def cutmix(inputs: Tensor, targets: Tensor, perm: Tensor, box: Box) -> MixedBatch:
    """Paste the box of x[perm] into inputs (N, C, *S) and mix targets (N, K) by the area of the box, in pixels.

    box: 2 d Python integers for the whole batch (slices, the fast form), or a tensor (2 d,) or (N, 2 d).
    Source: Yun et al., CutMix (ICCV 2019), equation 1; lam is that of the clipped box, as in the authors' code.
    """
    _check(inputs, targets, perm)
    lam = 1.0 - masks.box_share(box, inputs.shape[2:])
    if isinstance(box, Tensor):
        keep = ~masks.inside_boxes(box.reshape(-1, box.shape[-1]), inputs.shape[2:])
        return _mixed(_blend_masked(masks.take_rows(inputs, perm), inputs, keep), inputs, targets, perm, lam)
    mixed, region = inputs.clone(), (..., *masks.box_slices(box))
    mixed[region] = masks.take_rows(inputs[region].clone(), perm)  # only the pasted pixels are gathered
    return _mixed(mixed, inputs, targets, perm, lam)


def fmix_mask(
    noise: np.ndarray | Tensor,
    spatial: Spatial,
    lam: float | Tensor,
    decay_power: float = 3.0,
    round_up: bool | Tensor = False,
    max_soft: float = 0.0,
    spectrum: str = "paper",
) -> Tensor:
    """A mask (*spatial), true where the smooth image made of noise (*F, 2) is among its lam * P largest of P pixels.

    With noise (N, *F, 2) the masks are (N, *spatial), and lam and round_up may be (N,). bool, or float32 in [0, 1] for
    max_soft > 0. round_up: the count is rounded up, not down (the authors throw a coin).
    spectrum "paper": noise (H, W // 2 + 1, 2), real and imaginary part last; (L // 2 + 1, 2) in 1-D, (D, H, W // 2 + 1,
    2) in 3-D; surplus entries before the last axis are ignored, so that (L, 2) works too.
    spectrum "code": what all published FMix numbers were made with. The authors index the noise one axis off: its rows
    0 and 1 act as real and imaginary part and its last axis as the column frequencies 0 and 1. At least noise
    (2, W // 2 + 1, 2), one entry more (W // 2 + 2) for odd W; (2, 2) in 1-D. ValueError in 3-D: never defined there.
    Source: Harris et al., FMix (arXiv 2002.12047), section 4; the authors' ``fmix.py`` for "code" and max_soft.
    """
    noise = torch.as_tensor(noise)
    values = masks.low_frequency(noise, spatial, decay_power, spectrum)
    mask = masks.binarise(values.flatten(-len(spatial)), lam, round_up, max_soft)
    return mask.unflatten(-1, tuple(spatial))


def fmix(inputs: Tensor, targets: Tensor, perm: Tensor, mask: Tensor, lam: float | Tensor) -> MixedBatch:
    """Mix inputs (N, C, *S) through a mask (*S) or (N, *S): mask * x + (1 - mask) * x[perm]; targets (N, K) by lam.

    mask: bool, or floating in [0, 1]; lam in [0, 1], a float or (N,): the drawn value in the paper and in the authors'
    code, which differs from the mask's mean by at most one pixel.
    Source: Harris et al., FMix (arXiv 2002.12047), section 4.
    """
    _check(inputs, targets, perm)
    return _mixed(_blend_masked(masks.take_rows(inputs, perm), inputs, mask), inputs, targets, perm, lam)


def resizemix_boxes(
    spatial: Spatial, scale: float | np.ndarray | Tensor, centers: Sequence[int] | np.ndarray | Tensor
) -> tuple[int, ...] | Tensor:
    """Boxes (N, 2 d) int64 of whole patches of side floor(scale * S), near centers (N, d); all in pixels.

    scale in (0, 1), a float or (N,). A patch that would cross the border is moved inwards, never cut. A sequence of d
    integers for centers gives one box of Python integers.
    Source: Qin et al., ResizeMix (arXiv 2012.11101), section 3 and the authors' ``getbox_new``.
    """
    near, sizes = masks.per_axis(centers), masks.patch_sizes(spatial, masks.as_number(scale))
    low = [masks.clip(c - size // 2, end) for c, size, end in zip(near, sizes, spatial, strict=True)]
    high = [masks.clip(lo + size, end) for lo, size, end in zip(low, sizes, spatial, strict=True)]
    return masks.join([hi - size for hi, size in zip(high, sizes, strict=True)] + high)


def resizemix(inputs: Tensor, targets: Tensor, perm: Tensor, scale: float | Tensor, boxes: Box) -> MixedBatch:
    """Paste the whole of x[perm], resized by scale, into the boxes of inputs (N, C, *S); targets (N, K) by the area.

    scale in (0, 1): a float, or (N,) with boxes (N, 2 d). boxes as ``resizemix_boxes`` makes them, in pixels: their
    sides are floor(scale * S). Nearest neighbour, source index min(floor(i * float32(1 / scale)), S - 1).
    Source: Qin et al., ResizeMix (arXiv 2012.11101), equations 1-3 and the authors' trainer.
    """
    _check(inputs, targets, perm)
    spatial = tuple(inputs.shape[2:])
    if isinstance(scale, Tensor):
        mixed = _resample(inputs, perm, scale, boxes, spatial)
        return _mixed(mixed, inputs, targets, perm, 1.0 - masks.box_share(boxes, spatial))
    sizes = masks.patch_sizes(spatial, scale)
    lam = 1.0 - math.prod(sizes) / math.prod(spatial)
    return _mixed(_paste_small(inputs, perm, scale, boxes, sizes), inputs, targets, perm, lam)


def _paste_small(inputs: Tensor, perm: Tensor, scale: float, boxes: Box, sizes: tuple[int, ...]) -> Tensor:
    """One scale for the batch: resize every sample once, then write the patches into a copy."""
    (count, channels), spatial = inputs.shape[:2], tuple(inputs.shape[2:])
    source, offset = to_device(masks.patch_index(spatial, sizes, scale), inputs.device)
    small = inputs.flatten(2).gather(2, source.expand(count, channels, -1)).index_select(0, perm)
    mixed = inputs.clone()
    if not isinstance(boxes, Tensor):
        mixed[(..., *masks.box_slices(boxes))] = small.unflatten(2, sizes)
        return mixed
    start = masks.flat_starts(boxes.reshape(-1, 2 * len(spatial)), spatial)
    flat = mixed.flatten(2)  # a view for contiguous and channels_last inputs, which clone() keeps
    flat.scatter_(2, (start[:, None, None] + offset).expand(count, channels, -1), small)
    return flat.unflatten(2, spatial)


def _resample(inputs: Tensor, perm: Tensor, scale: Tensor, boxes: Tensor, spatial: tuple[int, ...]) -> Tensor:
    """A scale for each sample: patches differ in size, so every pixel looks up the one it would show."""
    sources = []
    for axis, size in enumerate(spatial):
        offset = torch.arange(size, device=inputs.device) - boxes[:, axis, None]
        sources.append(masks.nearest_source(offset, scale, size))
    index, channels = masks.flat_index(sources, spatial), inputs.shape[1]
    partner = masks.take_rows(inputs, perm)
    view = masks.memory_order(partner)
    if view is partner:
        resized = partner.flatten(2).gather(2, index[:, None].expand(-1, channels, -1)).view_as(partner)
    else:  # channels last: gather them together, so that the result is channels last as well
        resized = view.flatten(1, -2).gather(1, index[..., None].expand(-1, -1, channels)).view_as(view).movedim(-1, 1)
    return _blend_masked(resized, inputs, ~masks.inside_boxes(boxes, spatial))
