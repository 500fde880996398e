"""Evaluators of samples with noise on them or parts covered."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from randomix.robustness.measure import Measure, Outcome, counts
from randomix.robustness.noise import add_gaussian_noise
from randomix.robustness.occlusion import occlude, occlusion_masks


def noise(measure: Measure, *, sigma: float = 0.2, seed: int = 0, repeats: int = 1) -> Outcome:
    """Gaussian noise of standard deviation ``sigma`` in [0, 1] pixels; noise_error in percent, mean over seeds."""
    bounds = measure.eval_set.value_range
    results = [
        measure(lambda batch, seed=seed + repeat: add_gaussian_noise(batch.inputs, batch.indices, sigma, seed, bounds))
        for repeat in range(repeats)
    ]
    return {"noise_error": statistics.fmean(result.top1_error for result in results)}, counts(results)


def occlusion(
    measure: Measure,
    *,
    kind: str = "random_blocks",
    n_blocks: int = 1,
    block: int | None = None,
    placement: str = "clipped",
    fill: float | Sequence[float] = 0.0,
    seed: int = 0,
    repeats: int = 5,
) -> Outcome:
    """Covered parts (see ``occlude``); occlusion_error and its standard deviation over mask seeds, in percent."""
    options = {"kind": kind, "n_blocks": n_blocks, "block": block, "placement": placement, "fill": fill}
    results = [
        measure(lambda batch, seed=seed + repeat: occlude(batch.inputs, batch.indices, seed=seed, **options))
        for repeat in range(repeats)
    ]
    errors = [result.top1_error for result in results]
    spread = statistics.stdev(errors) if repeats > 1 else 0.0
    return {"occlusion_error": statistics.fmean(errors), "occlusion_error_std": spread}, counts(results)


def occlusion_problems(options: Mapping[str, Any], input_shape: tuple[int, ...]) -> list[str]:
    """Try the settings on one sample."""
    one = {key: value for key, value in options.items() if key not in ("fill", "repeats")}
    fill = options.get("fill", 0.0)
    if isinstance(fill, Sequence) and len(fill) != input_shape[0]:
        return [f"evaluator.occlusion.fill has {len(fill)} entries for inputs of {input_shape[0]} channels"]
    try:
        occlusion_masks(input_shape[1:], torch.zeros(1, dtype=torch.int64), **one)
    except ValueError as error:
        return [f"evaluator.occlusion: {error}"]
    return []
