"""The share of a step in which a rank waits for the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

SCHEDULED = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds ready for one, ...
_TRAFFIC = "nccl"  # is in the names of the kernels that talk to other GPUs
Spans = Iterable[tuple[float, float]]  # begin and end


def share(run: Callable[[], None], device: torch.device) -> float | None:
    """Of the wall time of ``run``: what a rank spends neither computing nor, on a CPU, ready for a busy core.

    On a CPU that is the time in which its thread sleeps, so one compute thread is assumed; None where Linux does not
    count it. On a GPU: the time in which kernels of NCCL run and no others, by torch's profiler.
    """
    return _without_kernels(run, device) if device.type == "cuda" else _asleep(run)


def _asleep(run: Callable[[], None]) -> float | None:
    if not SCHEDULED.exists():
        return None
    begun, before = time.perf_counter(), _awake()
    run()
    awake = _awake() - before
    wall = time.perf_counter() - begun
    return min(max(1.0 - awake / wall, 0.0), 1.0)


def _awake() -> float:
    """Seconds that this thread has been on a core or ready for one."""
    return sum(int(field) for field in SCHEDULED.read_text().split()[:2]) / 1e9


def _without_kernels(run: Callable[[], None], device: torch.device) -> float:
    torch.cuda.synchronize(device)
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        begun = time.perf_counter()
        run()
        torch.cuda.synchronize(device)
        wall = time.perf_counter() - begun
    spans: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    for event in found.events():
        if event.device_type == torch.autograd.DeviceType.CUDA and not getattr(event, "is_user_annotation", False):
            spans[_TRAFFIC in event.name.lower()].append((event.time_range.start, event.time_range.end))
    return uncovered(spans[True], spans[False]) / 1e6 / wall


def uncovered(spans: Spans, by: Spans) -> float:
    """How much of the union of ``spans`` is outside the union of ``by``."""
    spans, by = list(spans), list(by)
    return _length([*spans, *by]) - _length(by)


def _length(spans: Spans) -> float:
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total
