"""The commands that fill what is missing: trainings, or evaluations of finished ones."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grid.plan import Run
from grid.scales import PAPER
from grid.state import DONE, NO_CHECKPOINT, RUNNING, UNEVALUATED, State

EVAL_TRAINER = ("device", "eval_batch_size", "nproc", "threads", "timeout_minutes")  # of them eval.py has, too


@dataclass(frozen=True)
class Task:
    """One command. ``gpus``: how many it takes; ``gpu_hours``, ``cpu_seconds``: estimates; ``states``: what it ends."""

    arguments: tuple[str, ...]  # after ``python``
    title: str
    run: Run
    seeds: tuple[int, ...]
    gpus: int = 1
    gpu_hours: float | None = None
    cpu_seconds: float | None = None

    @property
    def command(self) -> str:
        """As one types it."""
        return shlex.join(["python", *self.arguments])


def tasks_of(run: Run, states: Mapping[int, State], scale: str, more: Sequence[str]) -> list[Task]:
    """What is left of one run. ``more``: overrides of ``trainer`` for all.

    Small runs of several seeds share a process, so that its start is paid for once.
    """
    nproc = _given_nproc(more) or run.config["trainer"]["nproc"]
    dataset, model, digest = run.key
    title = f"{dataset}/{model}/{run.config['mixer']['name']}-{digest}"
    found = []
    for seed in [s for s in run.seeds if states[s].name == UNEVALUATED]:
        there = states[seed]
        precision = [f"trainer.precision={there.precision}"] if there.precision else []  # a cell has one arithmetic
        arguments = (
            "eval.py",
            f"checkpoint={there.folder}",
            *_evaluation(run, there.missing),
            *precision,
            *_for_eval(more),
        )
        what = f"{title}/seed-{seed}: {', '.join(there.missing)}"
        found.append(Task(arguments, what, run, (seed,), _given_nproc(more) or 1))
    seeds = tuple(s for s in run.seeds if states[s].name not in (DONE, RUNNING, UNEVALUATED, NO_CHECKPOINT))
    for group in [(s,) for s in seeds] if scale == PAPER else [seeds] * bool(seeds):
        text = ",".join(map(str, group))
        found.append(
            Task(
                ("train.py", *run.overrides, *more, f"seed={text}"),
                f"{title}/seed-{text}",
                run,
                group,
                nproc,
                _times(run.gpu_hours, len(group)),
                _times(run.cpu_seconds, len(group)),
            )
        )
    return found


def _times(value: float | None, count: int) -> float | None:
    return None if value is None else value * count


def _given_nproc(more: Sequence[str]) -> int | None:
    given = [text.partition("=")[2] for text in more if text.startswith("trainer.nproc=")]
    return int(given[-1]) if given else None


def _evaluation(run: Run, names: Sequence[str]) -> list[str]:
    """Evaluators and those of their settings that differ from eval.py's defaults: all that the run's overrides set."""
    settings = [text for text in run.overrides if text.startswith("evaluator.")]
    return [f"evaluators=[{','.join(names)}]", *[t for t in settings if t.split(".")[1] in names]]


def _for_eval(more: Sequence[str]) -> list[Any]:
    return [t for t in more if t.removeprefix("trainer.").partition("=")[0] in EVAL_TRAINER]
