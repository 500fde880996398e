"""Checkpointed stages change memory and time, nothing else: loss, gradients and statistics are equal bit for bit."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

import models
from randomix import mixers
from randomix.engine import distributed
from randomix.engine.launcher import STORE
from randomix.errors import ConfigError
from randomix.losses import soft_cross_entropy
from randomix.networks import input_gradient
from randomix.records.identity import config_hash
from randomix.rng import StepRng
from tests.support import fork, tiny_config, wait

CLASSES = 5
SMALL = {  # name: (network, samples, options, stages)
    "preact_resnet18": ("preact_resnet18", (3, 16, 16), {"width": 4}, [0, 1, 2, 3]),
    "preact_resnet18, raw": ("preact_resnet18", (3, 16, 16), {"width": 4, "stem_norm": False, "shortcut": "raw"}, [1]),
    "preact_resnet18_1d": ("preact_resnet18_1d", (1, 256), {"width": 4}, [0, 1]),
    "preact_resnet18, short": ("preact_resnet18", (3, 8, 8), {"width": 4, "blocks": [1, 1]}, [0, 1]),
    "wrn": ("wrn_28_10", (3, 16, 16), {"depth": 10, "widen_factor": 2, "width": 4, "dropout": 0.3}, [0, 1, 2]),
    "resnet50": ("resnet50", (3, 32, 32), {"width_per_group": 4, "blocks": [1, 2, 1, 1]}, [0, 1, 2, 3]),
}


def pair(case: str) -> tuple[nn.Module, nn.Module]:
    """A small network twice: plain and with checkpointed stages."""
    name, sample_shape, options, stages = SMALL[case]
    torch.manual_seed(0)
    plain = models.build({"name": name, **options}, sample_shape=sample_shape, num_classes=CLASSES).train()
    other = {"name": name, **options, "checkpoint_stages": stages}
    checkpointed = models.build(other, sample_shape=sample_shape, num_classes=CLASSES).train()
    checkpointed.load_state_dict(plain.state_dict())
    return plain, checkpointed


def curve(model, case, mixer, *, steps=3, dtype=None, network=None):
    """Losses, gradients and buffers of some steps, in one list."""
    optimizer, found = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9), []
    for step in range(steps):
        torch.manual_seed(step)
        inputs, labels = torch.randn(4, *SMALL[case][1]), torch.randint(CLASSES, (4,))
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            forward = mixer.forward_mixed(model if network is None else network, inputs, labels, StepRng(0, step))
        loss = forward.loss(soft_cross_entropy)
        loss.backward()
        found += [loss.detach(), *[p.grad.clone() for p in model.parameters()], *[b.clone() for b in model.buffers()]]
        optimizer.step()
        optimizer.zero_grad()
    return found


def assert_equal(left, right):
    assert len(left) == len(right)
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("case", [case for case in SMALL if "short" not in case])
@pytest.mark.parametrize("method", ["mixup", "manifold_mixup", "patchup", "puzzlemix"])
def test_every_kind_of_method_trains_the_same(case, method):
    if method == "puzzlemix" and len(SMALL[case][1]) == 2:
        method = "randomix"
    options = {"prob": 1.0} if method in ("manifold_mixup", "patchup") else {}
    mixer = mixers.build({"name": method, **options}, num_classes=CLASSES)
    assert_equal(*(curve(model, case, mixer) for model in pair(case)))


@pytest.mark.parametrize("case", ["preact_resnet18", "wrn"])
def test_half_precision_and_a_clean_loss_too(case):
    mixer = mixers.build({"name": "puzzlemix", "clean_weight": 1.0}, num_classes=CLASSES)
    assert_equal(*(curve(model, case, mixer, dtype=torch.bfloat16) for model in pair(case)))


@pytest.mark.parametrize("case", SMALL)
def test_less_is_kept_for_the_backward_pass(case):
    """Counted where autograd keeps tensors; those of the second pass are not seen here."""
    kept = []
    for model in pair(case):
        storages: dict[int, int] = {}

        def note(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(torch.randn(4, *SMALL[case][1])).sum()
        kept.append(sum(size for place, size in storages.items() if place not in weights))
        loss.backward()
    assert kept[1] < 0.85 * kept[0]


def test_statistics_are_taken_in_once_and_those_of_frozen_parts_never():
    _, model = pair("preact_resnet18")
    model.stages[1][0].norm1.eval()
    frozen, before = model.stages[1][0].norm1, copy.deepcopy(model.state_dict())
    for _ in range(3):
        model(torch.randn(4, 3, 16, 16)).sum().backward()
    counts = {name: int(b) for name, b in model.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts.pop("stages.1.0.norm1.num_batches_tracked") == 0
    assert set(counts.values()) == {3}
    assert torch.equal(frozen.running_mean, before["stages.1.0.norm1.running_mean"])
    assert not frozen.training
    assert all(part.momentum == 0.1 for part in model.modules() if isinstance(part, nn.BatchNorm2d))


def test_the_second_pass_has_the_modes_of_the_first():
    gradients = []
    for model in pair("wrn"):
        inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1), requires_grad=True)
        model.eval()
        loss = model(inputs).square().sum()
        model.train()  # before the backward pass
        state = copy.deepcopy(model.state_dict())
        loss.backward(retain_graph=True)
        loss.backward()
        assert_equal(list(state.values()), list(model.state_dict().values()))
        assert all(part.training for part in model.modules())
        gradients.append(inputs.grad)
    assert torch.equal(*gradients)


def test_input_gradients_are_the_same():
    inputs, targets = torch.randn(4, 3, 16, 16), torch.eye(CLASSES)[:4]
    for weight in (0.0, 1.0):
        found = [input_gradient(model, inputs, targets, weight)[0] for model in pair("preact_resnet18")]
        assert torch.equal(*found)


@pytest.mark.parametrize("case", ["preact_resnet18, short", "wrn"])
def test_compiles_without_a_graph_break_to_the_same(case):
    mixer = mixers.build({"name": "manifold_mixup", "prob": 1.0, "taps": [2]}, num_classes=CLASSES)
    found, sizes = [], []
    for model in pair(case):
        torch._dynamo.reset()
        network = torch.compile(model, backend="aot_eager", fullgraph=True)
        found.append(curve(model, case, mixer, steps=2, network=network))
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.nbytes) or t, lambda t: t):
            network(torch.randn(4, *SMALL[case][1])).sum()
        sizes.append(sum(kept))
    torch._dynamo.reset()
    assert_equal(*found)
    assert sizes[1] < sizes[0]


def test_two_ranks_train_the_same(tmp_path):
    def work(world):
        mixer, found = mixers.build("baseline", num_classes=CLASSES), []
        for model in pair("preact_resnet18"):
            found.append(curve(model, "preact_resnet18", mixer, network=distributed.ddp(model, world)))
        assert_equal(*found)

    def body() -> int:
        with distributed.init("cpu", 1.0) as world:
            work(world)
        return 0

    store, log = tempfile.mkdtemp(dir=tmp_path), Path(tmp_path / "log")
    places = [{"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, STORE: f"{store}/s"} for r in (0, 1)]
    pids = [fork(body, log, {k: str(v) for k, v in place.items()}) for place in places]
    assert wait(pids) == [0, 0], log.read_text()


def test_a_run_keeps_its_name(tmp_path):
    config = tiny_config(tmp_path)
    assert config_hash(config | {"model": config["model"] | {"checkpoint_stages": [0, 1]}}) == config_hash(config)


@pytest.mark.parametrize("stages", ["0", [0, 0], [-1], [4], [True], 1])
def test_stages_that_are_not_there_are_refused(stages):
    for name, sample_shape, options, _ in (SMALL["preact_resnet18"], SMALL["resnet50"], SMALL["wrn"]):
        with pytest.raises(ConfigError, match=r"model\.checkpoint_stages is .*, expected "):
            models.build(
                {"name": name, **options, "checkpoint_stages": stages}, sample_shape=sample_shape, num_classes=5
            )
