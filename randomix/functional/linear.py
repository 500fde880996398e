"""Linear mixing: lam * x + (1 - lam) * x[perm]."""

from __future__ import annotations

from torch import Tensor

from randomix.functional._common import blend_partners, check, pair_batch
from randomix.types import MixedBatch


def mixup(inputs: Tensor, targets: Tensor, perm: Tensor, lam: float | Tensor) -> MixedBatch:
    """Mix inputs (N, C, *S) and targets (N, K) linearly: lam * x + (1 - lam) * x[perm].

    lam in [0, 1], a float or (N,). Source: Zhang et al., mixup (ICLR 2018), section 2.
    """
    check(inputs, targets, perm)
    return pair_batch(blend_partners(inputs, perm, _weight(lam, inputs)), inputs, targets, perm, lam)


def manifold_mixup(hidden: Tensor, targets: Tensor, perm: Tensor, lam: float | Tensor) -> MixedBatch:
    """Mix hidden features (N, C, *S) and targets (N, K) linearly: lam * h + (1 - lam) * h[perm].

    lam in [0, 1], a float or (N,). The result's ``inputs`` are the mixed features, through which gradients flow.
    Source: Verma et al., Manifold Mixup (ICML 2019), section 2.
    """
    check(hidden, targets, perm, "hidden")
    return pair_batch(blend_partners(hidden, perm, _weight(lam, hidden)), hidden, targets, perm, lam)


def _weight(lam: float | Tensor, inputs: Tensor) -> float | Tensor:
    return lam.reshape(-1, *[1] * (inputs.ndim - 1)) if isinstance(lam, Tensor) else lam
