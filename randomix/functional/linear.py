"""Linear mixing: lam * x + (1 - lam) * x[perm]."""

from __future__ import annotations

from torch import Tensor

from randomix import masks
from randomix.functional._common import blend, check, pair_batch
from randomix.types import MixedBatch


def mixup(inputs: Tensor, targets: Tensor, perm: Tensor, lam: float | Tensor) -> MixedBatch:
    """Mix inputs (N, C, *S) and targets (N, K) linearly: lam * x + (1 - lam) * x[perm].

    lam in [0, 1], a float or (N,). Source: Zhang et al., mixup (ICLR 2018), section 2.
    """
    check(inputs, targets, perm)
    weight = lam.reshape(-1, *[1] * (inputs.ndim - 1)) if isinstance(lam, Tensor) else lam
    return pair_batch(blend(masks.take_rows(inputs, perm), inputs, weight), inputs, targets, perm, lam)
