"""The grid of a scale: which run fills which cells of the paper's tables, and the records that do.

A grid is results/grid/SCALE.json, written by scripts/reproduce.py. A record belongs to one of its runs if data set,
network and configuration hash are equal, and counts for an evaluator's metric if that evaluator's settings are, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from randomix.records.aggregate import Group, Statistic, group_runs
from randomix.records.identity import config_hash, evaluation
from randomix.records.measures import CLEAN, evaluator_of
from randomix.records.paper import MEAN, TABLES
from randomix.records.record import RunRecord

PAPER = "paper"
SCALES = (PAPER, "demo", "smoke")
_HASH = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class GridRun:
    """One configuration. ``gpu_hours``: the estimate for one seed. ``evaluation``: settings by evaluator."""

    config_hash: str
    dataset: str
    model: str
    label: str
    command: str
    seeds: tuple[int, ...]
    cells: tuple[str, ...]
    gpu_hours: float | None = None
    evaluators: tuple[str, ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        """What its records have in common."""
        return self.dataset, self.model, self.config_hash

    def measures(self, record: RunRecord, metric: str) -> bool:
        """Whether a record's value of ``metric`` was measured with the settings of the grid."""
        name = evaluator_of(metric)
        return name == CLEAN or _settings(record.config, name) == _settings({"evaluator": self.evaluation}, name)


@dataclass(frozen=True)
class Grid:
    """All runs of a scale. ``stand_ins``: data set of the paper to the words on what stands in for it."""

    scale: str
    stand_ins: Mapping[str, str]
    runs: tuple[GridRun, ...]


@dataclass(frozen=True)
class Match:
    """The run that fills a cell, and its records so far."""

    run: GridRun
    group: Group | None

    def statistic(self, metric: str, checkpoint: str = "last") -> Statistic | None:
        """A metric over seeds; None where no record has it."""
        if self.group is None:
            return None
        return self.group.metric(metric, checkpoint, lambda record: self.run.measures(record, metric))


def match(grid: Grid, records: Iterable[RunRecord]) -> dict[str, Match]:
    """The run of each cell with its records. One whose configuration has another hash than it says fills none."""
    groups = {
        (g.dataset, g.model, g.config_hash): g
        for g in group_runs(r for r in records if config_hash(r.config) == r.config_hash)
    }
    return {cell: Match(run, groups.get(run.key)) for run in grid.runs for cell in run.cells}


def read(path: str | Path) -> tuple[Grid | None, list[str]]:
    """The grid in a file and one line for each thing that is wrong with it; None where nothing of it can be used."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, RecursionError):
        return None, [f"{path}: damaged: not JSON text"]
    except json.JSONDecodeError as error:
        return None, [f"{path}: damaged: not JSON ({error.msg}, line {error.lineno})"]
    except OSError as error:
        return None, [f"{path}: cannot be read: {error.strerror}"]
    if not isinstance(content, dict) or "scale" not in content or not isinstance(content.get("runs"), list):
        return None, [f"{path}: foreign: no grid (it has no keys 'scale' and 'runs')"]
    if content["scale"] not in SCALES:
        return None, [f"{path}: damaged: scale must be one of {', '.join(SCALES)}, got {content['scale']!r:.60}"]
    stand_ins = content.get("stand_ins", {})
    if not isinstance(stand_ins, dict) or not all(isinstance(v, str) for v in stand_ins.values()):
        return None, [f"{path}: damaged: stand_ins must map data sets to words, got {stand_ins!r:.60}"]
    if content["scale"] != PAPER and not stand_ins:
        return None, [f"{path}: damaged: stand_ins is empty, but at scale {content['scale']} something stands in"]
    lines: list[str] = []
    runs = _runs(content["runs"], str(path), lines)
    return Grid(content["scale"], stand_ins, runs), lines


def _runs(entries: list[Any], path: str, lines: list[str]) -> tuple[GridRun, ...]:
    """The runs that can be used; a cell belongs to the first that names it."""
    known = {f"{t.slug}/{r.key}/{c.key}" for t in TABLES for r in t.rows for c in t.columns}
    runs: list[GridRun] = []
    owner: dict[str, int] = {}
    for index, entry in enumerate(entries):
        where = f"{path}: runs[{index}]"
        problem = _problem(entry)
        if problem:
            lines.append(f"{where}: left out: {problem}")
            continue
        cells = []
        for cell in entry["cells"]:
            if cell not in known:
                lines.append(f"{where}: {cell!r:.80} is no cell of the paper's tables")
            elif cell in owner:
                lines.append(f"{where}: cell {cell} is filled by runs[{owner[cell]}] already, which counts")
            elif not cell.endswith(f"/{MEAN}"):  # computed from other cells
                owner[cell] = index
                cells.append(cell)
        texts = {k: entry[k] for k in ("config_hash", "dataset", "model", "label", "command")}
        runs.append(
            GridRun(
                **texts,
                seeds=tuple(entry["seeds"]),
                cells=tuple(cells),
                gpu_hours=entry.get("gpu_hours"),
                evaluators=tuple(entry.get("evaluators", ())),
                evaluation=entry.get("evaluation", {}),
            )
        )
    return tuple(runs)


def _problem(entry: Any) -> str:
    """What is wrong with a run's entry, or an empty text."""
    if not isinstance(entry, dict):
        return f"must be an object, got {entry!r:.60}"
    for key in ("config_hash", "dataset", "model", "label", "command"):
        if not isinstance(entry.get(key), str):
            return f"{key} must be a string, got {entry.get(key)!r:.60}"
    if not _HASH.fullmatch(entry["config_hash"]):
        return f"config_hash must be eight hexadecimal digits, got {entry['config_hash']!r:.60}"
    if "\n" in entry["command"]:
        return "command must be one line"
    if not _is_list(entry.get("seeds"), int) or not entry["seeds"]:
        return f"seeds must be a list of integers, got {entry.get('seeds')!r:.60}"
    if not _is_list(entry.get("cells"), str):
        return f"cells must be a list of ids, got {entry.get('cells')!r:.60}"
    hours = entry.get("gpu_hours")
    if hours is not None and (isinstance(hours, bool) or not isinstance(hours, int | float) or not 0 <= hours < 1e9):
        return f"gpu_hours must be a number or null, got {hours!r:.60}"
    settings = entry.get("evaluation", {})
    if not isinstance(settings, dict) or not all(isinstance(v, dict) for v in settings.values()):
        return f"evaluation must map evaluators to their settings, got {settings!r:.60}"
    if not _is_list(entry.get("evaluators", []), str):
        return f"evaluators must be a list of names, got {entry.get('evaluators')!r:.60}"
    return ""


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)


def _settings(config: Mapping[str, Any], name: str) -> dict[str, Any] | None:
    """One evaluator's settings without neutral ones; None where the configuration has no evaluators."""
    found = evaluation(config)
    return None if found is None else found.get(name, {})
