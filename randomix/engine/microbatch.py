"""The largest micro-batch that fits into memory, found on real passes: ``trainer.micro_batch_size=auto``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from randomix.engine.distributed import World
from randomix.engine.memory import Meter, meter_for
from randomix.engine.optim import Precision
from randomix.engine.rules import micro_batch_sizes
from randomix.errors import OutOfMemory, is_out_of_memory
from randomix.mixers.base import Mixer
from randomix.rng import StepRng

SHARE = 0.9  # of the free memory that may be used: batches on their way, fragments, evaluation's other sizes
_FROM = 4  # samples of the first measurement


@dataclass(frozen=True)
class Point:
    """A pass of ``size`` samples: bytes beyond those in use before; seconds of the pass that was timed."""

    size: int
    peak: int
    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Line:
    """Bytes of a pass: ``fixed + size * per_sample``."""

    fixed: float
    per_sample: float

    def __call__(self, size: int) -> float:
        """Bytes of a pass of ``size`` samples."""
        return self.fixed + size * self.per_sample


def fit_line(points: Sequence[Point], rest: float = 0.0) -> Line:
    """Least squares through the last three points; through ``rest`` bytes without a sample where there is but one."""
    points = points[-3:]
    if len(points) == 1:
        return Line(rest, (points[0].peak - rest) / points[0].size)
    size, peak = (sum(values) / len(points) for values in zip(*[(p.size, p.peak) for p in points], strict=True))
    slope = sum((p.size - size) * (p.peak - peak) for p in points) / sum((p.size - size) ** 2 for p in points)
    return Line(peak - slope * size, slope) if slope > 0 else Line(max(p.peak for p in points), 0.0)


@dataclass(frozen=True)
class Found:
    """The micro-batch size for a rank's ``share`` of a batch, and what it was found from."""

    size: int
    share: int
    free: int  # bytes, of this rank
    points: tuple[Point, ...]
    line: Line
    device_type: str

    def describe(self) -> str:
        """One line for the terminal."""
        used = next(p.peak for p in self.points if p.size == self.size)
        memory = f"{mib(used)} of {mib(self.free)} MiB free, {self.line.per_sample / 2**20:.2f} each"
        head = f"trainer.micro_batch_size=auto: {self.size} of {self.share} samples at a time ({memory})"
        if self.size == self.share:
            return f"{head}: the whole batch"
        return (
            f"{head}: {self.share // self.size} micro-batches a step; BatchNorm takes its statistics of "
            f"{self.size}, so that results differ from those of the whole batch"
        )


def mib(count: float) -> str:
    """Bytes as MiB in words."""
    return f"{count / 2**20:,.0f}"


# --- Passes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What a rank computes in a step."""

    model: nn.Module
    mixer: Mixer
    criterion: Callable[[Tensor, Tensor], Tensor]
    precision: Precision
    share: int  # samples of a rank in a step
    sample_shape: tuple[int, ...]
    num_classes: int
    seed: int = 0


