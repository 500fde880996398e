"""Running sums of training metrics that stay on the device: adding to them never waits for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""The sum of a tensor over all ranks."""


class TrainMeter:
    """Sums of loss and soft accuracy over samples, in float64 on ``device``; one transfer a ``read``."""

    def __init__(self, device: torch.device | str) -> None:
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._samples = 0.0  # on the host: batch sizes are known there

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add a batch: its mean loss (scalar), logits (n, K) and dense targets (n, K). Does not wait for the device.

        Soft accuracy credits a prediction with its class's share of the mixed target.
        """
        self.add(loss, logits, targets)
        self.count(len(logits))

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """The part of ``update`` that happens on the device, in place."""
        credit = targets.gather(1, logits.argmax(1, keepdim=True)).sum(dtype=torch.float64)
        self._sums += torch.stack([loss.detach().double() * len(logits), credit])

    def count(self, samples: int) -> None:
        """The part of ``update`` that happens on the host."""
        self._samples += samples

    def tensors(self) -> list[Tensor]:
        """What it keeps on the device; these stay the same tensors."""
        return [self._sums]

    def read(self, reduce: Reduce | None = None) -> dict[str, float]:
        """Means since the last ``read``, over all ranks with ``reduce``: loss, soft_top1 in percent, samples."""
        loss, credit, samples = self.state(reduce)
        self.load_state([0.0, 0.0, 0.0])
        return {"loss": loss / max(samples, 1), "soft_top1": 100 * credit / max(samples, 1), "samples": samples}

    def state(self, reduce: Reduce | None = None) -> list[float]:
        """The sums so far, over all ranks with ``reduce``; nothing is reset."""
        sums = torch.cat([self._sums, self._sums.new_full((1,), self._samples)])
        return (reduce(sums) if reduce is not None else sums).tolist()

    def load_state(self, state: list[float]) -> None:
        """Continue from ``state()``; of several ranks one carries the sums of all."""
        *sums, self._samples = state
        self._sums.copy_(torch.tensor(sums, dtype=torch.float64))
