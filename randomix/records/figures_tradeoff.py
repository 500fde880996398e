"""What the weights trade (Table 5) and what more candidates bring (Table 6): our runs filled, the paper's hollow."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from randomix.records.aggregate import Statistic
from randomix.records.figures_drawing import apart, drawing
from randomix.records.paper import BASELINE_ROW, TABLE
from randomix.records.pareto import pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Statistics = Mapping[str, Statistic | None]  # by metric
_AGAINST, _CLEAN = "occlusion_error", "top1_error"
_AXES = {"fgsm_error": "FGSM error (%)", "corruption_error": "Corruption error (%)", "noise_error": "Noise error (%)"}
_BEST, _WORST = "#3b8bd4", "#e03e52"  # clean error; mid tones, legible on white and on black
_GREY = "#808b96"
_MODES = {
    "-": ("#808b96", "D", "no mixing"),
    "l": ("#3b8bd4", "s", "linear"),
    "m": ("#e08a1e", "^", "mask"),
    "l+m": ("#e03e52", "o", "linear and mask"),
}
_MOST_NAMES = 12  # beyond, only those of the front are named


def table5_figures(ours: Mapping[str, Statistics], *, paper: bool) -> dict[str, str]:
    """The scatter of Table 5: ``ours`` by row, then metric. ``paper``: whether its numbers are of the same setting."""
    table = TABLE[5]
    points = [(_weights_of(row.key), ours[row.key]) for row in table.rows if row.key in ours]
    printed = [
        (_weights_of(row.key), {c.key: table.value(row.key, c.key) for c in table.columns}) for row in table.rows
    ]
    return weights_figures(points, printed if paper else (), fewest=1)


def table6_figures(ours: Mapping[str, Statistic | None], *, paper: bool) -> dict[str, str]:
    """The accuracies of Table 6 by number of candidates: ``ours`` by row. ``paper`` as for Table 5."""
    table = TABLE[6]
    rows = [(row.key, row.mode, row.candidates) for row in table.rows]
    points = [(key, mode, count, ours[key]) for key, mode, count in rows if ours.get(key) is not None]
    printed = [(key, mode, count, table.value(key, "top1")) for key, mode, count in rows]
    found = [(key, mode, count, s.mean) for key, mode, count, s in points if s is not None]
    return {"candidates": _candidates(found, printed if paper else ())} if found else {}


def weights_figures(
    points: Sequence[tuple[str, Statistics]],
    printed: Sequence[tuple[str, Mapping[str, float]]] = (),
    fewest: int = 3,
) -> dict[str, str]:
    """SVG text by name: each error that was measured against the occlusion error, for ``fewest`` weights or more."""
    figures = {}
    for metric, axis in _AXES.items():
        wanted = (metric, _AGAINST, _CLEAN)
        found: list[Mark] = []
        for label, values in points:
            known = [s.mean for name in wanted if (s := values.get(name))]
            if len(known) == len(wanted):
                found.append((label, known[0], known[1], known[2]))
        of_paper: list[Mark] = [(la, v[metric], v[_AGAINST], v[_CLEAN]) for la, v in printed if metric in v]
        if len(found) >= fewest:
            figures[f"front_{metric}"] = _scatter(found, of_paper, axis)
    return figures


Mark = tuple[str, float, float, float]  # name, x, y, clean error


def _scatter(ours: Sequence[Mark], paper: Sequence[Mark], axis: str) -> str:
    """Marks with their Pareto fronts in x and y, coloured by clean error."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    cleans = [clean for *_, clean in [*ours, *paper]]
    norm = Normalize(min(cleans), max(max(cleans), min(cleans) + 0.01))
    shades = LinearSegmentedColormap.from_list("clean", [_BEST, _WORST], N=32)
    with drawing((4.6, 4.4)) as (axes, finish):
        for marks, dashes, gid in ((ours, "-", "ours"), (paper, "--", "paper")):
            if not marks:
                continue
            _front_line(axes, marks, dashes)
            x, y, colours = zip(*((x, y, shades(norm(clean))) for _, x, y, clean in marks), strict=True)
            fill = {"c": colours} if marks is ours else {"facecolors": "none", "edgecolors": colours}
            axes.scatter(x, y, s=58, linewidths=1.6 if marks is paper else 0, zorder=3, gid=gid, **fill)
        axes.margins(x=0.16, y=0.1)
        axes.set_xlabel(axis)
        axes.set_ylabel("Occlusion error (%)")
        for marks in (ours, paper):
            _names(axes, marks)
        bar = axes.figure.colorbar(ScalarMappable(norm, shades), ax=axes, orientation="horizontal", pad=0.17, aspect=40)
        if bar.solids is not None:
            bar.solids.set_edgecolor("face")  # else gaps show between its parts
        bar.outline.set_visible(False)
        bar.set_label("Clean error (%)")
        return finish()