class Probe:
    """Forward and backward passes of ``work`` on samples of noise, measured; leaves everything as it was.

    As in a step of several micro-batches, there are gradients already. The network runs uncompiled and without other
    ranks, which needs more rather than less.
    """

    def __init__(self, work: Work, meter: Meter, *, timed: bool = False) -> None:
        self.work, self.meter, self.timed = work, meter, timed
        self.points: list[Point] = []

    def __enter__(self) -> Probe:
        work, device = self.work, self.work.precision.device
        with ExitStack() as exits:
            exits.enter_context(_untouched(work.model, device))
            work.model.train()
            self.meter.reset()
            self.free, self._before = self.meter.free(), self.meter.peak()
            layout = torch.channels_last if len(work.sample_shape) == 3 else torch.contiguous_format
            shape, dtype = (work.share, *work.sample_shape), work.precision.dtype
            self._inputs = torch.randn(shape, device=device).to(dtype, memory_format=layout)
            self._labels = torch.arange(work.share, device=device) % work.num_classes
            self._methods = methods_of(work.mixer)
            for method in self._methods:  # what they keep from one pass to the next
                self._pass(min(2, work.share), method)
            self.meter.reset()
            self._rest = self.meter.peak() - self._before  # gradients, inputs, and what passes leave
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        del self._inputs, self._labels
        self._exits.__exit__(*error)
        self.meter.reset()

    def _pass(self, size: int, method: Mixer) -> None:
        """One forward and backward pass."""
        work, rng = self.work, StepRng(self.work.seed)
        with work.precision.autocast():
            forward = method.forward_mixed(work.model, self._inputs[:size], self._labels[:size], rng)
        forward.loss(work.criterion).backward()

    def measure(self, size: int, *, every_method: bool = False) -> Point | None:
        """A pass of ``size`` samples, the point kept among ``points``; None if the memory does not suffice.

        Of the method that took most at the last size where every one was measured, as at the first.
        """
        found: list[tuple[Point, Mixer]] = []
        for method in self._methods if every_method or not self.points else self._methods[:1]:
            try:
                found.append((self._measured_pass(size, method), method))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                continue
            return None  # here, where no traceback holds the tensors
        point, most = max(found, key=lambda one: one[0].peak)
        self._methods.sort(key=lambda method: method is not most)
        self.points = sorted([*(p for p in self.points if p.size != size), point], key=lambda p: p.size)
        return point

    @property
    def line(self) -> Line:
        """Bytes of a pass, by the points so far."""
        return fit_line(self.points, self._rest)

    def _measured_pass(self, size: int, method: Mixer) -> Point:
        if self.work.precision.device.type == "cuda":
            self._pass(size, method)  # tries convolution kernels, for which it takes what there is
        self.meter.reset()
        wall, cpu = time.perf_counter(), time.process_time()
        self._pass(size, method)
        peak = self.meter.peak() - self._before
        if self.timed:  # another one: the first had to fetch its memory
            wall, cpu = time.perf_counter(), time.process_time()
            self._pass(size, method)
            self.meter.peak()  # waits for a GPU
        return Point(size, peak, time.perf_counter() - wall, time.process_time() - cpu)


def methods_of(mixer: Mixer) -> list[Mixer]:
    """The methods of which a step runs one: the candidates of a composite that are ever drawn, and theirs."""
    candidates, weights = getattr(mixer, "candidates", None), getattr(mixer, "weights", ())
    if candidates is None or getattr(mixer, "granularity", "batch") != "batch":
        return [mixer]
    return [m for c, weight in zip(candidates, weights, strict=True) if weight > 0 for m in methods_of(c)]


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Any:
    """Modes, buffers, gradients and torch's generators are the same afterwards."""
    modes = [(part, part.training) for part in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for part, training in modes:
            part.training = training
        for buffer, before in buffers:
            buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient


# --- The search ------------------------------------------------------------------------------------------------------


def find_micro_batch(work: Work, world: World, meter: Meter | None = None, *, timed: bool = False) -> Found:
    """The largest equal part of a rank's share that fits on all ranks; collective. Raises OutOfMemory if none does.

    Measured at sizes that double while the next would fit too, then at the largest one that the line through the
    last three allows, and at smaller ones until one fits really. timed: the points' seconds are those of later passes.
    """
    with Probe(work, meter or meter_for(world), timed=timed) as probe:
        free = _least(probe.free, world)
        budget, sizes = SHARE * free, micro_batch_sizes(work.share)
        explore(probe, budget)
        fitting = [size for size in sizes if probe.points and probe.line(size) <= budget]
        start = _least(max(fitting, default=sizes[0]), world)
        for size in reversed([s for s in sizes if s <= start]):
            point = probe.measure(size, every_method=True)
            if _least(int(point is not None and point.peak <= budget), world):
                return Found(size, work.share, free, tuple(probe.points), probe.line, work.precision.device.type)
    raise OutOfMemory(
        f"trainer.micro_batch_size=auto: not even {sizes[0]} samples fit into {SHARE:.0%} of the "
        f"{mib(free)} MiB that are free; model.checkpoint_stages=[0,1] needs less"
    )


def explore(probe: Probe, budget: float) -> None:
    """Measure at 4, 8, 16, ... samples, up to the share and while the line says that they fit."""
    size = min(_FROM, probe.work.share)
    while probe.measure(size) is not None and size < probe.work.share:
        size = min(2 * size, probe.work.share)
        if probe.line(size) > budget:
            break


def _least(value: int, world: World) -> int:
    """The least of all ranks' values."""
    if world.world_size == 1:
        return value
    import torch.distributed as dist

    shared = torch.tensor(value)
    dist.all_reduce(shared, op=dist.ReduceOp.MIN)
    return int(shared)
