"""The gradient at a network's input, and the clean loss that comes with it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from randomix import StepRng, networks
from randomix.mixers.base_network import SaliencyMixer
from randomix.types import MixedBatch, MixedMode
from tests.small_networks import batch, network


def state_of(model):
    return copy.deepcopy(model.state_dict()), [part.training for part in model.modules()]


def same_state(before, model):
    after = state_of(model)
    return after[1] == before[1] and all(torch.equal(v, after[0][k]) for k, v in before[0].items())


def summed_loss(model, inputs, targets):
    return -(targets * F.log_softmax(model(inputs), dim=1)).sum()


def test_the_input_gradient_is_taken_with_evaluation_statistics_and_leaves_no_trace():
    model, (inputs, targets) = network(), batch()
    model(inputs * 3 + 1)  # running statistics that are not the batch's
    before, kept = state_of(model), inputs.clone()
    gradient, clean = networks.input_gradient(model, inputs, targets)
    assert clean is None
    assert same_state(before, model)
    assert torch.equal(inputs, kept)
    assert inputs.grad is None
    assert all(p.grad is None for p in model.parameters())
    reference, leaf = copy.deepcopy(model).eval(), inputs.clone().requires_grad_()
    (expected,) = torch.autograd.grad(summed_loss(reference, leaf, targets), leaf)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_input_gradient_is_float32_in_half_precision(dtype):
    model, (inputs, targets) = network().to(dtype), batch()
    gradient, _ = networks.input_gradient(model, inputs.to(dtype), targets)
    exact, _ = networks.input_gradient(model.float(), inputs.to(dtype).float(), targets)
    assert gradient.dtype == torch.float32
    cosine = F.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0)
    assert cosine > 0.98
    assert 0.9 < gradient.norm() / exact.norm() < 1.1


@pytest.mark.parametrize("frozen", [False, True])
def test_the_clean_loss_carries_its_own_weight_gradients(frozen):
    weight, (inputs, targets) = 0.7, batch()
    model = network()
    if frozen:
        model.stem.weight.requires_grad_(False)
    reference, leaf = copy.deepcopy(model), inputs.clone().requires_grad_()
    gradient, clean = networks.input_gradient(model, inputs, targets, weight)
    assert all(p.grad is None for p in model.parameters())
    loss = F.cross_entropy(reference(leaf), targets) * 2 * weight / 5
    torch.testing.assert_close(clean, loss)
    loss.backward()
    torch.testing.assert_close(gradient, leaf.grad * len(inputs) * 5 / (2 * weight))  # of the summed cross-entropy
    (clean * 3).backward()
    for found, expected in zip(model.parameters(), reference.parameters(), strict=True):
        if expected.grad is None:
            assert found.grad is None
        else:
            torch.testing.assert_close(found.grad, expected.grad * 3, rtol=1e-5, atol=1e-6)  # sums of scaled terms
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), reference.buffers(), strict=True))


def test_small_gradients_keep_their_digits_in_float16():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 16), nn.Linear(16, 5))
    with torch.no_grad():
        for layer in model[1:]:
            layer.weight.mul_(0.002)
    inputs, targets = batch()
    half = copy.deepcopy(model).half()
    exact, exact_loss = networks.input_gradient(model, inputs, targets, 0.5)
    found, loss = networks.input_gradient(half, inputs.half(), targets, 0.5)
    assert exact.abs().max() < 2e-6  # a float16 keeps one or two digits there
    assert F.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.9995
    torch.testing.assert_close(found.norm(), exact.norm(), rtol=0.01, atol=0)
    exact_loss.backward(), loss.backward()
    for p, q in zip(model.parameters(), half.parameters(), strict=True):
        torch.testing.assert_close(q.grad.float(), p.grad, rtol=0.05, atol=1e-5)


class Dimmed(SaliencyMixer):
    """Inputs dimmed where the network looks: enough to see that gradient and losses reach their places."""

    mode = MixedMode.MASK

    def mix(self, inputs, targets, gradient, rng):
        share = torch.ones(len(inputs), device=inputs.device)
        return MixedBatch(inputs * torch.sigmoid(-gradient).to(inputs.dtype), targets, share)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_saliency_method_trains_on_the_sum_of_both_losses(compiled):
    weight, (inputs, targets) = 0.5, batch()
    model = network()
    reference, leaf = copy.deepcopy(model), inputs.clone().requires_grad_()
    called = torch.compile(model, backend="aot_eager") if compiled else model
    result = Dimmed(clean_weight=weight).forward_mixed(called, inputs, targets, StepRng(0))
    (F.cross_entropy(result.logits, result.targets) + result.aux_loss).backward()
    clean = F.cross_entropy(reference(leaf), targets)
    (gradient,) = torch.autograd.grad(clean * len(inputs), leaf, retain_graph=True)
    mixed = reference(inputs * torch.sigmoid(-gradient))
    (F.cross_entropy(mixed, targets) + clean * 2 * weight / 5).backward()
    for found, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), reference.buffers(), strict=True))
    torch._dynamo.reset()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_input_gradient_is_taken_where_gradients_are_switched_off(weight):
    """For a picture of a mixed batch, say."""
    model, (inputs, targets) = network(), batch()
    expected, _ = networks.input_gradient(model, inputs, targets, weight)
    with torch.no_grad():
        found, _ = networks.input_gradient(model, inputs, targets, weight)
    torch.testing.assert_close(found, expected)


def test_the_scale_of_weight_gradients_does_not_grow_with_the_batch():
    """In float16 they would leave its range; the result does not depend on the scale."""
    inputs = torch.ones(4096, 4, 1, 1, dtype=torch.float16)
    targets = F.one_hot(torch.zeros(4096, dtype=torch.long), 2).half()
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).half()
    torch.nn.init.constant_(model[1].weight, 0.0)
    torch.nn.init.zeros_(model[1].bias)
    _, clean = networks.input_gradient(model, inputs, targets, 0.5)
    clean.backward()
    torch.testing.assert_close(model[1].weight.grad, torch.tensor([[-0.25] * 4, [0.25] * 4], dtype=torch.float16))
