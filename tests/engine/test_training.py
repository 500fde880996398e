"""Whole runs on a few synthetic images: what they write, and that continuing one changes nothing."""

import json

import pytest
import torch

import datasets
import models
from randomix import files, mixers
from randomix.engine import status
from randomix.engine.distributed import World
from randomix.engine.runfolder import RunFolder
from randomix.engine.schema import parse
from randomix.engine.stopper import Stopper
from randomix.errors import ConfigError, DataError, Interrupted
from randomix.records import identity, record
from randomix.runs import build
from randomix.runs.parts import build_parts
from tests.support import group_net, make_trainer, stop_once, tiny_config, train, weights_digest

TIMES = {"seconds", "cpu_seconds", "images_per_second"}


def curve(folder):
    return [{k: v for k, v in m.items() if k not in TIMES} for m in files.read_jsonl(folder.metrics)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("run"), evaluators=["clean", "noise", "occlusion"])
    config["evaluator"] = {"clean": {}, "noise": {"sigma": 0.3}, "occlusion": {"block": 4, "repeats": 2}}
    return config, train(config)


def test_a_run_leaves_what_the_architecture_promises(finished):
    config, folder = finished
    left = {p.name for p in folder.root.iterdir()}
    assert left >= {"config.yaml", "metrics.jsonl", "record.json", "status.json", "model.safetensors", "log.txt"}
    assert {"last.pt", "best.pt"} <= {p.name for p in folder.checkpoints.iterdir()}
    assert status.read(folder.status).state == "finished"
    written = record.read(folder.record)
    assert written.config_hash == identity.config_hash(config)
    assert written.metrics["last"]["epoch"] == 2
    assert {"top1_error", "noise_error", "occlusion_error"} <= set(written.metrics["last"])
    assert sum(written.candidates.values()) == 12
    assert set(written.candidates) <= {"mixup", "cutmix", "resizemix", "fmix"}
    assert [m["epoch"] for m in written.history] == [1, 2]
    assert written.mixer.mode == "l+m"
    assert str(folder.root.parents[3]) not in folder.record.read_text()  # no path of this machine


def test_the_record_says_what_the_weights_do(finished):
    from safetensors.torch import load_file

    config, folder = finished
    data = datasets.build(config["dataset"])
    model = models.build(config["model"], sample_shape=data.sample_shape, num_classes=data.num_classes)
    model.load_state_dict(load_file(folder.weights))
    model.eval()
    eval_set, correct = data.eval_set(torch.device("cpu")), 0
    for batch in eval_set.batches(5):
        correct += int((model(eval_set.normalise(batch.inputs)).argmax(1) == batch.labels).sum())
    assert record.read(folder.record).metrics["last"]["top1"] == pytest.approx(100 * correct / 37)


def test_the_same_command_again_says_finished_and_trains_nothing(finished, capsys):
    config, folder = finished
    before = folder.record.read_bytes(), folder.log.read_bytes()
    train(config)
    assert "already finished: top1" in capsys.readouterr().out
    assert (folder.record.read_bytes(), folder.log.read_bytes()) == before


def test_the_same_configuration_elsewhere_gives_the_same_curve(finished, tmp_path):
    config, folder = finished
    again = train(config | {"output_root": str(tmp_path)})
    assert curve(again) == curve(folder)
    assert weights_digest(again) == weights_digest(folder)
    assert weights_digest(train(config | {"output_root": str(tmp_path), "seed": 1})) != weights_digest(folder)


@pytest.mark.parametrize("stop_after", [1, 5, 6, 11])
def test_an_interrupted_run_continues_bit_equal(finished, tmp_path, monkeypatch, stop_after):
    config, folder = finished
    config = config | {"output_root": str(tmp_path)}
    calls = []

    def asked(self, step, loss=None, original=Stopper.check):
        if loss is not None:  # a training step
            calls.append(step)
            if len(calls) == stop_after:
                self.request("SIGTERM")
        return original(self, step, loss)

    monkeypatch.setattr(Stopper, "check", asked)
    with pytest.raises(Interrupted, match=f"SIGTERM at step {stop_after} of 12"):
        train(config)
    again = RunFolder(identity.run_folder(config))
    known = status.read(again.status)
    assert (known.state, known.step, known.exit_code) == ("interrupted", stop_after, 75)
    train(config)
    assert calls == list(range(12))  # no step left out, none done twice
    assert weights_digest(again) == weights_digest(folder)
    assert curve(again) == curve(folder)
    assert record.read(again.record).candidates == record.read(folder.record).candidates


