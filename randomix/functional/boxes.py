"""Boxes: pieces of one sample pasted into another at the same place, or erased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randomix import masks
from randomix.devices import is_plain
from randomix.functional._common import blend_masked, check, check_share, pair_batch
from randomix.masks import Box, Spatial
from randomix.types import MixedBatch


def cutmix_box(
    spatial: Spatial, lam: float | np.ndarray | Tensor, center: Sequence[int] | np.ndarray | Tensor
) -> tuple[int, ...] | Tensor:
    """The box (2 d,) that covers the share 1 - lam around center (d,), clipped to spatial (d sizes); all in pixels.

    Python integers for a float lam and a center of d integers; else an int64 tensor (2 d,), or (N, 2 d) where lam is
    (N,) or center is (N, d). Sides are S * (1 - lam) ** (1 / d), truncated, then halved and truncated, hence even.
    Source: Yun et al., CutMix (ICCV 2019), equation 2 and the authors' ``rand_bbox``; the exponent 1 / d is the square
    root of the paper in 2-D and the plain share in 1-D, where the root would cut far too much and theirs nothing.
    """
    check_share("lam", lam)
    centers, sizes = masks.per_axis(center), masks.cut_sizes(spatial, masks.as_number(lam))
    low = [masks.clip(c - size // 2, end) for c, size, end in zip(centers, sizes, spatial, strict=True)]
    high = [masks.clip(c + size // 2, end) for c, size, end in zip(centers, sizes, spatial, strict=True)]
    return masks.join(low + high)


def cutmix(inputs: Tensor, targets: Tensor, perm: Tensor, box: Box, inplace: bool = False) -> MixedBatch:
    """Paste the box of x[perm] into inputs (N, C, *S) and mix targets (N, K) by the area of the box, in pixels.

    box: 2 d Python integers for the whole batch (slices, the fast form), or a tensor (2 d,) or (N, 2 d).
    inplace: one box for the batch may be written into the inputs themselves.
    Source: Yun et al., CutMix (ICCV 2019), equation 1; lam is that of the clipped box, as in the authors' code.
    """
    check(inputs, targets, perm)
    lam = 1.0 - masks.box_share(box, inputs.shape[2:])
    if isinstance(box, Tensor):
        keep = ~masks.inside_boxes(box.reshape(-1, box.shape[-1]), inputs.shape[2:], inputs.device)
        return pair_batch(blend_masked(masks.take_rows(inputs, perm), inputs, keep), inputs, targets, perm, lam)
    pasted = masks.to_write(inputs, inplace)
    inside: tuple[Any, ...] = (..., *masks.box_slices(box))
    if pasted is inputs:
        view = masks.memory_order(inputs)
        place = view[inside if view is inputs else (slice(None), *inside[1:])]
        place.copy_(place.index_select(0, perm))
    elif is_plain(inputs):  # two thirds of the time of gathering, then copying
        torch.index_select(inputs[inside], 0, perm, out=pasted[inside])
    else:
        pasted[inside] = inputs[inside].index_select(0, perm)
    return pair_batch(pasted, inputs, targets, perm, lam)


def saliencymix(
    inputs: Tensor,
    targets: Tensor,
    perm: Tensor,
    lam: float | np.ndarray | Tensor,
    peak: Sequence[int] | np.ndarray | Tensor,
    inplace: bool = False,
) -> MixedBatch:
    """Paste the box of x[perm] around peak into inputs (N, C, H, W), at the same place; targets (N, K) by its area.

    lam in [0, 1]: the drawn share, a float or (N,). peak: row and column of the most salient pixel, two Python integers
    for the whole batch (slices, the fast form), or a tensor (2,) or (N, 2). Tensors are on the inputs' device.
    inplace: see cutmix.
    Source: Uddin et al., SaliencyMix (ICLR 2021), section 3; size and clipping of the box are CutMix's, as in the
    authors' code.
    """
    return cutmix(inputs, targets, perm, cutmix_box(inputs.shape[2:], lam, peak), inplace)


def cutout(inputs: Tensor, centers: np.ndarray | Tensor, length: int, inplace: bool = False) -> Tensor:
    """Inputs (N, C, *S) with a square of side length, in pixels, set to zero around each of centers (N, d).

    It covers center - length // 2 .. center + length // 2 - 1 along each axis and is clipped to the sample: an odd
    length is one less. centers: int64, on the host or on the inputs' device; the square of one outside may be empty.
    inplace: the inputs themselves are erased.
    Source: DeVries and Taylor, Cutout (arXiv 1708.04552), section 3.2 and the authors' ``cutout.py``.
    """
    dims = inputs.ndim - 2
    if dims < 1 or not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating (N, C, *spatial), got {inputs.dtype} {tuple(inputs.shape)}")
    if tuple(centers.shape) != (len(inputs), dims):
        raise ValueError(
            f"centers must be ({len(inputs)}, {dims}) for inputs {tuple(inputs.shape)}, got {tuple(centers.shape)}"
        )
    if length < 1:
        raise ValueError(f"length must be at least 1 pixel, got {length}")
    low = torch.as_tensor(centers) - length // 2
    boxes = torch.cat([low, low + length // 2 * 2], dim=1).clamp_(min=0)  # slices end where the sample does
    pasted = masks.to_write(inputs, inplace)
    array = masks.writable(pasted)
    if array is None:
        return pasted.masked_fill_(masks.inside_boxes(boxes, inputs.shape[2:], inputs.device)[:, None], 0)
    starts, ends = boxes.t().view(2, dims, -1).tolist()
    places = zip(*(map(slice, start, end) for start, end in zip(starts, ends, strict=True)), strict=True)
    for sample, place in zip(array, places, strict=True):
        sample[(slice(None), *place)] = 0
    return pasted
