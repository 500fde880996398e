"""kill -9 at random moments of saving: there is always a checkpoint that can be read, and it is a recent one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from randomix import files
from randomix.engine import checkpoint
from randomix.engine.checkpoint import Checkpointer
from tests.support import training_state

KILLS = 20


def _state(step: int) -> dict:
    model = {f"w{i}": torch.full((100_000,), float(step)) for i in range(8)}  # 3.2 MB
    return training_state(step, model=model)


def _write_for_ever(folder: Path, progress: int) -> None:
    keeper = Checkpointer(folder, keep_last=2)
    loaded = keeper.load()
    step = loaded.step if loaded else 0
    while True:
        step += 1
        keeper.save(_state(step), step=step, is_best=step % 3 == 0)
        os.write(progress, step.to_bytes(8, "little"))


def _killed_writer(folder: Path, seconds: float) -> int:
    """Fork a writer, kill it ``seconds`` after its first save; return the last step it said it had saved."""
    reader, writer = os.pipe()
    pid = os.fork()  # torch is imported already, and has started no threads
    if pid == 0:
        try:
            _write_for_ever(folder, writer)
        finally:
            os._exit(99)
    os.close(writer)
    said = os.read(reader, 8)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    while len(data := os.read(reader, 8)) == 8:
        said = data
    os.close(reader)
    return int.from_bytes(said, "little")


@pytest.mark.slow
def test_a_killed_writer_never_leaves_an_unreadable_checkpoint(tmp_path):
    draw = random.Random(0)
    warnings: list[str] = []
    inside = 0  # kills that came while a file was being written
    for _ in range(KILLS):
        said = _killed_writer(tmp_path, draw.uniform(0, 0.06))
        inside += len(list(tmp_path.glob(".*.tmp.*")))
        files.remove_orphans(tmp_path)
        assert not list(tmp_path.glob(".*.tmp.*"))
        assert checkpoint.read(tmp_path / "last.pt")["step"] in (said, said + 1)
        loaded = Checkpointer(tmp_path, log=warnings.append).load()
        assert loaded.step in (said, said + 1)  # what was said to be saved is saved
        assert all(torch.equal(t, torch.full_like(t, float(loaded.step))) for t in loaded.state["model"].values())
        assert len(list(tmp_path.glob("step-*.pt"))) <= 3  # killed before the oldest of keep + 1 was removed
        if said >= 3:
            assert checkpoint.read(tmp_path / "best.pt")["step"] % 3 == 0
    assert not warnings
    assert inside > KILLS // 4, "the kills missed the writing: the test shows nothing"
