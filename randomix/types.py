"""The values that travel between mixers, models and the trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from torch import Tensor

Tap = Callable[[int, Tensor], Tensor]
"""``(tap index, features) -> features``. A network calls it once per tap; index 0 is its input."""


class MixedMode(str, Enum):
    """How a method combines two samples: the "Mixed Mode" column of Tables 4 and 6."""

    NONE = "-"
    LINEAR = "l"
    MASK = "m"
    BOTH = "l+m"


@dataclass(frozen=True)
class MixedBatch:
    """What an input mixer returns.

    inputs: (N, C, *spatial), dtype, device and memory format of the inputs that were mixed.
    targets: (N, K) float32, rows sum to one if the given targets do.
    lam: (N,) float32, the realised share of each sample's own label.
    name: the registry name of the method that made the batch.
    """

    inputs: Tensor
    targets: Tensor
    lam: Tensor
    name: str = ""


@dataclass(frozen=True)
class MixedForward:
    """What the trainer consumes: logits (N, K), targets (N, K) float32, lam (N,).

    loss_weight: factor of the loss of (logits, targets).
    aux_loss: a scalar that a method adds to that, or None.
    name: the registry name of the method that was used (the drawn candidate of a composite).
    """

    logits: Tensor
    targets: Tensor
    lam: Tensor
    loss_weight: float = 1.0
    aux_loss: Tensor | None = None
    name: str = ""

    def loss(self, criterion: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """What to train on, a scalar: loss_weight * criterion(logits, targets), and aux_loss where there is one."""
        loss = criterion(self.logits, self.targets) * self.loss_weight
        return loss if self.aux_loss is None else loss + self.aux_loss
