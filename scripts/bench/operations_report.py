"""The mixing operations' samples as JSON and as Markdown: ratios are theirs / ours, so above 1 ours is the faster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench import rivals
from bench.measure import Sample, quartiles
from bench.operations import CLOCKS, COPY, LEAST_ROUNDS, OURS, OURS_IN_PLACE, Measured
from randomix.records import provenance

IN_PLACE = "timm"
COLUMNS = ("torchvision", "timm", "timm, copy", "kornia", rivals.AUTHORS)


@dataclass(frozen=True)
class Table:
    """What was measured at every point, with ``rounds`` samples of each case that is not too slow for it."""

    points: list[Measured]
    rounds: int
    device: str
    keeps_freed_memory: bool  # as CPU runs do

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment; versions hold those of the rivals."""
        where = provenance.collect(
            world_size=1, device=self.device, precision="fp32", threads=threads, started=time.time()
        )
        where["versions"] |= rivals.versions()
        return {
            "suite": "mixers",
            "rounds": self.rounds,
            "clock": CLOCKS[self.device],
            "keeps_freed_memory": self.keeps_freed_memory,
            "points": [_point(measured) for measured in self.points],
            "absent": rivals.absent(),
            "differences": rivals.DIFFERENCES,
            "provenance": where,
        }

    def markdown(self, content: dict[str, Any]) -> str:
        """The tables that people read."""
        lines = [*_head(content), *_summary(content), *_in_place(content)]
        for point in content["points"]:
            lines += _point_table(point, content["clock"])
        return "\n".join(lines) + "\n"


def _point(measured: Measured) -> dict[str, Any]:
    """Milliseconds of every case, and what each rival takes of ours, round by round; quartiles."""
    point, samples = measured.point, measured.samples
    methods: dict[str, Any] = {}
    for (method, who), found in samples.items():
        repeats = measured.repeats[method, who]
        row: dict[str, Any] = {"operations_a_sample": repeats, "rounds": len(found)}
        for clock in ("cpu", "wall"):
            row[clock] = {"milliseconds": [1e3 * q for q in quartiles(_seconds(found, repeats, clock))]}
            if who not in (OURS, OURS_IN_PLACE):
                row[clock]["ratio"] = _ratio(measured, method, who, clock)
        methods.setdefault(method, {})[who] = row
    shape = "x".join(map(str, point.shape))
    return {"shape": shape, "batch": point.batch, "layout": point.layout, "classes": point.classes, "methods": methods}


def _seconds(samples: list[Sample], repeats: int, clock: str) -> list[float]:
    return [getattr(sample, clock) / repeats for sample in samples]


def _ratio(measured: Measured, method: str, who: str, clock: str) -> list[float]:
    """Quartiles of theirs / ours, operation for operation, over the rounds that both have; like with like."""
    own = OURS_IN_PLACE if who == IN_PLACE else OURS
    theirs, ours = (
        _seconds(measured.samples[method, name], measured.repeats[method, name], clock) for name in (who, own)
    )
    return list(quartiles([a / b for a, b in zip(theirs, ours, strict=False)]))


def _head(content: dict[str, Any]) -> list[str]:
    where = content["provenance"]
    hardware, versions = where["hardware"], where["versions"]
    machine = hardware["gpu"] if where["device"] == "cuda" else hardware["cpu"]
    known = [f"{package} {versions[package]}" for package, _ in rivals.PACKAGES.values() if package in versions]
    allocator = "; freed memory is kept for the next tensors, as in CPU runs" if content["keeps_freed_memory"] else ""
    clock = "processor time" if content["clock"] == "cpu" else "wall time, synchronised"
    return [
        "# Benchmark: mixers",
        "",
        f"One batch in float32 and its integer labels in, the mixed batch and what its loss needs out, all draws "
        f"included; {where['device']}, {where['threads']} thread(s), {content['rounds']} interleaved rounds (at least "
        f"{LEAST_ROUNDS} of what is slow); {machine}, torch {versions['torch']}, {', '.join(known)}"
        f"{allocator}.",
        f"Ratios are theirs / ours by {clock}, round by round: above 1 ours is the faster, **bold** where it is not. "
        "Brackets: quartiles. Cut and pasted areas have their average size throughout (lam nearly 1/2, ResizeMix's "
        "scale 1/2), Cutout's square half a side.",
        "",
        *(f"- {name}: {text}" for name, text in content["differences"].items()),
        *(f"- Not installed, so left out: {name} (`{install}`)." for name, install in content["absent"].items()),
    ]


