"""The speed targets T1-T9 as data, and whether measurements meet them.

A target holds when the median meets it; the 95 % interval of the median stands beside it, and a miss within it is said
to be one: more rounds, or a quieter machine, would have to tell.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.measure import median_interval, rounds_for

HALF_WIDTH = 0.015  # of the interval that the rounds of a benchmark are chosen for
_MEETS = {">=": operator.ge, "<=": operator.le}


@dataclass(frozen=True)
class Point:
    """What decides which value of a target counts; gpu: the GPU's name."""

    device: str
    width: int = 64
    size: int = 32
    compiled: bool = False
    gpu: str = ""


CONDITIONS: Mapping[str, Callable[[Point], bool]] = {
    "cpu, width >= 64": lambda p: p.device == "cpu" and p.width >= 64,
    "cpu": lambda p: p.device == "cpu",
    "cuda, size >= 224": lambda p: p.device == "cuda" and p.size >= 224,
    "cuda, compiled": lambda p: p.device == "cuda" and p.compiled,
    "V100": lambda p: "V100" in p.gpu,
    "A100": lambda p: "A100" in p.gpu,
    "H100": lambda p: "H100" in p.gpu or "H200" in p.gpu,
    "cuda": lambda p: p.device == "cuda",
}


@dataclass(frozen=True)
class Target:
    """A quantity and its bounds by condition; the first condition that applies to a point counts.

    cases: numerator and denominator of the time ratio, where it is one of a suite's.
    """

    number: str
    what: str
    relation: str  # >= | <=
    bounds: Mapping[str, float]
    cases: tuple[str, str] | None = None

    def bound(self, point: Point) -> float | None:
        """The value to meet at ``point``; None: there is none."""
        return next((value for name, value in self.bounds.items() if CONDITIONS[name](point)), None)


OURS = "ours (RandoMix)"
BARE, PEER, AIRBENCH = "bare step", "peer-style loop (Mixup)", "airbench-style loader (RandoMix)"
CHEAP = ("mixup", "cutmix", "cutout", "fmix", "resizemix", "saliencymix", "randomix")

LOOP = (
    Target(
        "T1",
        "bare step / full loop",
        ">=",
        {"cpu, width >= 64": 0.98, "cpu": 0.95, "cuda, size >= 224": 0.95, "cuda": 0.97},
        (BARE, OURS),
    ),
    Target("T4", "peer-style loop / full loop", ">=", {"cpu": 2.0, "V100": 3.0, "cuda": 5.0}, (PEER, OURS)),
    Target(
        "T5",
        "airbench-style loader, eager / full loop",
        ">=",
        {"cpu": 1.0, "cuda, compiled": 1.15, "cuda": 1.0},
        (AIRBENCH, OURS),
    ),
)
STEP = (
    *(Target("T2", f"{name} / baseline", "<=", {"cpu": 1.03, "cuda": 1.02}, (name, "baseline")) for name in CHEAP),
    Target("T3", "puzzlemix / baseline", "<=", {"cpu": 1.9, "cuda": 1.75}, ("puzzlemix", "baseline")),
)
GPU = {  # by network: share of the measured peak, and images a second
    "preact_resnet18": (
        Target("T6", "PreAct-ResNet18, share of peak", ">=", {"cpu, width >= 64": 0.40, "A100": 0.25}),
    ),
    "wrn_28_10": (Target("T6", "WRN-28-10, share of peak", ">=", {"A100": 0.40, "H100": 0.35}),),
    "resnet50": (Target("T6", "ResNet-50, images/s", ">=", {"V100": 1200, "A100": 2470, "H100": 2470}),),
}
SYNCS = Target("T7", "methods whose step waits for the device", "<=", {"cuda": 0})
PIXEL_GRAPHS = Target("T8", "graphs of all pixel mixers", "<=", {"cpu": 1, "cuda": 1})
HIDDEN_GRAPHS = Target("T8", "graphs of a hidden mixer", "<=", {"cpu": 4, "cuda": 4})
RECOMPILES = Target("T8", "recompiles after step 2, all pixel mixers", "<=", {"cpu": 0, "cuda": 0})
SCALING = Target("T9", "efficiency against one rank", ">=", {"cuda": 0.87})
STARTUP = Target("start-up", "CPU seconds", "<=", {"cpu": 1.0})


def judge(target: Target, values: tuple[float, float, float], point: Point) -> dict[str, Any] | None:
    """Whether the middle of (low, middle, high) meets the target, with the line that says so; None without a bound."""
    bound = target.bound(point)
    if bound is None:
        return None
    low, middle, high = values
    holds = bool(_MEETS[target.relation](middle, bound))
    missed = "missed by less than the noise" if low <= bound <= high else "DOES NOT HOLD"
    text = _plain if bound > 100 or isinstance(bound, int) else _ratio
    interval = "" if low == high else f" [{text(low)}, {text(high)}]"
    line = f"{target.number} {target.what} {text(middle)}{interval} {target.relation} {text(bound)}: "
    return {
        "target": target.number,
        "what": target.what,
        "interval": [low, middle, high],
        "relation": target.relation,
        "bound": bound,
        "holds": holds,
        "line": line + ("holds" if holds else missed),
    }


def judge_ratios(targets: tuple[Target, ...], times: Mapping[str, list[float]], point: Point) -> list[dict[str, Any]]:
    """The verdicts of those time ratios, round by round, whose cases were measured; times: seconds of each round."""
    verdicts = []
    for target in targets:
        if target.cases is None or not times.keys() >= set(target.cases):
            continue
        numerator, denominator = (times[name] for name in target.cases)
        values = [a / b for a, b in zip(numerator, denominator, strict=True)]
        verdict = judge(target, median_interval(values), point)
        if verdict is not None:
            verdicts.append(verdict | {"rounds_needed": rounds_for(values, HALF_WIDTH)})
    return verdicts


def lines(verdicts: list[dict[str, Any]]) -> list[str]:
    """The Markdown list of the verdicts, after an empty line; nothing if there are none."""
    if not verdicts:
        return []
    text = ["", "Targets, as median [its 95 % interval]; the median decides:", ""]
    text += [f"- {verdict['line']}" for verdict in verdicts]
    needed: dict[str, int] = {}
    for verdict in verdicts:
        if "rounds_needed" in verdict:
            needed[verdict["target"]] = max(needed.get(verdict["target"], 0), verdict["rounds_needed"])
    if needed:
        counts = ", ".join(f"{number} {count}" for number, count in needed.items())
        text += ["", f"Rounds that make these intervals +-{HALF_WIDTH:.1%}, by the noise of those taken: {counts}."]
    return text


def _ratio(value: float) -> str:
    return f"{value:.3f}"


def _plain(value: float) -> str:
    return f"{value:.0f}"
