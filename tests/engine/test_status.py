"""status.json: complete, atomic, tolerant to read."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime

import pytest

from randomix.engine import status
from randomix.engine.signals import LAST_WORDS, exit_on_signals
from randomix.engine.status import RunStatus, Status
from tests.support import fork, group_net, tiny_config, train, wait


def test_an_update_keeps_what_it_leaves_out(tmp_path):
    path = tmp_path / "status.json"
    Status(path).update("running", step=240, epoch=3, checkpoint="last.pt")
    assert status.read(path).exit_code is None
    Status(path).update("failed", reason="disk full", exit_code=5)
    content = json.loads(path.read_text())
    assert datetime.fromisoformat(content.pop("updated")).utcoffset().total_seconds() == 0
    assert content == {
        "state": "failed",
        "reason": "disk full",
        "step": 240,
        "epoch": 3,
        "checkpoint": "last.pt",
        "exit_code": 5,
    }


@pytest.mark.parametrize(("state", "code"), [("running", None), ("finished", 0), ("interrupted", 75)])
def test_the_exit_code_follows_from_the_state(tmp_path, state, code):
    Status(tmp_path / "status.json").update("failed", reason="x", exit_code=4)
    Status(tmp_path / "status.json").update(state)
    known = status.read(tmp_path / "status.json")
    assert (known.state, known.exit_code, known.reason) == (state, code, "")


def test_an_unknown_state_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="'done' is not one of running"):
        Status(tmp_path / "status.json").update("done")
    assert not (tmp_path / "status.json").exists()


@pytest.mark.parametrize("content", [b"", b'{"state": "run', b"[]", b'{"state": "done"}', b"\xff\xfe", b"3"])
def test_what_cannot_be_understood_reads_as_none(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    assert status.read(tmp_path / "status.json") is None
    assert status.read(tmp_path / "none.json") is None


def test_a_newer_version_s_keys_are_left_out(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "finished", "colour": "blue"}')
    assert status.read(tmp_path / "status.json") == RunStatus("finished")


@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_before_the_first_step_is_told_by_the_file(tmp_path, begun):
    config = tiny_config(tmp_path, recipe={"epochs": 1})
    folder = train(config, group_net)
    if not begun:
        (folder.checkpoints / "last.pt").unlink()
    Status(folder.status).update("interrupted")

    def stopped():
        exit_on_signals()
        return train(config, lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM))

    assert wait([fork(stopped, tmp_path / "log")]) == [75]
    words = "interrupted" if begun else "interrupted before the first step"
    known = status.read(folder.status)
    assert (known.state, known.exit_code, known.reason) == ("interrupted", 75, words)
    action = "continues" if begun else "starts it"
    assert (tmp_path / "log").read_text() == f"{words}; the same command {action}\n"
    assert len(LAST_WORDS) == 1
