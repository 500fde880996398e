"""One rank of one run, from data to record: what surrounds the training loop."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import Any

import torch
import yaml

from randomix import files
from randomix.engine import checkpoint as checkpoints
from randomix.engine import distributed
from randomix.engine.checkpoint import Checkpointer
from randomix.engine.launcher import STORE, describe
from randomix.engine.loggers import SafeTracker
from randomix.engine.microbatch import find_micro_batch
from randomix.engine.progress import Reporter
from randomix.engine.protocols import Data, DataFactory, ModelFactory
from randomix.engine.rules import micro_batch_sizes
from randomix.engine.runfolder import RunFolder
from randomix.engine.schema import TrainConfig
from randomix.engine.signals import LAST_WORDS
from randomix.engine.status import Status
from randomix.engine.stopper import Stopper
from randomix.engine.trainer import Trainer
from randomix.errors import BUG, INTERRUPTED, OK, ConfigError, Interrupted, RunError, StorageError
from randomix.records import identity, provenance, record
from randomix.robustness.evaluators import run_evaluators
from randomix.runs.journal import open_journal
from randomix.runs.parts import build_parts, set_micro_batch, work_of


class TrainingSession:
    """Owns the run folder, the log and the tracker of a run; rank 0 alone writes."""

    def __init__(self, raw: Mapping[str, Any], config: TrainConfig, world: distributed.World, label: str) -> None:
        self.raw, self.config, self.world = raw, config, world
        self.folder = RunFolder(identity.run_folder(raw))
        self.name = identity.run_name(raw)
        self._label = label
        self._trainer: Trainer | None = None
        self._micro_batch_size: int | None = None  # of the checkpoint that is continued, then of this run
        self._exits = contextlib.ExitStack()

    def __enter__(self) -> TrainingSession:
        main = self.world.is_main
        if main and STORE not in os.environ:  # our launcher holds the lock for its workers
            self._exits.enter_context(self.folder.locked())
        log = self.folder.log if main else self.folder.root / "logs" / f"rank-{self.world.rank}.log"
        log.parent.mkdir(exist_ok=True)
        self.reporter = self._exits.enter_context(Reporter(log, label=self._label, quiet=not main))
        if main:
            for folder in (self.folder.root, self.folder.checkpoints):
                files.remove_orphans(folder)  # of writers that were killed
            self._write_status("running")
        LAST_WORDS.append(self._last_words)
        self._exits.callback(LAST_WORDS.remove, self._last_words)
        return self

    @property
    def trainer(self) -> Trainer:
        """What trains, once ``run`` has built it."""
        if self._trainer is None:
            raise RuntimeError("nothing is built yet")
        return self._trainer

    def _last_words(self) -> str:
        """What is left behind and said when a signal ends the process without a Stopper: before and after training."""
        begun = (self.folder.checkpoints / "last.pt").exists()
        words = "interrupted" if begun else "interrupted before the first step"
        if self.world.is_main:
            with contextlib.suppress(StorageError):
                self._write_status("interrupted", reason=words)
        return f"{words}; the same command {'continues' if begun else 'starts it'}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        try:
            if isinstance(error, Exception | KeyboardInterrupt) and self.world.is_main:
                failure = describe(error)
                state = "interrupted" if failure.code == INTERRUPTED else "failed"
                with contextlib.suppress(
                    StorageError
                ):  # a full disk may be why it failed: that error is the one to show
                    self._write_status(state, reason=failure.line.splitlines()[0], exit_code=failure.code)
        finally:
            self._exits.close()

    def _write_status(self, state: str, reason: str = "", exit_code: int | None = None) -> None:
        trainer = self._trainer
        step = trainer.progress.step if trainer else None
        epoch = trainer.progress.step // trainer.steps_per_epoch if trainer else None
        last = self.folder.checkpoints / "last.pt"
        checkpoint = str(last.relative_to(self.folder.root)) if last.exists() else None
        Status(self.folder.status).update(
            state, step=step, epoch=epoch, checkpoint=checkpoint, reason=reason, exit_code=exit_code
        )

    # -- the run -------------------------------------------------------------------------------------------------

    def run(self, data_factory: DataFactory, model_factory: ModelFactory) -> int:
        """Build, resume, train, evaluate, record. Raises Interrupted after a checkpoint if a signal came."""
        data, self._trainer = build_parts(self.config, self.world, data_factory, model_factory)
        settings = self.config.trainer
        self.checkpointer = Checkpointer(self.folder.checkpoints, settings.keep_last, log=self.reporter.warn)
        where = provenance.collect(  # before training: the code may change on disk while it runs
            world_size=self.world.world_size,
            device=self.world.device.type,
            precision=self.trainer.precision.name,
            threads=torch.get_num_threads(),
            started=time.time(),
        )
        self._resume()
        if settings.micro_batch_size is not None:
            where["micro_batch_size"] = self._micro_batch(data)
        if self.world.is_main:
            left = self.config.recipe.epochs - self.trainer.progress.step // self.trainer.steps_per_epoch
            self.checkpointer.require_space(self.trainer.state_bytes(), -(-left // settings.checkpoint_every_epochs))
            files.write_atomic(self.folder.config, yaml.safe_dump(dict(self.raw), sort_keys=False))
        logger = self.config.logger if self.world.is_main else {}
        self.tracker = SafeTracker(logger, self.folder.root, self.name, self.raw, self.reporter.warn)
        interval = 16 if self.world.device.type == "cuda" else 1  # a GPU's host need not meet the others at each step
        try:
            with Stopper(self.trainer.guard, interval) as stopper:
                self._train(data, stopper)
                metrics = self._evaluate(data, stopper)
        except BaseException as error:
            self.tracker.finish(error.exit_code if isinstance(error, RunError) else BUG)
            raise
        if self.world.is_main:
            self._write_record(data, metrics, where)
        self.tracker.finish(OK)
        return OK

    def _micro_batch(self, data: Data) -> int:
        """How many samples a rank computes at a time: as set, as in the checkpoint, or as many as are found to fit."""
        trainer, wanted = self.trainer, self.config.trainer.micro_batch_size
        if isinstance(wanted, int):
            size = wanted
        else:  # auto
            work, known = work_of(trainer, data, self.world.world_size), self._micro_batch_size
            if known is not None and known in micro_batch_sizes(work.share):
                size = known
            else:
                found = find_micro_batch(work, self.world)
                self.reporter.line(found.describe())
                size = found.size
            set_micro_batch(trainer, size)
        self._micro_batch_size = size
        return size

    def _resume(self) -> None:
        """Continue from the newest good checkpoint; rank 0 says which, so that all ranks read the same one."""
        loaded = self.checkpointer.load() if self.world.is_main else None
        name = distributed.broadcast_object(loaded.path.name if loaded else None)
        if name is None:
            return
        state = loaded.state if loaded else checkpoints.read(self.folder.checkpoints / name)
        trainer, ranks = self.trainer, state["world_size"]
        if ranks != self.world.world_size and not trainer.loader.any_ranks:
            raise ConfigError(
                f"the checkpoint was written by {ranks} rank(s), this run has {self.world.world_size}, "
                f"and shards are dealt to ranks: continue with trainer.nproc={ranks} (or torchrun "
                f"--nproc_per_node {ranks}), or start anew with another output_root"
            )
        trainer.load_state(state)
        self._micro_batch_size = state.get("micro_batch_size")
        self.reporter.line(f"continuing {self.name} at step {trainer.progress.step} of {trainer.total_steps}")
        if ranks != self.world.world_size:
            self.reporter.warn(
                f"the checkpoint was written by {ranks} rank(s), this run has {self.world.world_size}: "
                "the data order is the same, the result is not bit-equal"
            )

    def _train(self, data: Data, stopper: Stopper) -> None:
        trainer, reporter = self.trainer, self.reporter
        if self.world.is_main:
            self._rewrite_metrics()
        reporter.line(self._headline(data))
        reporter.start(self.name, trainer.total_steps, trainer.progress.step)
        if not trainer.fit(stopper, reporter.advance, self._after_epoch):
            self._checkpoint(improved=False)
            raise self._interrupted(stopper)
        reporter.stop()

    def _evaluate(self, data: Data, stopper: Stopper) -> dict[str, dict[str, Any]]:
        """The final evaluators; a signal ends the run between two passes over the test set, training being saved."""
        trainer, config = self.trainer, self.config
        distributed.sync_buffers(trainer.evaluated_model)
        self.journal = open_journal(
            self.folder.evaluations,
            trainer.evaluated_model,
            names=config.evaluators,
            settings=config.evaluator,
            precision=trainer.precision.name,
            data=data,
            world=self.world,
        )
        if self.journal:
            self.reporter.line(f"going on after {len(self.journal)} finished parts of the evaluation")

        def pause() -> None:
            if stopper.check(0).stop:
                raise self._interrupted(stopper)

        return run_evaluators(
            trainer.evaluated_model,
            trainer.eval_set,
            names=config.evaluators,
            settings=config.evaluator,
            batch_size=config.trainer.eval_batch_size,
            world=self.world,
            autocast=trainer.precision.autocast,
            split=partial(data.eval_set, self.world.device),
            data=data,
            cells=self.journal,
            pause=pause,
        )

    def _interrupted(self, stopper: Stopper) -> Interrupted:
        step, total = self.trainer.progress.step, self.trainer.total_steps
        reason = stopper.reason or "a signal to another rank"
        return Interrupted(f"stopped by {reason} at step {step} of {total}; the same command continues")

    def _headline(self, data: Data) -> str:
        trainer, device = self.trainer, self.world.device
        return (
            f"{self.name}: {identity.mixer_label(self.config.mixer)}, {data.num_train} training samples, "
            f"{self.config.recipe.epochs} epochs of {trainer.steps_per_epoch} steps, {device.type}, "
            f"{trainer.precision.name}, {self.world.world_size} rank(s)"
        )

    def _after_epoch(self, metrics: dict[str, float], improved: bool) -> None:
        trainer, epoch = self.trainer, int(metrics["epoch"])
        last = trainer.progress.step == trainer.total_steps
        if last or epoch % self.config.trainer.checkpoint_every_epochs == 0 or improved:
            self._checkpoint(improved)
        if not self.world.is_main:
            return
        files.append_line(self.folder.metrics, record.dumps(metrics))
        self.tracker.log(metrics, trainer.progress.step)
        text = f"epoch {epoch}/{self.config.recipe.epochs}  loss {metrics['train_loss']:.4f}"
        if "top1" in metrics:
            text += f"  top1 {metrics['top1']:.2f} %"
        self.reporter.advance(trainer.progress.step, note=text)
        if last or epoch % max(self.config.recipe.epochs // 10, 1) == 0:
            self.reporter.line(f"{text}  {metrics['images_per_second']:.0f} images/s")

    # -- what stays ----------------------------------------------------------------------------------------------

    def _checkpoint(self, improved: bool) -> None:
        content = self.trainer.state() | {"config": yaml.safe_dump(dict(self.raw), sort_keys=False)}
        content["micro_batch_size"] = self._micro_batch_size
        if not self.world.is_main:
            return
        self.checkpointer.save(content, step=self.trainer.progress.step, is_best=improved)
        self._write_status("running")

    def _rewrite_metrics(self) -> None:
        """Lines written after the checkpoint that the run continues from are trained again: leave them out."""
        lines = "".join(record.dumps(m) + "\n" for m in self.trainer.progress.history)
        files.write_atomic(self.folder.metrics, lines)

    def _write_record(self, data: Data, evaluated: dict[str, Any], where: dict[str, Any]) -> None:
        from safetensors.torch import save

        trainer = self.trainer
        weights = {k: v.detach().cpu().contiguous() for k, v in trainer.evaluated_model.state_dict().items()}
        files.write_atomic(self.folder.weights, save(weights))
        content = record.build_record(
            self.raw,
            history=trainer.progress.history,
            best=trainer.progress.best,
            evaluated=evaluated,
            candidates=dict(trainer.progress.candidates),
            mode=trainer.mixer.mode.value,
            data=data.describe(),
            provenance=where | {"finished": provenance.iso(time.time())},
        )
        files.write_atomic(self.folder.record, content)
        self._write_status("finished", exit_code=OK)
        self.journal.remove()
        self.reporter.line(f"finished: {self.folder.summary()}; record: {self.folder.record}")
