"""The suite ``gpu`` as Markdown, and its roofline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import report, targets

_NAME = 70  # characters of a kernel's name


def lines(content: dict[str, Any]) -> list[str]:
    """Ceilings, throughput, waits, targets, and a profile of the fastest case of each network."""
    peaks = content["ceilings"]
    rates = ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in peaks["compute"].items())
    width = "full width" if content["width"] is None else f"narrowed to width {content['width']}"
    text = [
        f"Whole training loop with RandoMix, data resident, {width}; median of {content['rounds']} runs of "
        f"{content['steps']} steps; {report.machine(content)}.",
        "Ceilings, on random data in this process: the faster of a matrix product and a 3x3 convolution "
        f"{rates}; copy {peaks['copy'] / 1e9:.1f} GB/s (read + written).",
        "Compute: FLOPs of the step (2 x multiply-add) / time / that rate in the same precision. Copy: bytes "
        "that an unfused step reads and writes / time / the copy's rate; it passes 1 where caches or fusion save them.",
        *(f"Left out: {mode}, as {why}." for mode, why in content["left_out"].items()),
        "",
        "| network | mode | precision | batch | images/s | ms/step | compute | copy | MiB | graphs, later | launches |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_row, content["rows"]),
        *_waits(content),
        *targets.lines(content["targets"]),
    ]
    for row in fastest(content["rows"]):
        text += _profile(row)
    return text


def _row(row: dict[str, Any]) -> str:
    cells = [row["network"], row["mode"], row["precision"], str(row["batch"])]
    if "failed" in row:
        return "| " + " | ".join([*cells, row["failed"], *[""] * 6]) + " |"
    low, middle, high = row["milliseconds"]
    memory = "" if row["memory_mib"] is None else f"{row['memory_mib']:.0f}"
    cells += [
        f"{row['images_per_second']:.0f}",
        f"{middle:.2f} [{low:.2f}, {high:.2f}]",
        f"{row['share_of_compute']:.1%}",
        f"{row['share_of_copy']:.1%}",
        memory,
        f"{row['graphs']}, {row['recompiles']}",
        str(row["profile"]["launches"]),
    ]
    return "| " + " | ".join(cells) + " |"


def _waits(content: dict[str, Any]) -> list[str]:
    if content["provenance"]["device"] != "cuda":
        return ["", f"Waiting for the device: {len(content['waits'])} methods ran; nothing waits on a CPU."]
    said = {method: line for method, line in content["waits"].items() if line is not None}
    if not said:
        return ["", f"Waiting for the device is an error in torch: {len(content['waits'])} methods ran without one."]
    return ["", *(f"- {method} waits for the device: {line}" for method, line in said.items())]


def _profile(row: dict[str, Any]) -> list[str]:
    profile = row["profile"]
    return [
        "",
        f"## One step of {row['network']}, {row['mode']}, {row['precision']}, batch {row['batch']}",
        "",
        f"{profile['launches']} launches, {profile['busy_ms']:.2f} ms of work in {profile['wall_ms']:.2f} ms under the "
        f"profiler; the {len(profile['top'])} that take most:",
        "",
        "| kernel | calls | ms | share |",
        "|---|---|---|---|",
        *(f"| `{_short(k['name'])}` | {k['calls']} | {k['ms']:.3f} | {k['share']:.1%} |" for k in profile["top"]),
    ]


def _short(name: str) -> str:
    name = name.replace("|", "/").replace("`", "'").replace("\n", " ")
    return name if len(name) <= _NAME else f"{name[: _NAME - 3]}..."


def fastest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each network the row with most images a second."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if (
            "failed" not in row
            and row["images_per_second"] > best.get(row["network"], {"images_per_second": 0})["images_per_second"]
        ):
            best[row["network"]] = row
    return list(best.values())


def roofline(content: dict[str, Any], stem: Path) -> Path | None:
    """STEM.png: achieved FLOP/s of every case against its FLOPs a byte, under the measured ceilings."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    rows, peaks = [row for row in content["rows"] if "failed" not in row], content["ceilings"]
    if not rows:
        return None
    unit, one = ("TFLOP/s", 1e12) if max(peaks["compute"].values()) >= 1e13 else ("GFLOP/s", 1e9)
    intensities = [row["flops"] / row["bytes"] for row in rows]
    ridges = [peak / peaks["copy"] for peak in peaks["compute"].values()]
    left, right = min(*intensities, *ridges) / 4, max(*intensities, *ridges) * 4
    edges = {}
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for name, peak in peaks["compute"].items():
        slope = [left * peaks["copy"] / one, peak / one, peak / one]
        (line,) = axes.plot([left, peak / peaks["copy"], right], slope, lw=1)
        edges[name] = line.get_color()
        axes.annotate(
            f"{name} {peak / one:.4g} {unit}",
            (right, peak / one),
            ha="right",
            va="bottom",
            fontsize=8,
            color=line.get_color(),
        )
    markers = dict(zip(dict.fromkeys(row["mode"] for row in rows), "os^Dv", strict=False))
    colours = {name: f"C{number + 5}" for number, name in enumerate(dict.fromkeys(row["network"] for row in rows))}
    labelled = set()
    for row, intensity in zip(rows, intensities, strict=True):
        label = f"{row['network']}, {row['mode']}"
        axes.plot(
            intensity,
            row["flops_per_second"] / one,
            markers[row["mode"]],
            color=colours[row["network"]],
            markeredgecolor=edges.get(row["precision"]),
            markeredgewidth=1.5,
            label=None if label in labelled else label,
            alpha=0.8,
        )
        labelled.add(label)
    axes.set(xscale="log", yscale="log", xlabel="FLOP per byte of an unfused step", ylabel=unit, xlim=(left, right))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(LogLocator(subs=()))
    axes.set_title(f"{report.machine(content)}; copy {peaks['copy'] / 1e9:.4g} GB/s", fontsize=9)
    axes.legend(fontsize=7, loc="lower right")
    path = stem.with_suffix(".png")
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
