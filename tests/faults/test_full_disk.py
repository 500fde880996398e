"""A disk that fills up while a checkpoint is written: what was there stays, and the message says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from randomix import files
from randomix.engine.checkpoint import Checkpointer
from randomix.errors import STORAGE, StorageError
from tests.support import tiny_config, train, training_state


def state_at(step: int, size: int = 2000) -> dict:
    model = {"weight": torch.full((size,), float(step)), "bias": torch.zeros(size)}
    return training_state(step, model=model)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def _full_disk(monkeypatch, after: int) -> None:
    """Let every atomic file fail with ENOSPC once ``after`` bytes were written."""
    real_open = open

    def limited(path, mode="r", *args, **kwargs):
        file = real_open(path, mode, *args, **kwargs)
        return _Limited(file, after) if "w" in mode and ".tmp." in str(path) else file

    monkeypatch.setattr(files, "open", limited, raising=False)


class _Limited:
    def __init__(self, file, left: int) -> None:
        self.file, self.left = file, left

    def write(self, data) -> int:
        self.left -= len(data)
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("after", [0, 1000, 9000, 17000])
def test_a_full_disk_keeps_the_previous_checkpoint_and_says_so(tmp_path, monkeypatch, after):
    keeper = Checkpointer(tmp_path)
    keeper.save(state_at(10), step=10)
    before = names(tmp_path)
    _full_disk(monkeypatch, after)
    with pytest.raises(
        StorageError, match=r"disk full at .*need .* MiB.*last good checkpoint: step-00000010\.pt"
    ) as caught:
        keeper.save(state_at(20), step=20)
    assert caught.value.exit_code == STORAGE
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == before
    assert keeper.load().step == 10


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("known", [True, False])
def test_a_really_full_disk(small_disk, monkeypatch, known):
    keeper = Checkpointer(small_disk)
    keeper.save(state_at(10, size=60_000), step=10)  # 480 kB
    if not known:  # the space vanishes between the check and the write
        monkeypatch.setattr(files, "check_space", lambda folder, need: None)
    with pytest.raises(
        StorageError, match=r"disk full at .*: need 1\.0 MiB, have 0\.5 MiB.*last good checkpoint: step-00000010\.pt"
    ):
        keeper.save(state_at(20, size=120_000), step=20)
    assert names(small_disk) == ["last.pt", "step-00000010.pt"]
    assert keeper.load().step == 10


@pytest.mark.parametrize(
    ("keep_last", "saves", "copies"), [(2, 200, 4), (2, 3, 3), (1, 200, 3), (-1, 200, 200), (2, 0, 0)]
)
def test_space_for_all_that_will_lie_there_is_asked_for_first(tmp_path, monkeypatch, keep_last, saves, copies):
    free = [1000 * copies]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    keeper = Checkpointer(tmp_path / "new" / "checkpoints", keep_last)
    keeper.require_space(1000, saves)
    free[0] -= 1
    if copies:
        with pytest.raises(StorageError, match=r"disk full at .*: need .*, have .*; free some space"):
            keeper.require_space(1000, saves)


def test_files_that_are_there_will_be_replaced(tmp_path, monkeypatch):
    keeper = Checkpointer(tmp_path)
    size = keeper.save(state_at(10), step=10).stat().st_size
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * size))
    keeper.require_space(size, 200)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 * size - 1))
    with pytest.raises(StorageError, match="disk full"):
        keeper.require_space(size, 200)


def test_a_run_asks_before_its_first_step(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Checkpointer, "require_space", lambda self, size, saves: asked.append((size, saves)))
    folder = train(tiny_config(tmp_path))
    (size, saves), written = asked[0], (folder.checkpoints / "last.pt").stat().st_size
    assert saves == 2 and 0.8 * written < size <= written
