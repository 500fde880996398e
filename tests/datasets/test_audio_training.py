"""Whole runs on small files in the official layout: both kinds of input, and a stop in the middle of an epoch."""

import pytest

from datasets.speech_commands import COMMANDS
from randomix.engine.stopper import Stopper
from randomix.errors import Interrupted
from randomix.records import record
from tests.datasets.sounds import make_speech_commands
from tests.support import stop_once, tiny_config, train, weights_digest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("speech") / "set"
    make_speech_commands(root, (*COMMANDS, "bed"), takes=5)
    return root


@pytest.mark.parametrize("features", ["waveform", "log_mel"])
def test_two_epochs_whole_and_interrupted(tmp_path, folder, features, monkeypatch):
    config = tiny_config(tmp_path / "whole", recipe={"batch_size": 12}) | {
        "dataset": {"name": "speech_commands", "root": str(folder), "verify": False, "features": features}
    }
    whole = train(config)
    found = record.read(whole.record)
    assert found.data["train_samples"] == 36 and found.counts["clean"]["total"] == 12  # 33 + 3 and 11 + 1 of silence
    config["output_root"] = str(tmp_path / "stopped")
    monkeypatch.setattr(Stopper, "check", stop_once(Stopper.check, at=4))
    with pytest.raises(Interrupted):
        train(config)
    assert weights_digest(train(config)) == weights_digest(whole)
