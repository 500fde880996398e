"""The benchmark's command line: what it refuses and where it writes. The numbers are not tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "benchmark.py"

WRONG = [
    ("--steps", "0", "--steps is 0, expected at least 1"),
    ("--size", "7", "--size is 7, expected at least 8"),
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
        "outputs/bench/mixers-cpu-w16.json",
        "outputs/bench/mixers-cpu-w16.md",
    ]
