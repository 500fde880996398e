"""results/grid/SCALE.json: the grid for ``randomix.records.grid``, which fills the tables with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grid.plan import Run
from grid.scales import Scale


def text(scale: Scale, runs: Sequence[Run]) -> str:
    """The file's text: one line a run, equal for equal configurations."""
    lines = ",\n  ".join(json.dumps(_entry(run), ensure_ascii=False) for run in runs)
    stand_ins = json.dumps(dict(scale.stand_ins), ensure_ascii=False)
    return f'{{\n "scale": "{scale.name}",\n "stand_ins": {stand_ins},\n "runs": [\n  {lines}\n ]\n}}\n'


def _entry(run: Run) -> Mapping[str, Any]:
    dataset, model, digest = run.key
    names = run.config["evaluators"]
    return {
        "config_hash": digest,
        "dataset": dataset,
        "model": model,
        "label": run.label,
        "command": run.command(),
        "seeds": list(run.seeds),
        "gpu_hours": run.gpu_hours,
        "evaluators": names,
        "evaluation": {name: run.config["evaluator"][name] for name in names},
        "cells": list(run.cells),
    }
