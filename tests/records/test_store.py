"""Folders of records: what is found, what is left out, and with which line."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from randomix.errors import STORAGE, StorageError
from randomix.records import store
from randomix.records.record import to_json
from tests.records.fakes import fake, text, write_run


def test_finds_runs_and_stores_alike(tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "mixup", 1)
    write_run(tmp_path / "runs", "baseline", 0)
    store.add(fake("cutmix"), tmp_path / "store")
    records, warnings = store.load([tmp_path / "runs", tmp_path / "store"])
    assert [r.mixer.name for r in records] == ["baseline", "cutmix", "mixup"] and warnings == []


def test_adding_is_stable(tmp_path: Path) -> None:
    one = fake("mixup", 2)
    path = store.add(one, tmp_path)
    assert path == tmp_path / "digits" / "preact_resnet18" / f"mixup-{one.config_hash}" / "seed-2.json"
    before = path.stat().st_mtime_ns
    assert store.add(one, tmp_path) == path and path.stat().st_mtime_ns == before
    assert path.read_text() == to_json(one)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store.add(fake("mixup", 0, 1.0), tmp_path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk full at"):
        store.add(fake("mixup", 0, 2.0), tmp_path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs", "mixup", 1)
    (tmp_path / "store").touch()
    assert store.main([str(tmp_path / "runs"), str(tmp_path / "store")]) == STORAGE
    error = capsys.readouterr().err
    assert error.startswith("cannot write") and error.count("\n") == 1


def test_the_same_run_twice_counts_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    records, warnings = store.load([tmp_path])
    assert len(records) == 1 and warnings == []


def test_of_two_different_records_the_newest_counts(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "baseline", 0, 11.0, provenance={"finished": "2001-01-02T00:00:00Z"})
    write_run(tmp_path / "b", "baseline", 0, 12.0, provenance={"finished": "2001-01-01T00:00:00Z"})
    (record,), (line,) = store.load([tmp_path])
    assert record.metric("top1_error") == 11.0
    assert line.startswith(f"{record.run}: two different records; ") and "2001-01-02" in line


def test_an_edited_record_does_not_displace_the_runs_own(tmp_path: Path) -> None:
    own, edited = fake("mixup"), json.loads(text("mixup"))
    edited["config"]["recipe"]["epochs"] = 1  # the hash is no longer that of the configuration
    edited["provenance"]["finished"] = "2999-01-01T00:00:00+00:00"
    (tmp_path / "a.json").write_text(to_json(own))
    (tmp_path / "z.json").write_text(json.dumps(edited))
    records, warnings = store.load([tmp_path])
    assert records == [own]
    assert any("two different records" in line and "z.json" in line.rpartition(" counts, ")[2] for line in warnings)


def test_damaged_and_foreign_files_are_left_out_with_a_line(tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "foreign.json").write_text('{"a": 1}')
    records, warnings = store.load([tmp_path])
    assert len(records) == 1
    assert [w.split(": ")[:2] for w in warnings] == [
        ["left out", str(tmp_path / n)] for n in ("broken.json", "foreign.json")
    ]


def test_a_changed_config_is_noticed(tmp_path: Path) -> None:
    content = json.loads(text())
    content["config"]["recipe"]["lr"] = 0.5
    (tmp_path / "edited.json").write_text(json.dumps(content))
    records, (line,) = store.load([tmp_path])
    assert len(records) == 1 and "but its config hashes to" in line


def test_run_folders(tmp_path: Path) -> None:
    folder = write_run(tmp_path).parent
    (folder / "wandb").mkdir()
    (folder / "wandb" / "summary.json").write_text("{}")  # a tracker's, no record
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "last-1a2b3c4d.json").write_text(text(kind="eval", checkpoint="last.pt", noise=40.0))
    running = tmp_path / "digits" / "running"
    running.mkdir()
    (running / "status.json").write_text('{"state": "running"}')
    records, warnings = store.load([tmp_path])
    assert sorted(r.kind for r in records) == ["eval", "train"]
    assert warnings == [f"{running}: no record.json yet (status: running)"]


def test_skipped_folders_and_single_files(tmp_path: Path) -> None:
    path = write_run(tmp_path / "runs")
    store.add(fake("mixup"), tmp_path / "runs" / "report" / "records")
    assert [r.mixer.name for r in store.load([tmp_path], skip=[tmp_path / "runs" / "report"])[0]] == ["baseline"]
    assert len(store.load([path])[0]) == 1


def test_command_line(tmp_path: Path, capsys) -> None:
    write_run(tmp_path / "runs", "mixup")
    assert store.main([str(tmp_path / "runs"), str(tmp_path / "store")]) == 0
    assert len(store.load([tmp_path / "store"])[0]) == 1
    assert store.main([str(tmp_path / "nothing"), str(tmp_path / "store")]) == 2
    assert "no records of runs below" in capsys.readouterr().err
