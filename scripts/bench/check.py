"""Short runs of loop, step and mixers against the committed records: which ratio moved by more than the noise.

Ratios are compared, not times: both sides of one are measured in the same run, so that another day's machine cancels.
A ratio moved if it differs by more than BEYOND standard errors of both sides together and by more than LEAST; what
seems slower is measured once more and counts only if it is so again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench import loops, report, suites
from bench.measure import MEDIAN_ERROR
from bench.operations import Point

BEYOND = 3.5  # standard errors; with some 60 ratios a run, chance passes 3.5 once in 35 runs
LEAST = {"loop": 0.04, "step": 0.04, "mixers": 0.15}  # below it two runs of one commit differ by chance of placement
ROUNDS = {"loop": 9, "step": 9, "mixers": 9}
STEPS = {"loop": 3, "step": 2}
WIDTH = 16  # loop and step of other widths would take too long
SIZES, BATCH = (32,), 128  # of the mixing operations


@dataclass(frozen=True)
class Ratio:
    """A median with its standard error; slower_up: whether a larger one means that our code got slower."""

    value: float
    error: float
    slower_up: bool

    @property
    def interval(self) -> list[float]:
        """Of 95 % or more."""
        return [self.value - 1.96 * self.error, self.value, self.value + 1.96 * self.error]


Ratios = dict[str, Ratio]  # by what is compared


@dataclass(frozen=True)
class Moved:
    """A ratio then and now; verdict: same | faster | slower."""

    before: Ratio
    now: Ratio
    verdict: str


def compare(before: Ratio, now: Ratio, least: float) -> Moved:
    """Whether ``now`` differs from ``before`` by more than the noise of both and by more than ``least``, relative."""
    noise = math.hypot(before.error / before.value, now.error / now.value)
    change = math.log(now.value / before.value) * (1 if now.slower_up else -1)
    if abs(change) <= max(BEYOND * noise, math.log1p(least)):
        return Moved(before, now, "same")
    return Moved(before, now, "slower" if change > 0 else "faster")


def ratios_of(content: Mapping[str, Any]) -> Ratios:
    """The CPU-time ratios of a record of loop, step or mixers."""
    if content["suite"] == "mixers":
        return dict(_of_operations(content))
    slower_up, rounds = content["suite"] == "step", content["rounds"]  # loop: others / ours; step: methods / Baseline
    return {
        f"{content['suite']}, {name}": _ratio(row["cpu"]["time_ratio"], rounds, slower_up)
        for name, row in content["rows"].items()
        if name != content["reference"]
    }


def _of_operations(content: Mapping[str, Any]) -> Iterator[tuple[str, Ratio]]:
    """Theirs / ours, at the points that a check measures."""
    for point in content["points"]:
        if point["batch"] != BATCH or point["shape"] not in {f"3x{size}x{size}" for size in SIZES}:
            continue
        for method, cases in point["methods"].items():
            for who, row in cases.items():
                if "ratio" in row["cpu"]:
                    name = f"mixers, {method} at {point['shape']} {point['layout']}, {who}"
                    yield name, _ratio(row["cpu"]["ratio"], row["rounds"], slower_up=False)


def _ratio(quartiles: list[float], rounds: int, slower_up: bool) -> Ratio:
    """Quartiles of few rounds say little of the spread: the factor is about that of Student's t at BEYOND."""
    low, middle, high = quartiles
    few = 1 + 5 / rounds
    return Ratio(middle, few * MEDIAN_ERROR * (high - low) / 1.349 / math.sqrt(rounds), slower_up)


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each suite the record of a CPU run that a check can repeat: with most ratios, then with most rounds."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text())
        suite = content.get("suite")
        fits = suite in ROUNDS and content["provenance"]["device"] == "cpu" and _repeatable(content)
        fits = fits and bool(content.get("keeps_freed_memory"))  # as every run does by now
        if fits and (suite not in found or _extent(content) > _extent(found[suite])):
            found[suite] = content | {"file": path.name}
    return found


