"""Signals to a sweep whose runs go on side by side: every run saves, no other begins, nothing is left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

ROOT = Path(__file__).parents[2]
COMMAND = ["-m", "dataset=digits", "seed=0,1,2,3", "hydra/launcher=parallel"]
LINE = "interrupted; the same command goes on with what was not finished"


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A sweep of four runs, two of which have begun."""
    shutil.copy(Path(__file__).with_name("waiting_train.py"), tmp_path / "train.py")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    yield (process := started(tmp_path))
    end(process)


def started(folder: Path, **environment: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, str(folder / "train.py"), *COMMAND, f"output_root={folder}"],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: len(list(folder.glob("*.begun"))) == 2)
    return process


def end(process: subprocess.Popen) -> None:
    process.stderr.close()
    for pid in members(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def members(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def names(folder: Path, ending: str) -> list[str]:
    return sorted(path.stem for path in folder.glob(f"*.{ending}"))


@pytest.mark.parametrize("to_all", [False, True])  # a terminal's Ctrl-C goes to the workers as well
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_each_run_is_saved_and_no_other_begins(sweep, tmp_path, name, to_all):
    (os.killpg if to_all else os.kill)(sweep.pid, getattr(signal, name))
    assert sweep.wait(timeout=60) == 75
    lines = sweep.stderr.read().splitlines()
    assert lines[0] == f"{name}: waiting for the runs to stop; again to stop at once"
    assert LINE in lines  # joblib's own helper process knows no SIGUSR1 and may have its last word
    assert sorted(lines[1:3]) == [f"[{n}/4] stopped; the same command continues" for n in (1, 2)]
    assert names(tmp_path, "begun") == names(tmp_path, "saved") == ["seed-0", "seed-1"]
    wait_for(lambda: not members(sweep.pid))


def test_runs_are_saved_when_their_launcher_is_killed(sweep, tmp_path):
    sweep.kill()
    wait_for(lambda: not members(sweep.pid))
    assert names(tmp_path, "begun") == names(tmp_path, "saved") == ["seed-0", "seed-1"]


def test_a_second_signal_ends_runs_that_do_not_answer(sweep, tmp_path):
    end(sweep)
    for path in tmp_path.glob("*.begun"):
        path.unlink()
    deaf = started(tmp_path, DEAF="1")
    try:
        os.kill(deaf.pid, signal.SIGTERM)
        time.sleep(1.2)
        assert deaf.poll() is None
        os.kill(deaf.pid, signal.SIGTERM)
        assert deaf.wait(timeout=30) == 75
        assert deaf.stderr.read().splitlines()[-1] == LINE
        assert names(tmp_path, "saved") == []
        wait_for(lambda: not members(deaf.pid))
    finally:
        end(deaf)
