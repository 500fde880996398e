"""AutoAttack through its package: what is right on a linear network is known in closed form."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from datasets.resident import ArrayData
from randomix.errors import ConfigError
from randomix.robustness import autoattack
from randomix.robustness.evaluators import check_evaluators, run_evaluators
from tests.robustness.toys import CPU

CLASSES, EPS_255 = 5, 8.0
needs_package = pytest.mark.skipif(
    autoattack.find_spec("torchattacks") is None, reason="torchattacks is not installed: the extra randomix[attacks]"
)


def problem(count=8):
    """A linear network and images whose pixels no attack can take out of [0, 1]; labels are what it says, or not."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(16, 240, (count, 6, 5, 3), generator=draw, dtype=torch.uint8)
    network = nn.Sequential(nn.Flatten(), nn.Linear(90, CLASSES))
    with torch.no_grad():
        network[1].weight.copy_(torch.randn(CLASSES, 90, generator=draw) * torch.linspace(0.2, 2, CLASSES)[:, None])
    inputs = images.permute(0, 3, 1, 2).float() / 255
    labels = network((inputs - 0.5) / 0.25).argmax(1)
    labels[0] = (labels[0] + 1) % CLASSES
    names = tuple(map(str, range(CLASSES)))
    arrays = (images.numpy(), labels.numpy()) * 2
    return network, ArrayData("toy", names, *arrays, (0.5,) * 3, (0.25,) * 3).eval_set(CPU), inputs, labels


def margins(network, inputs, labels, eps):
    """(N,) how far the best of the other classes stays below the label's at the worst point of the ball."""
    weight, bias = network[1].weight.double().detach(), network[1].bias.double().detach()
    pixels = ((inputs.double() - 0.5) / 0.25).flatten(1)
    steps = weight[labels][:, None] - weight
    gaps = (steps * pixels[:, None]).sum(-1) + bias[labels][:, None] - bias - eps / 0.25 * steps.abs().sum(-1)
    return gaps.scatter(1, labels[:, None], torch.inf).amin(1)


def run(network, eval_set, batch_size=50):
    settings = {"autoattack": {"eps_255": EPS_255}}
    found = run_evaluators(network, eval_set, names=["autoattack"], settings=settings, batch_size=batch_size)
    return found["metrics"]["autoattack_error"], found["counts"]["autoattack"]


@needs_package
def test_works_in_inference_mode():
    network, eval_set, inputs, labels = problem()
    right = int((margins(network, inputs, labels, EPS_255 / 255) > 0).sum())
    with torch.inference_mode():
        assert run(network, eval_set)[1] == {"total": 8, "correct1": right}


@needs_package
def test_a_linear_network_is_right_where_its_closed_form_says_so():
    network, eval_set, inputs, labels = problem()
    network[1].weight.grad = torch.full_like(network[1].weight, 7.0)
    network[1].bias.requires_grad_(False)
    gaps = margins(network, inputs, labels, EPS_255 / 255)
    assert gaps.abs().min() > 0.05  # none is a matter of the search
    right = int((gaps > 0).sum())
    assert 0 < right < int((margins(network, inputs, labels, 0) > 0).sum()) == 7
    state = torch.random.get_rng_state()
    error, counts = run(network, eval_set, batch_size=5)
    assert counts == {"total": 8, "correct1": right} and error == 100 * (8 - right) / 8
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training and (network[1].weight.grad == 7).all()
    assert network[1].weight.requires_grad and not network[1].bias.requires_grad


@pytest.mark.parametrize(("classes", "tried"), [(5, 5), (12, 10), (100, 10)])
def test_the_targeted_attacks_try_nine_wrong_classes(monkeypatch, classes, tried):
    asked = []

    class Stub:
        def __init__(self, network, **options):
            asked.append(options)

        def set_device(self, device):
            pass

        def __call__(self, pixels, labels):
            return pixels

    monkeypatch.setitem(sys.modules, "torchattacks", SimpleNamespace(AutoAttack=Stub))
    monkeypatch.setattr(autoattack, "find_spec", lambda name: name)
    _, eval_set, _, _ = problem(3)
    run(nn.Sequential(nn.Flatten(), nn.Linear(90, classes)), eval_set)
    assert asked == [{"eps": EPS_255 / 255, "version": "standard", "n_classes": tried, "seed": 0}]


def test_without_its_package_it_is_refused_in_one_line(monkeypatch):
    network, eval_set, _, _ = problem(2)
    monkeypatch.setattr(autoattack, "find_spec", lambda name: None)
    data = SimpleNamespace(name="toy", input_shape=(3, 8, 8), num_classes=10, splits=("test",))
    line = r"^evaluators has autoattack, which needs the package torchattacks: pip install 'randomix\[attacks\]'$"
    with pytest.raises(ConfigError, match=line):
        check_evaluators(["autoattack"], {}, data)
    with pytest.raises(ConfigError, match=line):
        run(network, eval_set)


@pytest.mark.parametrize(
    ("shape", "classes", "message"),
    [
        ((1, 16000), 10, r"attacks images \(C, H, W\); toy has \(1, 16000\)"),
        ((3, 8, 8), 3, "needs 4 classes; toy has 3"),
    ],
)
def test_data_it_cannot_attack_are_refused(monkeypatch, shape, classes, message):
    monkeypatch.setattr(autoattack, "find_spec", lambda name: name)
    data = SimpleNamespace(name="toy", input_shape=shape, num_classes=classes, splits=("test",))
    with pytest.raises(ConfigError, match=message):
        check_evaluators(["autoattack"], {}, data)
