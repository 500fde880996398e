"""The whole step as one CUDA graph: where the host cannot issue kernels as fast as a GPU runs them.

Mixing stays outside, as its kernels change with each draw. All else of a step reads and writes tensors that stay where
they are, so that it is recorded once and then replayed: forward, loss, backward, probe, guard, update, sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from randomix.engine.distributed import World
from randomix.engine.optim import Precision
from randomix.engine.protocols import Batch
from randomix.engine.schema import TrainConfig
from randomix.engine.step import TrainStep
from randomix.engine.stopper import Stopper
from randomix.errors import ConfigError, NonFiniteError
from randomix.mixers.base import BatchMixer, InputMixer, Mixer
from randomix.types import MixedBatch, MixedForward

_WARM_UP = 3  # steps before the recording: kernels are chosen and compiled, libraries get their memory


class Recorder(Protocol):
    """Runs ``work`` before it is recorded, and records it."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Run ``work`` a few times, where it will be recorded."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does again all that ``work`` does to tensors; ``work`` itself takes no effect."""


class CudaRecorder:
    """Records on a stream of its own, on which warm-up has made autograd's nodes and the libraries' workspaces."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], None]) -> None:
        """See Recorder."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(self._stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """See Recorder."""
        graph = torch.cuda.CUDAGraph()
        # thread_local: another thread, that of a loader, may ask for pinned memory meanwhile
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


@dataclass(frozen=True)
class _Places:
    """What a recorded step reads: the mixed batch, the learning rate and the step's number."""

    inputs: Tensor
    targets: Tensor
    lam: Tensor
    lr: Tensor  # float32, the type that the fused update reads on a device
    step: Tensor

    @classmethod
    def like(cls, mixed: MixedBatch) -> _Places:
        """Places for batches of the shape, type and memory format of ``mixed``."""
        lr, step = torch.zeros((), device=mixed.lam.device), torch.zeros((), dtype=torch.int64, device=mixed.lam.device)
        inputs, targets, lam = (torch.empty_like(t) for t in (mixed.inputs, mixed.targets, mixed.lam))
        return cls(inputs, targets, lam, lr, step)

    def fill(self, mixed: MixedBatch, lr: float, step: int) -> None:
        """Put in what the next step reads, without waiting for a device."""
        self.inputs.copy_(mixed.inputs)
        self.targets.copy_(mixed.targets)
        self.lam.copy_(mixed.lam)
        self.lr.fill_(lr)
        self.step.fill_(step)


class GraphedStep(TrainStep):
    """A TrainStep that is recorded at its first batch and replayed at all others; results are those of TrainStep.

    recorder: None for CUDA's. Raises ConfigError for what one graph cannot do. Dropout draws from the device's default
    generator, which belongs to each recording by itself and is seeded before each replay, as before an eager step.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        mixer: Mixer,
        world: World,
        precision: Precision,
        steps_per_epoch: int,
        recorder: Recorder | None = None,
    ) -> None:
        if recorder is None and world.device.type != "cuda":
            raise _refused(f"needs a CUDA device, this run is on {world.device.type}; write trainer.cuda_graph=false")
        _check(config, mixer, world)
        super().__init__(config, model, mixer, world, precision, steps_per_epoch)
        self._recorder = recorder or CudaRecorder(world.device)
        self._replay: Callable[[], None] | None = None
        self._recorded_state: Any = None  # of the optimiser; loading one puts others in place of its tensors

    def run(self, step: int, batch: Batch, stopper: Stopper) -> bool:
        """See TrainStep.run. A step that is not finite takes no effect; the error comes with it or a little later."""
        self._seed_torch(step)
        with self.precision.autocast():  # as in an eager step
            mixed = self.mixer(batch.inputs, batch.labels, self.rng.at(step))
        replay = self._replay
        if replay is None or self._recorded_state is not self.optimizer.state:
            replay = self._record(mixed)
            self._seed_torch(step)
        self._set_learning_rate(step)
        self._places.fill(mixed, self._learning_rate(step), step)
        replay()
        self.meter.count(len(batch.labels))
        self.methods = [mixed.name]
        decision = stopper.check(step, watched=True)
        if decision.nonfinite:
            raise NonFiniteError(self.diagnosis(decision.nonfinite_step, step, batch))
        if self.average is not None:
            self.average.update(self.model)
        return decision.stop

    def _record(self, mixed: MixedBatch) -> Callable[[], None]:
        self._replay, self._places = None, _Places.like(mixed)  # memory of an earlier recording is free again
        self._places.fill(mixed, 0.0, 0)
        with self._untouched():
            self._recorder.warm_up(self._work)
        self._recorded_state = self.optimizer.state
        self._replay = self._recorder.record(self._work)
        return self._replay

    def _work(self) -> None:
        """All of a step that happens on the device, from and to tensors that stay in place."""
        places = self._places
        with self.precision.autocast():
            logits = self.network(places.inputs)
        loss = self._backward(MixedForward(logits, places.targets, places.lam))
        self.guard.observe(places.step, self._probe(loss))
        with self._learning_rate_in(places.lr):
            self._update()

    @contextmanager
    def _learning_rate_in(self, place: Tensor) -> Iterator[None]:
        """The update reads its learning rate from ``place`` inside; checkpoints keep numbers."""
        before = [group["lr"] for group in self.optimizer.param_groups]
        try:
            for group in self.optimizer.param_groups:
                group["lr"] = place
            yield
        finally:
            for group, lr in zip(self.optimizer.param_groups, before, strict=True):
                group["lr"] = lr

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Every tensor that a step changes has its value again afterwards."""
        if self.scaler.is_enabled():
            self.scaler.scale(torch.zeros((), device=self.world.device))  # makes the tensors that it keeps
        momentum = [t for state in self.optimizer.state.values() for t in state.values() if isinstance(t, Tensor)]
        tensors = [
            *self.model.parameters(),
            *self.model.buffers(),
            *momentum,
            *self.meter.tensors(),
            *self.guard.tensors(),
        ]
        before, scale = [t.clone() for t in tensors], self.scaler.state_dict()
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
            if scale:
                self.scaler.load_state_dict(scale)


def _check(config: TrainConfig, mixer: Mixer, world: World) -> None:
    """Raise ConfigError, with the key to change, for what cannot be one graph."""
    if world.world_size > 1:
        raise _refused(f"runs in one process, this run has {world.world_size}; write trainer.nproc=1")
    if config.recipe.accumulate > 1:
        raise _refused(f"not with recipe.accumulate={config.recipe.accumulate}; write recipe.accumulate=1")
    if (size := config.trainer.micro_batch_size) is not None:
        raise _refused(f"not with trainer.micro_batch_size={size}; write trainer.micro_batch_size=null")
    if others := _need_the_network(mixer):
        raise _refused(
            f"mixer={mixer.name}: {', '.join(others)} mixes with the network's help; "
            "write trainer.cuda_graph=false, or choose methods that mix pixels alone"
        )


def _need_the_network(mixer: Mixer) -> list[str]:
    """Names of the methods in ``mixer`` that cannot mix before the network sees the batch."""
    candidates = getattr(mixer, "candidates", None)
    if isinstance(mixer, BatchMixer) and candidates is not None:
        return [name for candidate in candidates for name in _need_the_network(candidate)]
    return [] if isinstance(mixer, InputMixer) else [mixer.name]


def _refused(why: str) -> ConfigError:
    return ConfigError(f"trainer.cuda_graph=true: {why}")
