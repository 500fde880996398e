"""Mixing by boxes: pieces of one sample pasted into another at the same place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from randomix import masks
from randomix.functional._common import blend_masked, check, pair_batch
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
    centers, sizes = masks.per_axis(center), masks.cut_sizes(spatial, masks.as_number(lam))
    low = [masks.clip(c - size // 2, end) for c, size, end in zip(centers, sizes, spatial, strict=True)]
    high = [masks.clip(c + size // 2, end) for c, size, end in zip(centers, sizes, spatial, strict=True)]
    return masks.join(low + high)


def cutmix(inputs: Tensor, targets: Tensor, perm: Tensor, box: Box) -> MixedBatch:
    """Paste the box of x[perm] into inputs (N, C, *S) and mix targets (N, K) by the area of the box, in pixels.

    box: 2 d Python integers for the whole batch (slices, the fast form), or a tensor (2 d,) or (N, 2 d).
    Source: Yun et al., CutMix (ICCV 2019), equation 1; lam is that of the clipped box, as in the authors' code.
    """
    check(inputs, targets, perm)
    lam = 1.0 - masks.box_share(box, inputs.shape[2:])
    if isinstance(box, Tensor):
        keep = ~masks.inside_boxes(box.reshape(-1, box.shape[-1]), inputs.shape[2:])
        return pair_batch(blend_masked(masks.take_rows(inputs, perm), inputs, keep), inputs, targets, perm, lam)
    pasted, region = inputs.clone(), (..., *masks.box_slices(box))
    pasted[region] = masks.take_rows(inputs[region].clone(), perm)  # only the pasted pixels are gathered
    return pair_batch(pasted, inputs, targets, perm, lam)