def _ratios(content: dict[str, Any], in_place: bool) -> Iterator[tuple[str, str, list[float], str]]:
    """Method, shape, ratio and a name of every rival that keeps its inputs, or of those that do not."""
    for point in content["points"]:
        for method, cases in point["methods"].items():
            for who, row in cases.items():
                if who not in (OURS, OURS_IN_PLACE) and (who == IN_PLACE) == in_place:
                    name = f"{who}, {point['batch']} {point['layout']}"
                    yield method, point["shape"], row[content["clock"]]["ratio"], name


def _worst(content: dict[str, Any], in_place: bool) -> list[str]:
    """A line for each method with the smallest ratio of each shape, over batches and layouts."""
    worst: dict[tuple[str, str], tuple[float, str]] = {}
    for method, shape, ratio, name in _ratios(content, in_place):
        if (method, shape) not in worst or ratio[1] < worst[method, shape][0]:
            worst[method, shape] = ratio[1], f"{_cell(ratio)} {name}"
    shapes = list(dict.fromkeys(point["shape"] for point in content["points"]))
    methods = dict.fromkeys(method for method, _ in worst)
    return [
        "| method | " + " | ".join(shapes) + " |",
        "|---" * (len(shapes) + 1) + "|",
        *(
            f"| {method} | " + " | ".join(worst.get((method, shape), (0, "-"))[1] for shape in shapes) + " |"
            for method in methods
        ),
    ]


def _summary(content: dict[str, Any]) -> list[str]:
    return [
        "",
        "## The fastest rival",
        "",
        "Of those that keep the batch that went in, where it is nearest to ours: over both batch sizes and layouts.",
        "",
        *_worst(content, in_place=False),
    ]


def _in_place(content: dict[str, Any]) -> list[str]:
    if not any(_ratios(content, in_place=True)):
        return []
    return [
        "",
        "And of timm as it is, which overwrites that batch, against ours allowed to, as in the trainer:",
        "",
        *_worst(content, in_place=True),
    ]


def _point_table(point: dict[str, Any], clock: str) -> list[str]:
    copy = point["methods"][COPY][OURS]
    columns = [c for c in COLUMNS if any(c in cases for cases in point["methods"].values())]
    lines = [
        "",
        f"## {point['shape']}, batch {point['batch']}, {point['layout']}",
        "",
        f"{point['classes']} classes. Copying the batch: {copy[clock]['milliseconds'][1]:.3f} ms.",
        "",
        "| method | ours, CPU ms | in place, CPU ms | ours, wall ms | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 4) + "|",
    ]
    for method, cases in point["methods"].items():
        if method == COPY:
            continue
        ours = [_milliseconds(cases, *which) for which in ((OURS, "cpu"), (OURS_IN_PLACE, "cpu"), (OURS, "wall"))]
        theirs = [_cell(cases[c][clock]["ratio"]) if c in cases else "-" for c in columns]
        lines.append("| " + " | ".join([method, *ours, *theirs]) + " |")
    return lines


def _milliseconds(cases: dict[str, Any], who: str, clock: str) -> str:
    return f"{cases[who][clock]['milliseconds'][1]:.3f}" if who in cases else "-"


def _cell(ratio: list[float]) -> str:
    low, middle, high = ratio
    text = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    return f"**{text}**" if round(middle, 2) < 1 else text
