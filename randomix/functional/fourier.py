"""Mixing through masks of low-frequency noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from randomix import masks
from randomix.functional._common import blend_masked, check, pair_batch
from randomix.masks import Spatial
from randomix.types import MixedBatch


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
    check(inputs, targets, perm)
    return pair_batch(blend_masked(masks.take_rows(inputs, perm), inputs, mask), inputs, targets, perm, lam)
