"""Figures: the numbers they show are those of the records; equal records give equal bytes; no data, no figure."""

from __future__ import annotations

import importlib.util
import itertools
import random
import re
import statistics
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from randomix.records import figures, figures_paper, figures_tradeoff
from randomix.records.aggregate import Sample, Statistic, group_runs
from randomix.records.figures_drawing import Method, apart
from randomix.records.paper import TABLE
from randomix.records.record import RunRecord
from randomix.records.tables import build_tables

pytest.importorskip("matplotlib")


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fakes = _load("fakes")
NAMES = ["gaussian_noise", "fog", "jpeg_compression"]
BLOCKS = [0.25, 0.5, 0.75]


def counted(method: str, seed: int, shift: int) -> RunRecord:
    """A record with everything that has a figure; the counts are made up and all different."""
    bins = [[0, 0, 0.0]] * 13 + [[20, 11 + seed, 18.0], [80, 60 - shift, 77.5]]
    counts = {
        "clean": {"total": 100, "bins": bins},
        "corruptions": {
            "total": 1000,
            "severities": [1, 2, 3, 4, 5],
            "matrix": {name: [900 - 100 * s - 10 * i - shift - seed for s in range(5)] for i, name in enumerate(NAMES)},
        },
        "occlusion_sweep": {
            "total": 200,
            "blocks": BLOCKS,
            "correct1": {
                "clipped": [[180 - shift - 40 * i, 176 - shift - 40 * i] for i in range(3)],
                "inside": [[170 - shift - 50 * i, 170 - shift - 50 * i] for i in range(3)],
            },
        },
        "snr_noise": {"total": 50, "snr_db": [20, 10, 0], "correct1": [[45 - shift], [40 - shift], [20 - shift]]},
    }
    record = fakes.fake(method, seed, 10.0 + shift)
    return replace(record, counts=counts, metrics={"last": dict(record.metrics["last"]) | {"ece": 5.0 + seed + shift}})


def methods(*records: RunRecord) -> list[Method]:
    return [(g.first.mixer.label, g) for g in group_runs(records)]


@pytest.fixture(scope="module")
def both() -> list[Method]:
    return methods(*(counted(m, s, k) for k, m in enumerate(("randomix", "baseline")) for s in (0, 1)))


@pytest.fixture(scope="module")
def drawn(both: list[Method]) -> dict[str, str]:
    return figures.run_figures(both)


def texts(svg: str) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def lines(svg: str, colour: str) -> list[list[tuple[float, float]]]:
    """The points of the lines of a colour, in the picture's own units, y upwards."""
    found = re.findall(rf'<path d="(M[^"zQ]*?)"[^>]*style="fill: none; [^"]*stroke: {colour}', svg)
    return [[(float(x), -float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)] for path in found]


def marks(svg: str, gid: str) -> list[tuple[float, float]]:
    """The centres of the marks of a group, y upwards: each a reference to a shape, or a shape of its own."""
    space = "{http://www.w3.org/2000/svg}"
    group = next(g for g in ElementTree.fromstring(svg).iter(f"{space}g") if g.get("id") == gid)
    found = [(float(u.get("x", "")), -float(u.get("y", ""))) for u in group.iter(f"{space}use")]
    for path in group.findall(f"{space}path") if not found else ():
        x, y = zip(*(map(float, p) for p in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.get("d", ""))), strict=True)
        found.append(((min(x) + max(x)) / 2, -(min(y) + max(y)) / 2))
    return found


def ticks(svg: str, axis: str) -> tuple[list[float], list[float]]:
    """Where the numbers of an axis (x, y) stand, and which they are."""
    space = "{http://www.w3.org/2000/svg}"
    axes = next(g for g in ElementTree.fromstring(svg).iter(f"{space}g") if g.get("id") == "axes_1")  # 2: colour bar
    groups = [g for g in axes.iter(f"{space}g") if g.get("id", "").startswith(f"{axis}tick_")]
    found = [(next(g.iter(f"{space}use")), next(g.iter(f"{space}text")).text or "") for g in groups]
    known = [(use, float(text)) for use, text in found if re.fullmatch(r"[\d.]+", text)]
    return [float(use.get(axis, "")) * (1 if axis == "x" else -1) for use, _ in known], [number for _, number in known]


def assert_on_axis(svg: str, axis: str, shown: list[float], meant: list[float]) -> None:
    """``shown`` are the places of ``meant`` between the numbers that the axis bears."""
    places, numbers = ticks(svg, axis)
    assert len(numbers) > 1
    assert_affine([*shown, *places[:5]], [*meant, *numbers[:5]])