@pytest.mark.parametrize("key", ["model", "optimizer", "step", "average", "scaler", "history", "candidates", "meter"])
def test_every_part_of_the_state_is_needed(tmp_path, key):
    trainer = make_trainer(tiny_config(tmp_path))
    state = trainer.state()
    del state[key]
    with pytest.raises(KeyError, match=key):
        trainer.load_state(state)


def test_metrics_written_after_the_checkpoint_are_not_doubled(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, trainer={"checkpoint_every_epochs": 2}, recipe={"epochs": 3})
    from randomix.runs.session import TrainingSession

    original = TrainingSession._after_epoch

    def crash(self, metrics, improved):
        original(self, metrics, improved=False)
        if metrics["epoch"] == 3:
            raise RuntimeError("power cut")

    monkeypatch.setattr(TrainingSession, "_after_epoch", crash)
    monkeypatch.setattr(TrainingSession, "_checkpoint", lambda self, improved: None)
    with pytest.raises(RuntimeError):
        train(config)
    monkeypatch.undo()
    assert status.read(RunFolder(identity.run_folder(config)).status).state == "failed"
    folder = train(config)
    assert [m["epoch"] for m in files.read_jsonl(folder.metrics)] == [1, 2, 3]


def test_a_finished_run_says_when_it_was_evaluated_otherwise(finished, capsys):
    config, folder = finished
    train(config | {"evaluators": ["noise"]})
    assert (
        f"for these evaluators run python eval.py checkpoint={folder.root} 'evaluators=[noise]'"
        in capsys.readouterr().out
    )


