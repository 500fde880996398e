"""Mixing under other eyes than backward's: forward mode, torch.func, lazy negation, shared memory, inference."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.autograd import forward_ad

from randomix import StepRng
from randomix.mixers import build

METHODS = ["mixup", "cutmix", "cutout", "resizemix", "fmix", "saliencymix", "randomix"]
RNG = StepRng(1, 2)
LABELS = torch.arange(8) % 5
CASES = [
    (name, granularity, inplace)
    for name, granularity, inplace in itertools.product(METHODS, ["batch", "sample"], [False, True])
    if (name, granularity) != ("cutout", "batch")  # always one for each sample
]
cases = pytest.mark.parametrize(("name", "granularity", "inplace"), CASES)


def mixing(name, granularity, inplace):
    options = {"length": 6} if name == "cutout" else {"granularity": granularity}
    mixer = build({"name": name, **options}, num_classes=5)
    mixer = mixer.allow_inplace() if inplace else mixer
    return lambda inputs: mixer(inputs, LABELS, RNG).inputs


def images():
    return torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@cases
def test_forward_mode_carries_tangents(name, granularity, inplace):
    mix, direction = mixing(name, granularity, inplace), torch.full((8, 3, 12, 12), 0.25)
    with forward_ad.dual_level():
        primal, tangent = forward_ad.unpack_dual(mix(forward_ad.make_dual(images(), direction)))
    assert torch.equal(primal, mix(images()))
    _, expected = torch.func.jvp(mix, (images(),), (direction,))
    assert torch.equal(tangent, expected)
    if name != "saliencymix":  # whose boxes depend on the inputs
        torch.testing.assert_close(tangent, mix(images() + direction) - mix(images()))


@cases
def test_gradients_of_torch_func(name, granularity, inplace):
    mix, inputs = mixing(name, granularity, inplace), images()
    weights = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    expected = images().requires_grad_()
    (mix(expected * 1) * weights).sum().backward()
    found = torch.func.grad(lambda x: (mix(x) * weights).sum())(inputs)
    assert torch.equal(found, expected.grad) and torch.equal(inputs, images())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("name", "granularity", "inplace"), [c for c in CASES if c[0] != "saliencymix"])
def test_many_batches_at_once(name, granularity, inplace):
    mix = mixing(name, granularity, inplace)
    both = torch.func.vmap(mix)(torch.stack([images(), images().flip(2)]))
    assert torch.equal(both[0], mix(images())) and torch.equal(both[1], mix(images().flip(2)))


@cases
def test_lazily_negated_inputs(name, granularity, inplace):
    negated = torch.complex(torch.zeros(8, 3, 12, 12), -images()).conj().imag
    assert negated.is_neg()
    mix = mixing(name, granularity, inplace)
    assert torch.equal(mix(negated), mix(images()))


@cases
def test_samples_that_share_their_memory(name, granularity, inplace):
    mix, shared = mixing(name, granularity, inplace), images()[:1].expand(8, -1, -1, -1)
    assert torch.equal(mix(shared), mix(shared.clone()))
    assert torch.equal(shared, images()[:1].expand(8, -1, -1, -1))


@cases
def test_a_leaf_that_wants_a_gradient_is_never_written(name, granularity, inplace):
    mix, leaf = mixing(name, granularity, inplace), images().requires_grad_()
    mix(leaf).sum().backward()
    assert torch.equal(leaf.detach(), images()) and leaf.grad.abs().sum() > 0


@cases
def test_inference_mode(name, granularity, inplace):
    mix = mixing(name, granularity, inplace)
    with torch.inference_mode():
        found = mix(images())
    assert torch.equal(found, mix(images()))


@pytest.mark.filterwarnings("ignore:Dynamo (detected|does not know):UserWarning")
@pytest.mark.parametrize("name", METHODS)
def test_within_a_compiled_function(name):
    """The draws break the graph, but are the same: a loop of one's own may compile more than its network."""
    mixer = build({"name": name} | ({"length": 6} if name == "cutout" else {}), num_classes=5)
    compiled = torch.compile(lambda inputs, rng: mixer(inputs, LABELS, rng).inputs * 2, backend="eager")
    for step in range(3):
        rng = StepRng(1, step)
        assert torch.equal(compiled(images(), rng), mixer(images(), LABELS, rng).inputs * 2)
