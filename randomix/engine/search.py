"""The search for candidates and weights: what a trial is, which one comes next, and which ones no other beats.

Optuna proposes the trials (T. Akiba et al.: Optuna, KDD 2019); it is imported where it is used. A study has no storage
of its own: what is proposed is a function of the seed and of the values told before, and those are in the records of
the runs. The same command proposes the same trials again, finds their runs finished, and goes on with the next.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from randomix.engine.rules import Rule, at_least, choice
from randomix.engine.validation import names_text, show
from randomix.records.measures import ERRORS
from randomix.records.pareto import pareto_front
from randomix.records.record import dumps

if TYPE_CHECKING:
    import optuna

Weights = tuple[int, ...]  # one a candidate; 0 leaves the candidate out
Values = tuple[float, ...]  # one an objective
SWEEPER = "hydra_plugins.randomix.WeightsSweeper"  # Hydra takes plugins of the package hydra_plugins only
_SAMPLERS = {"tpe": "TPESampler", "nsgaii": "NSGAIISampler", "random": "RandomSampler"}
_PATIENCE = 200  # proposals in a row that bring nothing new before the space counts as searched
_RULES = {
    "objectives": Rule(list[str], "with at least one entry", bool),
    "trials": at_least(1),
    "batch": at_least(1),
    "max_weight": at_least(1),
    "start": Rule(list),
    "sampler": choice(*_SAMPLERS),
    "seed": Rule(int, "of at least 0 and below 2^32", lambda v: 0 <= v < 2**32),
}


@dataclass(frozen=True)
class Search:
    """Settings of a search; their meaning is in configs/hydra/sweeper/weights.yaml."""

    objectives: list[str]
    trials: int
    batch: int
    max_weight: int
    start: list[list[int]]
    sampler: str
    seed: int


@dataclass(frozen=True)
class Trial:
    """One vector of weights and what came out: ``values`` is None where one of its ``runs`` failed."""

    weights: Weights
    values: Values | None
    runs: tuple[str, ...] = ()


def problems(settings: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """What is wrong with a search for runs of ``config``, one line each."""
    if importlib.util.find_spec("optuna") is None:
        return ["hydra/sweeper=weights: needs optuna; pip install 'randomix[search]'"]
    mixer, evaluators = (config.get(key) for key in ("mixer", "evaluators"))
    if not isinstance(mixer, Mapping) or not isinstance(evaluators, list):
        return []  # the validation of the runs says so
    candidates, name = mixer.get("candidates"), mixer.get("name")
    if not isinstance(candidates, list) or len(candidates) < 2:
        return [f"mixer={name}: a search needs a method with at least two candidates; write mixer=randomix"]
    found = [
        f"hydra.sweeper.{key}={show(settings[key])}: must be {rule.allowed()}"
        for key, rule in _RULES.items()
        if not rule.accepts(settings[key])
    ]
    if found:
        return found
    for objective in settings["objectives"]:
        evaluator = ERRORS.get(objective)
        if evaluator is None:
            found.append(f"hydra.sweeper.objectives: {objective} {names_text('objective', ERRORS, objective)}")
        elif evaluator not in evaluators:
            found.append(f"evaluators={show(evaluators)}: {objective} is measured by {evaluator}; add it")
    return found + [text for weights in settings["start"] for text in _start_problems(weights, settings, candidates)]


def _start_problems(weights: Any, settings: Mapping[str, Any], candidates: Sequence[Any]) -> Iterator[str]:
    key, most, count = f"hydra.sweeper.start: {show(weights)}", settings["max_weight"], len(candidates)
    if not isinstance(weights, list) or not all(type(w) is int and 0 <= w <= most for w in weights) or not any(weights):
        yield f"{key} must be a list of whole numbers from 0 to max_weight={most}, not all 0"
    elif len(weights) != count:
        yield f"{key} has {len(weights)} entries but mixer.candidates has {count}; write hydra.sweeper.start=[]"


def reduced(weights: Sequence[int]) -> Weights:
    """The smallest whole numbers in the same proportion: [2, 2, 0] draws as [1, 1, 0] does."""
    divisor = math.gcd(*weights) or 1
    return tuple(w // divisor for w in weights)


def chosen(candidates: Sequence[Any], weights: Sequence[int]) -> tuple[list[Any], list[int]]:
    """The candidates that are drawn at all, and their weights."""
    used = [(c, w) for c, w in zip(candidates, weights, strict=True) if w]
    return [c for c, _ in used], [w for _, w in used]


def overrides(candidates: Sequence[Any], weights: Sequence[int]) -> list[str]:
    """The settings of a trial as they are written on the command line."""
    names, values = chosen(candidates, weights)
    return [f"mixer.candidates={show(names)}", f"mixer.weights={show(values)}"]


def explore(
    search: Search, count: int, launch: Callable[[Sequence[Weights]], Sequence[Trial]]
) -> Iterator[list[Trial]]:
    """Search the weights of ``count`` candidates; yields all trials so far after each batch, which ``launch`` runs.

    Equal proportions are one trial, and only different ones count.
    """
    study = _study(search, count)
    found: dict[Weights, Trial] = {}
    while batch := _next_batch(study, search, count, found):
        for (weights, proposals), trial in zip(batch.items(), launch(list(batch)), strict=True):
            found[weights] = trial
            for proposal in proposals:
                _tell(study, proposal, trial)
        yield list(found.values())


def _study(search: Search, count: int) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = getattr(optuna.samplers, _SAMPLERS[search.sampler])(seed=search.seed)
    study = optuna.create_study(directions=["minimize"] * len(search.objectives), sampler=sampler)
    for weights in search.start:
        study.enqueue_trial({_name(i): weights[i] for i in range(count)})
    return study


def _next_batch(
    study: optuna.Study, search: Search, count: int, found: Mapping[Weights, Trial]
) -> dict[Weights, list[optuna.Trial]]:
    """Proposals that are new, up to a batch; several for one vector where a batch proposes it twice."""
    batch: dict[Weights, list[optuna.Trial]] = {}
    size, idle = min(search.batch, search.trials - len(found)), 0
    while len(batch) < size and idle < _PATIENCE:
        proposal = study.ask()
        weights = reduced([proposal.suggest_int(_name(i), 0, search.max_weight) for i in range(count)])
        idle = 0 if any(weights) and weights not in found and weights not in batch else idle + 1
        if not any(weights) or weights in found:
            _tell(study, proposal, found.get(weights))
        else:
            batch.setdefault(weights, []).append(proposal)
    return batch


def _tell(study: optuna.Study, proposal: optuna.Trial, trial: Trial | None) -> None:
    from optuna.trial import TrialState

    values = trial.values if trial else None
    study.tell(proposal, values, state=None if values else TrialState.FAIL)


def _name(index: int) -> str:
    return f"weight_{index}"


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats, by their first objective."""
    done = [(t, t.values) for t in trials if t.values is not None]
    best = [done[i] for i in pareto_front([values for _, values in done])]
    return [trial for trial, _ in sorted(best, key=lambda pair: pair[1])]


