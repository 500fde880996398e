"""Folders of records: reading them, telling apart what is damaged, foreign or there twice, and adding to them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from randomix.errors import StorageError
from randomix.files import write_atomic
from randomix.records import pareto
from randomix.records.identity import config_hash
from randomix.records.record import RunRecord, read, to_json

RECORD = "record.json"
EVALUATIONS = "evaluations"  # folder in a run's for records of later evaluations
_RUN_FILES = ("config.yaml", "status.json")  # a folder with one of these is a run's


def load(roots: Iterable[str | Path], skip: Iterable[Path] = ()) -> tuple[list[RunRecord], list[str]]:
    """All records below ``roots`` (files or folders) in a fixed order, and one line for each thing that is wrong.

    Folders in ``skip`` are not entered. A run that is there twice counts once: of different ones the newest.
    """
    warnings: list[str] = []
    found: dict[Path, RunRecord] = {}
    for path in _candidates(roots, {p.resolve() for p in skip}, warnings):
        try:
            record = read(path)
        except ValueError as error:
            warnings.append(f"left out: {error}")
            continue
        if config_hash(record.config) != record.config_hash:
            warnings.append(
                f"{path}: config_hash is {record.config_hash}, but its config hashes to "
                f"{config_hash(record.config)}: edited, or of another version: it fills no cell "
                "of the paper's tables"
            )
        found[record.path] = _newest(found.get(record.path), record, warnings)
    return [found[key] for key in sorted(found)], warnings


def add(record: RunRecord, store: str | Path) -> Path:
    """Copy a record into a store under its run's name; returns the path. An equal file is left untouched.

    Readers see the old file or the new one, never a part. Raises StorageError where it cannot be written.
    """
    path, text = Path(store) / record.path, to_json(record)
    if path.is_file() and path.read_bytes() == text.encode():
        return path
    write_atomic(path, text, parents=True)
    return path


def _newest(old: RunRecord | None, new: RunRecord, warnings: list[str]) -> RunRecord:
    """Which of two records of one run counts."""
    if old is None or old == new:
        return old or new
    sound = [config_hash(r.config) == r.config_hash for r in (old, new)]  # an edited one never displaces the run's own
    newer = new.finished > old.finished if sound[0] == sound[1] else sound[1]
    kept, dropped = (new, old) if newer else (old, new)
    warnings.append(
        f"{new.run}: two different records; {kept.source} (finished {kept.finished or 'unknown'}) counts, "
        f"{dropped.source} ({dropped.finished or 'unknown'}) does not"
    )
    return kept


def _candidates(roots: Iterable[str | Path], skip: set[Path], warnings: list[str]) -> Iterator[Path]:
    """The files that should be records; in and below a run's folder only those with a record's name."""
    for root in map(Path, roots):
        if root.is_file():
            yield root
            continue
        runs: list[Path] = []
        for folder, folders, names in os.walk(root):
            here = Path(folder)
            folders[:] = sorted(f for f in folders if not f.startswith(".") and (here / f).resolve() not in skip)
            if any(name in names for name in (RECORD, *_RUN_FILES)):
                runs.append(here)
                if RECORD not in names:
                    warnings.append(f"{here}: no {RECORD} yet{_state(here)}")
            in_run = any(run == here or run in here.parents for run in runs)  # loggers keep JSON files in there too
            mine = here.name == EVALUATIONS if in_run else True
            names = [n for n in sorted(names) if n != pareto.FILE]
            yield from (here / n for n in names if n == RECORD or (mine and fnmatch(n, "[!.]*.json")))


def _state(folder: Path) -> str:
    """What a run's status file says, for the line about a run without a record."""
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        state = status.get("state") or status.get("status")
    except (OSError, ValueError, AttributeError):
        return ""
    return f" (status: {state})" if state else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m randomix.records.store ROOT... STORE`` copies the records below ROOT into STORE."""
    parser = argparse.ArgumentParser(prog="python -m randomix.records.store", description="Copy records into a store.")
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="folders with runs")
    parser.add_argument("store", type=Path, metavar="STORE", help="for example results/records")
    options = parser.parse_args(arguments)
    records, warnings = load(options.roots, skip=[options.store])
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not records:
        print(f"no records of runs below {', '.join(map(str, options.roots))}", file=sys.stderr)
        return 2
    try:
        for record in records:
            print(add(record, options.store))
    except StorageError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
