"""The regression guard tells a slower ratio from noise, on made records."""

from __future__ import annotations

import copy
import json
import random
import statistics
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
WHERE = {
    "device": "cpu",
    "threads": 1,
    "precision": "bf16",
    "git_dirty": False,
    "git_commit": "0" * 40,
    "hardware": {"cpu": "a processor", "gpu": None},
    "versions": {"torch": "2.14.1"},
}


@pytest.fixture
def check(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from bench import check

    return check


def quartiles_of(middle: float, rounds: int, seed: object, noise: float = 0.05) -> list[float]:
    rng = random.Random(str(seed))
    return statistics.quantiles([middle * rng.gauss(1.0, noise) for _ in range(rounds)], n=4, method="inclusive")


def record(suite: str, ratios: dict[str, float], rounds: int, seed: object, width: int = 16) -> dict:
    reference = "baseline" if suite == "step" else "ours (RandoMix)"
    rows = {
        name: {"cpu": {"time_ratio": quartiles_of(middle, rounds, (seed, name))}} for name, middle in ratios.items()
    }
    return {
        "suite": suite,
        "reference": reference,
        "rounds": rounds,
        "rows": rows,
        "provenance": WHERE,
        "setting": {"width": width, "compile": False},
        "keeps_freed_memory": True,
    }


def mixing_record(ratio: float, rounds: int, seed: object) -> dict:
    row = {"cpu": {"ratio": quartiles_of(ratio, rounds, seed, 0.03)}, "rounds": rounds}
    methods = {"mixup": {"ours": {"cpu": {}, "rounds": rounds}, "timm": row}}
    small = {"shape": "3x32x32", "layout": "NCHW", "methods": methods}
    points = [small | {"batch": 128}, small | {"batch": 256}, small | {"batch": 128, "shape": "3x64x64"}]
    return {"suite": "mixers", "rounds": rounds, "points": points, "provenance": WHERE, "keeps_freed_memory": True}


STEP = {f"method{i}": 1.0 + i / 20 for i in range(10)}


def test_noise_alone_is_hardly_ever_slower(check) -> None:
    wrong = 0
    for seed in range(100):
        before, now = record("step", STEP, 21, ("then", seed)), record("step", STEP, 7, ("now", seed))
        moved = check._compared(before, now, check.LEAST["step"])
        again = check._compared(before, record("step", STEP, 7, ("again", seed)), check.LEAST["step"])
        assert len(moved) == len(STEP)
        wrong += any(one.verdict == again[name].verdict == "slower" for name, one in moved.items())
    assert wrong <= 2


def test_a_slower_method_is_named_and_no_other(check) -> None:
    missed = 0
    for seed in range(50):
        before = record("step", STEP, 21, ("then", seed))
        now = record("step", STEP | {"method3": 1.4 * STEP["method3"]}, 7, ("now", seed))
        moved = check._compared(before, now, check.LEAST["step"])
        missed += moved["step, method3"].verdict != "slower"
    assert missed <= 2


@pytest.mark.parametrize(
    ("suite", "factor", "verdict"),
    [("step", 1.3, "slower"), ("step", 0.7, "faster"), ("loop", 1.3, "faster"), ("loop", 0.7, "slower")],
)
def test_what_slower_means_depends_on_which_side_is_ours(check, suite: str, factor: float, verdict: str) -> None:
    before, now = record(suite, {"one": 1.0}, 21, "then"), record(suite, {"one": factor}, 9, "now")
    assert check._compared(before, now, 0.04)[f"{suite}, one"].verdict == verdict


def test_rivals_that_come_closer_mean_that_ours_is_slower(check) -> None:
    before, now = mixing_record(2.0, 11, "then"), mixing_record(1.2, 9, "now")
    found = check._compared(before, now, check.LEAST["mixers"])
    assert {name: one.verdict for name, one in found.items()} == {"mixers, mixup at 3x32x32 NCHW, timm": "slower"}


def test_no_noise_at_all_still_allows_a_little(check) -> None:
    still, error = check.Ratio(1.0, 0.0, True), 0.0
    assert check.compare(still, check.Ratio(1.039, error, True), 0.04).verdict == "same"
    assert check.compare(still, check.Ratio(1.041, error, True), 0.04).verdict == "slower"


def test_what_seems_slower_is_measured_again(check, tmp_path) -> None:
    (tmp_path / "step.json").write_text(json.dumps(record("step", {"a": 1.0, "b": 1.0}, 21, "then")))
    runs = [record("step", {"a": 1.5, "b": 1.5}, 7, "first"), record("step", {"a": 1.0, "b": 1.5}, 7, "second")]
    found = check.check(tmp_path, lambda content: runs.pop(0))
    assert runs == []
    content = {"rows": found.body["rows"], "records": found.body["records"], "provenance": WHERE}
    assert check.slower(content) == ["step, b"]
    text = found.markdown(content)
    assert "1 slower, 0 faster by more than the noise, 1 as they were." in text
    assert "No record of loop to compare with." in text


def test_only_records_that_can_be_repeated_count(check, tmp_path) -> None:
    few, many = (record("loop", {"a": 1.0, "b": 1.0}, rounds, 0) for rounds in (5, 41))
    part = record("loop", {"a": 1.0}, 99, 0)
    gpu = copy.deepcopy(record("loop", {"a": 1.0}, 99, 0))
    gpu["provenance"]["device"] = "cuda"
    before_the_allocator = record("loop", {"a": 1.0}, 99, 0) | {"keeps_freed_memory": False}
    old_mixers = record("mixers", {"a": 1.0}, 99, 0)  # of another form
    for number, content in enumerate(
        [few, many, part, gpu, before_the_allocator, record("step", {"a": 1.0}, 9, 0, width=64), old_mixers]
    ):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
    assert {suite: content["file"] for suite, content in check.records(tmp_path).items()} == {"loop": "1.json"}


def test_the_exit_code_says_slower(check, monkeypatch, tmp_path, capsys) -> None:
    from scripts import benchmark

    arguments = ["check", "--records", str(tmp_path), "--out", str(tmp_path / "out")]
    assert benchmark.main(arguments) == 2
    assert "holds no record of loop, step or mixers" in capsys.readouterr().err
    (tmp_path / "step.json").write_text(json.dumps(record("step", {"a": 1.0}, 21, "then")))
    for value, code in [(1.0, 0), (1.5, 1)]:
        now = record("step", {"a": value}, 7, "now")
        monkeypatch.setattr(check.check, "__defaults__", (lambda content, now=now: now,))
        assert benchmark.main(arguments) == code
    assert capsys.readouterr().err == "benchmark.py: slower than its record: step, a\n"
    assert json.loads((tmp_path / "out" / "check-cpu.json").read_text())["command"].startswith("python scripts/")


def test_a_record_is_repeated_at_its_own_point(check, monkeypatch) -> None:
    monkeypatch.setattr(check, "ROUNDS", {"step": 1})
    monkeypatch.setattr(check, "STEPS", {"step": 1})
    monkeypatch.setattr("bench.measure.keep_freed_memory", lambda: True)  # not for the rest of the test process
    content = record("step", {"mixup": 1.0}, 9, 0)
    content["setting"] |= {"width": 1, "batch": 4, "size": 8, "precision": "fp32", "steps": 16}
    found = check.again(content)
    assert set(found["rows"]) == {"baseline", "mixup"}
    assert {k: found["setting"][k] for k in ("width", "batch", "steps")} == {"width": 1, "batch": 4, "steps": 1}
