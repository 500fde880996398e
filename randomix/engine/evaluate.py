"""Exact evaluation: every sample counts once, whatever the batch size and the number of ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from randomix.engine.distributed import World, all_reduce_sum, current_world
from randomix.engine.protocols import Batch, EvalSet
from randomix.errors import NonFiniteError
from randomix.networks import evaluation_mode, unwrap

ECE_BINS = 15
_COUNTS = 5  # correct1, correct5, total, loss sum, samples with NaN or infinite logits; then 3 numbers a bin


@dataclass(frozen=True)
class EvalResult:
    """Integer counts and sums over ``total`` samples; the properties are derived from them.

    bins: for each of 15 equal bins of confidence (samples, correct ones, sum of confidences).
    """

    correct1: int
    correct5: int
    total: int
    loss_sum: float
    bins: tuple[tuple[int, int, float], ...]

    @property
    def top1(self) -> float:
        """Accuracy in percent."""
        return 100.0 * self.correct1 / self.total

    @property
    def top1_error(self) -> float:
        """100 - top1, computed without its rounding."""
        return 100.0 * (self.total - self.correct1) / self.total

    @property
    def top5(self) -> float:
        """Share in percent of samples whose class is among the five most probable (all of them if K < 5)."""
        return 100.0 * self.correct5 / self.total

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self.loss_sum / self.total

    @property
    def ece(self) -> float:
        """Expected calibration error in percent: Guo et al., 2017, with 15 bins of equal width."""
        return 100.0 * sum(abs(correct - confidence) for _, correct, confidence in self.bins) / self.total


def evaluate(
    model: nn.Module,
    eval_set: EvalSet,
    transform: Callable[[Batch], Tensor] | None = None,
    *,
    batch_size: int,
    world: World | None = None,
    autocast: Callable[[], AbstractContextManager[object]] | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> EvalResult:
    """Count what ``model`` gets right on ``eval_set``; collective: every rank calls it and gets the same result.

    transform: takes a batch of pixels (n, C, *S) in [0, 1] to perturbed pixels, before normalisation; it may use
    gradients. world: whose rank and size choose this process's samples, None for the current one. autocast: makes the
    context of a forward pass. reduce: the sum of a tensor over ranks, None for torch.distributed's.
    One reduction and one transfer from the device, at the end; a rank may have no samples. The modes of all submodules
    are restored. Raises NonFiniteError on every rank if any sample's logits are NaN or infinite.
    """
    world = world or current_world()
    module = unwrap(model)
    totals: Tensor | None = None
    with evaluation_mode(module):
        for batch in eval_set.batches(batch_size, world.rank, world.world_size):
            pixels = batch.inputs if transform is None else transform(batch)
            with torch.inference_mode():
                with autocast() if autocast else nullcontext():
                    logits = module(eval_set.normalise(pixels))
                counted = _count(logits.float(), batch.labels)
                totals = counted if totals is None else totals + counted
    if totals is None:
        totals = torch.zeros(_COUNTS + 3 * ECE_BINS, dtype=torch.float64, device=world.device)
    return _result((reduce or all_reduce_sum)(totals).tolist())


def _count(logits: Tensor, labels: Tensor) -> Tensor:
    """The float64 sums of one batch; integers stay exact in them up to 2**53."""
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    place = ((logits > own) | ((logits == own) & earlier)).sum(1)  # ties go to the lower class, as argmax does
    losses = F.cross_entropy(logits, labels, reduction="none")
    invalid = ~logits.isfinite().all(1)
    confidence = logits.softmax(1).amax(1)
    correct = (place == 0).double()
    bins = (confidence * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1  # (lower, upper]
    member = (bins == torch.arange(ECE_BINS, device=bins.device)[:, None]).double()
    by_bin = member @ torch.stack([torch.ones_like(correct), correct, confidence.double()], dim=1)
    sums = [correct.sum(), (place < 5).sum(), correct.new_full((), len(labels)), losses.double().sum(), invalid.sum()]
    return torch.cat([torch.stack([number.double() for number in sums]), by_bin.flatten()])


def _result(numbers: list[float]) -> EvalResult:
    correct1, correct5, total, loss_sum, invalid = numbers[:_COUNTS]
    if total == 0:
        raise ValueError("the evaluation set has no samples")
    if invalid:
        raise NonFiniteError(
            f"evaluation: the logits of {invalid:.0f} of {total:.0f} samples are NaN or infinite; "
            f"lower recipe.lr, or use trainer.precision=fp32"
        )
    rows = [numbers[start : start + 3] for start in range(_COUNTS, len(numbers), 3)]
    bins = tuple((int(count), int(correct), confidence) for count, correct, confidence in rows)
    return EvalResult(int(correct1), int(correct5), int(total), loss_sum, bins)