def assert_affine(shown: list[float], meant: list[float]) -> None:
    """``shown`` is ``meant`` on an axis: the same up to scale and origin, to a few thousandths of the axis."""
    assert len(shown) == len(meant)
    low, high = meant.index(min(meant)), meant.index(max(meant))
    scale = (shown[high] - shown[low]) / (meant[high] - meant[low])
    assert scale > 0
    for a, b in zip(shown, meant, strict=True):
        assert a - shown[low] == pytest.approx(scale * (b - meant[low]), abs=0.003 * (shown[high] - shown[low]))


GREY, RED = "#808b96", "#e03e52"


def test_equal_records_give_equal_bytes_and_each_figure_is_xml_in_the_colours_of_the_page(both, drawn) -> None:
    assert figures.run_figures(both) == drawn
    expected = [
        "curve_top1_error",
        "curve_train_loss",
        "corruption_map",
        "severity_map",
        "occlusion_clipped",
        "occlusion_inside",
        "level_snr_noise",
        "reliability",
    ]
    assert list(drawn) == expected
    for name, svg in drawn.items():
        ElementTree.fromstring(figures.standalone(svg))
        assert "currentColor" in svg
        assert "#000000" not in svg
        assert not re.search(r"\d{4}-\d\d-\d\d", svg)  # no date
        assert figures.caption(name, {})


def test_the_corruption_map_shows_means_over_severities_and_seeds(drawn) -> None:
    rows = texts(drawn["corruption_map"])
    for i, name in enumerate(NAMES):
        for shift, method in ((1, "Baseline"), (0, "RandoMix")):
            wrong = [100 - (900 - 100 * s - 10 * i - shift - seed) / 10 for s in range(5) for seed in (0, 1)]
            assert f"{statistics.fmean(wrong):.0f}" in rows, (name, method)
    assert [t for t in rows if t in ("Baseline", "RandoMix")] == ["Baseline", "RandoMix"]
    numbers = [int(t) for t in rows if t.isdigit()]
    assert numbers == [30, 30, 31, 31, 32, 32]


def test_the_severity_map_is_of_the_last_method(drawn) -> None:
    rows = texts(drawn["severity_map"])
    assert "RandoMix: severity" in rows
    cells = [int(t) for t in rows if t.isdigit()]
    assert cells[:5] == [1, 2, 3, 4, 5]
    assert cells[5:] == [10, 20, 30, 40, 50, 11, 21, 31, 41, 51, 12, 22, 32, 42, 52]
    assert {name.replace("_", " ") for name in NAMES} <= set(rows)


@pytest.mark.parametrize(("placement", "first", "step"), [("clipped", 178, 40), ("inside", 170, 50)])
def test_occlusion_curves_begin_at_the_clean_error(drawn, placement: str, first: int, step: int) -> None:
    shown = []
    meant = []
    for shift, colour in ((1, GREY), (0, RED)):
        line = max(lines(drawn[f"occlusion_{placement}"], colour), key=len)
        shown += [y for _, y in line]
        meant += [10.0 + shift, *(100 * (1 - (first - shift - step * i) / 200) for i in range(3))]
        assert_on_axis(drawn[f"occlusion_{placement}"], "x", [x for x, _ in line], [0.0, 25.0, 50.0, 75.0])
    assert_on_axis(drawn[f"occlusion_{placement}"], "y", shown, meant)


def test_levels_and_reliability_show_the_counts(drawn) -> None:
    line = max(lines(drawn["level_snr_noise"], RED), key=len)
    assert_on_axis(drawn["level_snr_noise"], "x", [x for x, _ in line], [20, 10, 0])
    assert_on_axis(drawn["level_snr_noise"], "y", [y for _, y in line], [10, 20, 60])
    grey = [line for line in lines(drawn["reliability"], GREY) if len(line) == 2]
    (diagonal, baseline), (red,) = grey, [line for line in lines(drawn["reliability"], RED) if len(line) == 2]
    shown = [*diagonal, *baseline, *red]
    answers = [0, 100, 100 * 23 / 40, 100 * 118 / 160, 100 * 23 / 40, 100 * 120 / 160]
    assert_on_axis(drawn["reliability"], "x", [x for x, _ in shown], [0, 100, 90, 96.875, 90, 96.875])
    assert_on_axis(drawn["reliability"], "y", [y for _, y in shown], answers)
    assert {"Baseline, ECE 6.5 %", "RandoMix, ECE 5.5 %"} <= set(texts(drawn["reliability"]))


def one(value: float) -> Statistic:
    return Statistic((Sample(0, value, fakes.fake()),))


