"""The growth suite: every value of every axis is measured, per sample; the numbers themselves are not tested."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
AXES = {"batch": (2, 20), "classes": (3, 30), "size": (8, 16), "samples": (40, 80)}


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from bench import growth

    return growth


def test_every_value_of_every_axis_is_measured(growth, monkeypatch) -> None:
    from bench.loops import Setting

    monkeypatch.setattr(growth, "_SAMPLES", 4)
    found = growth.measure(Setting(width=1, batch=4, size=8, precision="fp32"), 1, lambda _: None, AXES)
    content = found.as_dict(threads=1)
    assert {axis: tuple(map(int, rows)) for axis, rows in content["rows"].items()} == AXES
    for axis, rows in content["rows"].items():
        for row in rows.values():
            assert set(row) == ({"feeding"} if axis == "samples" else {"step", "mixing"})
            assert all(len(case["cpu_us_per_sample"]) == 3 for case in row.values())
    text = found.markdown(content)
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {axis}: {growth.WHAT[axis]}" for axis in AXES
    ]


def test_times_are_divided_by_the_samples_of_a_run(growth) -> None:
    from bench.loops import Setting
    from bench.measure import Sample

    runs = {"batch": {2: {"step": [Sample(1.0, 4.0)]}, 20: {"step": [Sample(1.0, 4.0)]}}}
    rows = growth.Growth(runs, {"batch": {2: 2, 20: 20}}, Setting(precision="fp32")).as_dict(threads=1)["rows"]["batch"]
    assert [row["step"]["cpu_us_per_sample"][1] for row in rows.values()] == [2e6, 2e5]
    assert growth._of({"2 step": [], "20 step": []}, 2) == {"step": []}
