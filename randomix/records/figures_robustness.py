"""Figures of what the evaluators counted: corruptions, occlusion, calibration, noise on sound."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from randomix.records.aggregate import Group
from randomix.records.figures_drawing import Method, counts, drawing, legend_below, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = {"snr_noise": ("snr_db", "Signal-to-noise ratio (dB)"), "fgsm_sound": ("eps", "FGSM, size (full scale)")}
_FEW = 0.01  # bins of a smaller share of the samples are marks without a line: what they show is chance
_PLACEMENTS = ("clipped", "inside")
_LOW, _HIGH = (0.20, 0.47, 0.66), (0.85, 0.33, 0.26)  # of maps: mid tones, with white text on them

Errors = dict[str, list[float]]  # of each corruption at its severities, in percent
Points = list[tuple[float, float]]


def robustness_figures(methods: Sequence[Method]) -> dict[str, str]:
    """SVG text by name of what the runs of comparable methods counted; nothing where there is nothing."""
    figures: dict[str, str] = {}
    found = [(label, group, errors) for label, group in methods if (errors := _corruptions(group))]
    if found:
        figures["corruption_map"] = _corruption_map([(label, errors) for label, _, errors in found])
        figures["severity_map"] = _severity_map(*found[-1])  # RandoMix where it is there: it is the last in the paper
    for placement in _PLACEMENTS:
        _add(
            figures,
            f"occlusion_{placement}",
            methods,
            "Side of the block (% of the image's)",
            partial(_occlusion, placement=placement),
        )
    for name, (key, axis) in _LEVELS.items():
        _add(figures, f"level_{name}", methods, axis, partial(_levels, evaluator=name, key=key))
    if any(_bins(group) for _, group in methods):
        figures["reliability"] = _reliability(methods)
    return figures


def _add(
    figures: dict[str, str], name: str, methods: Sequence[Method], axis: str, points: Callable[[Group], Points]
) -> None:
    """A figure of errors along ``axis``, one line a method, if there are any."""
    lines = [(label, its, dashes, points(group)) for label, group, its, dashes in styles(methods)]
    lines = [line for line in lines if line[3]]
    if not lines:
        return
    with drawing((4.6, 3.4)) as (axes, finish):
        for label, its, dashes, found in lines:
            axes.plot(
                *zip(*found, strict=True), dashes, color=its, marker="o", markersize=4, linewidth=1.6, label=label
            )
        axes.set_xlabel(axis)
        axes.set_ylabel("Error (%)")
        legend_below(axes, _columns([label for label, *_ in lines]))
        figures[name] = finish()


def _columns(labels: Sequence[str]) -> int:
    return 2 if max(map(len, labels)) > 12 else min(3, len(labels))


def _corruptions(group: Group) -> Errors:
    """Errors by corruption and severity, means over seeds; only what every seed has."""
    found = [c for c in counts(group, "corruptions") if c.get("matrix") and c.get("total")]
    names = [name for name in (found[0]["matrix"] if found else ()) if all(name in c["matrix"] for c in found)]
    return {
        name: [
            statistics.fmean(100 * (1 - c["matrix"][name][i] / c["total"]) for c in found)
            for i in range(len(found[0]["matrix"][name]))
        ]
        for name in names
    }


def _corruption_map(found: Sequence[tuple[str, Errors]]) -> str:
    """A row a corruption and a column a method."""
    names = list(dict.fromkeys(name for _, errors in found for name in errors))
    cells = [[statistics.fmean(errors[name]) if name in errors else None for _, errors in found] for name in names]
    return _map(names, [label for label, _ in found], cells)


def _severity_map(label: str, group: Group, errors: Errors) -> str:
    """A row a corruption and a column a severity."""
    severities = counts(group, "corruptions")[0].get("severities", (1, 2, 3, 4, 5))
    return _map(list(errors), [str(s) for s in severities], list(errors.values()), f"{label}: severity")


def _map(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[float | None]], title: str = "") -> str:
    """Numbers on coloured cells, from blue for the smallest error to red for the largest."""
    known = [v for row in cells for v in row if v is not None]
    low, span = min(known), max(max(known) - min(known), 1e-9)
    with drawing((max(0.36 * len(columns), 3.0), 0.24 * len(rows))) as (axes, finish):
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                if value is not None:
                    _cell(axes, x, y, value, (value - low) / span)
        axes.set_xlim(-0.5, len(columns) - 0.5)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows], fontsize=10)
        turned: dict[str, Any] = {} if title else {"rotation": 50, "ha": "left", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(columns)), columns, fontsize=10, **turned)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel(title)
        axes.tick_params(length=0)
        axes.grid(False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return finish()


def _cell(axes: Axes, x: int, y: int, value: float, share: float) -> None:
    from matplotlib.patches import Rectangle

    fill = tuple(a + (b - a) * share for a, b in zip(_LOW, _HIGH, strict=True))
    axes.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=fill, linewidth=0))
    axes.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=9, color="white")


def _occlusion(group: Group, placement: str) -> Points:
    """(side, error), both in percent, from the clean error at 0 on."""
    found = [c for c in counts(group, "occlusion_sweep") if placement in c.get("correct1", {})]
    blocks = found[0]["blocks"] if found else []
    if any(c["blocks"] != blocks for c in found) or not all(0 < b <= 1 for b in blocks):
        return []  # pixels and shares have no common axis
    errors = [
        statistics.fmean(_error(c["correct1"][placement][i], c["total"]) for c in found) for i in range(len(blocks))
    ]
    clean = group.metric("top1_error")
    start = [(0.0, clean.mean)] if errors and clean else []
    return start + [(100 * block, error) for block, error in zip(blocks, errors, strict=True)]


def _levels(group: Group, evaluator: str, key: str) -> Points:
    """(level, error in percent), means over seeds."""
    found = [c for c in counts(group, evaluator) if c.get(key)]
    levels = found[0][key] if found else []
    if any(c[key] != levels for c in found):
        return []
    return [
        (level, statistics.fmean(_error(c["correct1"][i], c["total"]) for c in found)) for i, level in enumerate(levels)
    ]


def _error(correct: int | Sequence[int], total: int) -> float:
    """In percent; of several repeats the mean."""
    return 100 * (1 - statistics.fmean([correct] if isinstance(correct, int) else correct) / total)


def _bins(group: Group) -> list[tuple[float, float, int]]:
    """(confidence, share of right answers, samples) of each bin that has samples, all seeds together."""
    found = [c["bins"] for c in counts(group, "clean") if c.get("bins")]
    sums = [[sum(column) for column in zip(*bins, strict=True)] for bins in zip(*found, strict=True)]
    return [(confidence / n, correct / n, n) for n, correct, confidence in sums if n]


def _reliability(methods: Sequence[Method]) -> str:
    """Accuracy by confidence, one line a method, with its calibration error in words."""
    with drawing((4.6, 4.0)) as (axes, finish):
        axes.plot([0, 100], [0, 100], color="#808b96", linewidth=1, zorder=1)
        labels = []
        for label, group, its, dashes in styles(methods):
            bins = _bins(group)
            if not bins:
                continue
            ece, total = group.metric("ece"), sum(n for *_, n in bins)
            labels.append(label + (f", ECE {ece.mean:.1f} %" if ece else ""))
            x, y = [100 * c for c, _, _ in bins], [100 * a for _, a, _ in bins]
            line = [(a, b) for a, b, (*_, n) in zip(x, y, bins, strict=True) if n >= _FEW * total]
            axes.plot(*zip(*line, strict=True), dashes, color=its, linewidth=1.2, alpha=0.8, label=labels[-1])
            axes.scatter(x, y, s=[4 + 110 * n / total for *_, n in bins], color=its, alpha=0.75, linewidths=0, zorder=3)
        axes.set_xlim(-2, 102)
        axes.set_ylim(-4, 104)
        axes.set_xlabel("Confidence (%)")
        axes.set_ylabel("Right answers (%)")
        legend_below(axes, 1 if max(map(len, labels)) > 24 else 2)
        return finish()