def test_table_5_has_ours_and_the_papers_numbers() -> None:
    table, rng = TABLE[5], random.Random(0)
    ours = {
        row.key: {c.key: one(table.value(row.key, c.key) + rng.uniform(-3, 3)) for c in table.columns}
        for row in table.rows
    }
    found = figures_tradeoff.table5_figures(ours, paper=True)
    assert list(found) == ["front_fgsm_error", "front_corruption_error"]
    for name, svg in found.items():
        shown = marks(svg, "ours") + marks(svg, "paper")
        for axis, metric in enumerate((name.removeprefix("front_"), "occlusion_error")):
            meant = [values[metric].mean for values in ours.values()] + [table.value(r.key, metric) for r in table.rows]
            assert_on_axis(svg, "xy"[axis], [point[axis] for point in shown], meant)
        assert [t for t in texts(svg) if t == "4:1:1:1"] == ["4:1:1:1"] * 2
    alone = figures_tradeoff.table5_figures({"randomix-1111": ours["randomix-1111"]}, paper=False)["front_fgsm_error"]
    assert len(marks(alone, "ours")) == 1
    assert 'id="paper"' not in alone
    assert figures_tradeoff.table5_figures({}, paper=True) == {}
    assert figures_tradeoff.table5_figures({"randomix-1111": {"top1_error": one(3.0)}}, paper=True) == {}


def test_the_front_line_passes_the_marks_that_no_other_beats() -> None:
    points = [("a", 50, 30), ("b", 60, 20), ("c", 70, 25), ("d", 55, 40), ("e", 65, 15)]
    named = [(n, {"fgsm_error": one(x), "occlusion_error": one(y), "top1_error": one(9)}) for n, x, y in points]
    svg = figures_tradeoff.weights_figures(named)["front_fgsm_error"]
    corners = max((line for line in lines(svg, GREY)), key=len)
    assert_affine([x for x, _ in corners], [50, 60, 60, 65, 65])
    assert_affine([y for _, y in corners], [30, 30, 20, 20, 15])
    assert figures_tradeoff.weights_figures(named[:2]) == {}  # two points trade nothing


def test_table_6_marks_mixed_modes_and_sets() -> None:
    table = TABLE[6]
    ours = {row.key: one(table.value(row.key, "top1") + 0.1 * i) for i, row in enumerate(table.rows)}
    svg = figures_tradeoff.table6_figures(ours, paper=True)["candidates"]
    shown, meant, places = [], [], []
    for gid, mode in itertools.product(("paper", "ours"), ("-", "l", "m", "l+m")):
        rows = [row for row in table.rows if row.mode == mode]
        shown += marks(svg, f"{gid}-{mode}")
        meant += [ours[r.key].mean if gid == "ours" else table.value(r.key, "top1") for r in rows]
        places += [r.candidates + (0.16 if gid == "ours" else -0.16) for r in rows]
    assert_on_axis(svg, "y", [y for _, y in shown], meant)
    assert_on_axis(svg, "x", [x for x, _ in shown], places)
    assert {row.key for row in table.rows[1:]} <= set(texts(svg))
    assert 'id="paper-m"' not in figures_tradeoff.table6_figures(ours, paper=False)["candidates"]
    assert figures_tradeoff.table6_figures({"M": None}, paper=True) == {}


def test_without_data_there_is_no_figure(both: list[Method]) -> None:
    bare = [
        (label, replace(g, records=tuple(replace(r, counts={}, history=[]) for r in g.records))) for label, g in both
    ]
    assert figures.run_figures(bare) == {}
    assert figures.run_figures([]) == {}
    half = [bare[0], both[1]]
    assert "Baseline" not in texts(figures.run_figures(half)["occlusion_clipped"])


def test_blocks_in_pixels_and_unequal_sweeps_have_no_common_axis(both: list[Method]) -> None:
    def changed(record: RunRecord, blocks: list[float]) -> RunRecord:
        sweep = record.counts["occlusion_sweep"] | {"blocks": blocks}
        return replace(record, counts={"occlusion_sweep": sweep}, history=[])

    pixels = methods(*(changed(r, [4, 8, 12]) for r in both[0][1].records))
    assert figures.run_figures(pixels) == {}
    first, second = both[0][1].records
    assert figures.run_figures(methods(changed(first, BLOCKS), changed(second, [0.1, 0.2, 0.3]))) == {}


