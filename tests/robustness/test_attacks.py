"""FGSM and PGD: closed form on a linear network, one sample at a time, and what an attack must leave alone."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from randomix.robustness.attacks import PixelNetwork, attack, fgsm
from randomix.robustness.counter import hash64
from randomix.robustness.evaluators import run_evaluators
from tests.robustness.toys import EPS, Linear, make_eval_set, make_network, slow_fgsm, whole

ROOT = Path(__file__).resolve().parents[2]


def test_equals_one_sample_at_a_time():
    eval_set = make_eval_set()
    batch, model = whole(eval_set), PixelNetwork(make_network(), eval_set.normalise).eval()
    moved = fgsm(model, batch.inputs, batch.labels, EPS)
    assert torch.equal(moved, slow_fgsm(model, batch.inputs, batch.labels, EPS))
    assert not torch.equal(moved, batch.inputs)


@pytest.mark.parametrize(
    "options", [{}, {"steps": 4, "step_size": 3 / 255}, {"steps": 3, "random_start": True}], ids=str
)
@pytest.mark.parametrize("eps", [0, 1 / 255, EPS, 0.5, 1.0])
def test_moves_at_most_eps_and_stays_in_the_unit_range(eps, options):
    eval_set = make_eval_set()
    batch, model = whole(eval_set), PixelNetwork(make_network(), eval_set.normalise)
    before = batch.inputs.clone()
    moved = fgsm(model, batch.inputs, batch.labels, eps, indices=batch.indices, **options)
    assert torch.equal(batch.inputs, before)
    assert moved.shape == before.shape
    assert not moved.requires_grad
    assert moved.min() >= 0 and moved.max() <= 1
    assert (moved.double() - before.double()).abs().max() <= eps + 2**-24  # the ends are rounded to float32
    if eps == 0:
        assert torch.equal(moved, before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-5)])
def test_the_margin_of_a_linear_network_is_its_closed_form(dtype, tolerance):
    """margin - eps * sum |w| while no pixel reaches 0 or 1: exact, and errors never fall for a larger eps."""
    draw = torch.Generator().manual_seed(0)
    pixels = torch.rand(400, 3, 4, 4, generator=draw, dtype=dtype) * 0.8 + 0.1
    weight = torch.randn(48, generator=draw, dtype=dtype)
    weight -= weight.mean()  # or one class had it all
    labels = torch.randint(0, 2, (400,), generator=draw)
    margin = (pixels.flatten(1).double() @ weight.double()) * (2 * labels - 1)
    model, errors = Linear(weight), []
    for eps_255 in (0, 1, 2, 4, 8, 16):
        moved = fgsm(model, pixels, labels, eps_255 / 255)
        expected = margin - eps_255 / 255 * weight.double().abs().sum()
        found = (moved.flatten(1).double() @ weight.double()) * (2 * labels - 1)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
        errors.append(int((expected < 0).sum()))
        assert errors[-1] == int((model(moved).argmax(1) != labels).sum())
    assert errors == sorted(errors)
    assert errors[-1] > errors[0] + 100


def test_more_steps_find_more():
    eval_set = make_eval_set()
    batch, model = whole(eval_set), PixelNetwork(make_network(), eval_set.normalise).eval()

    def loss(moved):
        return float(F.cross_entropy(model(moved), batch.labels).detach())

    clean, one = loss(batch.inputs), loss(fgsm(model, batch.inputs, batch.labels, 0.1))
    many = fgsm(model, batch.inputs, batch.labels, 0.1, 10, 0.025, True, indices=batch.indices)
    assert clean < one < loss(many) + 0.01


# --- What is left alone ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"steps": 3, "step_size": EPS / 2, "random_start": True}], ids=str)
def test_works_in_inference_mode(options):
    """Pixels and labels may be made there; a network that is, in its weights or statistics, is refused."""
    network, eval_set = make_network(), make_eval_set()
    batch, model = whole(eval_set), PixelNetwork(network, eval_set.normalise)
    expected = fgsm(model, batch.inputs, batch.labels, EPS, **options)
    with torch.inference_mode():
        inside = batch.inputs.clone(), batch.labels.clone()
        assert inside[0].is_inference() and torch.equal(fgsm(model, *inside, EPS, **options), expected)
        assert torch.equal(fgsm(model, batch.inputs, batch.labels, EPS, **options), expected)
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
    moved = fgsm(model, *inside, EPS, **options)
    assert torch.equal(moved, expected) and not moved.is_inference()
    with torch.inference_mode():
        network[1].running_mean = network[1].running_mean.clone()
    with pytest.raises(ValueError, match=r"network\.1\.running_mean of the network was made inside torch\.inference"):
        fgsm(model, batch.inputs, batch.labels, EPS, **options)


def test_modes_statistics_and_gradients_are_left_alone():
    eval_set = make_eval_set()
    batch, network = whole(eval_set), make_network().train()
    network[1].eval()  # frozen
    network[0].weight.grad = torch.full_like(network[0].weight, 7.0)
    network[5].bias.requires_grad_(False)
    state = {k: v.clone() for k, v in network.state_dict().items()}
    during = []
    network[3].register_forward_hook(lambda *_: during.append(any(part.training for part in network.modules())))
    model = PixelNetwork(network, eval_set.normalise)
    with torch.no_grad():  # an attack makes its own gradients
        first = fgsm(model, batch.inputs, batch.labels, EPS)
    assert during == [False]
    assert [part.training for part in network] == [True, False, True, True, True, True]
    assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())
    assert (network[0].weight.grad == 7).all()
    assert all(p.grad is None for name, p in network.named_parameters() if name != "0.weight")
    assert [p.requires_grad for p in network.parameters()] == [True] * 5 + [False]
    with torch.autocast("cpu", torch.bfloat16):  # not in lower precision
        assert torch.equal(fgsm(model, batch.inputs, batch.labels, EPS), first)

    def fail(_module, _inputs):
        raise RuntimeError("stop")

    network[3].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        fgsm(model, batch.inputs, batch.labels, EPS)
    assert network.training
    assert torch.is_grad_enabled()


def test_tf32_is_off_inside_and_as_before_outside():
    eval_set = make_eval_set()
    batch, network = whole(eval_set), make_network()
    old, new = torch.backends.cudnn, torch.backends.cudnn.conv
    products, seen = torch.backends.cuda.matmul, []
    named = hasattr(products, "fp32_precision")

    def exact(*_):
        both = (new.fp32_precision, products.fp32_precision) if named else (old.allow_tf32, products.allow_tf32)
        seen.append(both in (("ieee", "ieee"), (False, False)))

    before = old.allow_tf32, products.allow_tf32
    network[0].register_forward_hook(exact)
    try:
        old.allow_tf32, products.allow_tf32 = True, True
        exact()
        fgsm(PixelNetwork(network, eval_set.normalise), batch.inputs, batch.labels, EPS)
        assert seen == [False, True]
        assert (old.allow_tf32, products.allow_tf32) == (True, True)
    finally:
        old.allow_tf32, products.allow_tf32 = before


def test_the_bare_network_is_attacked(tmp_path):
    """A gradient through DistributedDataParallel would wait for the other ranks."""
    eval_set, network = make_eval_set(), make_network()
    batch = whole(eval_set)
    alone = fgsm(PixelNetwork(network, eval_set.normalise), batch.inputs, batch.labels, EPS)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(network)
        wrapped.forward = None  # whoever calls it fails
        assert torch.equal(fgsm(PixelNetwork(wrapped, eval_set.normalise), batch.inputs, batch.labels, EPS), alone)
        outside = nn.parallel.DistributedDataParallel(PixelNetwork(network, eval_set.normalise))
        outside.forward = None
        assert torch.equal(fgsm(outside, batch.inputs, batch.labels, EPS), alone)
        found = run_evaluators(wrapped, eval_set, names=["fgsm"], settings={}, batch_size=20)
        assert found["counts"]["fgsm"]["total"] == 50
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("inside", [False, True])
def test_what_compile_left_in_a_network_is_not_run(inside):
    """``model.compile()`` wraps nothing: there is nothing to unwrap."""
    eval_set, network, compiled = make_eval_set(), make_network(), []
    batch, model = whole(eval_set), PixelNetwork(network, eval_set.normalise)
    alone = fgsm(model, batch.inputs, batch.labels, EPS)

    def backend(graph, _inputs):
        compiled.append(graph)
        return graph

    (network if inside else model).compile(backend=backend)
    assert torch.equal(fgsm(model, batch.inputs, batch.labels, EPS), alone)
    assert compiled == []
    model(batch.inputs) if not inside else network(eval_set.normalise(batch.inputs))
    assert len(compiled) > 0
    torch._dynamo.reset()


# --- Random starts ---------------------------------------------------------------------------------------------------


def test_a_random_start_depends_on_seed_and_index_alone():
    eval_set = make_eval_set(23)
    batch, model = whole(eval_set), PixelNetwork(make_network(), eval_set.normalise)

    def run(part, **options):
        return attack(
            model, batch.inputs[part], batch.labels[part], EPS, 1, 0.0, True, indices=batch.indices[part], **options
        ).inputs

    every = run(slice(None))
    for size in (1, 7):
        assert torch.equal(torch.cat([run(slice(i, i + size)) for i in range(0, 23, size)]), every)
    for rank in range(3):
        assert torch.equal(run(slice(rank, None, 3)), every[rank::3])
    last = attack(model, batch.inputs.contiguous(), batch.labels, EPS, 1, 0.0, True, indices=batch.indices).inputs
    assert torch.equal(last, every)  # whatever the layout
    assert not torch.equal(run(slice(None), seed=1), every)
    start = (every - batch.inputs)[(batch.inputs > EPS) & (batch.inputs < 1 - EPS)]
    assert start.abs().max() <= EPS + 1e-7
    assert abs(float(start.mean())) < EPS / 15
    assert float(start.std()) == pytest.approx(EPS / 3**0.5, rel=0.05)
    bits = (int(hash64(0, 5, 11)) >> 40) & 0xFFFFFF  # entry 11 of sample 5
    expected = batch.inputs[5].flatten()[11] + (bits + 1) / 2**24 * 2 * EPS - EPS
    assert float(every[5].flatten()[11]) == pytest.approx(float(expected.clamp(0, 1)), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 8}, "eps is 8, expected 0 to 1, .*: write 8 / 255 for 8"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"eps": 0.1, "step_size": 2}, "step_size is 2"),
        ({"eps": 0.1, "steps": 0}, "steps is 0"),
    ],
)
def test_numbers_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        fgsm(nn.Flatten(), torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), **options)


def test_without_indices_the_samples_are_counted():
    pixels, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 3])
    start = fgsm(nn.Flatten(), pixels, labels, 0.1, 1, 0.0, True)
    assert not torch.equal(start, pixels)
    assert torch.equal(start, fgsm(nn.Flatten(), pixels, labels, 0.1, 1, 0.0, True, indices=torch.arange(3)))


def test_gradients_that_are_not_finite_are_counted_as_those_that_move_nothing():
    """sign(NaN) is 0: such a sample would pass for a robust one."""

    class Root(nn.Module):
        def forward(self, pixels):
            total = pixels.sum((1, 2, 3))
            return torch.stack([total.sqrt(), -total], 1)

    pixels = torch.zeros(2, 1, 2, 2)
    pixels[1] = 0.5
    found = attack(Root(), pixels, torch.tensor([0, 0]), 0.1)
    assert found.zeros.tolist() == [4, 0]
    assert torch.equal(found.inputs[0], pixels[0])
    assert found.inputs.isfinite().all()


@pytest.mark.parametrize("before", ["none", "new", "medium"])
def test_precision_settings_are_as_before_whatever_way_they_were_made(before):
    """In a process of its own: the settings last."""
    code = f"""
import torch
from torch import nn
from randomix.robustness.attacks import fgsm
products = torch.backends.cuda.matmul
if {before!r} == "new" and hasattr(products, "fp32_precision"):
    products.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"
if {before!r} == "medium":
    torch.set_float32_matmul_precision("medium")
def read():
    found = [] if {before!r} == "new" else [torch.get_float32_matmul_precision()]
    if hasattr(products, "fp32_precision"):
        found += [products.fp32_precision, torch.backends.cudnn.conv.fp32_precision]
    return found
old = read()
fgsm(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), 0.1)
assert read() == old, (old, read())
print("same")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr


def test_what_is_not_pixels_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    pixels, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"inputs must be pixels in \[0, 1\], found .*PixelNetwork"):
        fgsm(model, (pixels - 0.5) / 0.1, labels, 8 / 255)
    with pytest.raises(ValueError, match=r"got torch.uint8; convert with .float\(\) / 255"):
        fgsm(model, (pixels * 255).byte(), labels, 8 / 255)
    with pytest.raises(ValueError, match="inputs has 2 samples, labels has 2 and indices has 1"):
        fgsm(model, pixels, labels, 8 / 255, random_start=True, indices=torch.tensor([0]))