def to_text(search: Search, candidates: Sequence[Any], seeds: Sequence[int], trials: Sequence[Trial]) -> str:
    """The Pareto front in words and numbers, one line a trial."""
    best = front(trials)
    weights = [show(list(t.weights)) for t in best]
    width = max([len(w) for w in weights] + [len("weights")])
    over = f"the mean of {len(seeds)} seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    failed = sum(t.values is None for t in trials)
    lines = [
        f"Pareto front: {len(best)} of {len(trials)} trials, {over}" + (f"; {failed} failed" if failed else ""),
        f"weights of {show(list(candidates))}",
        "  ".join(["weights".ljust(width), *search.objectives]),
    ]
    for text, trial in zip(weights, best, strict=True):
        cells = [f"{v:.2f}".rjust(len(o)) for v, o in zip(trial.values or (), search.objectives, strict=True)]
        lines.append("  ".join([text.ljust(width), *cells]))
    return "\n".join(lines)


def to_json(search: Search, candidates: Sequence[Any], seeds: Sequence[int], trials: Sequence[Trial]) -> str:
    """The search as JSON, one line a trial with the names of its runs, whose records hold the evidence."""
    best = {t.weights for t in front(trials)}
    head = {
        "candidates": list(candidates),
        "objectives": search.objectives,
        "seeds": list(seeds),
        "sampler": search.sampler,
        "sampler_seed": search.seed,
        "start": search.start,
        "optuna": importlib.metadata.version("optuna"),
    }
    lines = [
        dumps(
            {
                "weights": list(t.weights),
                "front": t.weights in best,
                "runs": t.runs,
                "values": dict(zip(search.objectives, t.values, strict=True)) if t.values else None,
            }
        )
        for t in trials
    ]
    fields = [f"{dumps(key)}: {dumps(value)}" for key, value in head.items()]
    return "{\n " + ",\n ".join([*fields, '"trials": [\n  ' + ",\n  ".join(lines) + "\n ]"]) + "\n}\n"
