"""The figures of a table of runs, as SVG text by name: from records alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from randomix.records.aggregate import Group
from randomix.records.figures_drawing import Method, colour, drawing, inline, legend_below, standalone, styles
from randomix.records.figures_robustness import robustness_figures
from randomix.records.figures_tradeoff import weights_figures
from randomix.records.render import number, spread
from randomix.records.tables import COST, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["caption", "inline", "is_wide", "run_figures", "standalone", "table_figures"]

_CURVES = (("top1_error", "Test error (%)"), ("train_loss", "Training loss (mixed targets)"))
_CAPTIONS = {
    "curve_top1_error": "Test error by epoch: mean over seeds, band of one standard deviation",
    "curve_train_loss": "Training loss by epoch: mean over seeds, band of one standard deviation",
    "corruption_map": "Error (%) under each corruption: mean over severities and seeds",
    "severity_map": "Error (%) of one method by corruption and severity, mean over seeds",
    "occlusion_clipped": "Error under a block of zeros whose centre is any pixel, by its side; at 0 the clean error",
    "occlusion_inside": "Error under a block of zeros that lies in the image, by its side; at 0 the clean error",
    "reliability": "Share of right answers by confidence; the area of a mark is the number of test samples. Under the "
    "diagonal a network is overconfident. ECE: expected calibration error, mean over seeds",
    "level_snr_noise": "Error under white noise by signal-to-noise ratio",
    "level_fgsm_sound": "Error under FGSM on the waveform by its size, in units of full scale",
    "candidates": "Accuracy by number of candidates, one mark a set of them; bars: means. Hollow: the paper's numbers",
}
_FRONTS = {"fgsm": "FGSM", "corruption": "Corruption", "noise": "Noise"}
_FRONT = (
    "{} error against occlusion error for each choice of weights; colour: clean error. Line: what no other "
    "choice beats in both. Hollow and dashed, where shown: the paper's numbers"
)


def table_figures(table: Table) -> dict[str, str]:
    """SVG text by name: a dot plot for each compared column, and what ``run_figures`` finds in the runs."""
    figures = {}
    for i, column in enumerate(table.columns):
        values = [(row.group, row.label, row.cells[i].statistic) for row in table.rows]
        if column.compared and any(v for _, _, v in values) and column.metric != COST:
            figures[column.key] = _dots(values, column.heading, column.digits)
    methods = [(row.label, row.group) for row in table.rows]
    return figures | run_figures(methods) | weights_figures(_choices(methods))


def run_figures(methods: Sequence[Method]) -> dict[str, str]:
    """SVG text by name of what the runs of comparable methods hold: training curves and curves of robustness."""
    figures = {}
    for key, name in _CURVES:
        if any(_epochs(group, key) for _, group in methods):
            figures[f"curve_{key}"] = _curves(methods, key, name)
    return figures | robustness_figures(methods)


def caption(name: str, headings: Mapping[str, str]) -> str:
    """What a figure shows, without a full stop; ``headings``: those of the table's columns by their keys."""
    name, dash, place = name.partition("-")
    if name in _CAPTIONS:
        return _CAPTIONS[name] + (f" ({place.replace('-', ', ')})" if dash else "")
    if name.startswith("front_"):
        return _FRONT.format(_FRONTS[name.split("_")[1]])
    return f"{headings[name].removesuffix(' (%)')} of each run (dots) and the mean over seeds (bar)"


def is_wide(name: str) -> bool:
    """Whether a figure needs more than a column of a page."""
    return name.partition("-")[0] in _CAPTIONS or name.startswith("front_")


def _choices(methods: Sequence[Method]) -> list[tuple[str, Mapping[str, Any]]]:
    """The weights of each method that has some, and its statistics by metric."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for _, group in methods:
        weights = group.first.config["mixer"].get("weights")
        if weights is not None:
            names = {name for r in group.records for name in r.metrics.get("last", {})}
            found.append((_weights_text(group), {name: group.metric(name) for name in sorted(names)}))
    return found


def _weights_text(group: Group) -> str:
    """``2:1:1`` for the usual candidates, with their initials where there are others: ``M2 F1``."""
    mixer = group.first.config["mixer"]
    names = [c if isinstance(c, str) else c["name"] for c in mixer.get("candidates", ())]
    weights = [f"{w:g}" for w in mixer["weights"]]
    if names == ["mixup", "cutmix", "resizemix", "fmix"] or len(names) != len(weights):
        return ":".join(weights)
    return " ".join(name[0].upper() + w for name, w in zip(names, weights, strict=True))


def _dots(values: Sequence[tuple[Group, str, Any]], name: str, digits: int) -> str:
    """One line a method: its runs as dots, their mean as a bar, mean and spread in words."""
    with drawing((3.2, 0.62 + 0.42 * len(values))) as (axes, finish):
        for y, (group, label, statistic) in enumerate(values):
            axes.text(-0.02, y, label, ha="right", va="center", transform=axes.get_yaxis_transform())
            if statistic is None:
                continue
            its = colour(group)
            axes.scatter(statistic.values, [y] * statistic.n, s=30, color=its, alpha=0.65, linewidths=0, zorder=3)
            axes.plot([statistic.mean] * 2, [y - 0.3, y + 0.3], color=its, linewidth=2.6, zorder=4)
            text = number(statistic, digits) + spread(statistic, digits).partition(" (")[0]
            axes.text(1.02, y, text, ha="left", va="center", fontsize=10, transform=axes.get_yaxis_transform())
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.set_xlabel(name)
        return finish()


def _curves(methods: Sequence[Method], key: str, name: str) -> str:
    """One line a method: the mean over seeds at each epoch, with a band of one standard deviation."""
    values: list[float] = []
    with drawing((5.2, 3.8)) as (axes, finish):
        for label, group, its, dashes in styles(methods):
            epochs = _epochs(group, key)
            if not epochs:
                continue
            values += [v for at_epoch in epochs.values() for v in at_epoch]
            x = sorted(epochs)
            mean = [statistics.fmean(epochs[e]) for e in x]
            std = [statistics.stdev(epochs[e]) if len(epochs[e]) > 1 else 0.0 for e in x]
            axes.plot(x, mean, dashes, color=its, linewidth=1.8, label=label, marker="o" if len(x) == 1 else "")
            low, high = zip(*((m - s, m + s) for m, s in zip(mean, std, strict=True)), strict=True)
            axes.fill_between(x, low, high, color=its, alpha=0.15, linewidth=0)
        axes.set_xlabel("Epoch")
        axes.locator_params("x", integer=True)
        axes.set_ylabel(name + (", log scale" if _log_scale(axes, values) else ""))
        axes.margins(x=0.01)
        legend_below(axes, 2 if max(len(label) for label, _ in methods) > 12 else 3)
        return finish()


def _log_scale(axes: Axes, values: Sequence[float]) -> bool:
    """Where values span more than a factor of five the interesting part is the end, where they are small."""
    if min(values) <= 0 or max(values) <= 5 * min(values):
        return False
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    between = "235" if max(values) < 50 * min(values) else ""  # over several decades they would overlap
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in between else "")
    axes.set_ylim(bottom=0.7 * min(values))  # a band may reach below zero
    return True


def _epochs(group: Group, key: str) -> dict[int, list[float]]:
    """Values over seeds by epoch."""
    found: dict[int, list[float]] = {}
    for record in group.records:
        for entry in record.history if record.kind == "train" else ():
            if entry.get(key) is not None:
                found.setdefault(entry["epoch"], []).append(entry[key])
    return found
