"""From a configuration to a finished run or evaluation. ``datasets/`` and ``models/`` come in as factories."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from randomix.engine import schema
from randomix.engine.launcher import is_worker, launch
from randomix.engine.protocols import DataFactory, ModelFactory
from randomix.engine.runfolder import RunFolder
from randomix.errors import OK
from randomix.records import identity


def run_training(
    config: Mapping[str, Any], data_factory: DataFactory, model_factory: ModelFactory, label: str = ""
) -> int:
    """Train what ``config`` (a resolved, plain mapping) says, or continue it, or say that it is finished.

    Returns the exit code, or raises a RunError that carries it. ``label`` is put before every line on the terminal.
    With ``trainer.nproc`` > 1 it starts the workers itself; under torchrun each process calls it.
    """
    trainer = schema.parse(config).trainer
    folder = RunFolder(identity.run_folder(config))
    if trainer.resume == "auto" and folder.finished():
        folder.require_same_data(config)
        if os.environ.get("RANK", "0") == "0":
            print(f"{label} {folder.say_finished(config)}".strip(), flush=True)
        return OK
    folder.prepare(resume=trainer.resume)
    arguments = (dict(config), data_factory, model_factory, label)
    if not _needs_workers(trainer.nproc):
        return _train(*arguments)
    threads, logs = trainer.threads, folder.root / "logs"
    with folder.locked():
        return launch(_train, arguments, trainer.nproc, logs, threads_per_process=threads, status_file=folder.status)


def run_evaluation(config: Mapping[str, Any], data_factory: DataFactory, model_factory: ModelFactory) -> int:
    """Evaluate ``config["checkpoint"]``, a run folder or a file in its ``checkpoints/``, and write a record."""
    evaluation = schema.parse(config, schema.EvalConfig)
    folder, checkpoint = RunFolder.of_checkpoint(evaluation.checkpoint)
    arguments, trainer = (dict(config), checkpoint, data_factory, model_factory), evaluation.trainer
    if not _needs_workers(trainer.nproc):
        return _evaluate(*arguments)
    return launch(_evaluate, arguments, trainer.nproc, folder.root / "logs", threads_per_process=trainer.threads)


def _needs_workers(nproc: int) -> bool:
    """Whether to start processes: several are asked for, and no launcher has made them already."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not burn a shared machine's cores
    return nproc > 1 and not is_worker()


def _train(config: Mapping[str, Any], data_factory: DataFactory, model_factory: ModelFactory, label: str) -> int:
    """One rank of a training run, in this process."""
    from randomix.engine import distributed
    from randomix.runs.session import TrainingSession

    parsed = schema.parse(config)
    with (
        distributed.init(parsed.trainer.device, parsed.trainer.timeout_minutes) as world,
        TrainingSession(config, parsed, world, label) as session,
    ):
        return session.run(data_factory, model_factory)


def _evaluate(
    config: Mapping[str, Any], checkpoint: str, data_factory: DataFactory, model_factory: ModelFactory
) -> int:
    """One rank of an evaluation, in this process."""
    from randomix.engine import distributed
    from randomix.runs.reevaluate import evaluate_checkpoint

    trainer = schema.parse(config, schema.EvalConfig).trainer
    with distributed.init(trainer.device, trainer.timeout_minutes) as world:
        return evaluate_checkpoint(config, checkpoint, world, data_factory, model_factory)
