"""The verdicts on the speed targets, from made samples."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def test_the_interval_of_a_median_is_between_the_right_order_statistics() -> None:
    from bench.measure import median_interval

    for count in range(1, 70):
        low, middle, high = median_interval([float(v) for v in range(count)])
        assert (middle, low + high) == ((count - 1) / 2, count - 1)
        outside = sum(math.comb(count, k) for k in range(int(low) + 1)) / 2**count  # P(true median < the low one)
        inside = sum(math.comb(count, k) for k in range(int(low) + 2)) / 2**count
        assert low == 0 or outside <= 0.025
        assert inside > 0.025 or low + 1 >= count // 2


def test_the_interval_covers_the_true_median_as_often_as_it_says() -> None:
    from bench.measure import median_interval

    rng, hits = random.Random(0), 0
    for _ in range(2000):
        low, _, high = median_interval([rng.gauss(1.0, 0.05) for _ in range(21)])
        hits += low <= 1.0 <= high
    assert 0.94 < hits / 2000 < 0.99


def test_rounds_for_a_width_make_that_width() -> None:
    from bench.measure import median_interval, noise, rounds_for

    rng = random.Random(1)
    values = [rng.gauss(1.0, 0.05) for _ in range(4000)]
    assert noise(values) == pytest.approx(0.05, rel=0.06)
    rounds = rounds_for(values, 0.015)
    assert 60 <= rounds <= 75
    widths = [median_interval(values[i : i + rounds]) for i in range(0, 4000 - rounds, rounds)]
    assert statistics.mean((high - low) / 2 for low, _, high in widths) == pytest.approx(0.015, rel=0.15)


POINTS = [
    ("T1", "cpu", {"width": 16}, 0.95),
    ("T1", "cpu", {"width": 64}, 0.98),
    ("T1", "cuda", {"size": 64}, 0.97),
    ("T1", "cuda", {"size": 224}, 0.95),
    ("T4", "cpu", {}, 2.0),
    ("T4", "cuda", {"gpu": "Tesla V100-SXM2-16GB"}, 3.0),
    ("T4", "cuda", {"gpu": "NVIDIA H100 80GB HBM3"}, 5.0),
    ("T5", "cuda", {"compiled": True}, 1.15),
    ("T5", "cuda", {}, 1.0),
]


@pytest.mark.parametrize(("number", "device", "at", "bound"), POINTS)
def test_the_point_decides_the_bound(number: str, device: str, at: dict, bound: float) -> None:
    from bench import targets

    (target,) = (t for t in targets.LOOP if t.number == number)
    assert target.bound(targets.Point(device, **at)) == bound


def test_the_median_decides_and_the_interval_stands_beside_it() -> None:
    from bench import targets

    rounds = range(-10, 11)
    times = {
        targets.OURS: [1.0] * 21,
        targets.BARE: [0.953 + r / 1000 for r in rounds],
        targets.PEER: [1.9 + r / 100 for r in rounds],
    }
    holds, fails = targets.judge_ratios(targets.LOOP, times, targets.Point("cpu", width=16))  # T5 was not measured
    assert holds["line"] == "T1 bare step / full loop 0.953 [0.948, 0.958] >= 0.950: holds"
    assert fails["line"] == "T4 peer-style loop / full loop 1.900 [1.850, 1.950] >= 2.000: DOES NOT HOLD"
    assert (holds["holds"], fails["holds"]) == (True, False)
    at_64 = targets.judge_ratios(targets.LOOP, times, targets.Point("cpu", width=64))
    assert not at_64[0]["holds"]  # 0.98 there


def test_a_miss_within_the_noise_is_a_miss_and_says_so() -> None:
    from bench import targets

    times = {targets.OURS: [1.0] * 21, targets.AIRBENCH: [0.998 + r / 1000 for r in range(-10, 11)]}
    (verdict,) = targets.judge_ratios(targets.LOOP, times, targets.Point("cpu"))
    assert verdict["line"].endswith("0.998 [0.993, 1.003] >= 1.000: missed by less than the noise")
    assert not verdict["holds"]


def test_costs_are_to_stay_below() -> None:
    from bench import targets

    times = {"baseline": [2.0] * 9, "cutmix": [2.04] * 9, "fmix": [2.1] * 9, "puzzlemix": [3.6] * 9}
    verdicts = targets.judge_ratios(targets.STEP, times, targets.Point("cpu"))
    assert {v["what"]: (v["target"], v["holds"]) for v in verdicts} == {
        "cutmix / baseline": ("T2", True),
        "fmix / baseline": ("T2", False),
        "puzzlemix / baseline": ("T3", True),
    }
    assert [v["holds"] for v in targets.judge_ratios(targets.STEP, times, targets.Point("cuda"))] == [
        True,
        False,
        False,
    ]


def test_a_ratio_is_taken_round_by_round() -> None:
    from bench import targets

    drifting = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    times = {"baseline": drifting, "mixup": [1.01 * t for t in drifting]}
    (verdict,) = targets.judge_ratios(targets.STEP, times, targets.Point("cpu"))
    assert verdict["interval"] == pytest.approx([1.01] * 3)
