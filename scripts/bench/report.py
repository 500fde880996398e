"""What benchmarks measured, as JSON and as Markdown tables."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import targets
from bench.loops import Setting
from bench.measure import Sample, median_interval, quartiles, ratios
from randomix.engine.optim import resolve_precision
from randomix.records import provenance

CLOCK = {"cpu": "cpu", "cuda": "wall"}  # whose times count


class Report(Protocol):
    """What a suite returns."""

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""

    def markdown(self, content: dict[str, Any]) -> str:
        """The tables that people read, from what ``as_dict`` returned."""


@dataclass(frozen=True)
class Plain:
    """``body`` is what was measured; ``lines(content)`` is its Markdown below the title.

    figure: draws ``content`` beside the other files and returns where, if the suite has one.
    """

    suite: str
    body: dict[str, Any]
    lines: Callable[[dict[str, Any]], list[str]]
    device: str
    precision: str
    started: float
    figure: Callable[[dict[str, Any], Path], Path | None] | None = None

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        where = provenance.collect(device=self.device, precision=self.precision, threads=threads, started=self.started)
        return {"suite": self.suite, **self.body, "provenance": where}

    def markdown(self, content: dict[str, Any]) -> str:
        """The tables that people read."""
        return "\n".join([f"# Benchmark: {self.suite}", "", *self.lines(content)]) + "\n"


def machine(content: dict[str, Any]) -> str:
    """Processor or GPU, threads and torch of a record, for its Markdown."""
    where = content["provenance"]
    name = where["hardware"]["gpu" if where["device"] == "cuda" else "cpu"]
    return f"{name}, {where['threads']} thread(s), torch {where['versions']['torch']}"


@dataclass(frozen=True)
class Table:
    """Samples of every case; ratios are taken against ``reference``, round by round."""

    suite: str
    samples: dict[str, list[Sample]]
    reference: str
    setting: Setting
    targets: tuple[targets.Target, ...] = ()
    keeps_freed_memory: bool = False  # as CPU runs do

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        rows = {}
        for name, samples in self.samples.items():
            rows[name] = {
                clock: {
                    "milliseconds_per_step": [1e3 * q / self.setting.steps for q in quartiles(values)],
                    "time_ratio": list(ratios(self.samples, name, self.reference, clock)),
                    "time_ratio_interval": list(self._interval(name, clock)),
                }
                for clock in ("cpu", "wall")
                for values in [[getattr(s, clock) for s in samples]]
            }
        precision = resolve_precision(self.setting.precision, self.setting.torch_device).name
        return {
            "suite": self.suite,
            "reference": self.reference,
            "rounds": len(next(iter(self.samples.values()))),
            "setting": asdict(self.setting),
            "rows": rows,
            "targets": self._verdicts(),
            "keeps_freed_memory": self.keeps_freed_memory,
            "provenance": provenance.collect(
                world_size=1, device=self.setting.device, precision=precision, threads=threads, started=time.time()
            ),
        }

    def _interval(self, name: str, clock: str) -> tuple[float, float, float]:
        pairs = zip(self.samples[name], self.samples[self.reference], strict=True)
        return median_interval([getattr(a, clock) / getattr(b, clock) for a, b in pairs])

    def _verdicts(self) -> list[dict[str, Any]]:
        setting, clock = self.setting, CLOCK[self.setting.device]
        gpu = provenance.hardware()["gpu"] if setting.device == "cuda" else None
        point = targets.Point(setting.device, setting.width, setting.size, setting.compile, gpu or "")
        times = {name: [getattr(s, clock) for s in samples] for name, samples in self.samples.items()}
        return targets.judge_ratios(self.targets, times, point)

    def markdown(self, content: dict[str, Any]) -> str:
        """The table that people read."""
        setting, where = content["setting"], content["provenance"]
        hardware = where["hardware"]
        machine = hardware.get("gpu") if setting["device"] == "cuda" else hardware["cpu"]
        lines = [
            f"# Benchmark: {self.suite}",
            "",
            f"PreAct-ResNet18 width {setting['width']}, batch {setting['batch']} of 3x{setting['size']}x"
            f"{setting['size']}, {setting['device']}, {where['precision']}, compile={setting['compile']}, "
            f"{where['threads']} thread(s), {content['rounds']} interleaved rounds of {setting['steps']} steps; "
            f"{machine}, torch {where['versions']['torch']}.",
            f"Ratio: time / time of *{self.reference}* in the same round. Brackets: quartiles.",
            "",
            "| case | CPU ms/step | CPU ratio | wall ms/step | wall ratio |",
            "|---|---|---|---|---|",
        ]
        for name, row in content["rows"].items():
            cells = [name]
            for clock in ("cpu", "wall"):
                cells.append(_cell(row[clock]["milliseconds_per_step"], 3))
                cells.append(_cell(row[clock]["time_ratio"], 3))
            lines.append("| " + " | ".join(cells) + " |")
        lines += targets.lines(content["targets"])
        return "\n".join(lines) + "\n"


def _cell(triple: list[float], digits: int) -> str:
    low, middle, high = triple
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
