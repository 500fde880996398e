"""Mixing blocks of hidden features: each channel has blocks of its own, the same ones in all samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from randomix import masks
from randomix.functional._common import blend_onto, check, check_share, mix_targets

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class PatchUpBatch:
    """What ``patchup`` returns: mixed features and the pieces of the method's loss.

    hidden: (N, C, *S) like the features that were mixed.
    own, altered, targets: (N, K) float32, the targets y of the unaltered features, y' of the altered ones, and
    (1 - q) y + q y' of all.
    unchanged: scalar float32, the share 1 - q of the features that are not altered.
    lam: (N,) float32, each sample's own share of ``targets``.
    """

    hidden: Tensor
    own: Tensor
    altered: Tensor
    targets: Tensor
    unchanged: Tensor
    lam: Tensor


def patchup_gamma(gamma: float, spatial: Sequence[int], block_size: int) -> float:
    """Probability of a centre for blocks of block_size pixels a side in features of size ``spatial``.

    gamma * prod S / (b (S - b + 1)), gamma in [0, 1]. ValueError where a block does not fit.
    Source: Faramarzi et al., PatchUp (AAAI 2022), after Ghiasi et al., DropBlock (NeurIPS 2018), equation 1.
    """
    _check_block(block_size)
    check_share("gamma", gamma)
    if min(spatial) < block_size:
        raise ValueError(
            f"block_size is {block_size}, but the features have size {tuple(spatial)}; "
            f"lower block_size to {min(spatial) - 1 + min(spatial) % 2} or less"
        )
    return gamma * math.prod(size / (block_size * (size - block_size + 1)) for size in spatial)


def patchup_mask(centers: Tensor, block_size: int) -> Tensor:
    """True within block_size // 2 pixels, along every axis, of a true one of centers (C, *S) bool; (C, *S) bool.

    Equal to a maximum over windows of block_size (odd) a side with stride 1, as the authors' code has it: centres may
    lie at the border, where their blocks are cut.
    """
    _check_block(block_size)
    if centers.dtype != torch.bool:
        raise ValueError(f"centers must be bool (C, *spatial), got {centers.dtype} {tuple(centers.shape)}")
    reach, mask = block_size // 2, centers
    for axis in range(1, centers.ndim):
        padding = [0, 0] * (centers.ndim - 1 - axis) + [reach, reach]
        mask, width = torch.nn.functional.pad(mask, padding), 1
        while width < block_size:  # a window of twice the width from two: 25 times as fast as pooling numbers
            step = min(width, block_size - width)
            length = mask.shape[axis] - step
            mask, width = mask.narrow(axis, 0, length) | mask.narrow(axis, step, length), width + step
    return mask


def patchup(
    hidden: Tensor, targets: Tensor, perm: Tensor, mask: Tensor, lam: float | Tensor, hard: bool = False
) -> PatchUpBatch:
    """Mix hidden features (N, C, *S) with those at perm where mask (C, *S) is true; targets (N, K) by its share q.

    Soft: h' = lam * h + (1 - lam) * h[perm] under the mask, y' = lam * y + (1 - lam) * y[perm]; lam in [0, 1], a float
    or a scalar tensor. Hard: h' = h[perm] and y' = y[perm], which is lam 0. The authors' loss is
    (1 - q) L(p, own) + q L(p, altered) + L(p, targets): for a loss L that is linear in the targets, as cross-entropy
    and binary cross-entropy are, exactly 2 L(p, targets).
    Source: Faramarzi et al., PatchUp (AAAI 2022), and the authors' ``modules/patchup.py``.
    """
    check(hidden, targets, perm, "hidden")
    if mask.dtype != torch.bool or mask.shape != hidden.shape[1:]:
        raise ValueError(
            f"mask must be bool {tuple(hidden.shape[1:])}, as each sample of hidden, "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    lam = 0.0 if hard else lam
    altered_share = mask.float().mean()
    altered, _ = mix_targets(targets, perm, lam)
    mixed, shares = mix_targets(targets, perm, patchup_lam(altered_share, lam))
    features = masks.restride(patchup_features(hidden, perm, mask, lam), hidden)
    return PatchUpBatch(features, targets.float(), altered, mixed, 1.0 - altered_share, shares)


def patchup_lam(altered_share: float | Tensor, lam: float | Tensor) -> float | Tensor:
    """A sample's own share of its targets if the share q of its features is mixed by lam: 1 - q (1 - lam)."""
    return 1.0 - altered_share * (1.0 - lam)


def patchup_features(hidden: Tensor, perm: Tensor, mask: Tensor, lam: float | Tensor) -> Tensor:
    """lam * h + (1 - lam) * h[perm] where mask (C, *S) is true, h elsewhere; hidden (N, C, *S)."""
    view = masks.memory_order(hidden)
    if view is not hidden:  # the weight is laid out as the features are: 10 times the speed on a CPU
        mask = mask.movedim(0, -1).contiguous()
    mixed = view.index_select(0, perm)
    if isinstance(lam, Tensor):
        mixed = blend_onto(mixed, view, torch.where(mask, lam, 1.0))
    elif hidden.dtype in _HALF and lam != 0:  # in a weight of half precision lam would not be the label's
        mixed = blend_onto(blend_onto(mixed, view, lam), view, ~mask)
    else:
        mixed = blend_onto(mixed, view, torch.ones_like(mask, dtype=hidden.dtype).masked_fill(mask, lam))
    return mixed if view is hidden else mixed.movedim(-1, 1)


def _check_block(block_size: int) -> None:
    if block_size < 1 or block_size % 2 == 0:
        raise ValueError(f"block_size must be odd and >= 1, for a block has a centre; got {block_size}")
