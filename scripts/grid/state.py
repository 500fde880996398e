"""How a run stands: by its folder below output_root and by committed records. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grid.plan import Run
from randomix.engine import status
from randomix.records import record
from randomix.records.aggregate import is_final
from randomix.records.identity import config_hash, evaluation, run_folder, run_name
from randomix.records.measures import CLEAN, MEASURED_BY

STATES = ("done", "running", "interrupted", "failed", "missing", "unevaluated", "without checkpoint")
DONE, RUNNING, INTERRUPTED, FAILED, MISSING, UNEVALUATED, NO_CHECKPOINT = STATES
# What an evaluator has to have measured to fill its cells.
METRICS = {name: metric for metric, name in reversed(MEASURED_BY.items())} | {CLEAN: "top1"}


@dataclass(frozen=True)
class State:
    """``missing``: evaluators without a value. ``folder``: of the run. ``precision``: what it was trained in, if known.

    Without a checkpoint: trained, but what it was not evaluated for can no longer be.
    """

    name: str
    folder: Path
    missing: tuple[str, ...] = ()
    precision: str | None = None


def state_of(run: Run, seed: int, store: Path) -> State:
    """How one seed of a run stands. ``store``: the folder of committed records."""
    config = run.with_seed(seed)
    folder = run_folder(config)
    trained, missing = None, list(config["evaluators"])
    for found in _records(config, folder, store):
        trained = trained or (found if found.kind == "train" else None)
        missing = [name for name in missing if not _measures(found, name, config)]
    if trained and not missing:
        return State(DONE, folder)
    known = status.read(folder / "status.json")
    if _locked(folder) and (trained or (known and known.state == "running")):
        return State(RUNNING, folder, tuple(missing))
    if trained and (folder / "checkpoints" / "last.pt").is_file():
        return State(UNEVALUATED, folder, tuple(missing), trained.provenance.get("precision"))
    if trained and known and known.state == "finished" and (folder / "record.json").is_file():  # train.py: finished
        return State(NO_CHECKPOINT, folder, tuple(missing))
    left = {"running": INTERRUPTED, "interrupted": INTERRUPTED, "failed": FAILED}
    return State(left.get(known.state if known else "", MISSING), folder, tuple(missing))


def _records(config: Mapping[str, Any], folder: Path, store: Path) -> Iterator[record.RunRecord]:
    """The sound records of this run: its own, those of later evaluations, and committed ones."""
    name, committed = run_name(config), store / f"{run_name(config)}.json"
    paths = [folder / "record.json", *sorted((folder / "evaluations").glob("*.json"))]
    for path in [*paths, committed, *sorted(committed.parent.glob(f"{committed.stem}.eval-*.json"))]:
        if not path.is_file():
            continue
        try:
            found = record.read(path)
        except ValueError:
            continue  # the run makes it again
        if found.run == name and config_hash(found.config) == found.config_hash:
            yield found


def _measures(found: record.RunRecord, name: str, config: Mapping[str, Any]) -> bool:
    """Whether a record has an evaluator's value after the end of training, with the settings asked for.

    As the tables have it: ``randomix.records.grid``.
    """
    if not is_final(found) or found.metric(METRICS[name]) is None:
        return False
    there, here = evaluation(found.config) or {}, evaluation(config) or {}
    return there.get(name, {}) == here.get(name, {})


def _locked(folder: Path) -> bool:
    """Whether a process is training there."""
    from filelock import FileLock, Timeout

    if not (folder / ".lock").is_file():
        return False
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that cannot be written
        return False
