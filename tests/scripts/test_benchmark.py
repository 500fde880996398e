"""The benchmark's command line: what it refuses and where it writes. The numbers are not tested."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"

WRONG = [
    ("--steps", "0", "--steps is 0, expected at least 1"),
    ("--size", "7", "--size is 7, expected at least 8"),
    ("--precision", "tf32", "--precision tf32: needs a GPU of capability 8.0 or above, found cpu; use fp32"),
    ("--device", "cuda", "--device cuda: torch finds no GPU here; use --device cpu"),
]


@pytest.fixture
def benchmark(monkeypatch):
    """The script as a module; it imports its package ``bench`` from the folder in which it lies."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from scripts import benchmark

    return benchmark


@pytest.mark.parametrize(("option", "value", "line"), WRONG)
def test_wrong_arguments_give_one_line(benchmark, monkeypatch, capsys, option: str, value: str, line: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["mixers", option, value]) == 2
    assert capsys.readouterr().err == f"benchmark.py: {line}\n"


def test_committed_measurements_are_not_overwritten_by_default(tmp_path: Path) -> None:
    small = ["mixers", "--batch", "2", "--steps", "1", "--rounds", "1", "--size", "8"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *small], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == [
        "outputs/bench/mixers-cpu.json",
        "outputs/bench/mixers-cpu.md",
    ]
    content = json.loads((tmp_path / "outputs/bench/mixers-cpu.json").read_text())
    assert content["command"] == "python scripts/benchmark.py " + " ".join(small)
    where = content["provenance"]
    assert 0 < content["seconds"]["cpu"] < 60
    assert where["finished"] > where["started"]  # of measuring, not of writing
    taken = datetime.fromisoformat(where["finished"]) - datetime.fromisoformat(where["started"])
    assert taken.total_seconds() == pytest.approx(content["seconds"]["wall"], abs=2)


def test_a_network_is_counted_and_run(benchmark) -> None:
    from bench import networks

    small = networks.CASES[-1]
    counted = networks.count(small)
    assert (counted["parameters"], counted["as_expected"]) == (700_794, True)
    changed = dataclasses.replace(small, model=small.model | {"width": 17})
    assert not networks.count(changed)["as_expected"]
    row = networks.run(dataclasses.replace(small, batch=2), 1, torch.device("cpu"), "auto")
    assert row["gradients_finite"]
    assert 0 < row["memory_before_mib"] <= row["memory_mib"]
    content = networks.Table({"small": counted | row}, 1, "cpu", "auto", 0.0).as_dict(threads=1)
    assert "as expected." in networks.Table(content["rows"], 1, "cpu", "auto", 0.0).markdown(content)
    wrong = {"other": counted | row | {"as_expected": False}}
    assert "NOT as expected: other." in networks.Table(wrong, 1, "cpu", "auto", 0.0).markdown(content)


def test_networks_are_drawn_under_measured_ceilings(benchmark, monkeypatch, tmp_path) -> None:
    from bench import ceilings, networks

    monkeypatch.setattr(ceilings, "GEMM_SIDE", {"cpu": 64})
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cpu": 2**16})
    small = networks.CASES[-1]
    monkeypatch.setattr(networks, "CASES", (small,))
    run = networks.run(dataclasses.replace(small, batch=2), 1, torch.device("cpu"), "fp32")
    monkeypatch.setattr(networks, "_in_own_process", lambda *_: run)
    table = networks.measure("cpu", "fp32", 1, 1, lambda text: None)
    content = table.as_dict(threads=1)
    assert content["rows"][small.label]["flops"] == pytest.approx(small.batch * small.step * 1e9, rel=0.01)
    assert "Ceilings on random data: the faster of a matrix product and a 3x3 convolution " in table.markdown(content)
    plot = table.figure(content, tmp_path / "networks")
    assert plot is not None
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert plot.stat().st_size < 200_000


def test_a_network_that_fails_is_named(benchmark) -> None:
    from bench import networks

    with pytest.raises(RuntimeError, match=r"PreAct-ResNet18 width 16, 32 x 32 ended with code 1: KeyError: .nonsense"):
        networks._in_own_process(len(networks.CASES) - 1, 1, "cpu", "nonsense", 1)


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(benchmark, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setitem(benchmark.suites.SUITES, "mixers", None)  # a TypeError if it came to that
    assert benchmark.main(["mixers", "--out", str(tmp_path / "file")]) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith(f"benchmark.py: --out {tmp_path}/file: cannot write ")
