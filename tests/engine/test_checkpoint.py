"""Checkpoints: round trip, what is kept, damage, full disks, foreign code."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from randomix.engine import checkpoint
from randomix.engine.checkpoint import FORMAT, REQUIRED, Checkpointer, CheckpointError
from randomix.errors import USER, StorageError
from tests.support import training_state


def state_at(step: int, size: int = 2000) -> dict:
    model = torch.nn.Linear(size // 10, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(2, size // 10)).sum().backward()
    optimizer.step()
    history = [{"top1": 91.5, "epoch": 1}]
    return training_state(step, model=model.state_dict(), optimizer=optimizer.state_dict(), history=history)


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_was_saved_comes_back_equal(tmp_path):
    state = state_at(7)
    path = Checkpointer(tmp_path).save(state, step=7)
    loaded = Checkpointer(tmp_path).load()
    assert path == tmp_path / "last.pt"
    assert loaded.step == 7
    assert loaded.path == tmp_path / "step-00000007.pt"
    assert all(torch.equal(loaded.state["model"][k], v) for k, v in state["model"].items())
    buffers = state["optimizer"]["state"]
    assert all(
        torch.equal(loaded.state["optimizer"]["state"][i]["momentum_buffer"], b["momentum_buffer"])
        for i, b in buffers.items()
    )
    rest = ("format", "config", "history", "best")
    assert {k: loaded.state[k] for k in rest} == {k: state[k] for k in rest}


def test_an_empty_folder_or_none_at_all_holds_nothing(tmp_path):
    assert Checkpointer(tmp_path).load() is None
    assert Checkpointer(tmp_path / "none").load() is None


@pytest.mark.parametrize("keep", [-1, 1, 2, 3, 4])
def test_the_newest_k_stay_also_when_resumed_and_best_and_foreign_files_always(tmp_path, keep):
    (tmp_path / "step-notes.pt").touch()
    (tmp_path / "step-1.pt").touch()
    for step in (10, 20, 30):
        Checkpointer(tmp_path, keep).save(state_at(step), step=step, is_best=step == 10)
    resumed = Checkpointer(tmp_path, keep)
    for step in (40, 50, 60):
        resumed.save(state_at(step), step=step)
    steps = [10, 20, 30, 40, 50, 60] if keep == -1 else [10, 20, 30, 40, 50, 60][-keep:]
    expected = [f"step-{s:08d}.pt" for s in steps] + ["best.pt", "last.pt", "step-notes.pt", "step-1.pt"]
    assert names(tmp_path) == sorted(expected)
    assert checkpoint.read(tmp_path / "best.pt")["step"] == 10
    assert checkpoint.read(tmp_path / "last.pt")["step"] == 60
    assert Checkpointer(tmp_path, keep).load().step == 60


def test_last_and_best_take_no_space_of_their_own(tmp_path):
    Checkpointer(tmp_path).save(state_at(1), step=1, is_best=True)
    files_ = {(p.stat().st_ino) for p in tmp_path.iterdir()}
    assert names(tmp_path) == ["best.pt", "last.pt", "step-00000001.pt"]
    assert len(files_) == 1


def test_nothing_is_removed_before_the_new_file_was_verified(tmp_path, monkeypatch):
    keeper = Checkpointer(tmp_path, keep_last=1)
    keeper.save(state_at(1), step=1, is_best=True)
    before = {p.name: p.stat().st_ino for p in tmp_path.iterdir()}
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda self: "archive/data/0")
    with pytest.raises(StorageError, match=r"read back damaged.*last good checkpoint: step-00000001\.pt"):
        keeper.save(state_at(2), step=2, is_best=True)
    assert {p.name: p.stat().st_ino for p in tmp_path.iterdir()} == before


class _Crash(BaseException):
    """The process is gone: no handler of the library may catch it."""


def _crash_at(monkeypatch, count: int) -> None:
    """Crash before the ``count``-th change of the folder."""
    left = iter(range(count))

    def watched(real):
        def call(*args, **kwargs):
            if next(left, None) is None:
                raise _Crash
            return real(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "link", "unlink"):
        monkeypatch.setattr(os, name, watched(getattr(os, name)))


def test_a_crash_before_any_system_call_leaves_a_last_that_can_be_read(tmp_path, monkeypatch):
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        keeper = Checkpointer(folder, keep_last=1)
        keeper.save(state_at(1), step=1, is_best=True)
        try:
            with monkeypatch.context() as patch:
                _crash_at(patch, crashes)
                keeper.save(state_at(2), step=2, is_best=True)
        except _Crash:
            crashes += 1
        assert checkpoint.read(folder / "last.pt")["step"] in (1, 2)
        assert checkpoint.read(folder / "best.pt")["step"] in (1, 2)
        assert keeper.load().step >= checkpoint.read(folder / "last.pt")["step"]
        if folder.name != str(crashes - 1):
            break  # the save was complete
    assert crashes >= 9


def test_a_stale_file_of_a_later_step_does_not_push_out_the_new_one(tmp_path):
    keeper = Checkpointer(tmp_path, keep_last=1)
    keeper.save(state_at(30), step=30)
    (tmp_path / "last.pt").unlink()
    (tmp_path / "step-00000030.pt").write_bytes(b"damaged")
    keeper.save(state_at(20), step=20)
    assert (tmp_path / "step-00000020.pt").exists()
    assert keeper.load().step == 20


def _cut(share: float):
    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return damage


def _flip(position_of) -> object:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position_of(path)] ^= 0x10
        path.write_bytes(data)

    return damage


def _in_tensor(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda m: m.file_size)
        return path.read_bytes().index(archive.read(member)) + member.file_size // 2


def _in_header(path: Path) -> int:
    return 2  # the first local header's signature


DAMAGES = {
    "empty": _cut(0),
    "half": _cut(0.5),
    "99 percent": _cut(0.99),
    "bit in a tensor": _flip(_in_tensor),
    "bit in a header": _flip(_in_header),
    "another type of file": lambda path: path.write_text("<html>404</html>"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_and_the_one_before_is_used(tmp_path, damage):
    warnings: list[str] = []
    keeper = Checkpointer(tmp_path, log=warnings.append)
    for step in (10, 20):
        keeper.save(state_at(step), step=step, is_best=step == 20)
    DAMAGES[damage](tmp_path / "step-00000020.pt")  # last.pt and best.pt are the same file
    before = names(tmp_path)
    loaded = keeper.load()
    assert loaded.step == 10
    assert len(warnings) == 1
    assert warnings[0].startswith("checkpoint ")  # who logs it says that it is a warning
    assert "step-00000020.pt" in warnings[0]
    assert "\n" not in warnings[0]
    assert names(tmp_path) == before


def test_torch_alone_would_have_loaded_the_flipped_bit(tmp_path):
    path = Checkpointer(tmp_path).save(state_at(1), step=1)
    DAMAGES["bit in a tensor"](path)
    torch.load(path, weights_only=True)  # why checksums are compared here
    with pytest.raises(CheckpointError, match=r"checksum of .* is wrong"):
        checkpoint.read(path)


def test_all_damaged_is_an_error_that_deletes_nothing(tmp_path):
    warnings: list[str] = []
    keeper = Checkpointer(tmp_path, log=warnings.append)
    for step in (10, 20):
        keeper.save(state_at(step), step=step)
    for path in tmp_path.glob("step-*"):
        DAMAGES["half"](path)
    before = names(tmp_path)
    with pytest.raises(CheckpointError, match=r"none of step-00000020\.pt, step-00000010\.pt can be used") as caught:
        keeper.load()
    assert caught.value.exit_code == USER
    assert len(warnings) == 2
    assert names(tmp_path) == before


def test_exported_weights_are_not_called_damaged(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* not a checkpoint; use checkpoints/last\.pt"):
        checkpoint.read(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_single_copied_file_is_enough_to_continue(tmp_path, name):
    Checkpointer(tmp_path / "a").save(state_at(10), step=10, is_best=True)
    (tmp_path / "b").mkdir()
    shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)
    assert Checkpointer(tmp_path / "b").load().step == 10


@pytest.mark.parametrize("key", REQUIRED)
def test_a_missing_key_is_named_when_saving_and_when_reading(tmp_path, key):
    state = state_at(1)
    torch.save({k: v for k, v in state.items() if k != key}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=f"lacks {key}"):
        checkpoint.read(tmp_path / "last.pt")
    if key != "step":
        del state[key]
        with pytest.raises(ValueError, match=f"lacks {key}"):
            Checkpointer(tmp_path).save(state, step=1)


@pytest.mark.parametrize("other", [FORMAT + 1, 0, "1", None, torch.ones(2)])
def test_a_file_of_another_version_is_named_as_such(tmp_path, other):
    state = state_at(1) | {"format": other}
    del state["meter"]  # what another version holds besides is its own affair
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt: has format .*, this version reads 1: another version"):
        checkpoint.read(tmp_path / "last.pt")
    with pytest.raises(ValueError, match="has format"):
        Checkpointer(tmp_path).save(state, step=1)


def test_the_step_of_the_name_and_of_the_state_must_agree(tmp_path):
    with pytest.raises(ValueError, match=r"step is 2 but state\['step'\] is 1"):
        Checkpointer(tmp_path).save(state_at(1), step=2)


@pytest.mark.parametrize("value", [np.float64(1.0), {"a", "b"}, Path("x"), {"deep": [object()]}, {1.5: 0}])
def test_what_could_not_be_loaded_again_is_refused_when_saving(tmp_path, value):
    with pytest.raises(TypeError, match="extra"):
        Checkpointer(tmp_path).save(state_at(1) | {"extra": value}, step=1)
    assert names(tmp_path) == []


def test_containers_and_shared_tensors_are_fine(tmp_path):
    weight = torch.ones(3)
    extra = OrderedDict(a=[weight, weight.view(3, 1)], b=(1, 2.5, True, None, "x"), c={3: torch.Size([1])})
    Checkpointer(tmp_path).save(state_at(1) | {"extra": extra}, step=1)
    assert Checkpointer(tmp_path).load().state["extra"]["b"] == (1, 2.5, True, None, "x")


class _Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, zipped):
    marker = tmp_path / "marker"
    bad = {"x": _Payload(f"touch {marker}")}
    torch.save(bad, tmp_path / "last.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError):
        Checkpointer(tmp_path, log=lambda _: None).load()
    assert not marker.exists()


def test_no_such_file_says_so(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        checkpoint.read(tmp_path / "none.pt")


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    def refused(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)  # root may read everything
    with pytest.raises(CheckpointError, match=r"last\.pt: cannot be read: permission denied; ask its owner"):
        checkpoint.read(tmp_path / "last.pt")


@pytest.mark.parametrize("keep", [-2, 0])
def test_keep_last_is_minus_one_or_at_least_one(tmp_path, keep):
    with pytest.raises(ValueError, match=f"keep_last is {keep}; use 1 or more, or -1 for all"):
        Checkpointer(tmp_path, keep_last=keep)
