"""The training loop around the step: epochs, metrics, evaluation, and the state from which it goes on."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from randomix.engine import distributed
from randomix.engine.checkpoint import FORMAT
from randomix.engine.evaluate import evaluate
from randomix.engine.graphed import GraphedStep
from randomix.engine.optim import Precision, learning_rate
from randomix.engine.protocols import Batch, Data
from randomix.engine.schema import TrainConfig
from randomix.engine.step import TrainStep
from randomix.engine.stopper import Stopper
from randomix.errors import ConfigError
from randomix.mixers.base import Mixer


@dataclass
class Progress:
    """How far a run is; with the weights and the optimiser this is all of its state."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    candidates: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # of the epoch in progress, training only
    cpu_seconds: float = 0.0


class Trainer:
    """Trains one network on one rank.

    Every random choice is a function of (seed, step, rank), so that ``state()`` needs no generator and a run
    continued from it ends bit-equal to one that was never interrupted.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Data,
        model: nn.Module,
        mixer: Mixer,
        world: distributed.World,
        precision: Precision,
    ) -> None:
        recipe = config.recipe
        self.config, self.recipe, self.mixer, self.world, self.precision = config, recipe, mixer, world, precision
        self.model = model.to(world.device)
        if len(data.sample_shape) == 3:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.loader = data.train_loader(
            batch_size=recipe.batch_size,
            seed=config.seed,
            rank=world.rank,
            world_size=world.world_size,
            device=world.device,
            dtype=precision.dtype,
        )
        self.eval_set = data.eval_set(world.device)
        self.data = data.describe()
        self.steps_per_epoch = self.loader.steps_per_epoch
        self.total_steps = recipe.epochs * self.steps_per_epoch
        kind = GraphedStep if config.trainer.cuda_graph else TrainStep
        self.stepper = kind(config, self.model, mixer, world, precision, self.steps_per_epoch)
        self.optimizer, self.scaler, self.average = self.stepper.optimizer, self.stepper.scaler, self.stepper.average
        self.network, self.meter, self.guard = self.stepper.network, self.stepper.meter, self.stepper.guard
        self.criterion = self.stepper.criterion
        self.progress = Progress()
        self._counted = 0  # of what the loader replaced

    def step(self, step: int, batch: Batch, stopper: Stopper) -> bool:
        """Train on one rank's batch; True: stop after this step. Raises NonFiniteError: see TrainStep.run."""
        stop = self.stepper.run(step, batch, stopper)
        self.progress.candidates.update(self.stepper.methods)
        return stop

    # -- the run -------------------------------------------------------------------------------------------------

    def fit(
        self,
        stopper: Stopper,
        on_step: Callable[[int], None],
        on_epoch: Callable[[dict[str, float], bool], None],
    ) -> bool:
        """Train from ``progress.step`` to the end; True if it got there, False if a signal stopped it.

        ``on_step(step)`` runs after each step, ``on_epoch(metrics, improved)`` after each evaluated epoch.
        """
        self.model.train()
        clock = _Clock(self.progress)
        with contextlib.closing(self.loader.batches(self.progress.step, self.total_steps)) as batches:
            for batch in batches:
                stop = self.step(self.progress.step, batch, stopper)
                self.progress.step += 1
                on_step(self.progress.step)
                if self.progress.step % self.steps_per_epoch == 0:
                    self._end_epoch(clock, on_epoch)
                if stop and self.progress.step < self.total_steps:
                    clock.stop()
                    return False
        return True

    def _end_epoch(self, clock: _Clock, on_epoch: Callable[[dict[str, float], bool], None]) -> None:
        train = self.meter.read(reduce=distributed.all_reduce_sum)  # waits for the device: the epoch is over here
        clock.stop()
        self.stepper.require_finite(self.progress.step)
        progress, epoch = self.progress, self.progress.step // self.steps_per_epoch
        images = self.steps_per_epoch * self.recipe.batch_size
        metrics: dict[str, float] = {
            "epoch": epoch,
            "step": progress.step,
            "lr": learning_rate(progress.step - 1, self.recipe, self.steps_per_epoch),
            "train_loss": train["loss"],
            "soft_top1": train["soft_top1"],
            "seconds": progress.seconds,
            "cpu_seconds": progress.cpu_seconds,
            "images_per_second": images / progress.seconds,
        }
        if replaced := self._replaced():
            metrics["replaced"] = replaced
        improved = False
        if epoch % self.config.trainer.eval_every_epochs == 0 or progress.step == self.total_steps:
            metrics |= self.evaluate()
            improved = metrics["top1"] > progress.best.get("top1", -1.0)
            if improved:
                progress.best = {k: metrics[k] for k in ("epoch", "top1", "top1_error", "top5", "test_loss")}
        progress.history.append(metrics)
        progress.seconds = progress.cpu_seconds = 0.0
        on_epoch(metrics, improved)
        clock.start()

    def _replaced(self) -> int:
        """Samples of all ranks that could not be read and gave way to others since this was last asked; collective."""
        count = torch.tensor([self.loader.replaced - self._counted], dtype=torch.float64, device=self.world.device)
        self._counted = self.loader.replaced
        return int(distributed.all_reduce_sum(count))

    @property
    def evaluated_model(self) -> nn.Module:
        """The network whose accuracy is reported: the weight average if there is one."""
        return self.average.module if self.average is not None else self.model

    def evaluate(self) -> dict[str, float]:
        """Exact accuracy on the clean test set: top1, top1_error, top5 in percent, test_loss."""
        distributed.sync_buffers(self.evaluated_model)  # every rank counts its samples with the same statistics
        result = evaluate(
            self.evaluated_model,
            self.eval_set,
            batch_size=self.config.trainer.eval_batch_size,
            world=self.world,
            autocast=self.precision.autocast,
        )
        return {
            "top1": result.top1,
            "top1_error": result.top1_error,
            "top5": result.top5,
            "test_loss": result.loss,
        }

    # -- state ---------------------------------------------------------------------------------------------------

    def state_bytes(self) -> int:
        """About how many bytes ``state`` has: the network, its momentum, and the average of its weights."""
        network = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        momentum = sum(parameter.nbytes for parameter in self.model.parameters())
        return network * (1 if self.average is None else 2) + momentum

    def state(self) -> dict[str, Any]:
        """Everything a continued run needs; collective: every rank calls it, rank 0 writes it.

        Raises NonFiniteError if a step since the last call was not finite: nothing is saved after such a step.
        """
        self.stepper.require_finite(self.progress.step)
        progress = self.progress
        return {
            "format": FORMAT,
            "step": progress.step,
            "world_size": self.world.world_size,
            "precision": self.precision.name,
            "data": self.data,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.module.state_dict() if self.average is not None else None,
            "history": progress.history,
            "best": progress.best,
            "candidates": dict(progress.candidates),
            "seconds": [progress.seconds, progress.cpu_seconds],
            "meter": self.meter.state(reduce=distributed.all_reduce_sum),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from ``state()``; the ranks may be more or fewer than those that wrote it.

        Raises ConfigError if it was trained in another precision or on other data.
        """
        for key, here in (("precision", self.precision.name), ("data", self.data)):
            if state[key] != here:
                raise ConfigError(_other(key, state[key], here))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        average = state["average"]
        if self.average is not None:
            self.average.module.load_state_dict(average)
        if self.world.is_main:
            self.meter.load_state(state["meter"])  # sums over all ranks: one rank carries them on
        seconds, cpu_seconds = state["seconds"]
        self.progress = Progress(
            step=state["step"],
            history=list(state["history"]),
            best=dict(state["best"]),
            candidates=Counter(state["candidates"]),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
        )


def _other(key: str, there: Any, here: Any) -> str:
    if key == "precision":
        return (
            f"trainer.precision: the checkpoint was trained in {there}, this run would go on in {here}; "
            f"set trainer.precision={there} where it can run, or start anew with another output_root"
        )
    keys = [k for k in dict.fromkeys([*there, *here]) if there.get(k) != here.get(k)]
    words = ", ".join(f"{k} {_short(there.get(k))}, now {_short(here.get(k))}" for k in keys)
    return (
        f"dataset: not the data that the checkpoint was trained on: {words}; "
        "put those back (dataset.root), or start anew with another output_root"
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:20]}..."


class _Clock:
    """Adds wall and processor seconds of the epoch in progress to ``progress`` while it runs."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.start()

    def start(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        self._progress.seconds += time.perf_counter() - self._wall
        self._progress.cpu_seconds += time.process_time() - self._cpu
