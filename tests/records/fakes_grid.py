"""Made-up grids and the records that fill them: the values are no measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from randomix.records.identity import config_hash
from randomix.records.paper import TABLES
from randomix.records.record import RunRecord, from_json
from tests.records.fakes import config, text

STAND_INS = {
    "cifar10": "Fake digits",
    "cifar100": "Fake digits",
    "tiny_imagenet": "Fake digits",
    "imagenet": "Fake digits",
    "speech_commands": "Fake words",
}
EVALUATION = {"noise": {"sigma": 0.2}, "fgsm": {"eps_255": 8.0}, "occlusion": {"block": 16}}
EVALUATORS = {"evaluator": EVALUATION, "evaluators": ["clean", *EVALUATION]}


def settings_of(row: str, table: int) -> dict[str, Any]:
    """A recipe of its own for each row and table, so that each has a hash of its own."""
    return {"recipe": {"note": f"{table}-{row}"}, **EVALUATORS}


def method_of(row: str) -> str:
    """The mixer of a row."""
    return row.removeprefix("authors-").partition("-")[0] if row.islower() else "randomix"


def run(row: str, table: int, cells: Sequence[str], seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """A run of a grid that fills the columns ``cells`` of a row."""
    return {
        "config_hash": config_hash(config(method_of(row), 0, **settings_of(row, table))),
        "dataset": "digits",
        "model": "preact_resnet18",
        "label": row,
        "seeds": list(seeds),
        "gpu_hours": 1.25,
        "command": f"python train.py experiment=table{table} mixer={method_of(row)} seed={','.join(map(str, seeds))}",
        "evaluators": ["clean", "fgsm"],
        "evaluation": EVALUATION,
        "cells": [f"table{table}/{row}/{c}" for c in cells],
    }


def grid(scale: str = "paper", runs: Sequence[Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """A grid; by default one run a row of each table."""
    if runs is None:
        runs = [
            run(row.key, t.number, [i.rpartition("/")[2] for i in t.cell_ids() if f"/{row.key}/" in i])
            for t in TABLES
            for row in t.rows
        ]
    return {"scale": scale, "stand_ins": {} if scale == "paper" else STAND_INS, "runs": list(runs)}


def write_grid(folder: Path, content: Mapping[str, Any]) -> Path:
    """The grid's file below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{content['scale']}.json"
    path.write_text(json.dumps(content))
    return path


def record(
    row: str,
    table: int,
    seed: int = 0,
    error: float = 10.0,
    /,
    *,
    extra: Mapping[str, Any] | None = None,
    **options: Any,
) -> RunRecord:
    """A record of a grid's run; ``extra``: more metrics of the last epoch."""
    return from_json(record_text(row, table, seed, error, extra=extra, **options))


def record_text(
    row: str,
    table: int,
    seed: int = 0,
    error: float = 10.0,
    /,
    *,
    extra: Mapping[str, Any] | None = None,
    **options: Any,
) -> str:
    """Its JSON text."""
    content = json.loads(text(method_of(row), seed, error, **(settings_of(row, table) | options)))
    content["metrics"]["last"] |= extra or {}
    return json.dumps(content)
