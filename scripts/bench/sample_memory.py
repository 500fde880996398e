"""Bytes that a sample adds to a training pass, for every precision, without and with activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from bench.measure import interleaved, ratios
from randomix import mixers
from randomix.engine.distributed import World
from randomix.engine.memory import meter_for
from randomix.engine.microbatch import Probe, Work
from randomix.engine.optim import Precision, resolve_precision
from randomix.losses import LOSSES

if TYPE_CHECKING:
    from bench.networks import Case


def per_sample(case: Case, rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    """By precision: MiB a sample ``plain`` and ``checkpointed`` (all stages), and checkpointed / plain time.

    The slope between passes of ``case.batch`` and twice as many samples. Time is that of the processor, on a GPU that
    of the wall clock: the median of ``rounds`` pairs of passes side by side.
    """
    names = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16")
    return {name: _in(resolve_precision(name, device), case, rounds) for name in names}


def _in(precision: Precision, case: Case, rounds: int) -> dict[str, float]:
    stages = list(range(case.build().num_taps - 2))
    cases = {"plain": case, "checkpointed": replace(case, model={**case.model, "checkpoint_stages": stages})}
    layout = {"memory_format": torch.channels_last} if len(case.sample_shape) == 3 else {}
    networks = {name: c.build().to(precision.device, **layout) for name, c in cases.items()}
    found = {name: _slope(model, case, precision) for name, model in networks.items()}
    passes = {name: _pass(model, case, precision) for name, model in networks.items()}
    samples = interleaved(passes, rounds, progress=lambda _: None)
    clock = "wall" if precision.device.type == "cuda" else "cpu"
    return found | {"time_ratio": ratios(samples, "checkpointed", "plain", clock)[1]}


def _slope(model: nn.Module, case: Case, precision: Precision) -> float:
    """MiB that one more sample takes."""
    baseline, loss = mixers.build("baseline", num_classes=case.num_classes), LOSSES["cross_entropy"]
    work = Work(model, baseline, loss, precision, 2 * case.batch, case.sample_shape, case.num_classes)
    with Probe(work, meter_for(World(device=precision.device))) as probe:
        peaks = [probe.measure(size).peak for size in (case.batch, 2 * case.batch)]
    return (peaks[1] - peaks[0]) / case.batch / 2**20


def _pass(model: nn.Module, case: Case, precision: Precision) -> Callable[[], None]:
    """A forward and backward pass of a batch."""
    inputs = torch.randn(case.batch, *case.sample_shape, device=precision.device)
    if inputs.ndim == 4:
        inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.arange(case.batch, device=precision.device) % case.num_classes

    def call() -> None:
        model.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(inputs)
        F.cross_entropy(logits.float(), targets).backward()

    return call


def table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """The lines of a table of networks against precisions; none without rows."""
    if not rows:
        return []
    names = list(next(iter(rows.values())))
    heads = [f"{name} | all stages checkpointed | time" for name in names]
    lines = [
        "",
        "MiB that one more sample of a training pass takes (slope between the batch above and twice as many; "
        "gradients and weights come once), and what checkpointing all stages leaves of it, at which time relative to "
        "the plain pass:",
        "",
        "| network | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * (3 * len(names)),
    ]
    for network, found in rows.items():
        cells = [f"{v['plain']:.2f} | {v['checkpointed']:.2f} | {v['time_ratio']:.2f}" for v in found.values()]
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return lines
