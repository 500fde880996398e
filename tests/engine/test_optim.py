import math

import pytest
import torch
from torch import nn

from randomix.engine.optim import WeightAverage, build_optimizer, learning_rate, resolve_precision
from randomix.engine.schema import RecipeConfig


def recipe(**changes):
    return RecipeConfig(**({"name": "r", "epochs": 10, "batch_size": 4, "lr": 0.1} | changes))


@pytest.mark.parametrize("min_lr", [0.0, 0.01])
def test_cosine_equals_torch_scheduler(min_lr):
    steps_per_epoch, r = 7, recipe(min_lr=min_lr)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=r.lr)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, r.epochs * steps_per_epoch, eta_min=min_lr)
    for step in range(r.epochs * steps_per_epoch):
        assert learning_rate(step, r, steps_per_epoch) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_warmup_is_linear_and_then_the_schedule_covers_what_is_left():
    r = recipe(warmup_epochs=2)
    rates = [learning_rate(step, r, 5) for step in range(50)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(0.1)
    assert rates[49] == pytest.approx(0.05 * (1 + math.cos(math.pi * 39 / 40)))


def test_multistep_drops_at_fractions_of_the_run():
    r = recipe(schedule="multistep", milestones=[0.5, 0.75], gamma=0.1)
    rates = [learning_rate(step, r, 4) for step in range(40)]
    assert rates[:20] == [0.1] * 20
    assert rates[20:30] == pytest.approx([0.01] * 10)
    assert rates[30:] == pytest.approx([0.001] * 10)


@pytest.mark.parametrize("fraction", [0.07, 0.14, 0.28, 0.29, 0.55, 0.56, 0.57])
def test_a_milestone_is_a_step_although_fractions_are_rounded(fraction):
    r = recipe(epochs=100, schedule="multistep", milestones=[fraction], gamma=0.1)
    drop = round(fraction * 100) * 100
    assert learning_rate(drop - 1, r, 100) == 0.1
    assert learning_rate(drop, r, 100) == pytest.approx(0.01)


def test_optimizer_equals_plain_sgd():
    torch.manual_seed(0)
    mine, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(mine.state_dict())
    fused = build_optimizer(mine, recipe())
    reference = torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=5e-4, foreach=False)
    for _ in range(3):
        for model, optimizer in ((mine, fused), (plain, reference)):
            model(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for a, b in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_a_first_step_that_overflows_leaves_no_garbage_in_the_momentum():
    model = nn.Linear(400, 50)
    dirt = [torch.full_like(p, float("nan")) for p in model.parameters() for _ in range(8)]
    del dirt  # what fresh memory may hold
    optimizer, scaler = build_optimizer(model, recipe()), torch.amp.GradScaler("cpu")
    before = model.weight.detach().clone()
    for gradient, moved in ((float("inf"), False), (1.0, True)):
        scaler.scale(torch.zeros(()))
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient * scaler.get_scale())
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(model.weight, before) != moved
    torch.testing.assert_close(model.weight, before - 0.1 * (1 + 5e-4 * before))


def test_decay_can_leave_out_norms_and_biases():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    groups = build_optimizer(model, recipe(decay_norms=False)).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 5e-4), (3, 0.0)]
    assert len(build_optimizer(model, recipe()).param_groups) == 1


def test_weight_average_follows_its_formula_and_copies_buffers():
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, 0.75)
    with torch.no_grad():
        model.weight.fill_(5.0)
        model.running_mean.fill_(3.0)
    average.update(model)
    assert torch.equal(average.module.weight, torch.full((2,), 0.75 * 1 + 0.25 * 5))
    assert torch.equal(average.module.running_mean, model.running_mean)
    assert not any(p.requires_grad for p in average.module.parameters())
    model.running_mean = torch.full((2,), 7.0)  # another tensor in its place
    model.num_batches_tracked += 4
    average.update(model)
    assert torch.equal(average.module.running_mean, model.running_mean)
    assert average.module.num_batches_tracked == 4
    average.update(other := nn.BatchNorm1d(2))
    assert torch.equal(average.module.running_mean, other.running_mean)


def test_weight_average_copies_all_buffers_at_once_and_never_walks_the_network(monkeypatch):
    model = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(9)))
    average = WeightAverage(model, 0.75)
    monkeypatch.setattr(nn.Module, "named_modules", lambda *_, **__: pytest.fail("a walk"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        average.update(model)
    assert "aten::_foreach_copy_" in {event.key for event in profile.key_averages()}


def test_weight_average_of_a_network_without_buffers():
    model = nn.Linear(2, 2)
    WeightAverage(model, 0.5).update(model)


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision(name, dtype):
    precision = resolve_precision(name, torch.device("cpu"))
    assert precision.dtype is dtype
    assert precision.scaler().is_enabled() == (name == "fp16")
    with precision.autocast():
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype is dtype


@pytest.mark.parametrize(
    ("capability", "name"), [((7, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")]
)
def test_auto_precision_asks_the_capability_of_a_gpu(monkeypatch, capability, name):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda", 0)).name == name


@pytest.mark.parametrize(("native", "name"), [(True, "bf16"), (False, "fp32")])
def test_auto_precision_asks_the_instructions_of_a_cpu(monkeypatch, native, name):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert resolve_precision("auto", torch.device("cpu")).name == name


def test_auto_precision_on_a_cpu_does_without_what_another_torch_may_not_have(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert resolve_precision("auto", torch.device("cpu")).name == "fp32"
