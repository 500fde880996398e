"""Run by compare_commits.py in a process of its own, on the code of the checkout named first: one JSON line.

Uses only what has been in every version: bench.loops, randomix.mixers, the trainer's step.
"""

from __future__ import annotations

import itertools
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def training(width: int, steps: int, precision: str) -> dict[str, Any]:
    """Steps of RandoMix as train.py makes them."""
    from bench import loops

    _set_up(precision)
    setting = loops.Setting(width=width, steps=steps, precision=precision)
    trainer = loops.make_trainer(setting, loops.fake_data(setting), "randomix")
    return {f"training {width} {precision}": _per(loops.ours(trainer, steps), steps)}


def mixing(methods: list[str], size: int, batch: int, layout: str) -> dict[str, Any]:
    """Each method on a batch of float32 with integer labels; more than 1,000 pixels a side are samples of sound."""
    from randomix import StepRng, mixers

    _set_up("fp32")
    generator, rows = torch.Generator().manual_seed(0), {}
    inputs = torch.rand((batch, 1, size) if size > 1000 else (batch, 3, size, size), generator=generator)
    if layout == "channels_last":
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels, steps = torch.randint(10, (batch,), generator=generator), max(8, 2**25 // inputs.numel())
    for method in methods:
        mixer = mixers.build(method, num_classes=10)

        def run(mixer: Any = mixer) -> None:
            for step in range(steps):
                mixer(inputs, labels, StepRng(0, step))

        rows[f"mixing {method} {size} {layout}"] = _per(run, steps)
    return rows


def curve(method: str, steps: int) -> dict[str, Any]:
    """The losses of ``steps`` steps in float32."""
    from bench import loops
    from randomix.engine.stopper import Stopper

    setting = loops.Setting(width=4, batch=16, steps=steps, precision="fp32")
    trainer, sums = loops.make_trainer(setting, loops.fake_data(setting), method), [0.0]
    stopper = Stopper(trainer.guard)
    for step, batch in enumerate(trainer.loader.batches(0, steps)):
        trainer.step(step, batch, stopper)
        sums.append(trainer.meter.state()[0])
    return {f"curve {method}": [(after - before) / setting.batch for before, after in itertools.pairwise(sums)]}


def _set_up(precision: str) -> None:
    from randomix.engine.optim import resolve_precision
    from randomix.runs.setup import set_up_torch

    set_up_torch(resolve_precision(precision, torch.device("cpu")), threads=1)


def _per(run: Callable[[], None], steps: int) -> dict[str, float]:
    """CPU milliseconds and page faults of a step, and the peak of the process's memory, after one run to warm up."""
    run()
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    run()
    spent, after = time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    faults = (after.ru_minflt - before.ru_minflt) / steps
    return {"cpu_ms": 1e3 * spent / steps, "faults": faults, "peak_mib": peak / 1024}


CASES: dict[str, Callable[..., dict[str, Any]]] = {"training": training, "mixing": mixing, "curve": curve}

if __name__ == "__main__":
    sys.path[:1] = [sys.argv[1], f"{sys.argv[1]}/scripts"]  # in place of this file's folder
    torch.set_num_threads(1)
    case, arguments = json.loads(sys.argv[2])
    print(json.dumps(CASES[case](*arguments)))
