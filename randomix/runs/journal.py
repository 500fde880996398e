"""The finished cells of an evaluation, kept until its record is written: one that was killed goes on after them.

A cell is one pass over a test set, such as one severity of one corruption. The file lies in a run's ``evaluations/``,
with one JSON line a cell. Its name says what is evaluated and how, so that no other evaluation reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from randomix import files
from randomix.engine.distributed import World, broadcast_object
from randomix.engine.evaluate import EvalResult
from randomix.engine.protocols import Data
from randomix.records import provenance
from randomix.robustness.evaluators import evaluator_sources
from randomix.robustness.measure import Cell

_ROOT = Path(__file__).resolve().parents[2]


class Journal:
    """The cells in ``path``; collective. Rank 0 reads and writes, the others are told what it read."""

    def __init__(self, path: Path, world: World) -> None:
        self.path, self._main = path, world.is_main
        self._cells: dict[str, Cell] = broadcast_object(_read(path) if world.is_main else None)

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, name: str) -> Cell | None:
        """A cell, if it was finished before."""
        return self._cells.get(name)

    def put(self, name: str, cell: Cell) -> None:
        """Keep a cell, also after a power cut. Raises StorageError."""
        self._cells[name] = cell
        if not self._main:
            return
        result, more = cell
        with files.storage_errors(self.path):
            self.path.parent.mkdir(exist_ok=True)
            files.append_line(self.path, json.dumps({"cell": name, "result": asdict(result), "more": more}))
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def remove(self) -> None:
        """Forget all cells: the record holds what came of them."""
        if self._main:
            with files.storage_errors(self.path):
                self.path.unlink(missing_ok=True)


def open_journal(
    folder: Path,
    model: nn.Module,
    *,
    names: Sequence[str],
    settings: Mapping[str, Any],
    precision: str,
    data: Data,
    world: World,
) -> Journal:
    """The journal in ``folder`` of an evaluation of ``model``'s weights by the evaluators ``names``.

    All that decides a cell goes into the name: these with the evaluators' settings and sources, what the data set says
    of itself, the device's type and the versions of code and torch.
    """
    name = None
    if world.is_main:
        asked = [list(names), {name: settings.get(name) for name in names}, precision, world.device.type]
        used = [data.describe(), evaluator_sources(names, settings, data)]
        code = [*provenance.git_state(_ROOT), torch.__version__]
        text = json.dumps([weights_digest(model), *asked, *used, *code], sort_keys=True)
        name = f"cells-{hashlib.sha256(text.encode()).hexdigest()[:12]}.jsonl"
    return Journal(folder / broadcast_object(name), world)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names and bytes of all weights and buffers."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Cell]:
    """The cells of a file; without it, or after a warning where it is damaged, none."""
    try:
        return {line["cell"]: _cell(line) for line in files.read_jsonl(path)}
    except (ValueError, KeyError, TypeError, OSError) as error:
        print(f"warning: {path}: cannot be read ({error}); its cells are evaluated again", file=sys.stderr, flush=True)
        path.unlink(missing_ok=True)
        return {}


def _cell(line: Mapping[str, Any]) -> Cell:
    result, more = line["result"], list(line["more"])
    wrong = [v for v in (result["correct1"], result["correct5"], result["total"], *more) if type(v) is not int]
    if wrong:
        raise ValueError(f"a count is {wrong[0]!r}")
    return EvalResult(**result | {"bins": tuple(tuple(part) for part in result["bins"])}), more
