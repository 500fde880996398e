"""What an evaluator is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from randomix.engine.distributed import World, all_reduce_sum
from randomix.engine.evaluate import EvalResult, evaluate
from randomix.engine.protocols import Batch, Data, EvalSet
from randomix.robustness.attacks import PixelNetwork

Cell = tuple[EvalResult, list[int]]
"""One pass over the test set: the result, and further integers that were summed over it."""


class Cells(Protocol):
    """The finished cells of an evaluation, the same on every rank; ``randomix.runs.journal`` keeps them on disk."""

    def get(self, name: str) -> Cell | None:
        """A cell, if it was finished before."""

    def put(self, name: str, cell: Cell) -> None:
        """Keep a cell."""


@dataclass(frozen=True)
class Measure:
    """The network at hand and what it is evaluated on, as an evaluator gets them; collective like ``evaluate``."""

    model: nn.Module
    eval_set: EvalSet
    batch_size: int
    world: World
    autocast: Callable[[], AbstractContextManager[object]] | None = None
    split: Callable[[str], EvalSet] | None = None  # the other held-out sets, by name
    data: Data | None = None  # for evaluators that ask for more than the test set
    evaluator: str = ""
    cells: Cells | None = None
    pause: Callable[[], None] | None = None  # called before each pass; raises Interrupted where a signal came

    def __call__(self, transform: Callable[[Batch], Tensor] | None = None, *, cell: str | None = None) -> EvalResult:
        """Evaluate the network on pixels that pass through ``transform`` (None: as they are).

        cell: a name of this pass, unique in the evaluator: an evaluation that was cut off goes on after its named ones.
        """

        def result() -> EvalResult:
            size, world = self.batch_size, self.world
            return evaluate(self.model, self.eval_set, transform, batch_size=size, world=world, autocast=self.autocast)

        return self.kept(cell, lambda: (result(), []))[0]

    def kept(self, cell: str | None, compute: Callable[[], Cell]) -> Cell:
        """What ``compute`` returns, which may take several collective steps, or what it did before it was cut off."""
        if self.pause is not None:
            self.pause()
        if self.cells is None or cell is None:
            return compute()
        name = f"{self.evaluator}/{cell}"
        found = self.cells.get(name)
        if found is None:
            found = compute()
            self.cells.put(name, found)
        return found

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
