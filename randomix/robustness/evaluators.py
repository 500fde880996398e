"""The evaluations a finished network goes through, by name; each perturbs pixels before normalisation.

All perturbations are functions of (seed, data set index), so that every network and every number of ranks sees the
same images.
"""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from randomix.engine.distributed import World
from randomix.engine.evaluate import EvalResult, evaluate
from randomix.engine.protocols import Batch, EvalSet
from randomix.errors import ConfigError
from randomix.robustness.noise import add_gaussian_noise
from randomix.robustness.occlusion import occlude, occlusion_masks

Measure = Callable[[Callable[[Batch], Tensor] | None], EvalResult]
"""Evaluates the network at hand on pixels that pass through the given perturbation."""
Outcome = tuple[dict[str, float], dict[str, Any]]
"""(metrics by name, counts for the record)."""


def clean(measure: Measure) -> Outcome:
    """The images as they are: top1, top5, top1_error and ece in percent, loss in nats."""
    result = measure(None)
    names = ("top1", "top1_error", "top5", "loss", "ece")
    return {name: getattr(result, name) for name in names}, _counts([result]) | {"correct5": result.correct5}


def noise(measure: Measure, *, sigma: float = 0.2, seed: int = 0, repeats: int = 1) -> Outcome:
    """Gaussian noise of standard deviation ``sigma`` in [0, 1] pixels; noise_error in percent, mean over seeds."""
    results = [
        measure(lambda batch, seed=seed + repeat: add_gaussian_noise(batch.inputs, batch.indices, sigma, seed))
        for repeat in range(repeats)
    ]
    return {"noise_error": statistics.fmean(result.top1_error for result in results)}, _counts(results)


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
    return {"occlusion_error": statistics.fmean(errors), "occlusion_error_std": spread}, _counts(results)


EVALUATORS: dict[str, Callable[..., Outcome]] = {"clean": clean, "noise": noise, "occlusion": occlusion}


def run_evaluators(
    model: nn.Module,
    eval_set: EvalSet,
    *,
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    world: World | None = None,
    autocast: Callable[[], AbstractContextManager[object]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run the evaluators ``names`` on ``model``; collective. Returns ``{"metrics": {name: value}, "counts": {...}}``.

    settings: keyword arguments by evaluator name; missing ones keep their defaults. counts: by evaluator, the integers
    that the metrics come from. Raises ConfigError like ``check_evaluators``.
    """
    check_evaluators(names, settings)

    def measure(transform: Callable[[Batch], Tensor] | None) -> EvalResult:
        return evaluate(model, eval_set, transform, batch_size=batch_size, world=world, autocast=autocast)

    metrics: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for name in names:
        values, counts[name] = EVALUATORS[name](measure, **settings.get(name) or {})
        metrics |= values
    return {"metrics": metrics, "counts": counts}


def check_evaluators(
    names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], sample_shape: tuple[int, ...] | None = None
) -> None:
    """Raise ConfigError, one line a problem, for unknown names and settings and, given (C, *S), sizes that do not fit.

    Cheap: to be called before training, so that a long run does not end in a wrong setting.
    """
    problems = []
    for name in names:
        if name not in EVALUATORS:
            problems.append(f"evaluators has {name!r}, expected some of {', '.join(EVALUATORS)}")
            continue
        options = settings.get(name) or {}
        known = list(inspect.signature(EVALUATORS[name]).parameters)[1:]
        problems += [f"evaluator.{name}.{key} is not a setting; there are {', '.join(known) or 'none'}"
                     for key in options if key not in known]  # fmt: skip
        repeats = options.get("repeats", 1)
        if not isinstance(repeats, int) or repeats < 1:
            problems.append(f"evaluator.{name}.repeats is {repeats!r}, expected a number >= 1")
    if not problems and sample_shape is not None and "occlusion" in names:
        problems = _occlusion_problems(settings.get("occlusion") or {}, sample_shape)
    if problems:
        raise ConfigError(problems)


def _occlusion_problems(options: Mapping[str, Any], sample_shape: tuple[int, ...]) -> list[str]:
    """Try the settings on one sample."""
    one = {key: value for key, value in options.items() if key not in ("fill", "repeats")}
    fill = options.get("fill", 0.0)
    if isinstance(fill, Sequence) and len(fill) != sample_shape[0]:
        return [f"evaluator.occlusion.fill has {len(fill)} entries for images of {sample_shape[0]} channels"]
    try:
        occlusion_masks(sample_shape[1:], torch.zeros(1, dtype=torch.int64), **one)
    except ValueError as error:
        return [f"evaluator.occlusion: {error}"]
    return []


def _counts(results: Sequence[EvalResult]) -> dict[str, Any]:
    """total, and correct1: a number, or a list of one number a repeat."""
    correct = [result.correct1 for result in results]
    return {"total": results[0].total, "correct1": correct if len(correct) > 1 else correct[0]}
