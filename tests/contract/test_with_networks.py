"""What holds for every mixer with a network that trains: each dimension and type, eager and compiled, gradients."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from randomix.losses import soft_cross_entropy
from randomix.mixers import available, build, get
from randomix.mixers.base import BatchMixer
from randomix.networks import unwrap
from randomix.partition import PENALTIES, PRECEDENCES
from randomix.rng import StepRng
from randomix.types import MixedMode

CLASSES, COUNT = 5, 6
SPATIAL = {1: (32,), 2: (16, 8), 3: (8, 8, 8)}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
CASES = [(name, dims) for name in available() for dims in SPATIAL if dims in get(name).spatial_dims]


class Tapped(nn.Module):
    """Three convolutions with batch normalisation, and a tap before each and after the last."""

    num_taps = 4

    def __init__(self, dims):
        super().__init__()
        torch.manual_seed(dims)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
        self.layers = nn.ModuleList(
            nn.Sequential(conv(i, o, 3, padding=1), norm(o), nn.ReLU()) for i, o in [(3, 4), (4, 4), (4, 6)]
        )
        self.head = nn.Linear(6, CLASSES)

    def forward(self, inputs, tap=None):
        features = inputs if tap is None else tap(0, inputs)
        for index, layer in enumerate(self.layers):
            features = layer(features)
            features = features if tap is None else tap(1 + index, features)
        return self.head(features.flatten(2).mean(2))


def batch(dims, dtype=torch.float32):
    draw = torch.Generator().manual_seed(3)
    inputs = torch.rand(COUNT, 3, *SPATIAL[dims], generator=draw).to(dtype)
    return inputs, torch.randint(CLASSES, (COUNT,), generator=draw)


def mixer_of(name):
    return build(name, num_classes=CLASSES)


@pytest.mark.parametrize(("name", "dims"), CASES)
class TestWithNetworks:
    def test_a_step_leaves_gradients_and_nothing_else(self, name, dims):
        model, (inputs, labels) = Tapped(dims).train(), batch(dims)
        mixer = mixer_of(name)
        mixer.check_shape(inputs.shape[1:])
        mixer.check_network(model, inputs.shape[1:])
        changed = False
        for step in range(8):
            model.zero_grad(set_to_none=True)
            before = inputs.clone()
            result = mixer.forward_mixed(model, inputs, labels, StepRng(0, step))
            assert all(p.grad is None for p in model.parameters())  # no pass leaves gradients behind
            assert torch.equal(inputs, before)
            assert inputs.grad is None
            assert not inputs.requires_grad
            assert all(part.training for part in model.modules())
            result.loss(soft_cross_entropy).backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
            changed |= not torch.equal(result.targets, nn.functional.one_hot(labels, CLASSES).float())
        assert changed or mixer.mode is MixedMode.NONE

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_every_type(self, name, dims, dtype):
        model, (inputs, labels) = Tapped(dims).to(dtype).train(), batch(dims, dtype)
        for step in range(4):
            result = mixer_of(name).forward_mixed(model, inputs, labels, StepRng(1, step))
            assert result.logits.dtype == dtype
            assert result.logits.isfinite().all()
            assert result.targets.dtype == result.lam.dtype == torch.float32
            torch.testing.assert_close(result.targets.sum(1), torch.ones(COUNT))
            result.loss(soft_cross_entropy).backward()

    def test_compiled_as_uncompiled(self, name, dims):
        """The same logits and gradients; a graph for each place where it mixes, and none for a later step."""
        from torch._dynamo.testing import CompileCounterWithBackend

        torch._dynamo.reset()
        inputs, labels = batch(dims)
        plain, inner = Tapped(dims).train(), Tapped(dims).train()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(inner, backend=counter, dynamic=False)
        for step in range(12):
            rng = StepRng(2, step)
            results = [mixer_of(name).forward_mixed(m, inputs, labels, rng) for m in (plain, compiled)]
            for result, model in zip(results, (plain, inner), strict=True):
                model.zero_grad()
                result.loss(soft_cross_entropy).backward()
            torch.testing.assert_close(results[0].logits, results[1].logits, atol=1e-5, rtol=1e-5)
            for p, q in zip(plain.parameters(), unwrap(compiled).parameters(), strict=True):
                torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4)
        assert 1 <= counter.frame_count <= 3
        torch._dynamo.reset()


@pytest.mark.parametrize("name", available())
def test_what_cannot_be_mixed_is_named_before_training(name):
    """Also where a method covers all dimensions, and then says nothing."""
    for dims, spatial in SPATIAL.items():
        mixer = mixer_of(name)
        if dims in mixer.spatial_dims:
            mixer.check_shape((3, *spatial))
        else:
            with pytest.raises(ValueError, match=f"{name} mixes 2-D samples only"):
                mixer.check_shape((3, *spatial))


@pytest.mark.parametrize("names", list(itertools.combinations([n for n in available() if n != "randomix"], 4))[::29])
def test_any_four_make_a_composite(names):
    model, (inputs, labels) = Tapped(2).train(), batch(2)
    mixer = build({"name": "randomix", "candidates": list(names)}, num_classes=CLASSES)
    mixer.check_shape(inputs.shape[1:])
    mixer.check_network(model, inputs.shape[1:])
    used = set()
    for step in range(24):
        result = mixer.forward_mixed(model, inputs, labels, StepRng(0, step))
        used.add(result.name)
        result.loss(soft_cross_entropy).backward()
    assert used == set(names)


@pytest.mark.parametrize("name", available())
def test_misuse_is_named_whatever_the_method_needs(name):
    model, (inputs, labels), mixer = Tapped(2), batch(2), mixer_of(name)
    with pytest.raises(TypeError, match=r"inputs must be a torch.Tensor, got numpy.ndarray; use torch.from_numpy"):
        mixer.forward_mixed(model, inputs.numpy(), labels, 0)
    with pytest.raises(ValueError, match=r"inputs must be floating point, got torch.uint8"):
        mixer.forward_mixed(model, (inputs * 255).byte(), labels, 0)
    with pytest.raises(ValueError, match=r"one label a sample and N >= 1, got \(6, 3, 16, 8\) and \(5,\)"):
        mixer.forward_mixed(model, inputs, labels[:5], 0)
    with pytest.raises(ValueError, match=r"N >= 1, got \(0, 3, 16, 8\) and \(0,\)"):
        mixer.forward_mixed(model, inputs[:0], labels[:0], 0)
    with pytest.raises(TypeError, match=r"rng must be a StepRng, .*, got str"):
        mixer.forward_mixed(model, inputs, labels, "0")


@pytest.mark.parametrize("name", available())
def test_draws_come_from_what_the_caller_has(name):
    model, (inputs, labels), mixer = Tapped(2).eval(), batch(2), mixer_of(name)  # statistics that stay
    by_seed = mixer.forward_mixed(model, inputs, labels, 3)
    assert torch.equal(by_seed.targets, mixer.forward_mixed(model, inputs, labels, StepRng(3)).targets)
    torch.manual_seed(5)
    by_default = mixer.forward_mixed(model, inputs, labels)
    torch.manual_seed(5)
    assert torch.equal(by_default.targets, mixer.forward_mixed(model, inputs, labels, None).targets)


@pytest.mark.parametrize("name", available())
def test_a_method_that_needs_the_network_says_so(name):
    mixer, (inputs, labels) = mixer_of(name), batch(2)
    if isinstance(mixer, BatchMixer):
        assert mixer(inputs, labels, 0).inputs.shape == inputs.shape
    else:
        with pytest.raises(TypeError, match=f"{name} needs the network: use forward_mixed"):
            mixer(inputs, labels, 0)


OTHER_WAYS = [
    *({"name": "comixup", "penalty": p, "precedence": q} for p, q in itertools.product(PENALTIES, PRECEDENCES)),
    {"name": "comixup", "part_size": 4},
    {"name": "patchup", "hard": True, "prob": 1.0},
    {"name": "puzzlemix", "adv_prob": 1.0},
    {"name": "saliencymix", "granularity": "sample"},
    {"name": "saliencymix", "saliency": "as_published"},
]


@pytest.mark.parametrize(("config", "dims"), [*CASES, *((config, 2) for config in OTHER_WAYS)], ids=str)
def test_nothing_waits_for_the_device(config, dims):
    """On the meta device there is nothing to wait for: reading a value from it raises."""
    model, mixer = Tapped(dims).to("meta").train(), build(config, num_classes=CLASSES)
    inputs, targets = torch.empty(COUNT, 3, *SPATIAL[dims], device="meta"), torch.empty(COUNT, CLASSES, device="meta")
    for step in range(6):
        result = mixer.forward_mixed(model, inputs, targets, StepRng(0, step))
        assert result.logits.device.type == result.targets.device.type == result.lam.device.type == "meta"
        result.loss(soft_cross_entropy).backward()
    for read in (Tensor.tolist, Tensor.cpu, Tensor.item, Tensor.nonzero, lambda values: values[values > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(inputs.sum())
