"""The evaluations a finished network goes through, by name; each perturbs pixels before normalisation.

All perturbations are functions of (seed, data set index), so that every network and every number of ranks sees the
same images.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch import nn

from randomix.engine.distributed import World, current_world
from randomix.engine.protocols import Data, EvalSet
from randomix.engine.validation import names_text, nearest
from randomix.errors import ConfigError, DataError
from randomix.robustness.accuracy import clean, validation
from randomix.robustness.attacked import fgsm, fgsm_sound, pgd
from randomix.robustness.autoattack import autoattack, autoattack_problems, autoattack_sources
from randomix.robustness.corrupted import corruption_problems, corruption_sources, corruptions
from randomix.robustness.measure import Cells, Measure, Outcome
from randomix.robustness.perturbed import (
    noise,
    occlusion,
    occlusion_problems,
    occlusion_sweep,
    snr_noise,
    sound_problems,
    sweep_problems,
)

EVALUATORS: dict[str, Callable[..., Outcome]] = {
    "autoattack": autoattack,
    "clean": clean,
    "corruptions": corruptions,
    "fgsm": fgsm,
    "fgsm_sound": fgsm_sound,
    "noise": noise,
    "occlusion": occlusion,
    "occlusion_sweep": occlusion_sweep,
    "pgd": pgd,
    "snr_noise": snr_noise,
    "validation": validation,
}
# What does not fit the data, found before training: (settings, data) -> one line a problem.
PROBLEMS: dict[str, Callable[[Mapping[str, Any], Data], list[str]]] = {
    "autoattack": autoattack_problems,
    "corruptions": corruption_problems,
    "fgsm_sound": lambda _, data: sound_problems("fgsm_sound", data),
    "occlusion": lambda options, data: occlusion_problems(options, data.input_shape),
    "occlusion_sweep": lambda options, data: sweep_problems(options, data.input_shape),
    "snr_noise": lambda _, data: sound_problems("snr_noise", data),
}
# What a result depends on beside settings, weights and test images: (settings, data) -> plain data.
SOURCES: dict[str, Callable[[Mapping[str, Any], Data], dict[str, Any]]] = {
    "autoattack": autoattack_sources,
    "corruptions": corruption_sources,
}


def evaluator_sources(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], data: Data) -> dict[str, Any]:
    """By name, what the evaluators ``names`` use beside the test set: files, generators, packages. Raises DataError."""
    return {name: SOURCES[name](settings.get(name) or {}, data) for name in names if name in SOURCES}


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
    data: Data | None = None,
    cells: Cells | None = None,
    pause: Callable[[], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Run the evaluators ``names`` on ``model``; collective. Returns ``{"metrics": {name: value}, "counts": {...}}``.

    settings: keyword arguments by evaluator name; missing ones keep their defaults. counts: by evaluator, the integers
    that the metrics come from. split: the data set's other held-out sets by name; data: the data set itself, for its
    corrupted test sets. cells: where finished passes are kept; pause: called between passes. Raises ConfigError like
    ``check_evaluators``.
    """
    check_evaluators(names, settings)
    measure = Measure(model, eval_set, batch_size, world or current_world(), autocast, split, data)
    metrics: dict[str, float] = {}
    counts: dict[str, Any] = {}
    for name in names:
        measure = replace(measure, evaluator=name, cells=cells, pause=pause)
        values, counts[name] = EVALUATORS[name](measure, **settings.get(name) or {})
        metrics |= values
    return {"metrics": metrics, "counts": counts}


def check_evaluators(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], data: Data | None = None) -> None:
    """Raise ConfigError, one line a problem, for unknown names and settings and, given data, what does not fit them.

    All evaluators' problems at once; DataError if only data files are missing or damaged. Cheap: to be called before
    training, so that a long run does not end in a wrong setting.
    """
    problems: list[str] = []
    damages: list[DataError] = []
    for name in names:
        found = _setting_problems(name, settings.get(name) or {})
        if not found and data is not None:
            try:
                found = _data_problems(name, settings.get(name) or {}, data)
            except DataError as error:
                damages.append(error)
        problems += found
    if problems:
        raise ConfigError(*problems, *map(str, damages))
    if damages:
        raise DataError("\n".join(map(str, damages)))


def _setting_problems(name: str, options: Mapping[str, Any]) -> list[str]:
    """What is wrong with an evaluator's name and settings whatever the data are."""
    if name not in EVALUATORS:
        return [f"evaluators has {name!r}, {names_text('evaluator', EVALUATORS, str(name))}"]
    known = list(inspect.signature(EVALUATORS[name]).parameters)[1:]
    problems = []
    for key in options:
        if key not in known:
            near = nearest(str(key), known)
            hint = f"did you mean evaluator.{name}.{near}?" if near else f"there are {', '.join(known) or 'none'}"
            problems.append(f"evaluator.{name}.{key} is not a setting; {hint}")
    repeats = options.get("repeats", 1)
    if not isinstance(repeats, int) or repeats < 1:
        problems.append(f"evaluator.{name}.repeats is {repeats!r}, expected a number >= 1")
    return problems


def _data_problems(name: str, options: Mapping[str, Any], data: Data) -> list[str]:
    """What does not fit the data; raises DataError for files that are missing or damaged."""
    if name == "validation" and "validation" not in data.splits:
        return [f"evaluators has validation, but {data.name} has no validation split; leave it out"]
    try:
        return PROBLEMS[name](options, data) if name in PROBLEMS else []
    except ConfigError as error:
        return list(error.problems)
