"""What all figures share: colours, axes, SVG. Equal records give equal bytes. Matplotlib is imported where it is used.

Text and axes are drawn in ``currentColor``, so that a figure follows the colours of the page it is put into.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from randomix.records.aggregate import Group, is_final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Method = tuple[str, Group]  # a name in a table, and the runs behind it

_INK = "#010203"  # replaced by currentColor
# Mid tones, legible on white and on black; RandoMix's is the strongest.
_COLOURS = {
    "baseline": "#808b96",
    "cutout": "#b08d57",
    "mixup": "#3b8bd4",
    "cutmix": "#e08a1e",
    "fmix": "#2fa36b",
    "resizemix": "#9a6fd0",
    "saliencymix": "#4db6c4",
    "manifoldmixup": "#7c94e8",
    "patchup": "#c2a300",
    "puzzlemix": "#d56fa8",
    "comixup": "#8fae3c",
    "randomix": "#e03e52",
}
_SPARE = ("#5f9ea0", "#cd7f6a", "#6b8e23", "#a0522d", "#708ee0")
_DASHES = ("-", "--", ":", "-.")
_RC: dict[Any, Any] = {
    "svg.hashsalt": "randomix",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


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


def colour(group: Group) -> str:
    """The colour of a method, by its name."""
    name = group.first.mixer.name.replace("_", "").replace("-", "")
    return _COLOURS.get(name) or _SPARE[sum(name.encode()) % len(_SPARE)]


def styles(methods: Iterable[Method]) -> Iterator[tuple[str, Group, str, str]]:
    """Name, runs, colour and dashes of each method: variants of a method share its colour, unless they are many."""
    methods = list(methods)
    colours = [colour(group) for _, group in methods]
    if colours and max(Counter(colours).values()) > len(_DASHES):
        every = [*_COLOURS.values(), *_SPARE]
        colours = [every[i % len(every)] for i in range(len(methods))]
    used: Counter[str] = Counter()
    for (label, group), its in zip(methods, colours, strict=True):
        yield label, group, its, _DASHES[used[its] % len(_DASHES)]
        used[its] += 1


def counts(group: Group, evaluator: str) -> list[Mapping[str, Any]]:
    """What an evaluator counted after the last epoch, one entry a seed; a training record goes before an evaluation."""
    found: dict[int, Mapping[str, Any]] = {}
    for record in group.records:
        counted = record.counts.get(evaluator)
        if isinstance(counted, dict) and "last" in record.metrics and is_final(record):
            found.setdefault(record.seed, counted)
    return [found[seed] for seed in sorted(found)]


def legend_below(axes: Axes, columns: int, drop: float = -0.16) -> None:
    """Names under the axes, where they cover nothing."""
    axes.legend(fontsize=10, ncols=columns, loc="upper center", bbox_to_anchor=(0.45, drop), columnspacing=1.2)


def apart(places: Sequence[float], gap: float) -> list[float]:
    """The same places, moved as little as possible (sum of squares) so that all are ``gap`` apart or more."""
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    pools: list[
        tuple[float, int]
    ] = []  # isotonic regression of the places less the room below: pool adjacent violators
    for rank, index in enumerate(order):
        mean, size = places[index] - rank * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    levels = [mean for mean, size in pools for _ in range(size)]
    moved = dict(zip(order, (level + rank * gap for rank, level in enumerate(levels)), strict=True))
    return [moved[i] for i in range(len(places))]


@contextmanager
def drawing(size: tuple[float, float]) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes of so many inches to draw on, and a function that returns the finished SVG.

    ImportError names the extra to install.
    """
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
