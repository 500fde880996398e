"""The evaluations a finished network goes through, by name; each perturbs pixels before normalisation.

All perturbations are functions of (seed, data set index), so that every network and every number of ranks sees the
same images.
"""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from randomix.engine.distributed import World, all_reduce_sum, current_world
from randomix.engine.evaluate import EvalResult, evaluate
from randomix.engine.protocols import Batch, Data, EvalSet
from randomix.errors import ConfigError
from randomix.robustness.attacks import PixelNetwork, attack
from randomix.robustness.noise import add_gaussian_noise
from randomix.robustness.occlusion import occlude, occlusion_masks


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


def clean(measure: Measure) -> Outcome:
    """The images as they are: top1, top5, top1_error and ece in percent, loss in nats."""
    result = measure()
    names = ("top1", "top1_error", "top5", "loss", "ece")
    return {name: getattr(result, name) for name in names}, _counts([result]) | {"correct5": result.correct5}


def validation(measure: Measure) -> Outcome:
    """The validation split as it is: validation_top1, validation_top1_error in percent, validation_loss in nats."""
    if measure.split is None:
        raise ValueError("the evaluator validation needs the data set's validation split: pass split=")
    result = replace(measure, eval_set=measure.split("validation"))()
    metrics = {f"validation_{name}": getattr(result, name) for name in ("top1", "top1_error", "loss")}
    return metrics, _counts([result])


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
    return {metric: result.top1_error}, _counts([result]) | gradients


def noise(measure: Measure, *, sigma: float = 0.2, seed: int = 0, repeats: int = 1) -> Outcome:
    """Gaussian noise of standard deviation ``sigma`` in [0, 1] pixels; noise_error in percent, mean over seeds."""
    bounds = measure.eval_set.value_range
    results = [
        measure(lambda batch, seed=seed + repeat: add_gaussian_noise(batch.inputs, batch.indices, sigma, seed, bounds))
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


EVALUATORS: dict[str, Callable[..., Outcome]] = {
    "clean": clean,
    "fgsm": fgsm,
    "noise": noise,
    "occlusion": occlusion,
    "pgd": pgd,
    "validation": validation,
}


def run_evaluators(
    model: nn.Module,
    eval_set: EvalSet,
    *,
    names: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
    batch_size: int,
    world: World | None = None,
    autocast: Callable[[], AbstractContextManager[object]] | None = None,
    split: Callable[[str], EvalSet] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run the evaluators ``names`` on ``model``; collective. Returns ``{"metrics": {name: value}, "counts": {...}}``.

    settings: keyword arguments by evaluator name; missing ones keep their defaults. counts: by evaluator, the integers
    that the metrics come from. split: the data set's other held-out sets by name. Raises ConfigError like
    ``check_evaluators``.
    """
    check_evaluators(names, settings)
    measure = Measure(model, eval_set, batch_size, world or current_world(), autocast, split)
    metrics: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for name in names:
        values, counts[name] = EVALUATORS[name](measure, **settings.get(name) or {})
        metrics |= values
    return {"metrics": metrics, "counts": counts}


def check_evaluators(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], data: Data | None = None) -> None:
    """Raise ConfigError, one line a problem, for unknown names and settings and, given data, what does not fit them.

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
    if not problems and data is not None:
        if "occlusion" in names:
            problems += _occlusion_problems(settings.get("occlusion") or {}, data.input_shape)
        if "validation" in names and "validation" not in data.splits:
            problems.append(f"evaluators has validation, but {data.name} has no validation split; leave it out")
    if problems:
        raise ConfigError(problems)


def _occlusion_problems(options: Mapping[str, Any], input_shape: tuple[int, ...]) -> list[str]:
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


def _counts(results: Sequence[EvalResult]) -> dict[str, Any]:
    """total, and correct1: a number, or a list of one number a repeat."""
    correct = [result.correct1 for result in results]
    return {"total": results[0].total, "correct1": correct if len(correct) > 1 else correct[0]}
