"""Evaluators of samples that an attack has moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from randomix.engine.protocols import Batch
from randomix.robustness.attacks import attack
from randomix.robustness.measure import Measure, Outcome, counts


def fgsm(measure: Measure, *, eps_255: float = 8.0) -> Outcome:
    """The fast gradient sign method within eps_255 / 255 of each pixel; fgsm_error in percent."""
    return _attacked(measure, "fgsm_error", eps=eps_255 / 255)


def pgd(
    measure: Measure,
    *,
    eps_255: float = 8.0,
    step_255: float = 2.0,
    steps: int = 10,
    random_start: bool = True,
    seed: int = 0,
) -> Outcome:
    """Projected gradient steps of step_255 / 255 within eps_255 / 255 of each pixel; pgd_error in percent."""
    sizes = {"eps": eps_255 / 255, "step_size": step_255 / 255}
    return _attacked(measure, "pgd_error", **sizes, steps=steps, random_start=random_start, seed=seed)


def _attacked(measure: Measure, metric: str, **options: Any) -> Outcome:
    """Every image is attacked and counted, those that are wrong already too.

    The counts hold what tells a robust network from one whose gradient has vanished: the images, and the entries of
    all ``entries`` of the gradient, for which it is zero or not finite.
    """
    network, parts = measure.pixel_network(), []

    def transform(batch: Batch) -> Tensor:
        found = attack(
            network, batch.inputs, batch.labels, indices=batch.indices, bounds=measure.eval_set.value_range, **options
        )
        size = batch.inputs.shape[1:].numel()
        every = found.zeros.new_full((), found.zeros.numel() * size)
        parts.append(torch.stack([(found.zeros == size).sum(), found.zeros.sum(), every]))
        return found.inputs

    result = measure(transform)
    images, zeros, entries = measure.total(parts, 3)
    gradients = {"zero_gradient_images": images, "zero_gradient_entries": zeros, "entries": entries}
    return {metric: result.top1_error}, counts([result]) | gradients
