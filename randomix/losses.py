"""Losses for dense targets, in float32 whatever the precision of the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.ndim != 2 or logits.shape != targets.shape:
        raise ValueError(
            f"logits and targets must both be (N, K), got {tuple(logits.shape)} and {tuple(targets.shape)}"
        )


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, a float32 scalar in nats, of logits (N, K) against targets (N, K) whose rows sum to one.

    For a pair's targets it equals lam * CE(a) + (1 - lam) * CE(b), the loss of mixup, CutMix, FMix and ResizeMix.
    """
    _check(logits, targets)
    return -(targets.float() * F.log_softmax(logits.float(), dim=1)).sum(1).mean()


def softmax_bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, a float32 scalar in nats, of softmax(logits) (N, K) against targets (N, K), over N * K.

    Source: the released code of Manifold Mixup, PatchUp, Puzzle Mix and Co-Mixup, ``BCELoss()(softmax(z), target)``;
    logarithms stop at -100 as in ``torch.nn.BCELoss``, and stay exact up to there. ValueError for a single class.
    """
    _check(logits, targets)
    if logits.shape[1] < 2:
        raise ValueError(f"softmax_bce needs at least 2 classes, got {logits.shape[1]}")
    logits, targets = logits.float(), targets.float()
    log_p = F.log_softmax(logits, dim=1)
    # 1 - p cancels for the largest class alone (the others have p <= 1/2): there, sum the others instead
    classes = torch.arange(logits.shape[1], device=logits.device)
    largest = classes == logits.argmax(1, keepdim=True)
    log_others = log_p.masked_fill(largest, -torch.inf).logsumexp(1, keepdim=True)
    log_not_p = torch.where(largest, log_others, torch.log1p(-log_p.exp().masked_fill(largest, 0.0)))
    return -(targets * log_p.clamp(min=-100) + (1 - targets) * log_not_p.clamp(min=-100)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": soft_cross_entropy,
    "softmax_bce": softmax_bce,
}