def _extent(content: Mapping[str, Any]) -> tuple[int, int]:
    return len(ratios_of(content)), content["rounds"]


def _repeatable(content: Mapping[str, Any]) -> bool:
    if content["suite"] == "mixers":
        return bool(content.get("points")) and bool(dict(_of_operations(content)))
    setting = content["setting"]
    return setting["width"] == WIDTH and not setting["compile"]


def again(content: Mapping[str, Any]) -> dict[str, Any]:
    """A short run of what ``content`` is a record of, as a record."""
    suite, threads = content["suite"], torch.get_num_threads()
    if suite == "mixers":
        points = [Point(size, BATCH, layout) for size in SIZES for layout in ("channels_last", "NCHW")]
        return suites.mixing_at(points, ROUNDS[suite], "cpu", None).as_dict(threads)
    known = loops.Setting.__dataclass_fields__
    setting = replace(loops.Setting(), **{k: v for k, v in content["setting"].items() if k in known})
    setting = replace(setting, steps=STEPS[suite])
    if suite == "loop":
        return suites.loop_at(setting, ROUNDS[suite]).as_dict(threads)
    only = [name for name in content["rows"] if name != content["reference"]]
    return suites.step_at(setting, ROUNDS[suite], only).as_dict(threads)


def check(folder: Path, rerun: Callable[[Mapping[str, Any]], dict[str, Any]] = again) -> report.Plain | None:
    """Compare with the records of ``folder``; None if it holds none."""
    started, known = time.time(), records(folder)
    if not known:
        return None
    moved: dict[str, Moved] = {}
    for suite, content in known.items():
        found = _compared(content, rerun(content), LEAST[suite])
        if any(one.verdict == "slower" for one in found.values()):
            second = _compared(content, rerun(content), LEAST[suite])
            found |= {name: second[name] for name, one in found.items() if one.verdict == "slower" and name in second}
        moved |= found
    rows = {
        name: {"before": one.before.interval, "now": one.now.interval, "verdict": one.verdict}
        for name, one in moved.items()
    }
    files = {suite: known[suite]["file"] if suite in known else None for suite in ROUNDS}
    precision = next(iter(known.values()))["provenance"]["precision"]
    return report.Plain("check", {"rows": rows, "records": files}, _lines, "cpu", precision, started)


def _compared(before: Mapping[str, Any], now: Mapping[str, Any], least: float) -> dict[str, Moved]:
    """Those that both have."""
    old, new = ratios_of(before), ratios_of(now)
    return {name: compare(old[name], new[name], least) for name in old if name in new}


def slower(content: Mapping[str, Any]) -> list[str]:
    """What got slower by more than the noise."""
    return [name for name, row in content["rows"].items() if row["verdict"] == "slower"]


def _lines(content: dict[str, Any]) -> list[str]:
    rows, counts = content["rows"], {v: 0 for v in ("slower", "faster", "same")}
    for row in rows.values():
        counts[row["verdict"]] += 1
    compared = ", ".join(name for name in content["records"].values() if name)
    lines = [
        f"Ratios of CPU times against {compared}; {report.machine(content)}.",
        f"{counts['slower']} slower, {counts['faster']} faster by more than the noise, {counts['same']} as they were.",
        *(f"No record of {suite} to compare with." for suite, name in content["records"].items() if name is None),
        "",
        "| ratio | record | now | |",
        "|---|---|---|---|",
    ]
    order = sorted(rows.items(), key=lambda item: ("slower", "faster", "same").index(item[1]["verdict"]))
    for name, row in order:
        then, now = (f"{m:.3f} [{low:.3f}, {high:.3f}]" for low, m, high in (row["before"], row["now"]))
        lines.append(f"| {name} | {then} | {now} | {row['verdict'] if row['verdict'] != 'same' else ''} |")
    return lines
