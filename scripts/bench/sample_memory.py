"""Bytes that a sample adds to a training pass, for every precision, without and with activation checkpointing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from bench.cases import Case
from bench.measure import interleaved, ratios
from randomix.engine.optim import Precision, resolve_precision

SIZES = 4, 8  # of the batches whose difference is taken


def per_sample(case: Case, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """By precision: MiB a sample ``plain`` and ``checkpointed`` (all stages), and checkpointed / plain time.

    Time is that of the processor, on a GPU that of the clock: the median of ``rounds`` pairs of passes side by side.
    """
    names = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")
    return {name: _in(resolve_precision(name, device), case, rounds) for name in names}


def _in(precision: Precision, case: Case, rounds: int) -> dict[str, float]:
    stages = list(range(case.build().num_taps - 2))
    cases = {"plain": case, "checkpointed": replace(case, model={**case.model, "checkpoint_stages": stages})}
    layout = {"memory_format": torch.channels_last} if len(case.sample_shape) == 3 else {}
    networks = {name: c.build().to(precision.device, **layout) for name, c in cases.items()}
    found = {}
    for name, model in networks.items():
        peaks = [_peak(_pass(model, case, size, precision), precision.device) for size in SIZES]
        found[name] = (peaks[1] - peaks[0]) / (SIZES[1] - SIZES[0]) / 2**20
    passes = {name: _pass(model, case, case.batch, precision) for name, model in networks.items()}
    samples = interleaved(passes, rounds, progress=lambda _: None)
    clock = "wall" if precision.device.type == "cuda" else "cpu"
    return found | {"time_ratio": ratios(samples, "checkpointed", "plain", clock)[1]}


def _peak(call: Callable[[], None], device: torch.device) -> int:
    """The most bytes that torch's allocator held at a time during ``call`` beyond those before."""
    if device.type == "cuda":
        call()  # chooses its convolutions
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def _pass(model: nn.Module, case: Case, size: int, precision: Precision) -> Callable[[], None]:
    """A forward and backward pass of ``size`` samples."""
    inputs = torch.randn(size, *case.sample_shape, device=precision.device)
    if inputs.ndim == 4:
        inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.arange(size, device=precision.device) % case.num_classes

    def call() -> None:
        model.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(inputs)
        F.cross_entropy(logits.float(), targets).backward()
        model.zero_grad(set_to_none=True)

    return call


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """The lines of a table of networks against precisions; none without rows."""
    if not rows:
        return []
    names = list(next(iter(rows.values())))
    heads = [f"{name} | checkpointed | time" for name in names]
    lines = [
        "",
        f"MiB of tensors that one more sample of a training pass takes, by torch's allocator (slope between {SIZES[0]} "
        f"and {SIZES[1]} samples; weights, gradients and the scratch space of convolutions are beside that), what "
        "model.checkpoint_stages with all stages leaves of it, and the time of that relative to the plain pass:",
        "",
        "| network | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * (3 * len(names)),
    ]
    for network, found in rows.items():
        cells = [f"{v['plain']:.2f} | {v['checkpointed']:.2f} | {v['time_ratio']:.2f}" for v in found.values()]
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return lines
