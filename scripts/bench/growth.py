"""How the time of a sample grows with the batch, the classes, the size of the images and the number of samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.loops import Setting, fake_data, make_trainer, ours
from bench.measure import Sample, interleaved, quartiles
from randomix import StepRng, mixers
from randomix.engine.optim import resolve_precision
from randomix.records import provenance

METHOD = "randomix"
AXES: dict[str, tuple[int, ...]] = {
    "batch": (16, 32, 64, 128, 256, 512),
    "classes": (10, 100, 1000, 21_841),  # the last: all of ImageNet
    "size": (16, 32, 64, 128),
    "samples": (5_000, 50_000, 500_000),
}
WHAT = {
    "batch": "samples of a step",
    "classes": "columns of the dense targets, and of the network's last layer",
    "size": "height and width in pixels",
    "samples": "of the data set; only feeding, which is all that knows the number",
}
_SAMPLES = 512  # in one timed run at least


@dataclass(frozen=True)
class Growth:
    """CPU and wall samples of every value of every axis, and how many images one timed run takes."""

    runs: dict[str, dict[int, dict[str, list[Sample]]]]
    images: dict[str, dict[int, int]]
    setting: Setting

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        rows = {
            axis: {str(value): self._row(axis, value, cases) for value, cases in values.items()}
            for axis, values in self.runs.items()
        }
        precision = resolve_precision(self.setting.precision, self.setting.torch_device).name
        where = provenance.collect(
            world_size=1, device=self.setting.device, precision=precision, threads=threads, started=time.time()
        )
        return {"suite": "growth", "method": METHOD, "width": self.setting.width, "rows": rows, "provenance": where}

    def _row(self, axis: str, value: int, cases: dict[str, list[Sample]]) -> dict[str, Any]:
        images = self.images[axis][value]
        return {
            case: {
                f"{clock}_us_per_sample": list(quartiles([1e6 * getattr(s, clock) / images for s in samples]))
                for clock in ("cpu", "wall")
            }
            for case, samples in cases.items()
        }

    def markdown(self, content: dict[str, Any]) -> str:
        """One table an axis."""
        where, setting = content["provenance"], self.setting
        machine = where["hardware"].get("gpu") if setting.device == "cuda" else where["hardware"]["cpu"]
        lines = [
            "# Benchmark: growth",
            "",
            f"{METHOD}, PreAct-ResNet18 width {setting.width}, {setting.device}, {where['precision']}, "
            f"{where['threads']} thread(s); {machine}, torch {where['versions']['torch']}. Where an axis does not say "
            f"otherwise: batch {setting.batch}, {setting.classes} classes, 3x{setting.size}x{setting.size}. "
            "Microseconds of CPU time a sample: median [quartiles].",
        ]
        for axis, rows in content["rows"].items():
            cases = list(next(iter(rows.values())))
            lines += ["", f"## {axis}: {WHAT[axis]}", "", f"| {axis} | " + " | ".join(cases) + " |"]
            lines.append("|---" * (len(cases) + 1) + "|")
            for value, row in rows.items():
                triples = [row[case]["cpu_us_per_sample"] for case in cases]
                cells = [f"{mid:.2f} [{low:.2f}, {high:.2f}]" for low, mid, high in triples]
                lines.append(f"| {int(value):,} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"


def measure(setting: Setting, rounds: int, progress: Callable[[str], None], axes: dict[str, Any] = AXES) -> Growth:
    """Every value of every axis; those of one axis are timed side by side."""
    runs: dict[str, dict[int, dict[str, list[Sample]]]] = {}
    images: dict[str, dict[int, int]] = {}
    for axis, values in axes.items():
        cases: dict[str, Callable[[], None]] = {}
        images[axis] = {}
        for value in values:
            steps, made = _cases(axis, value, setting)
            images[axis][value] = steps * (value if axis == "batch" else setting.batch)
            cases |= {f"{value} {name}": run for name, run in made.items()}
        samples = interleaved(cases, rounds, progress=lambda text, axis=axis: progress(f"{axis}: {text:30s}"))
        runs[axis] = {value: _of(samples, value) for value in values}
    return Growth(runs, images, setting)


def _of(samples: dict[str, list[Sample]], value: int) -> dict[str, list[Sample]]:
    start = f"{value} "
    return {name.removeprefix(start): found for name, found in samples.items() if name.startswith(start)}


def _cases(axis: str, value: int, setting: Setting) -> tuple[int, dict[str, Callable[[], None]]]:
    """Steps of one timed run, and what is timed at this value of this axis."""
    if axis == "samples":
        return _feeding(value, setting)
    batch = value if axis == "batch" else setting.batch
    steps = max(1, _SAMPLES // batch)
    at = replace(setting, steps=steps, **({axis: value}))
    data = fake_data(at)
    return steps, {"step": ours(make_trainer(at, data, METHOD), steps), "mixing": _mixing(at)}


def _mixing(setting: Setting) -> Callable[[], None]:
    """The mixing alone, from integer labels to inputs and targets."""
    mixer, device = mixers.build(METHOD, num_classes=setting.classes), setting.torch_device
    inputs = torch.randn(setting.batch, 3, setting.size, setting.size, device=device)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(setting.classes, (setting.batch,), device=device)

    def run() -> None:
        for step in range(setting.steps):
            mixer(inputs, labels, StepRng(0, step))

    return run


def _feeding(samples: int, setting: Setting) -> tuple[int, dict[str, Callable[[], None]]]:
    """A whole number of epochs of the smallest set, so that the order of an epoch is part of every run."""
    data = fake_data(setting, samples)
    dtype = resolve_precision(setting.precision, setting.torch_device).dtype
    loader = data.train_loader(
        batch_size=setting.batch, seed=0, rank=0, world_size=1, device=setting.torch_device, dtype=dtype
    )
    steps = loader.steps_per_epoch

    def run() -> None:
        for _ in loader.batches(0, steps):
            pass

    return steps, {"feeding": run}
