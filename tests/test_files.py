"""Atomic files: order of system calls, full disks, half lines, orphans."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from randomix import files
from randomix.errors import STORAGE, StorageError


def test_content_is_synced_before_it_gets_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    sync, rename = os.fsync, os.replace

    def fsync(descriptor):
        events.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        sync(descriptor)

    def replace(old, new):
        events.append("rename")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_atomic(tmp_path / "a.json", "{}")
    assert events == ["file", "rename", "folder"]
    assert (tmp_path / "a.json").read_text() == "{}"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_can_be_made_again_is_not_waited_for_and_folders_are_made_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("waited for the disk"))
    path = tmp_path / "a" / "b" / "c.md"
    with pytest.raises(StorageError, match="cannot write"):
        files.write_atomic(path, "text", durable=False)
    files.write_atomic(path, "text", durable=False, parents=True)
    assert path.read_text() == "text"
    with pytest.raises(StorageError, match="cannot write"):
        files.write_atomic(path / "below", "text", durable=False, parents=True)


@pytest.mark.parametrize("step", ["write", "fsync", "verify", "replace"])
def test_a_failure_at_any_step_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, step):
    path = tmp_path / "a.bin"
    files.write_atomic(path, b"old")

    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    if step in ("fsync", "replace"):
        monkeypatch.setattr(os, step, fail)
    with (
        pytest.raises(StorageError, match=r"cannot write .*a\.bin: Input/output error") as caught,
        files.atomic_file(path, verify=fail if step == "verify" else None) as file,
    ):
        file.write(b"new")
        if step == "write":
            fail()
    assert caught.value.exit_code == STORAGE
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: _Usage(3 * 2**20))
    with pytest.raises(StorageError, match=r"disk full at .*: need 5\.0 MiB, have 3\.0 MiB"):
        files.write_atomic(tmp_path / "a.bin", bytes(5 * 2**20))
    assert os.listdir(tmp_path) == []


def test_a_small_need_is_told_in_smaller_units(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: _Usage(1024))
    with pytest.raises(StorageError, match=r"disk full at .*: need 2\.0 KiB, have 1\.0 KiB"):
        files.write_atomic(tmp_path / "a.bin", bytes(2048))


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_link_replaces_whatever_was_there_and_leaves_no_temporary(tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    files.link_atomic(tmp_path / "a", tmp_path / "last")
    files.link_atomic(tmp_path / "b", tmp_path / "last")
    files.link_atomic(tmp_path / "b", tmp_path / "last")  # both names are one file already
    assert (tmp_path / "last").samefile(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "last"]


def test_link_copies_where_the_file_system_has_no_links(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"content")
    files.link_atomic(tmp_path / "a", tmp_path / "last")
    assert (tmp_path / "last").read_bytes() == b"content"
    assert not (tmp_path / "last").samefile(tmp_path / "a")


@pytest.mark.parametrize("half", [b"", b'{"n": 2', b"x" * 200_000])
def test_a_half_last_line_is_passed_over_and_cut_by_the_next_append(tmp_path, half):
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, '{"n": 1}')
    with open(path, "ab") as file:
        file.write(half)
    assert files.read_jsonl(path) == [{"n": 1}]
    files.append_line(path, '{"n": "zwölf"}')
    assert files.read_jsonl(path) == [{"n": 1}, {"n": "zwölf"}]
    assert path.read_bytes().count(b"\n") == 2


def test_append_takes_one_line_and_a_file_of_half_a_line_becomes_empty(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(ValueError, match="one line expected, got 2"):
        files.append_line(path, "a\nb")
    assert files.read_jsonl(path) == []
    path.write_bytes(b'{"n"')
    files.append_line(path, '{"n": 1}')
    assert path.read_bytes() == b'{"n": 1}\n'


def test_append_to_a_folder_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*No such file or directory"):
        files.append_line(tmp_path / "none" / "metrics.jsonl", "{}")


def test_orphans_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for name in (f".last.pt.tmp.{child.pid}", f".last.pt.tmp.{os.getpid()}", "last.pt.tmp.1", ".notes.tmp.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in files.remove_orphans(tmp_path)] == [f".last.pt.tmp.{child.pid}"]
    assert sorted(os.listdir(tmp_path)) == sorted([f".last.pt.tmp.{os.getpid()}", "last.pt.tmp.1", ".notes.tmp.txt"])


def test_probe_makes_the_folder_and_leaves_it_empty_or_says_why_not(tmp_path, monkeypatch):
    files.probe_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        files.probe_writable(tmp_path / "file" / "below")
