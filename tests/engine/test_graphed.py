"""The step as one recorded graph. On the CPU a tape of operations stands in for it: it replays them without Python."""

from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import models
from randomix import mixers
from randomix.engine import trainer as trainers
from randomix.engine.distributed import World
from randomix.engine.graphed import GraphedStep
from randomix.engine.schema import validate
from randomix.engine.stopper import Stopper
from randomix.errors import ConfigError, NonFiniteError
from randomix.mixers.base import InputMixer
from randomix.records.identity import config_hash
from tests.support import make_trainer, same_tensors, tiny_config

PIXELS = [n for n in mixers.available() if issubclass(mixers.get(n), InputMixer)]


class Tape(TorchDispatchMode):
    """Keeps each operation with the tensors it read and wrote; numbers of that run are part of it, as in a graph."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self):
        for function, args, kwargs, result in self.operations:
            for old, new in zip(tree_leaves(result), tree_leaves(function(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class TapeRecorder:
    """A Recorder for the CPU. Recording runs the step, whose effects are taken back."""

    def __init__(self):
        self.recordings = 0

    def warm_up(self, work):
        for _ in range(3):
            work()

    def record(self, work):
        self.recordings += 1
        tape = Tape()
        with work.__self__._untouched(), tape:
            work()
        return tape.replay


def trainer_of(folder, monkeypatch, graphed=True, mixer=None, **sections):
    """A trainer with PreAct-ResNet18 of width 4, and its recorder."""
    trainer = {"cuda_graph": graphed, "device": "auto"} | sections.pop("trainer", {})
    config = tiny_config(folder, trainer=trainer, **{"recipe": {"epochs": 4, "warmup_epochs": 1.0}} | sections)
    config["mixer"] = mixer or {"name": "randomix", "candidates": PIXELS}
    recorder = TapeRecorder()
    monkeypatch.setattr(trainers, "GraphedStep", partial(GraphedStep, recorder=recorder))
    running = make_trainer(config, World(), models.build)
    running.model.train()
    assert isinstance(running.stepper, GraphedStep) == graphed
    return running, recorder


def quiet(running, interval=1):
    """A stopper that hears no signal."""
    stopper = Stopper(running.guard, interval)
    stopper.close()
    return stopper


def curve(running, last, stopper=None):
    """The sums of loss and accuracy after each step up to ``last``."""
    stopper, found = stopper or quiet(running), []
    for batch in running.loader.batches(running.progress.step, last):
        running.step(running.progress.step, batch, stopper)
        running.progress.step += 1
        found.append(running.meter.state())
    return found


def everything(running):
    """The state as tensors by name, the rest of it as it is."""
    state = running.state()
    leaves = {str(i): leaf for i, leaf in enumerate(tree_leaves(state)) if isinstance(leaf, torch.Tensor)}
    others = [leaf for leaf in tree_leaves(state) if not isinstance(leaf, torch.Tensor)]
    return leaves, others


CASES = {
    "fp32": {},
    "bf16": {"trainer": {"precision": "bf16"}},
    "fp16": {"trainer": {"precision": "fp16"}},
    "nesterov-average": {"recipe": {"epochs": 4, "nesterov": True, "ema_decay": 0.9, "decay_norms": False}},
    "no-momentum": {"recipe": {"epochs": 4, "momentum": 0.0, "loss": "softmax_bce"}},
    "per-sample": {"mixer": {"name": "randomix", "granularity": "sample"}},
    "dropout": {"model": {"name": "wrn_28_10", "depth": 10, "widen_factor": 1, "width": 4, "dropout": 0.3}},
}


@pytest.mark.parametrize("name", CASES)
def test_replayed_steps_are_bit_equal_to_eager_ones(tmp_path, monkeypatch, name):
    eager, _ = trainer_of(tmp_path, monkeypatch, graphed=False, **CASES[name])
    graphed, recorder = trainer_of(tmp_path, monkeypatch, **CASES[name])
    assert curve(graphed, 20) == curve(eager, 20)
    assert recorder.recordings == 1
    (ours, others), (theirs, same) = everything(graphed), everything(eager)
    assert same_tensors(ours, theirs)
    assert others == same  # learning rates as numbers, names of methods, sums, the scaler
    assert all(p.grad is None for p in graphed.model.parameters())


def test_evaluation_in_between_changes_nothing(tmp_path, monkeypatch):
    eager, _ = trainer_of(tmp_path, monkeypatch, graphed=False)
    graphed, recorder = trainer_of(tmp_path, monkeypatch)
    for running in (eager, graphed):
        curve(running, 7)
    first = graphed.evaluate()
    assert graphed.evaluate() == first
    assert graphed.meter.read() == eager.meter.read()  # the sums begin anew
    for running in (eager, graphed):
        curve(running, 12)
    assert recorder.recordings == 1
    assert graphed.meter.read() == eager.meter.read()
    assert same_tensors(eager.model.state_dict(), graphed.model.state_dict())
    assert eager.evaluate() == graphed.evaluate() != first


@pytest.mark.parametrize(("before", "after"), [(True, True), (False, True), (True, False)])
def test_a_run_goes_on_from_either_way_to_step(tmp_path, monkeypatch, before, after):
    whole, _ = trainer_of(tmp_path, monkeypatch, graphed=False)
    curve(whole, 16)
    first, _ = trainer_of(tmp_path, monkeypatch, graphed=before)
    curve(first, 9)
    second, recorder = trainer_of(tmp_path, monkeypatch, graphed=after)
    curve(second, 2)  # what has been recorded for other tensors is not replayed
    second.load_state(first.state())
    curve(second, 16)
    assert recorder.recordings == 2 * after
    (ours, others), (theirs, same) = everything(second), everything(whole)
    assert same_tensors(ours, theirs)
    assert others == same


@pytest.mark.parametrize("interval", [1, 4])
def test_a_bad_step_takes_no_effect(tmp_path, monkeypatch, interval):
    graphed, _ = trainer_of(tmp_path, monkeypatch)
    stopper = quiet(graphed, interval)
    curve(graphed, 5, stopper)
    before = {name: p.clone() for name, p in graphed.model.named_parameters()}
    (batch,) = graphed.loader.batches(5, 6)
    batch.inputs[3] = float("nan")
    noticed = 5 if interval == 1 else 8
    with pytest.raises(NonFiniteError, match=r"not finite at step 5 .*mixer randomix"):
        for step in range(5, noticed + 1):
            if step > 5:
                (batch,) = graphed.loader.batches(step, step + 1)
            graphed.step(step, batch, stopper)
            graphed.progress.step = step + 1
    assert graphed.progress.step == noticed
    assert same_tensors(before, dict(graphed.model.named_parameters()))
    with pytest.raises(NonFiniteError, match="step 5 "):
        graphed.state()


def test_a_scaler_leaves_out_a_step_that_overflows(tmp_path, monkeypatch):
    found = []
    for graphed in (False, True):
        running, _ = trainer_of(tmp_path, monkeypatch, graphed, trainer={"precision": "fp16"})
        curve(running, 3)
        running.scaler.update(2.0**40)
        before = running.scaler.get_scale()
        curve(running, 12)
        found.append((running.scaler.get_scale() / before, everything(running)))
    assert found[0][0] == found[1][0] < 1
    assert same_tensors(found[0][1][0], found[1][1][0])


# -- what one graph cannot do -------------------------------------------------------------------------------------


def test_what_cannot_be_recorded_is_refused_before_the_run(tmp_path, monkeypatch):
    for settings, text in [
        ({"recipe": {"accumulate": 2}}, r"not with recipe.accumulate=2; write recipe.accumulate=1"),
        ({"mixer": {"name": "puzzlemix"}}, r"mixer=puzzlemix: puzzlemix mixes with the network's help; write"),
        (
            {"mixer": {"name": "randomix", "candidates": ["mixup", "patchup", "manifold_mixup"]}},
            r"mixer=randomix: patchup, manifold_mixup mixes with the network's help",
        ),
    ]:
        with pytest.raises(ConfigError, match=r"trainer.cuda_graph=true: .*" + text):
            trainer_of(tmp_path, monkeypatch, **settings)
    config = tiny_config(tmp_path, trainer={"cuda_graph": True, "device": "auto"})
    with pytest.raises(ConfigError, match=r"runs in one process, this run has 2; write trainer.nproc=1"):
        make_trainer(config, World(1, 2), models.build)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"cuda_graph=true: needs a CUDA device, this run is on cpu; write"):
        make_trainer(config, World(), models.build)


def test_settings_that_contradict_are_told_together(tmp_path):
    trainer = {"cuda_graph": True, "nproc": 2, "micro_batch_size": "auto"}
    found = validate(tiny_config(tmp_path, trainer=trainer, recipe={"accumulate": 2}))
    told = [line.partition(";")[0] for line in found if "cuda_graph" in line]
    assert told == [
        f"trainer.cuda_graph=true: not with {what}"
        for what in ("trainer.device=cpu", "trainer.nproc=2", "recipe.accumulate=2", "trainer.micro_batch_size=auto")
    ]
    assert validate(tiny_config(tmp_path, trainer={"cuda_graph": True, "device": "cuda"})) == []


def test_it_is_how_a_run_executes_not_what_it_computes(tmp_path):
    on, off = (config_hash(tiny_config(tmp_path, trainer={"cuda_graph": value})) for value in (True, False))
    assert on == off == config_hash(tiny_config(tmp_path))


# -- a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", [*CASES, "compiled"])
def test_a_cuda_graph_computes_what_eager_steps_do_and_never_waits(tmp_path, name):
    found = []
    for graphed in (False, True):
        sections = CASES.get(name, {})
        trainer = {"precision": "fp32", "device": "cuda", "cuda_graph": graphed, "compile": name == "compiled"}
        config = tiny_config(tmp_path, **sections | {"trainer": trainer | sections.get("trainer", {})})
        config["mixer"] = sections.get("mixer", {"name": "randomix", "candidates": PIXELS})
        running = make_trainer(config, World(device=torch.device("cuda", 0)), models.build)
        running.model.train()
        losses, stopper = [], quiet(running, 16)
        try:
            for step, batch in enumerate(running.loader.batches(0, 12)):
                torch.cuda.set_sync_debug_mode("error" if graphed and step > 0 else "default")
                running.step(step, batch, stopper)
                losses.append(running.meter.tensors()[0].clone())
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found.append(torch.stack(losses).cpu())
        running.evaluate()
    rtol = 2e-2 if name in ("bf16", "fp16") else 1e-4
    torch.testing.assert_close(found[1][:, 0], found[0][:, 0], rtol=rtol, atol=rtol)
