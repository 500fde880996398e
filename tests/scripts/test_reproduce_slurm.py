"""Slurm arrays of reproduce.py: what their scripts hold, and what they do when run and stopped."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from grid import slurm  # noqa: E402
from grid.tasks import Task  # noqa: E402

STUB = """import os, signal, sys, time
print(os.getcwd(), sys.argv[1:], flush=True)
def stop(*_):
    time.sleep(0.3)
    sys.exit(int(sys.argv[1]))
signal.signal(15, stop)
open(sys.argv[2], "w").close()
time.sleep(float(sys.argv[3]))
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout and an interpreter at paths with spaces, and a scontrol that writes down what it is asked."""
    place = tmp_path / "my work's place"
    place.mkdir()
    (place / "py thon").symlink_to(sys.executable)
    (place / "stub.py").write_text(STUB)
    (place / "scontrol").write_text('#!/bin/bash\necho "scontrol $*"\n')
    (place / "scontrol").chmod(0o755)
    return place


def task(*arguments: str, gpus: int = 1) -> Task:
    return Task(arguments, "title", SimpleNamespace(), (0,), gpus)


def script_of(place: Path, *tasks: Task) -> Path:
    (script,) = slurm.write(tasks, place / "slurm", place, str(place / "py thon"))
    return script


def start(script: Path, index: int) -> subprocess.Popen[str]:
    env = os.environ | {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_JOB_ID": "9"}
    env["PATH"] = f"{script.parents[1]}:{env['PATH']}"
    return subprocess.Popen(
        ["bash", str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )


def test_arrays_by_number_of_gpus(place: Path) -> None:
    tasks = [task("x"), task("y", gpus=8), task("z")]
    one, eight = slurm.write(tasks, place / "slurm", place, "python")
    assert "--array=1-2\n" in one.read_text() and "--gpus-per-node=1\n" in one.read_text()
    assert "--array=1-1\n" in eight.read_text() and "--gpus-per-node=8\n" in eight.read_text()
    assert f"--output={shlex.quote(str(place / 'slurm' / '%x-%A_%a.log'))}\n" in one.read_text()


@pytest.mark.parametrize("index", [1, 2])
def test_a_script_runs_its_command(place: Path, index: int) -> None:
    up = str(place / "up $HOME '1")
    script = script_of(place, task("stub.py", "0", up, "0", "a=[b, c]"), task("stub.py", "3", up, "0", "$(date) `x`"))
    out, err = start(script, index).communicate(timeout=60)
    want = ["0", up, "0", "a=[b, c]"] if index == 1 else ["3", up, "0", "$(date) `x`"]
    assert (out, err) == (f"{place} {want}\n", "")
    assert start(script, index).wait(60) == int(want[0])


@pytest.mark.parametrize("index", [0, 2])
def test_an_index_past_the_end_fails(place: Path, index: int) -> None:
    process = start(script_of(place, task("stub.py", "0", "up", "0")), index)
    assert process.communicate(timeout=60) == ("", f"array task {index}: there are 1 commands\n")
    assert process.returncode == 2


def test_without_the_checkout_nothing_runs(place: Path) -> None:
    (script,) = slurm.write([task("-c", "print(1)")], place / "slurm", place / "gone", sys.executable)
    process = start(script, 1)
    assert process.communicate(timeout=60)[0] == "" and process.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize(("code", "said"), [(75, "scontrol requeue 9_1\n"), (1, "")])
def test_a_signal_reaches_the_run_whose_code_counts(place: Path, number: int, code: int, said: str) -> None:
    process = start(script_of(place, task("stub.py", str(code), str(place / "up"), "60")), 1)
    while not (place / "up").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)  # not after 60 s: the run was told
    assert process.returncode == code
    assert out.partition("\n")[2] == said


def test_a_second_call_leaves_the_first_script(place: Path) -> None:
    first = script_of(place, task("stub.py", "0", "up", "0"), task("later"))
    before = first.read_bytes()
    second = script_of(place, task("later"))
    assert second != first and first.read_bytes() == before
    assert script_of(place, task("later")) == second
    assert {path.suffix for path in first.parent.iterdir()} == {".sbatch"}  # nothing else is read later
