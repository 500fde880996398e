"""The suites loop and step at their smallest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SMALL = ["--width", "1", "--batch", "4", "--steps", "2", "--rounds", "2", "--size", "8", "--precision", "fp32"]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from scripts import benchmark

    monkeypatch.setattr("bench.measure.keep_freed_memory", lambda: True)  # not for the rest of the test process
    return benchmark


def run(benchmark, folder: Path, suite: str, *options: str) -> tuple[dict, str]:
    assert benchmark.main([suite, *SMALL, *options, "--out", str(folder)]) == 0
    return json.loads((folder / f"{suite}-cpu-w1.json").read_text()), (folder / f"{suite}-cpu-w1.md").read_text()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_every_loop_is_compared_and_judged(benchmark, tmp_path) -> None:
    content, text = run(benchmark, tmp_path, "loop")
    assert content["rows"].keys() == {
        "ours (RandoMix)",
        "ours (Baseline)",
        "bare step",
        "airbench-style loader (RandoMix)",
        "peer-style loop (Mixup)",
    }
    assert [verdict["target"] for verdict in content["targets"]] == ["T1", "T4", "T5"]
    for verdict in content["targets"]:
        low, middle, high = verdict["interval"]
        assert low <= middle <= high
        assert f"- {verdict['line']}\n" in text
    assert "Rounds that make these intervals +-1.5%, by the noise of those taken: T1 " in text


def test_loops_are_chosen(benchmark, tmp_path, capsys) -> None:
    content, _ = run(benchmark, tmp_path, "loop", "--only", "bare")
    assert content["rows"].keys() == {"ours (RandoMix)", "bare step"}
    assert [verdict["target"] for verdict in content["targets"]] == ["T1"]
    assert benchmark.main(["loop", "--only", "bear"]) == 2
    assert "--only bear: loop has baseline, bare, airbench, peer" in capsys.readouterr().err


def test_the_airbench_style_loader_feeds_an_eager_network(benchmark, monkeypatch) -> None:
    from bench import loops

    made: list[loops.Setting] = []
    build = loops.make_trainer
    monkeypatch.setattr(loops, "make_trainer", lambda s, *a, **k: made.append(s) or build(s, *a, **k))
    setting = loops.Setting(width=1, batch=4, steps=1, size=8, precision="fp32", compile=True, cuda_graph=True)
    loops.airbench_style(setting, loops.fake_data(setting), "mixup")()
    assert [(s.compile, s.cuda_graph) for s in made] == [(False, False)]


def test_every_method_is_compared_with_baseline(benchmark, tmp_path) -> None:
    content, _ = run(benchmark, tmp_path, "step", "--only", "mixup", "puzzlemix")
    assert content["rows"].keys() == {"baseline", "mixup", "puzzlemix"}
    assert content["rows"]["baseline"]["cpu"]["time_ratio"] == [1.0, 1.0, 1.0]
    assert {(v["target"], v["what"]) for v in content["targets"]} == {
        ("T2", "mixup / baseline"),
        ("T3", "puzzlemix / baseline"),
    }