def test_runs_of_several_weights_get_a_front(tmp_path: Path) -> None:
    records = []
    for i, weights in enumerate(([1, 1], [2, 1], [3, 1])):
        mixer = {"candidates": ["mixup", "fmix"], "weights": weights}
        record = fakes.fake("randomix", 0, 10.0 + i, mixer=mixer)
        more = {"fgsm_error": 60.0 - i, "occlusion_error": 20.0 + i}
        records.append(replace(record, metrics={"last": dict(record.metrics["last"]) | more}))
    (table,) = build_tables(records)
    svg = figures.table_figures(table)["front_fgsm_error"]
    assert {"M1 F1", "M2 F1", "M3 F1"} <= set(texts(svg))
    assert_affine([x for x, _ in marks(svg, "ours")], [60, 59, 58])
    assert "FGSM error against occlusion error" in figures.caption("front_fgsm_error", {})


def test_names_are_moved_apart_as_little_as_possible() -> None:
    rng = random.Random(1)
    for _ in range(50):
        places = [rng.uniform(0, 10) for _ in range(rng.randrange(1, 8))]
        moved = apart(places, 1.0)
        ordered = [moved[i] for i in sorted(range(len(places)), key=places.__getitem__)]
        assert all(b - a > 1.0 - 1e-9 for a, b in itertools.pairwise(ordered))
        cost = sum((a - b) ** 2 for a, b in zip(places, moved, strict=True))
        for i, step in itertools.product(range(len(places)), (-0.01, 0.01)):  # a step away costs more or is too near
            other = [m + step * (j == i) for j, m in enumerate(moved)]
            near = any(abs(a - b) < 1.0 - 1e-9 for a, b in itertools.combinations(other, 2))
            assert near or sum((a - b) ** 2 for a, b in zip(places, other, strict=True)) > cost - 1e-9
    assert apart([], 1.0) == []


def reproduced(number: int, scale: str, filled: dict[tuple[str, str], list[RunRecord]]) -> Any:
    """What ``records.reproduced`` makes of a table of the paper, as far as figures read it."""
    table = TABLE[number]

    def cell(row: str, column: Any) -> SimpleNamespace:
        runs = filled.get((row, column.key), [])
        samples = tuple(Sample(r.seed, r.metric(column.metric) or 0.0, r) for r in runs)
        return SimpleNamespace(statistic=Statistic(samples) if samples else None)

    rows = [SimpleNamespace(paper=r, cells=[cell(r.key, c) for c in table.columns]) for r in table.rows]
    return SimpleNamespace(paper=table, columns=table.columns, rows=rows, has_deltas=scale == "paper")


def test_a_table_of_the_paper_has_the_figures_of_each_data_set_and_network() -> None:
    one_set = counted("baseline", 0, 1)
    other = replace(one_set, model="wrn_28_10", run=one_set.run.replace("preact_resnet18", "wrn_28_10"), counts={})
    columns = [c.key for c in TABLE[1].columns]
    filled = {("baseline", columns[0]): [one_set], ("authors-mixup", columns[0]): [one_set]}
    table = reproduced(1, "demo", filled | {("baseline", columns[1]): [other]})
    found = figures_paper.reproduced_figures(table)
    names = [
        "corruption_map",
        "curve_top1_error",
        "curve_train_loss",
        "level_snr_noise",
        "occlusion_clipped",
        "occlusion_inside",
    ]
    names += ["reliability", "severity_map"]
    assert sorted(found) == sorted(
        [f"{n}-digits-preact_resnet18" for n in names]
        + [f"curve_{n}-digits-wrn_28_10" for n in ("top1_error", "train_loss")]
    )
    assert {"Mixup (authors')", "Baseline"} <= set(texts(found["curve_top1_error-digits-preact_resnet18"]))
    assert figures.caption("curve_train_loss-digits-wrn_28_10", {}).endswith("deviation (digits, wrn_28_10)")
    assert figures_paper.reproduced_figures(reproduced(1, "paper", {})) == {}


def test_tables_5_and_6_have_their_own_figures() -> None:
    record = counted("randomix", 0, 0)
    more = {"fgsm_error": 70.0, "occlusion_error": 30.0, "top1": 90.0}
    record = replace(record, metrics={"last": dict(record.metrics["last"]) | more})
    weights = {("randomix-1111", c): [record] for c in ("top1_error", "fgsm_error", "occlusion_error")}
    found = figures_paper.reproduced_figures(reproduced(5, "paper", weights))
    assert {"front_fgsm_error", "curve_top1_error", "corruption_map"} <= set(found)
    assert len(marks(found["front_fgsm_error"], "paper")) == 4
    sets = {(row.key, "top1"): [record] for row in TABLE[6].rows}
    found = figures_paper.reproduced_figures(reproduced(6, "demo", sets))
    assert 'id="paper-m"' not in found["candidates"]
    colours = set(re.findall(r"stroke: (#[0-9a-f]{6}); stroke-width: 1.8", found["curve_top1_error"]))
    assert len(colours) == 15  # all variants of one method, and still told apart
