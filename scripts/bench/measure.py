"""Interleaved timing: every round runs every case once, so that a drifting machine drifts for all of them."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from randomix.engine.allocator import keep_freed_memory

MEDIAN_ERROR = math.sqrt(math.pi / 2)  # standard error of a median, in those of a mean


@dataclass(frozen=True)
class Sample:
    """Seconds of one run of a case: wall clock, and processor time of this process and its workers."""

    wall: float
    cpu: float


def keep_memory(device: str) -> bool:
    """As training does on a CPU; whether it is so."""
    return device == "cpu" and keep_freed_memory()


def cpu_seconds() -> float:
    """Processor time of this process (all threads) and of its children, living or ended, in seconds."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks  # utime, stime
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # asked last: active_children has reaped those that ended
    return total + time.process_time() + ended.ru_utime + ended.ru_stime


def timed(case: Callable[[], None]) -> Sample:
    """Run ``case`` once and wait for the device."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    case()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Sample(time.perf_counter() - wall, cpu_seconds() - cpu)


def interleaved(
    cases: dict[str, Callable[[], None]], rounds: int, warmup: int = 1, progress: Callable[[str], None] = print
) -> dict[str, list[Sample]]:
    """``rounds`` samples of every case, in a new random order each round, after ``warmup`` rounds."""
    order, shuffle = list(cases), random.Random(0)
    samples: dict[str, list[Sample]] = {name: [] for name in cases}
    for number in range(warmup + rounds):
        shuffle.shuffle(order)
        for name in order:
            sample = timed(cases[name])
            if number >= warmup:
                samples[name].append(sample)
        progress(f"round {number + 1} of {warmup + rounds}")
    return samples


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def median_interval(values: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """The median between two order statistics that enclose the true one with probability ``level`` (binomial).

    Below 6 values no pair does at 95 %: then these are the smallest and the largest.
    """
    ordered, count = sorted(values), len(values)
    tail, inside = 0.0, 0  # P(fewer than ``inside`` of the values lie below the true median)
    while inside < count // 2 and (tail := tail + math.comb(count, inside) / 2**count) <= (1 - level) / 2:
        inside += 1
    edge = max(inside - 1, 0)
    return ordered[edge], statistics.median(ordered), ordered[count - 1 - edge]


def noise(values: list[float]) -> float:
    """Spread of one value, relative to the median: that of a normal distribution with the same quartiles."""
    low, middle, high = quartiles(values)
    return (high - low) / 1.349 / middle


def rounds_for(values: list[float], half_width: float) -> int:
    """How many rounds of this noise make the median's 95 % interval +-half_width, relative."""
    return math.ceil((1.96 * MEDIAN_ERROR * noise(values) / half_width) ** 2)


def ratios(samples: dict[str, list[Sample]], name: str, reference: str, clock: str) -> tuple[float, float, float]:
    """Quartiles of time(name) / time(reference), round by round, on ``clock`` ("wall" or "cpu")."""
    pairs = zip(samples[name], samples[reference], strict=True)
    return quartiles([getattr(a, clock) / getattr(b, clock) for a, b in pairs])
