"""What an evaluator is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from randomix.engine.distributed import World, all_reduce_sum
from randomix.engine.evaluate import EvalResult, evaluate
from randomix.engine.protocols import Batch, EvalSet
from randomix.robustness.attacks import PixelNetwork


@dataclass(frozen=True)
class Measure:
    """The network at hand and what it is evaluated on, as an evaluator gets them; collective like ``evaluate``."""

    model: nn.Module
    eval_set: EvalSet
    batch_size: int
    world: World
    autocast: Callable[[], AbstractContextManager[object]] | None = None
    split: Callable[[str], EvalSet] | None = None  # the other held-out sets, by name

    def __call__(self, transform: Callable[[Batch], Tensor] | None = None) -> EvalResult:
        """Evaluate the network on pixels that pass through ``transform`` (None: as they are)."""
        options = {"batch_size": self.batch_size, "world": self.world, "autocast": self.autocast}
        return evaluate(self.model, self.eval_set, transform, **options)

    def pixel_network(self) -> PixelNetwork:
        """The bare network with the normalisation inside, for attacks."""
        return PixelNetwork(self.model, self.eval_set.normalise)

    def total(self, parts: Sequence[Tensor], length: int) -> list[int]:
        """The sum of integer tensors (length,) over batches and ranks; a rank may have none."""
        none = torch.zeros(length, dtype=torch.int64, device=self.world.device)
        return all_reduce_sum(torch.stack(list(parts)).sum(0) if parts else none).tolist()


Outcome = tuple[dict[str, float], dict[str, Any]]
"""(metrics by name, counts for the record)."""


def counts(results: Sequence[EvalResult]) -> dict[str, Any]:
    """total, and correct1: a number, or a list of one number a repeat."""
    correct = [result.correct1 for result in results]
    return {"total": results[0].total, "correct1": correct if len(correct) > 1 else correct[0]}
