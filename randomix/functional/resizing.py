"""Mixing by pasting a whole sample, made smaller, into another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from randomix import masks
from randomix.devices import to_device
from randomix.functional._common import blend_masked, check, pair_batch
from randomix.masks import Box, Spatial
from randomix.types import MixedBatch


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
    check(inputs, targets, perm)
    spatial = tuple(inputs.shape[2:])
    if isinstance(scale, Tensor):
        pasted = _resample(inputs, perm, scale, boxes, spatial)
        return pair_batch(pasted, inputs, targets, perm, 1.0 - masks.box_share(boxes, spatial))
    sizes = masks.patch_sizes(spatial, scale)
    lam = 1.0 - math.prod(sizes) / math.prod(spatial)
    return pair_batch(_paste_small(inputs, perm, scale, boxes, sizes), inputs, targets, perm, lam)


def _paste_small(inputs: Tensor, perm: Tensor, scale: float, boxes: Box, sizes: tuple[int, ...]) -> Tensor:
    """One scale for the batch: resize every sample once, then write the patches into a copy."""
    (count, channels), spatial = inputs.shape[:2], tuple(inputs.shape[2:])
    source, offset = to_device(masks.patch_index(spatial, sizes, scale), inputs.device)
    small = inputs.flatten(2).gather(2, source.expand(count, channels, -1)).index_select(0, perm)
    pasted = inputs.clone()
    if not isinstance(boxes, Tensor):
        pasted[(..., *masks.box_slices(boxes))] = small.unflatten(2, sizes)
        return pasted
    start = masks.flat_starts(boxes.reshape(-1, 2 * len(spatial)), spatial)
    flat = pasted.flatten(2)  # a view for contiguous and channels_last inputs, which clone() keeps
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
    return blend_masked(resized, inputs, ~masks.inside_boxes(boxes, spatial))
