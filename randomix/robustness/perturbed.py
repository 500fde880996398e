"""Evaluators of samples with noise on them or parts covered."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from randomix.engine.evaluate import EvalResult
from randomix.engine.protocols import Data
from randomix.robustness.measure import Measure, Outcome, counts
from randomix.robustness.noise import add_gaussian_noise, add_noise_at_snr
from randomix.robustness.occlusion import PLACEMENTS, check_fill, occlude, occlusion_masks

EIGHTHS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)


def noise(measure: Measure, *, sigma: float = 0.2, seed: int = 0, repeats: int = 1) -> Outcome:
    """Gaussian noise of standard deviation ``sigma`` in [0, 1] pixels; noise_error in percent, mean over seeds."""
    bounds = measure.eval_set.value_range

    def at(seed: int) -> EvalResult:
        return measure(
            lambda batch: add_gaussian_noise(batch.inputs, batch.indices, sigma, seed, bounds), cell=f"seed {seed}"
        )

    results = [at(seed + repeat) for repeat in range(repeats)]
    return {"noise_error": statistics.fmean(result.top1_error for result in results)}, counts(results)


def snr_noise(
    measure: Measure, *, snr_db: Sequence[float] = (20.0, 10.0, 5.0, 0.0), seed: int = 0, repeats: int = 1
) -> Outcome:
    """White noise ``snr_db`` decibels below each clip's own power (see ``add_noise_at_snr``), for each of several.

    snr_noise_error in percent is the mean over ``snr_db`` and seeds, snr_noise_error_XXdb that of one level.
    """
    bounds = measure.eval_set.value_range

    def at(level: float, seed: int) -> EvalResult:
        return measure(
            lambda batch: add_noise_at_snr(batch.inputs, batch.indices, level, seed, bounds),
            cell=f"{level} dB, seed {seed}",
        )

    levels = {f"{level:g}db": [at(level, seed + repeat) for repeat in range(repeats)] for level in snr_db}
    metrics, curve = _curve("snr_noise_error", levels)
    return metrics, {"total": next(iter(levels.values()))[0].total, "snr_db": list(snr_db), "correct1": curve}


def occlusion(
    measure: Measure,
    *,
    kind: str = "random_blocks",
    n_blocks: int = 1,
    block: float | None = None,
    placement: str = "clipped",
    fill: float | Sequence[float] = 0.0,
    seed: int = 0,
    repeats: int = 5,
) -> Outcome:
    """Covered parts (see ``occlude``); occlusion_error and its standard deviation over mask seeds, in percent."""
    options: dict[str, Any] = {"kind": kind, "n_blocks": n_blocks, "block": block, "placement": placement, "fill": fill}

    def at(seed: int) -> EvalResult:
        return measure(lambda batch: occlude(batch.inputs, batch.indices, seed=seed, **options), cell=f"seed {seed}")

    results = [at(seed + repeat) for repeat in range(repeats)]
    errors = [result.top1_error for result in results]
    spread = statistics.stdev(errors) if repeats > 1 else 0.0
    return {"occlusion_error": statistics.fmean(errors), "occlusion_error_std": spread}, counts(results)


def occlusion_sweep(
    measure: Measure,
    *,
    blocks: Sequence[float] = EIGHTHS,
    placements: Sequence[str] = PLACEMENTS,
    n_blocks: int = 1,
    fill: float | Sequence[float] = 0.0,
    seed: int = 0,
    repeats: int = 1,
) -> Outcome:
    """Random blocks of several sizes and placements (see ``occlude``): the points of the occlusion curves.

    occlusion_sweep_error in percent is the mean over all, occlusion_sweep_error_PLACEMENT_BLOCK that of one point.
    counts: ``correct1`` by placement, for each block a list of one number a mask seed.
    """

    def at(placement: str, block: float, seed: int) -> EvalResult:
        options: dict[str, Any] = {
            "n_blocks": n_blocks,
            "block": block,
            "placement": placement,
            "fill": fill,
            "seed": seed,
        }
        cell = f"{placement} {block}, seed {seed}"
        return measure(lambda batch: occlude(batch.inputs, batch.indices, **options), cell=cell)

    points = {
        f"{placement}_{block:g}": [at(placement, block, seed + repeat) for repeat in range(repeats)]
        for placement in placements
        for block in blocks
    }
    metrics, curve = _curve("occlusion_sweep_error", points)
    by_placement = {name: curve[i * len(blocks) : (i + 1) * len(blocks)] for i, name in enumerate(placements)}
    total = next(iter(points.values()))[0].total
    return metrics, {"total": total, "blocks": list(blocks), "correct1": by_placement}


def _curve(metric: str, points: Mapping[str, Sequence[EvalResult]]) -> tuple[dict[str, float], list[list[int]]]:
    """Mean errors, of all points and of each, and the correct ones: for each point one number a repeat."""
    errors = {name: statistics.fmean(result.top1_error for result in results) for name, results in points.items()}
    single = {f"{metric}_{name}": error for name, error in errors.items()}
    return {metric: statistics.fmean(errors.values())} | single, [[r.correct1 for r in v] for v in points.values()]


def occlusion_problems(options: Mapping[str, Any], input_shape: tuple[int, ...], name: str = "occlusion") -> list[str]:
    """Try the settings on one sample."""
    one = {key: value for key, value in options.items() if key not in ("fill", "repeats")}
    tries = (
        lambda: check_fill(options.get("fill", 0.0), input_shape[0]),
        lambda: occlusion_masks(input_shape[1:], torch.zeros(1, dtype=torch.int64), **one),
    )
    problems = []
    for attempt in tries:
        try:
            attempt()
        except ValueError as error:
            problems.append(f"evaluator.{name}: {error}")
    return problems


def sweep_problems(options: Mapping[str, Any], input_shape: tuple[int, ...]) -> list[str]:
    """Try every point on one sample."""
    shared = {key: value for key, value in options.items() if key not in ("blocks", "placements")}
    blocks, placements = options.get("blocks", EIGHTHS), options.get("placements", PLACEMENTS)
    if not blocks or not placements:
        return ["evaluator.occlusion_sweep: blocks and placements need one entry or more"]
    points = [shared | {"block": block, "placement": placement} for block in blocks for placement in placements]
    found = [occlusion_problems(point, input_shape, "occlusion_sweep") for point in points]
    for key, values in (("blocks", [f"{block:g}" for block in blocks]), ("placements", placements)):
        if twice := [value for value, count in Counter(values).items() if count > 1]:  # one metric a name
            found.append([f"evaluator.occlusion_sweep.{key} has {', '.join(twice)} twice; each may occur once"])
    return list(dict.fromkeys(problem for problems in found for problem in problems))


def sound_problems(name: str, data: Data) -> list[str]:
    """Evaluators of sound take (1, L)."""
    if len(data.input_shape) == 2:
        return []
    return [f"evaluators has {name}, which is for sound (1, L); the samples of {data.name} are {data.input_shape}"]
