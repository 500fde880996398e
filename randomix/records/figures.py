"""Figures from records as SVG text: equal records give equal bytes. Matplotlib is imported where it is used.

Text and axes are drawn in ``currentColor``, so that a figure follows the colours of the page it is put into.
"""

from __future__ import annotations

import io
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from randomix.records.aggregate import Group
from randomix.records.render import number, spread
from randomix.records.tables import COST, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#010203"  # replaced by currentColor
# Mid tones, legible on white and on black; RandoMix's is the strongest.
_COLOURS = {"baseline": "#808b96", "cutout": "#b08d57", "mixup": "#3b8bd4", "cutmix": "#e08a1e", "fmix": "#2fa36b",
            "resizemix": "#9a6fd0", "saliencymix": "#4db6c4", "manifoldmixup": "#7c94e8", "patchup": "#c2a300",
            "puzzlemix": "#d56fa8", "comixup": "#8fae3c", "randomix": "#e03e52"}  # fmt: skip
_SPARE = ("#5f9ea0", "#cd7f6a", "#6b8e23", "#a0522d", "#708ee0")
_DASHES = ("-", "--", ":", "-.")
_RC = {"svg.hashsalt": "randomix", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 11,
       "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": _INK, "axes.labelcolor": _INK,
       "text.color": _INK, "xtick.color": _INK, "ytick.color": _INK, "figure.facecolor": "none",
       "axes.facecolor": "none", "savefig.facecolor": "none", "grid.color": _INK, "grid.alpha": 0.15,
       "axes.grid": True, "axes.axisbelow": True, "legend.frameon": False}  # fmt: skip
_CURVES = (("top1_error", "Test error (%)"), ("train_loss", "Training loss (mixed targets)"))


def table_figures(table: Table) -> dict[str, str]:
    """SVG text by name: a dot plot for each compared column, and the training curves that the runs have."""
    figures = {}
    for i, column in enumerate(table.columns):
        values = [(row.group, row.label, row.cells[i].statistic) for row in table.rows]
        if column.compared and any(v for _, _, v in values) and column.metric != COST:
            figures[column.key] = _dots(values, column.heading, column.digits)
    for key, name in _CURVES:
        if any(_epochs(row.group, key) for row in table.rows):
            figures[f"curve_{key}"] = _curves(table, key, name)
    return figures


def standalone(svg: str) -> str:
    """A figure as a file of its own: dark ink on light pages, light ink on dark ones."""
    style = "<style>svg{color:#1f2328}@media(prefers-color-scheme:dark){svg{color:#e6edf3}}</style>"
    return re.sub(r"(<svg [^>]*>)", lambda m: f"{m[1]}\n {style}", svg, count=1)


def inline(svg: str, prefix: str, title: str) -> str:
    """A figure as an element of a page: ids unique by ``prefix``, its size the page's, ``title`` for screen readers."""
    svg = re.sub(r' (xmlns[:\w]*|version)="[^"]*"', "", svg[svg.index("<svg ") :])
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}-", svg)
    svg = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)


def _dots(values: Sequence[tuple[Group, str, Any]], name: str, digits: int) -> str:
    """One line a method: its runs as dots, their mean as a bar, mean and spread in words."""
    with _drawing((3.2, 0.62 + 0.42 * len(values))) as (axes, finish):
        for y, (group, label, statistic) in enumerate(values):
            axes.text(-0.02, y, label, ha="right", va="center", transform=axes.get_yaxis_transform())
            if statistic is None:
                continue
            colour = _colour(group)
            axes.scatter(statistic.values, [y] * statistic.n, s=30, color=colour, alpha=0.65, linewidths=0, zorder=3)
            axes.plot([statistic.mean] * 2, [y - 0.3, y + 0.3], color=colour, linewidth=2.6, zorder=4)
            text = number(statistic, digits) + spread(statistic, digits).partition(" (")[0]
            axes.text(1.02, y, text, ha="left", va="center", fontsize=10, transform=axes.get_yaxis_transform())
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.set_xlabel(name)
        return finish()


def _curves(table: Table, key: str, name: str) -> str:
    """One line a method: the mean over seeds at each epoch, with a band of one standard deviation."""
    used: dict[str, int] = {}
    with _drawing((6.0, 4.0)) as (axes, finish):
        for row in table.rows:
            epochs = _epochs(row.group, key)
            if not epochs:
                continue
            x = sorted(epochs)
            mean = [statistics.fmean(epochs[e]) for e in x]
            std = [statistics.stdev(epochs[e]) if len(epochs[e]) > 1 else 0.0 for e in x]
            colour = _colour(row.group)
            dashes = _DASHES[used.get(colour, 0) % len(_DASHES)]  # variants of a method share its colour
            used[colour] = used.get(colour, 0) + 1
            axes.plot(x, mean, dashes, color=colour, linewidth=1.8, label=row.label, marker="o" if len(x) == 1 else "")
            low, high = zip(*((m - s, m + s) for m, s in zip(mean, std, strict=True)), strict=True)
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.set_xlabel("Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        values = [v for row in table.rows for at_epoch in _epochs(row.group, key).values() for v in at_epoch]
        log = min(values) > 0 and max(values) > 5 * min(values)
        if log:  # the interesting part is the end, where the values are small
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            between = "235" if max(values) < 50 * min(values) else ""  # over several decades they would overlap
            axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in between else "")
            axes.set_ylim(bottom=0.7 * min(values))  # a band may reach below zero
        axes.set_ylabel(name + (", log scale" if log else ""))
        axes.margins(x=0.01)
        columns = 3 if len(table.rows) > 4 else min(len(table.rows), 2)
        axes.legend(fontsize=10, ncols=columns, loc="upper center", bbox_to_anchor=(0.47, -0.14))
        return finish()


def _epochs(group: Group, key: str) -> dict[int, list[float]]:
    """Values over seeds by epoch."""
    found: dict[int, list[float]] = {}
    for record in group.records:
        for entry in record.history if record.kind == "train" else ():
            if entry.get(key) is not None:
                found.setdefault(entry["epoch"], []).append(entry[key])
    return found


def _colour(group: Group) -> str:
    name = group.first.mixer.name.replace("_", "").replace("-", "")
    return _COLOURS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


@contextmanager
def _drawing(size: tuple[float, float]) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw on, and a function that returns the finished SVG. ImportError names the extra to install."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("figures need matplotlib: pip install 'randomix[report]'") from None

    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=size)

        def finish() -> str:
            out = io.StringIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(out, format="svg", bbox_inches="tight", pad_inches=0.04, metadata=nothing)
            svg = re.sub(r"[ \t]+\n", "\n", out.getvalue().replace(_INK, "currentColor"))
            return re.sub(r"<!DOCTYPE[^>]*>\n?| *<metadata>.*?</metadata>\n?", "", svg, flags=re.DOTALL)

        yield figure.add_subplot(), finish
