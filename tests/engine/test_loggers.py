import sys

import pytest

from randomix.engine import loggers
from randomix.engine.loggers import SafeTracker
from randomix.errors import ConfigError


class Broken:
    def __init__(self, *arguments):
        self.calls = 0

    def log(self, metrics, step):
        self.calls += 1
        raise ConnectionError("no route to the server")

    def finish(self, exit_code):
        raise AssertionError("a tracker that failed is left alone")


def tracker(name, tmp_path, warnings):
    return SafeTracker({"name": name}, tmp_path, "digits/net/mixup-0/seed-0", {"seed": 0}, warnings.append)


def test_a_failing_tracker_costs_one_warning_and_never_the_run(monkeypatch, tmp_path):
    monkeypatch.setitem(loggers.TRACKERS, "broken", Broken)
    warnings = []
    safe = tracker("broken", tmp_path, warnings)
    for step in range(3):
        safe.log({"top1": 1.0}, step)
    safe.finish(0)
    assert len(warnings) == 1
    assert "no route to the server" in warnings[0]


def test_none_tracks_nothing(tmp_path):
    warnings = []
    safe = tracker("none", tmp_path, warnings)
    safe.log({"top1": 1.0}, 1)
    safe.finish(0)
    assert warnings == []
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"pip install 'randomix\[wandb\]'"):
        tracker("wandb", tmp_path, [])


def test_wandb_is_given_the_run_and_offline(monkeypatch, tmp_path):
    seen = {}

    class Run:
        def log(self, metrics, step):
            seen.setdefault("logged", []).append((step, metrics))

        def finish(self, exit_code):
            seen["exit_code"] = exit_code

    class Wandb:
        @staticmethod
        def init(**settings):
            seen.update(settings)
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Wandb)
    safe = tracker("wandb", tmp_path, [])
    safe.log({"top1": 50.0}, 7)
    safe.finish(75)
    assert seen["mode"] == "offline"
    assert seen["id"] == "digits-net-mixup-0-seed-0"  # the same id when a run is continued
    assert seen["resume"] == "allow"
    assert seen["logged"] == [(7, {"top1": 50.0})]
    assert seen["exit_code"] == 75


def test_tensorboard_writes_an_event_file(tmp_path):
    safe = tracker("tensorboard", tmp_path, [])
    safe.log({"top1": 50.0}, 1)
    safe.finish(0)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"top1" in events.read_bytes()
