"""How many graphs torch.compile makes for each kind of method, what they cost, and what a compiled step gains (T8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch._dynamo.utils import counters

from bench import report, targets
from bench.loops import Setting, fake_data, make_trainer, ours
from bench.measure import Sample, interleaved, noise, ratios, timed
from randomix import mixers
from randomix.engine.optim import resolve_precision
from randomix.engine.protocols import Data
from randomix.engine.trainer import Trainer
from randomix.mixers.base import BatchMixer
from randomix.mixers.base_network import HiddenMixer

ALL_PIXEL = "all pixel methods"
STEPS = 24  # of a method that mixes inside the network: at each of its places with a probability above 0.98


def measure(setting: Setting, rounds: int, progress: Callable[[str], None]) -> report.Plain:
    """All pixel methods through one compiled network, then each of the others through its own; then the gain."""
    started, rows = time.time(), {}
    compiled = replace(setting, compile=True, steps=1)
    data = fake_data(compiled)
    pixel = [name for name in mixers.available() if isinstance(mixers.build(name, num_classes=2), BatchMixer)]
    progress(f"{ALL_PIXEL:40s}")
    with _nothing_compiled():
        rows[ALL_PIXEL] = _pixel(compiled, data, pixel)
    for name in mixers.available():
        if name not in pixel:
            progress(f"{name:40s}")
            with _nothing_compiled():
                rows[name] = _alone(compiled, data, name)
    gain = _gain(setting, rounds, progress)
    point = targets.Point(setting.device, setting.width, setting.size, compiled=True)
    found = [
        targets.judge(targets.PIXEL_GRAPHS, (rows[ALL_PIXEL]["graphs"],) * 3, point),
        targets.judge(targets.RECOMPILES, (rows[ALL_PIXEL]["later"],) * 3, point),
    ]
    for name, row in rows.items():
        if row["hidden"]:
            verdict = targets.judge(targets.HIDDEN_GRAPHS, (row["graphs"],) * 3, point)
            found.append(verdict and verdict | {"line": verdict["line"].replace("a hidden mixer", name)})
    body = {
        "rows": rows,
        "pixel": pixel,
        "gain": gain,
        "targets": [v for v in found if v],
        "rounds": rounds,
        "width": setting.width,
        "batch": setting.batch,
        "size": setting.size,
    }
    precision = resolve_precision(setting.precision, setting.torch_device).name
    return report.Plain("graphs", body, _lines, setting.device, precision, started)


def _pixel(setting: Setting, data: Data, names: list[str]) -> dict[str, Any]:
    """Every pixel method in turn with the same network; from the third step on a recompilation is an error."""
    _forget()
    trainer = make_trainer(setting, data, names[0])
    first = timed(ours(trainer, 2))
    graphs, failed = _graphs(), None
    try:
        with torch._dynamo.config.patch(error_on_recompile=True):
            for name in names:
                mixer = mixers.build(name, num_classes=setting.classes, mean=data.mean, std=data.std)
                trainer.stepper.mixer = mixer.allow_inplace()
                ours(trainer, 2)()
    except torch._dynamo.exc.RecompileError as error:
        failed = str(error).strip().splitlines()[0][:200]
    return _row(trainer, first, 2, graphs) | {"recompile_error": failed}


def _alone(setting: Setting, data: Data, name: str) -> dict[str, Any]:
    """A method that needs the network: half of its steps, then the other half, which should meet nothing new."""
    _forget()
    trainer = make_trainer(setting, data, name)
    first = timed(ours(trainer, STEPS))
    graphs = _graphs()
    ours(trainer, STEPS)()
    return _row(trainer, first, STEPS, graphs)


def _row(trainer: Trainer, first: Sample, taken: int, graphs: int) -> dict[str, Any]:
    """compile: seconds of the first ``taken`` steps beyond what as many take afterwards."""
    later, warm = _graphs() - graphs, timed(ours(trainer, 2))
    return {
        "graphs": graphs,
        "later": later,
        "breaks": sum(counters["graph_break"].values()),
        "hidden": isinstance(trainer.mixer, HiddenMixer),
        "compile_cpu_seconds": first.cpu - warm.cpu * taken / 2,
        "compile_wall_seconds": first.wall - warm.wall * taken / 2,
    }


def _gain(setting: Setting, rounds: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Compiled against eager steps of RandoMix, side by side."""
    _forget()
    data = fake_data(setting)
    cases = {
        mode: ours(make_trainer(replace(setting, compile=mode == "compiled"), data, "randomix"), setting.steps)
        for mode in ("eager", "compiled")
    }
    clock = report.CLOCK[setting.device]
    samples = interleaved(
        cases, rounds, warmup=2, progress=lambda text: progress(f"compiled against eager: {text:20s}")
    )
    values = [getattr(a, clock) / getattr(b, clock) for a, b in zip(samples["eager"], samples["compiled"], strict=True)]
    return {"eager_over_compiled": ratios(samples, "eager", "compiled", clock), "noise": noise(values), "clock": clock}


@contextmanager
def _nothing_compiled() -> Iterator[None]:
    """An empty cache on disk, as what another run compiled would come for nothing; no compiling process outlives it."""
    from torch._inductor import config, utils

    fresh = getattr(utils, "fresh_cache", None) or utils.fresh_inductor_cache  # its name until torch 2.8
    with fresh(), config.patch(compile_threads=1):
        yield


def _forget() -> None:
    torch._dynamo.reset()
    counters.clear()


def _graphs() -> int:
    return counters["stats"]["unique_graphs"]


def _lines(content: dict[str, Any]) -> list[str]:
    low, middle, high = content["gain"]["eager_over_compiled"]
    size, failed = content["size"], content["rows"][ALL_PIXEL]["recompile_error"]
    lines = [
        f"PreAct-ResNet18 width {content['width']}, batch {content['batch']} of 3x{size}x{size}; "
        f"{report.machine(content)}. Pixel methods: {', '.join(content['pixel'])}, two steps each through one network, "
        "where a recompilation after the second step is an error.",
        f"Others: {STEPS} steps (*graphs*) and {STEPS} more (*later*).",
        "",
        "| methods | graphs | later | graph breaks | compiling, CPU s | wall s |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in content["rows"].items():
        cpu, wall = row["compile_cpu_seconds"], row["compile_wall_seconds"]
        lines.append(f"| {name} | {row['graphs']} | {row['later']} | {row['breaks']} | {cpu:.1f} | {wall:.1f} |")
    gain = f"{middle:.3f} [{low:.3f}, {high:.3f}] (quartiles of {content['rounds']} rounds)"
    lines += ["", f"RandoMix, eager / compiled step ({content['gain']['clock']} time): {gain}."]
    if failed is not None:
        lines.append(f"A recompilation after the second step: {failed}")
    return lines + targets.lines(content["targets"])