def test_accumulated_gradients_equal_those_of_the_whole_batch(tmp_path):
    gradients = []
    for parts in (1, 4):
        config = tiny_config(tmp_path, mixer={"name": "baseline"}, recipe={"accumulate": parts})
        config["mixer"] = {"name": "baseline"}
        trainer = make_trainer(config)
        trainer.optimizer.zero_grad = lambda **_: None
        (batch,) = trainer.loader.batches(0, 1)
        with Stopper() as stopper:
            trainer.step(0, batch, stopper)
        gradients.append([p.grad.clone() for p in trainer.model.parameters()])
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_a_weight_average_is_what_is_evaluated_and_kept(tmp_path):
    config = tiny_config(tmp_path, recipe={"ema_decay": 0.9})
    from safetensors.torch import load_file

    from randomix.engine.checkpoint import read

    folder = train(config)
    state, kept = read(folder.checkpoints / "last.pt"), load_file(folder.weights)
    assert all(torch.equal(kept[k], v) for k, v in state["average"].items())
    assert not all(torch.equal(kept[k], v) for k, v in state["model"].items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains_and_continues_bit_equal(tmp_path, monkeypatch, precision):
    config = tiny_config(tmp_path / "a", trainer={"precision": precision, "device": "auto"}, recipe={"epochs": 1})
    whole = train(config)
    config["output_root"] = str(tmp_path / "b")
    monkeypatch.setattr(Stopper, "check", stop_once(Stopper.check, at=3))
    with pytest.raises(Interrupted):
        train(config)
    again = train(config)
    assert weights_digest(again) == weights_digest(whole)
    assert record.read(again.record).provenance["precision"] == precision


def test_a_batch_larger_than_the_data_is_one_line(tmp_path):
    config = tiny_config(tmp_path, dataset={"name": "digits", "train_size": None}, recipe={"batch_size": 2000})
    for key in ("test_size", "num_classes", "channels", "height", "width"):
        del config["dataset"][key]
    with pytest.raises(DataError, match=r"recipe.batch_size=2000 is larger than the 1200 training samples of digits"):
        train(config)


def test_resume_never_refuses_a_folder_with_a_run(tmp_path):
    config = tiny_config(tmp_path, recipe={"epochs": 1})
    folder = train(config)
    for _ in range(2):  # finished, then with its status lost
        with pytest.raises(ConfigError, match=r"trainer.resume=never"):
            train(config | {"trainer": config["trainer"] | {"resume": "never"}})
        folder.status.unlink(missing_ok=True)


def test_a_damaged_record_is_made_again(tmp_path, capsys):
    config = tiny_config(tmp_path, recipe={"epochs": 1})
    folder = train(config)
    before = record.read(folder.record).metrics
    folder.record.write_text("{")
    train(config)
    assert "made again from the last checkpoint" in capsys.readouterr().err
    assert record.read(folder.record).metrics == before


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    config = tiny_config(tmp_path)
    folder = RunFolder(identity.run_folder(config))
    folder.prepare("auto")
    status.Status(folder.status).update("running", step=4)
    for nproc in (1, 2):
        config["trainer"]["nproc"] = nproc
        with folder.locked(), pytest.raises(ConfigError, match="another process is training"):
            train(config)
        assert status.read(folder.status).state == "running"  # that of the other process


def test_compiled_training_follows_the_eager_curve(tmp_path, monkeypatch):
    import functools

    compiled = functools.partial(torch.compile, backend="aot_eager")  # same graphs and guards, no code generation
    monkeypatch.setattr(torch, "compile", compiled)
    eager = train(tiny_config(tmp_path / "a"), group_net)
    graph = train(tiny_config(tmp_path / "b", trainer={"compile": True}), group_net)
    for a, b in zip(curve(eager), curve(graph), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-3)


def test_evaluating_a_run_again_gives_the_recorded_numbers(finished, capsys):

    config, folder = finished
    trainer = {"device": "cpu", "precision": "fp32", "eval_batch_size": 7, "nproc": 1}
    asked = {k: config[k] for k in ("evaluators", "evaluator")}
    asked |= {"checkpoint": str(folder.root), "trainer": trainer, "output_root": "outputs"}
    assert build.run_evaluation(asked, datasets.build, models.build) == 0
    (written,) = folder.evaluations.iterdir()
    again, first = record.read(written), record.read(folder.record)
    assert again.kind == "eval"
    assert again.counts == first.counts  # whole numbers: whatever the batch size
    for name in ("top1", "noise_error", "occlusion_error"):
        assert again.metric(name) == pytest.approx(first.metric(name))
    assert "occlusion_error" in capsys.readouterr().out


def test_an_evaluator_that_does_not_fit_the_images_is_one_line(finished):
    _, folder = finished
    asked = {"evaluators": ["occlusion"], "evaluator": {"occlusion": {"block": 20}}, "checkpoint": str(folder.root)}
    asked |= {"trainer": {"device": "cpu", "precision": "fp32", "eval_batch_size": 7, "nproc": 1}}
    with pytest.raises(ConfigError, match="occlusion"):
        build.run_evaluation(asked, datasets.build, models.build)


def test_a_missing_checkpoint_names_what_is_there(finished, tmp_path):
    _, folder = finished
    with pytest.raises(ConfigError, match=r"there is no file .*epoch-9.pt; it has .*last.pt"):
        RunFolder.of_checkpoint(folder.checkpoints / "epoch-9.pt")
    with pytest.raises(ConfigError, match="train first"):
        RunFolder.of_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match=rf"below it are 1 runs: name one of them, such as {folder.root}$"):
        RunFolder.of_checkpoint(folder.root.parent)


def test_history_in_metrics_and_record_agree(finished):
    _, folder = finished
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert lines == record.read(folder.record).history


@pytest.mark.parametrize("name", mixers.available())
def test_mixing_in_place_trains_to_the_same_weights(tmp_path, name):
    """Also in micro-batches, which are views of one batch."""
    for parts in (1, 2):
        config = tiny_config(tmp_path, recipe={"accumulate": parts})
        config["mixer"] = {"name": name}
        config["model"] = {"name": "preact_resnet18", "width": 2, "blocks": [1, 1]}
        plain, inplace = (make_trainer(config, model_factory=models.build) for _ in range(2))
        inplace.mixer.allow_inplace()
        for trainer in (plain, inplace):
            with Stopper(trainer.guard) as stopper:
                for step, batch in enumerate(trainer.loader.batches(0, 4)):
                    trainer.step(step, batch, stopper)
        found = inplace.model.state_dict()
        assert all(torch.equal(tensor, found[key]) for key, tensor in plain.model.state_dict().items())


def test_a_run_mixes_in_place(tmp_path):
    _, trainer = build_parts(parse(tiny_config(tmp_path)), World(), datasets.build, group_net)
    assert trainer.mixer.inplace and all(candidate.inplace for candidate in trainer.mixer.candidates)
