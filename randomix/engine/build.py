"""From a configuration to a finished run: the one place that knows configuration and classes together."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randomix.engine import distributed, schema
from randomix.engine.errors import OK, ConfigError
from randomix.engine.protocols import DataFactory, ModelFactory
from randomix.engine.runfolder import RunFolder
from randomix.records import identity

if TYPE_CHECKING:
    from randomix.engine.progress import Reporter
    from randomix.engine.trainer import Trainer


def run_training(
    config: Mapping[str, Any], data_factory: DataFactory, model_factory: ModelFactory, label: str = ""
) -> int:
    """Train what ``config`` (a resolved, plain mapping) says, or continue it, or say that it is finished.

    Returns the exit code; RunErrors carry theirs. With ``trainer.nproc`` > 1 it starts the workers itself.
    """
    parsed = schema.parse(config)
    folder = RunFolder(identity.run_folder(config))
    if folder.finished():
        print(f"{label} already finished: {folder.summary()}; record: {folder.record}".strip(), flush=True)
        return OK
    folder.prepare(resume=parsed.trainer.resume)
    arguments = (config, data_factory, model_factory, label)
    if parsed.trainer.nproc > 1 and not distributed.is_worker():
        threads = parsed.trainer.threads
        return distributed.launch(train_worker, arguments, parsed.trainer.nproc, folder.root, threads_per_process=threads)
    return train_worker(*arguments)


def train_worker(
    config: Mapping[str, Any], data_factory: DataFactory, model_factory: ModelFactory, label: str
) -> int:
    """One rank of a training run, in this process."""
    from randomix.engine.session import TrainingSession

    parsed = schema.parse(config)
    with (
        distributed.init(parsed.trainer.device, parsed.trainer.timeout_minutes) as world,
        TrainingSession(config, parsed, world, label) as session,
    ):
        return session.run(data_factory, model_factory)
