"""Evaluate the weights of a finished or running training run again, and record what was measured."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from randomix import files, mixers
from randomix.engine import checkpoint as checkpoints
from randomix.engine import distributed, schema
from randomix.engine.optim import resolve_precision
from randomix.engine.protocols import Data, DataFactory, ModelFactory
from randomix.engine.runfolder import RunFolder
from randomix.engine.signals import LAST_WORDS, NOTED
from randomix.errors import OK, Interrupted
from randomix.records import provenance, record
from randomix.robustness.evaluators import check_evaluators, run_evaluators
from randomix.runs.journal import Journal, open_journal
from randomix.runs.setup import set_up_torch


def evaluate_checkpoint(
    config: Mapping[str, Any],
    path: str,
    world: distributed.World,
    data_factory: DataFactory,
    model_factory: ModelFactory,
) -> int:
    """Run ``config["evaluators"]`` on the weights at ``path`` and write ``evaluations/NAME.json`` in the run folder.

    The run's own configuration is read from the checkpoint; weights that were averaged are evaluated as such.
    """
    started = time.time()
    parsed = schema.parse(config, schema.EvalConfig)
    moved = {key: value for key, value in vars(parsed.dataset).items() if value is not None}
    run, epoch, data, model = load_weights(Path(path), moved, data_factory, model_factory)
    check_evaluators(parsed.evaluators, parsed.evaluator, data)
    precision = resolve_precision(parsed.trainer.precision, world.device)
    set_up_torch(precision, parsed.trainer.threads)
    model = model.to(world.device)
    journal = _journal(path, model, parsed, precision.name, data, world)
    with _last_words(journal):
        found = run_evaluators(
            model,
            data.eval_set(world.device),
            names=parsed.evaluators,
            settings=parsed.evaluator,
            batch_size=parsed.trainer.eval_batch_size,
            world=world,
            autocast=precision.autocast,
            split=partial(data.eval_set, world.device),
            data=data,
            cells=journal,
            pause=_pause,
        )
        if not world.is_main:
            return OK
        where = provenance.collect(
            world_size=world.world_size,
            device=world.device.type,
            precision=precision.name,
            threads=torch.get_num_threads(),
            started=started,
        )
        asked = {"checkpoint": Path(path).name, "evaluators": parsed.evaluators, "evaluator": parsed.evaluator}
        found["metrics"] = {"epoch": epoch, **found["metrics"]}
        target = _write(_record(run | asked, found, data, where), Path(path), asked | {"precision": precision.name})
    journal.remove()
    for name, value in found["metrics"].items():
        if name != "epoch":
            print(f"{name:36} {value:.4f}")
    print(f"record: {target}", flush=True)
    return OK


def load_weights(
    path: Path, moved: Mapping[str, Any], data_factory: DataFactory, model_factory: ModelFactory
) -> tuple[dict[str, Any], int, Data, nn.Module]:
    """Configuration, finished epochs, data set and network of the checkpoint at ``path``; averaged weights if it has.

    moved: settings of the data set that differ here, such as its folder. Raises CheckpointError, DataError.
    """
    state = checkpoints.read(path, map_location="cpu")
    run = yaml.safe_load(state["config"])
    run["dataset"] |= moved
    data = data_factory(run["dataset"])
    model = model_factory(run["model"], sample_shape=data.sample_shape, num_classes=data.num_classes)
    model.load_state_dict(state["average"] or state["model"])
    return run, _epoch(state), data, model


def _journal(
    path: str, model: nn.Module, parsed: schema.EvalConfig, precision: str, data: Data, world: distributed.World
) -> Journal:
    """Where the finished parts of this evaluation are kept until it is recorded."""
    folder, _ = RunFolder.of_checkpoint(path)
    if world.is_main:
        files.probe_writable(folder.evaluations)  # hours of attacks may lie before the record
    journal = open_journal(
        folder.evaluations,
        model,
        names=parsed.evaluators,
        settings=parsed.evaluator,
        precision=precision,
        data=data,
        world=world,
    )
    if journal and world.is_main:
        print(f"going on after {len(journal)} finished parts of this evaluation", flush=True)
    return journal


@contextmanager
def _last_words(journal: Journal) -> Iterator[None]:
    """What eval.py says inside when a signal ends it: what is kept, and that the same command goes on with it."""

    def words() -> str:
        if not journal:
            return "interrupted before a part of this evaluation was finished; the same command starts it again"
        return f"interrupted; finished and kept: {len(journal)} parts of this evaluation; the same command continues"

    LAST_WORDS.append(words)
    try:
        yield
    finally:
        LAST_WORDS.remove(words)


def _pause() -> None:
    """Between two passes: beside other evaluations a signal has only left a note."""
    if NOTED:
        raise Interrupted(LAST_WORDS[-1]())


def _record(
    config: Mapping[str, Any], found: Mapping[str, Mapping[str, Any]], data: Data, where: Mapping[str, Any]
) -> str:
    """The record of an evaluation; ``found`` is that of ``run_evaluators``, ``where`` its provenance."""
    return record.build_record(
        config,
        kind="eval",
        history=[],
        best={},
        evaluated=found,
        candidates={},
        mode=mixers.build(config["mixer"], num_classes=data.num_classes).mode.value,
        data=data.describe(),
        provenance=where,
    )


def _write(text: str, path: Path, asked: Mapping[str, Any]) -> Path:
    """Put a record into the run's folder; the same question has the same name."""
    folder, _ = RunFolder.of_checkpoint(path)
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
    target = folder.evaluations / f"{path.stem}-{digest}.json"
    folder.evaluations.mkdir(exist_ok=True)
    files.write_atomic(target, text)
    return target


def _epoch(state: Mapping[str, Any]) -> int:
    """The number of finished epochs of a checkpoint."""
    return int(state["history"][-1]["epoch"]) if state["history"] else 0
