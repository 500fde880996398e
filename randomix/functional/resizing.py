"""Mixing by pasting a whole sample, made smaller, into another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from randomix import masks
from randomix.devices import is_plain, to_device
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
    low = [masks.clip(c - size // 2, end - size) for c, size, end in zip(near, sizes, spatial, strict=True)]
    return masks.join(low + [lo + size for lo, size in zip(low, sizes, strict=True)])


def resizemix(
    inputs: Tensor, targets: Tensor, perm: Tensor, scale: float | Tensor, boxes: Box, inplace: bool = False
) -> MixedBatch:
    """Paste the whole of x[perm], resized by scale, into the boxes of inputs (N, C, *S); targets (N, K) by the area.

    scale in (0, 1): a float, or (N,) with boxes (N, 2 d). boxes as ``resizemix_boxes`` makes them, in pixels, on the
    host or on the inputs' device: their sides are floor(scale * S). Nearest neighbour, source index
    min(floor(i * float32(1 / scale)), S - 1). inplace: patches of one scale may be written into the inputs themselves.
    Source: Qin et al., ResizeMix (arXiv 2012.11101), equations 1-3 and the authors' trainer.
    """
    check(inputs, targets, perm)
    spatial = tuple(inputs.shape[2:])
    if isinstance(scale, Tensor):
        boxes = to_device(torch.as_tensor(boxes), inputs.device)
        pasted = _resample(inputs, perm, scale, boxes, spatial)
        return pair_batch(pasted, inputs, targets, perm, 1.0 - masks.box_share(boxes, spatial))
    sizes = masks.patch_sizes(spatial, scale)
    lam = 1.0 - math.prod(sizes) / math.prod(spatial)
    pasted = masks.to_write(inputs, inplace)
    boxes = torch.as_tensor(boxes).reshape(-1, 2 * len(spatial)).expand(len(inputs), -1)
    array = masks.writable(pasted) if is_plain(inputs) else None
    if array is None:
        _paste_small(pasted, inputs, perm, scale, boxes, sizes)
    else:
        _paste_each(array, inputs, perm, scale, boxes, sizes)
    return pair_batch(pasted, inputs, targets, perm, lam)


def _paste_each(
    pasted: np.ndarray, inputs: Tensor, perm: Tensor, scale: float, boxes: Tensor, sizes: Sequence[int]
) -> None:
    """On a CPU: resize every sample, then write all patches into the memory of (N, C, *S)."""
    view, (count, channels, *spatial) = masks.memory_order(inputs), inputs.shape
    small, first = masks.bits(view), 2 if view is inputs else 1
    for axis, source in enumerate(masks.patch_sources(spatial, sizes, scale)):
        small = small.take(source, axis=first + axis)
    small = small if view is inputs else np.moveaxis(small, -1, 1)
    partner, everyone = perm.numpy(), np.arange(count)
    owner = partner.argsort()  # small[i] belongs to this sample
    if not np.array_equal(partner[owner], everyone):  # one is a partner twice
        small, owner = small[partner], everyone
    shifts = [size - side + 1 for size, side in zip(spatial, sizes, strict=True)]  # windows[i, :, start]: patch of i
    windows = as_strided(pasted, (count, channels, *shifts, *sizes), pasted.strides + pasted.strides[2:])
    windows[(owner, slice(None), *boxes.numpy()[owner, : len(sizes)].T)] = small


def _paste_small(
    pasted: Tensor, inputs: Tensor, perm: Tensor, scale: float, boxes: Tensor, sizes: Sequence[int]
) -> None:
    """Elsewhere: gather all patches and write them, a kernel each; every index is sent in one copy."""
    count, dims = len(inputs), len(sizes)
    sources = masks.patch_sources(inputs.shape[2:], sizes, scale)
    columns = [torch.arange(count + 1, device=boxes.device)[:, None]]
    for axis, source in enumerate(sources):  # where each patch goes; in the last row what it shows
        place = boxes[:, axis, None] + torch.arange(sizes[axis], device=boxes.device)
        columns.append(torch.cat([place, torch.from_numpy(source)[None].to(boxes.device)]))
    rows, *index = to_device(torch.cat(columns, dim=1), inputs.device).split([1, *sizes], dim=1)
    places = [masks.along(i[:-1], axis, dims) for axis, i in enumerate(index)]
    shown = [masks.along(i[-1:], axis, dims) for axis, i in enumerate(index)]
    patches = inputs.movedim(1, -1)[(masks.along(perm[:, None], 0, dims), *shown)]
    pasted.movedim(1, -1)[(masks.along(rows[:-1], 0, dims), *places)] = patches


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
    return blend_masked(resized, inputs, ~masks.inside_boxes(boxes, spatial, inputs.device))
