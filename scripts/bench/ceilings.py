"""What a device can do at best, by products, convolutions and copies of random data; what a network asks of it."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.measure import timed
from bench.report import CLOCK
from randomix.engine.optim import Precision

GEMM_SIDE = {"cpu": 1536, "cuda": 8192}
CONVOLUTION = {"cpu": (16, 256, 16), "cuda": (512, 512, 32)}  # samples, channels, side
COPY_BYTES = {"cpu": 2**28, "cuda": 2**32}  # far beyond the caches
_REPEATS = {"cpu": 1, "cuda": 10}


def compute(precision: Precision) -> float:
    """FLOP/s that this precision reaches at best: of a matrix product or a 3x3 convolution, whichever is faster.

    Both, as their libraries differ: oneDNN's convolutions are a fifth faster than the product of some CPUs.
    """
    return max(gemm(precision), convolution(precision))


def convolution(precision: Precision, shape: tuple[int, int, int] | None = None, rounds: int = 7) -> float:
    """FLOP/s of a 3x3 convolution between as many channels, channels last, on random data."""
    device = precision.device
    count, channels, side = shape or CONVOLUTION[device.type]
    inputs, weight = (
        torch.randn(*size, device=device, dtype=precision.dtype).to(memory_format=torch.channels_last)
        for size in ((count, channels, side, side), (channels, channels, 3, 3))
    )
    with torch.no_grad(), _tf32(precision.name == "tf32"):
        seconds = _seconds(lambda: nn.functional.conv2d(inputs, weight, padding=1), device, 1, rounds)
    return 2.0 * 9 * channels**2 * count * side**2 / seconds


def gemm(precision: Precision, side: int | None = None, rounds: int = 7) -> float:
    """FLOP/s of a square product in this precision, on random data; by the clock that counts on the device."""
    device = precision.device
    side, repeats = side or GEMM_SIDE[device.type], _REPEATS[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=precision.dtype) for _ in range(2))
    out = torch.empty_like(left)
    with _tf32(precision.name == "tf32"):
        seconds = _seconds(lambda: torch.mm(left, right, out=out), device, repeats, rounds)
    return 2.0 * side**3 / seconds


def copy(device: torch.device, size: int | None = None, rounds: int = 7) -> float:
    """Bytes/s of a copy within the device's memory; read and written bytes both count."""
    size, repeats = size or COPY_BYTES[device.type], _REPEATS[device.type]
    source = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 256)
    target = torch.empty_like(source)
    return 2.0 * size / _seconds(lambda: target.copy_(source), device, repeats, rounds)


def _seconds(operation: Any, device: torch.device, repeats: int, rounds: int) -> float:
    def run() -> None:
        for _ in range(repeats):
            operation()

    samples = [timed(run) for _ in range(rounds + 2)][2:]
    return statistics.median(getattr(s, CLOCK[device.type]) for s in samples) / repeats


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


class _Traffic(TorchDispatchMode):
    """Adds up the bytes that every operation reads and writes; views move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.bytes += sum(t.nbytes for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor))
        return result


def work(model: nn.Module, sample_shape: tuple[int, ...], batch: int, dtype: torch.dtype) -> tuple[float, float]:
    """FLOPs and bytes of a training step's forward and backward pass, counted; ``model`` lives on the meta device.

    FLOPs: 2 x multiply-add of convolutions and matrix products. Bytes: what all operations read and write, each tensor
    once an operation, nothing fused: the traffic of an eager step whose tensors miss the caches.
    """
    model = model.to(dtype=dtype).train()
    inputs = torch.empty(batch, *sample_shape, device="meta", dtype=dtype)
    with _Traffic() as traffic, FlopCounterMode(display=False) as counter:
        model(inputs).sum().backward()
    return float(counter.get_total_flops()), float(traffic.bytes)
