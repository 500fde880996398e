"""Runs that end badly: what is kept, what is said, and with which code."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from randomix.engine import status
from randomix.engine.launcher import describe
from randomix.engine.runfolder import RunFolder
from randomix.engine.stopper import Decision, Stopper
from randomix.engine.trainer import Trainer
from randomix.errors import ConfigError, Interrupted, NonFiniteError, StorageError
from randomix.records import identity, record
from randomix.runs import session
from tests.support import make_trainer, stop_once, tiny_config, train


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path):
    trainer = make_trainer(tiny_config(tmp_path))
    (batch,) = trainer.loader.batches(0, 1)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    batch.inputs[0, 0, 0, 0] = float("nan")
    with Stopper(trainer.guard) as stopper, pytest.raises(NonFiniteError, match=r"step 0 .*lr 0.05.*mixer randomix"):
        trainer.step(0, batch, stopper)
    assert all(torch.equal(before[k], v) for k, v in trainer.model.state_dict().items())


def test_a_diverging_run_exits_3_and_keeps_its_last_good_checkpoint(tmp_path, monkeypatch):
    config = tiny_config(tmp_path)
    original = Trainer.step

    def poisoned(self, step, batch, stopper):
        if step == 8:
            batch.inputs.fill_(float("inf"))
        return original(self, step, batch, stopper)

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(NonFiniteError) as caught:
        train(config)
    assert caught.value.exit_code == 3
    folder = RunFolder(identity.run_folder(config))
    known = status.read(folder.status)
    assert (known.state, known.exit_code) == ("failed", 3)
    from randomix.engine.checkpoint import read

    assert read(folder.checkpoints / "last.pt")["step"] == 6


def test_nothing_is_saved_after_a_bad_step_that_is_noticed_late(tmp_path, monkeypatch):
    """As on a GPU, where the guard's answer comes some steps later than the signal that stops the run."""

    def late(self, step, loss=None):
        if step == 3:
            loss = loss * float("nan")
        if step == 4:
            self.request("SIGTERM")
        if loss is not None:
            self.guard.observe(step, loss)
        return Decision(bool(self.reason), False)

    monkeypatch.setattr(Stopper, "check", late)
    config = tiny_config(tmp_path)
    with pytest.raises(NonFiniteError, match="not finite at step 3"):
        train(config)
    assert not list(RunFolder(identity.run_folder(config)).checkpoints.glob("*.pt"))


def test_a_signal_during_the_final_evaluation_keeps_the_training(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, evaluators=["clean", "noise"], evaluator={"noise": {"sigma": 0.1}})
    original = session.run_evaluators

    def signalled(*arguments, **settings):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **settings)

    monkeypatch.setattr(session, "run_evaluators", signalled)
    with pytest.raises(Interrupted, match="SIGTERM at step 12 of 12"):
        train(config)
    folder = RunFolder(identity.run_folder(config))
    assert status.read(folder.status).state == "interrupted"
    monkeypatch.undo()
    assert record.read(train(config).record).metric("noise_error") is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"precision": "auto"}}, "trainer.precision: the checkpoint was trained in fp32"),
        (
            {"dataset": {"root": "elsewhere"}},
            "dataset: not the data that the checkpoint was trained on: source generated",
        ),
    ],
)
def test_a_run_is_not_continued_as_another(tmp_path, monkeypatch, changes, message):
    config = tiny_config(tmp_path)
    monkeypatch.setattr(Stopper, "check", stop_once(Stopper.check, at=3))
    with pytest.raises(Interrupted):
        train(config)
    trainer = make_trainer(config, model_factory=models.build)
    trainer.precision = replace(trainer.precision, name="bf16" if "trainer" in changes else "fp32")
    if "dataset" in changes:
        trainer.data = {"source": "other images"}
    from randomix.engine.checkpoint import read

    with pytest.raises(ConfigError, match=message):
        trainer.load_state(read(RunFolder(identity.run_folder(config)).checkpoints / "last.pt"))


def test_running_out_of_memory_has_its_own_exit_code(tmp_path, monkeypatch, capsys):
    def exhausted(self, step, batch, stopper):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Trainer, "step", exhausted)
    config = tiny_config(tmp_path)
    with pytest.raises(torch.OutOfMemoryError):
        train(config)
    known = status.read(RunFolder(identity.run_folder(config)).status)
    assert (known.state, known.exit_code) == ("failed", 4)
    assert "trainer.micro_batch_size=auto" in known.reason


def test_torch_without_memory_on_the_cpu_is_out_of_memory_too():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    assert describe(error.value).code == 4
    assert describe(RuntimeError("anything else")).code == 1


def test_an_error_with_a_full_disk_is_still_the_first_error(tmp_path, monkeypatch):
    config = tiny_config(tmp_path)

    def full(*arguments, **settings):
        raise StorageError("disk full: the checkpoint")

    monkeypatch.setattr(session.Checkpointer, "save", full)
    original = session.Status.update

    def update(self, state, **settings):
        if state == "failed":
            raise StorageError("disk full: the status")
        original(self, state, **settings)

    monkeypatch.setattr(session.Status, "update", update)
    with pytest.raises(StorageError, match="the checkpoint"):
        train(config)


def test_a_finished_run_on_other_files_is_not_taken_for_this_one(tmp_path, capsys):
    """Where data lie is no part of a run's name: files that nothing verifies are told apart by their place."""
    config = tiny_config(tmp_path, dataset={"verify": False, "root": "cats"}, recipe={"epochs": 1})
    train(config)
    dogs = config | {"dataset": config["dataset"] | {"root": "dogs"}}
    with pytest.raises(
        ConfigError, match=r"dataset.root=dogs: the run in .* was trained on cats; set another output_root"
    ):
        train(dogs)
    capsys.readouterr()
    train(config | {"dataset": config["dataset"] | {"root": str(Path("cats").absolute())}})
    assert "already finished" in capsys.readouterr().out