def _front_line(axes: Axes, marks: Sequence[Mark], dashes: str) -> None:
    """The border between what some mark reaches in x and y together and what none does."""
    corners = sorted({marks[i][1:3] for i in pareto_front([mark[1:3] for mark in marks])})
    steps = [p for a, b in pairwise(corners) for p in (a, (b[0], a[1]))] + [corners[-1]]
    axes.plot(*zip(*steps, strict=True), dashes, color=_GREY, linewidth=1.3, zorder=2)


def _names(axes: Axes, marks: Sequence[Mark]) -> None:
    """The names beside the marks, moved apart where marks are close; of many marks those of the front."""
    if not marks:
        return
    front = set(pareto_front([mark[1:3] for mark in marks]))
    named = [m for i, m in enumerate(marks) if len(marks) <= _MOST_NAMES or i in front]
    low, high = axes.get_ylim()
    places = apart([y for _, _, y, _ in named], 0.07 * (high - low))
    left, right = axes.get_xlim()
    for (name, x, _, _), place in zip(named, places, strict=True):
        at_edge = x > left + 0.75 * (right - left)
        shift = (right - left) * (-0.025 if at_edge else 0.025)
        axes.text(
            x + shift, place + 0.008 * (high - low), name, ha="right" if at_edge else "left", va="bottom", fontsize=9
        )  # above the line


Set = tuple[str, str, int, float]  # initials, mixed mode, number of candidates, accuracy


def _candidates(ours: Sequence[Set], paper: Sequence[Set]) -> str:
    """Accuracy by number of candidates, marked by mixed mode, with the mean of each number."""
    with drawing((4.8, 4.6)) as (axes, finish):
        for sets, shift, gid in ((paper, -0.16, "paper"), (ours, 0.16, "ours")):
            for count in sorted({s[2] for s in sets}):
                values = [s[3] for s in sets if s[2] == count]
                mean, middle = statistics.fmean(values), count + shift
                axes.plot([middle - 0.13, middle + 0.13], [mean] * 2, color=_GREY, linewidth=1.4, zorder=2)
            for mode, (its, marker, _) in _MODES.items():
                of_mode = [(count + shift, value) for _, m, count, value in sets if m == mode]
                if of_mode:
                    fill: dict[str, Any] = {"facecolors": "none"} if sets is paper else {}
                    x, y = zip(*of_mode, strict=True)
                    axes.scatter(
                        x,
                        y,
                        s=42,
                        marker=marker,
                        edgecolors=its,
                        linewidths=1.4,
                        color=None if fill else its,
                        zorder=3,
                        gid=f"{gid}-{mode}",
                        **fill,
                    )
        axes.set_xticks(range(5), ["Baseline", "1", "2", "3", "4"])
        axes.set_xlim(-0.5, 4.75)
        _initials(axes, ours, 0.16)
        axes.set_xlabel("Number of candidates")
        axes.set_ylabel("Top-1 accuracy (%)")
        _mode_legend(axes, {s[1] for s in [*ours, *paper]})
        return finish()


def _initials(axes: Axes, sets: Sequence[Set], shift: float) -> None:
    low, high = axes.get_ylim()
    for count in sorted({s[2] for s in sets if s[0] != BASELINE_ROW}):
        here = [s for s in sets if s[2] == count]
        for (name, *_), place in zip(here, apart([s[3] for s in here], 0.04 * (high - low)), strict=True):
            axes.text(count + shift + 0.1, place, name, ha="left", va="center", fontsize=9)


def _mode_legend(axes: Axes, modes: set[str]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=its, marker=marker, linestyle="", label=label)
        for mode, (its, marker, label) in _MODES.items()
        if mode in modes
    ]
    axes.legend(handles=marks, fontsize=10, ncols=2, loc="upper center", bbox_to_anchor=(0.45, -0.13))


def _weights_of(row: str) -> str:
    """``randomix-2111`` as ``2:1:1:1``."""
    return ":".join(row.partition("-")[2])
