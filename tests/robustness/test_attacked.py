"""The evaluators that attack: what they count, for any batches and ranks, and how they tell a vanished gradient."""

import pytest
import torch
from torch import nn

from datasets.resident import ArrayData
from randomix.engine.distributed import World
from randomix.engine.evaluate import evaluate
from randomix.errors import NonFiniteError
from randomix.robustness import attacked
from randomix.robustness.attacks import Attacked, PixelNetwork, attack, fgsm
from randomix.robustness.evaluators import run_evaluators
from tests.robustness.toys import CPU, EPS, make_eval_set, make_network, slow_fgsm, whole


def run(network, eval_set, names=("clean", "fgsm", "pgd"), batch_size=20, world=None, **settings):
    return run_evaluators(network, eval_set, names=names, settings=settings, batch_size=batch_size, world=world)


def test_the_evaluators_count_what_the_attack_leaves_right():
    eval_set, network = make_eval_set(), make_network()
    found = run(network, eval_set, pgd={"steps": 5})
    model = PixelNetwork(network, eval_set.normalise).eval()
    batch = whole(eval_set)
    moved = slow_fgsm(model, batch.inputs, batch.labels, EPS)
    correct = int((model(moved).argmax(1) == batch.labels).sum())
    counts = {"total": 50, "correct1": correct, "zero_gradient_images": 0, "zero_gradient_entries": 0, "entries": 3600}
    assert found["counts"]["fgsm"] == counts
    metrics = found["metrics"]
    assert metrics["fgsm_zero_gradient_images"] == metrics["fgsm_zero_gradient_entries"] == 0
    assert metrics["fgsm_error"] == 100 * (50 - correct) / 50
    assert metrics["top1_error"] < metrics["fgsm_error"] <= metrics["pgd_error"]
    steps = fgsm(model, batch.inputs, batch.labels, EPS, 5, 2 / 255, True, indices=batch.indices)
    assert found["counts"]["pgd"]["correct1"] == int((model(steps).argmax(1) == batch.labels).sum())


def test_without_room_the_error_is_the_clean_one():
    eval_set, network = make_eval_set(), make_network()
    metrics = run(network, eval_set, fgsm={"eps_255": 0}, pgd={"eps_255": 0.0})["metrics"]
    assert metrics["fgsm_error"] == metrics["pgd_error"] == metrics["top1_error"] > 0
    wide = run(network, eval_set, fgsm={"eps_255": 16})["metrics"]["fgsm_error"]
    assert wide > run(network, eval_set)["metrics"]["fgsm_error"] > metrics["top1_error"]


def test_sizes_are_in_steps_of_8_bit_pixels(monkeypatch):
    asked = []

    def spy(_network, inputs, _labels, **options):
        asked.append({k: v for k, v in options.items() if k != "indices"})
        return Attacked(inputs, torch.zeros(len(inputs), dtype=torch.int64))

    monkeypatch.setattr(attacked, "attack", spy)
    run(make_network(), make_eval_set(), batch_size=50, pgd={"eps_255": 4, "seed": 3})
    assert [{k: v for k, v in options.items() if k != "bounds"} for options in asked] == [
        {"eps": 8 / 255},
        {"eps": 4 / 255, "step_size": 2 / 255, "steps": 10, "random_start": True, "seed": 3},
    ]


@pytest.mark.parametrize("pgd", [{}, {"eps_255": 80, "step_255": 0, "steps": 1}], ids=["steps", "random start"])
def test_the_same_for_any_batches_and_ranks(pgd):
    eval_set, network = make_eval_set(37), make_network()
    expected = run(network, eval_set, batch_size=100, pgd=pgd)["counts"]
    for batch_size in (1, 7):
        assert run(network, eval_set, batch_size=batch_size, pgd=pgd)["counts"] == expected
    for world_size in (2, 3):
        parts = [run(network, eval_set, world=World(rank, world_size), pgd=pgd)["counts"] for rank in range(world_size)]
        for name in ("fgsm", "pgd"):
            assert {k: sum(part[name][k] for part in parts) for k in expected[name]} == expected[name]


def test_a_vanished_gradient_is_counted():
    """A network of huge confidence: the softmax is one-hot in float32, and nothing moves."""
    eval_set, network = make_eval_set(), make_network()
    with torch.no_grad():
        network[5].weight.mul_(1e4)
        network[5].bias.mul_(1e4)
    found = run(network, eval_set, names=("clean", "fgsm"))
    right, counts = found["counts"]["clean"]["correct1"], found["counts"]["fgsm"]
    assert counts["zero_gradient_images"] == right == counts["correct1"] > 0
    assert counts["zero_gradient_entries"] == right * 72
    for name in ("images", "entries"):
        assert found["metrics"][f"fgsm_zero_gradient_{name}"] == pytest.approx(100 * right / 50)
    batch = whole(eval_set)
    for steps in (1, 3):  # the first gradient's
        zeros = attack(PixelNetwork(network, eval_set.normalise), batch.inputs, batch.labels, EPS, steps).zeros
        assert (zeros == 72).sum() == right and (zeros == 0).sum() == 50 - right


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_bad_logits_are_an_error_not_a_miss(name):
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_network()

        def forward(self, inputs):
            logits = self.inner(inputs)
            return torch.where(inputs[:, :1, 0, 0] > 1.0, torch.nan, logits)

    eval_set = make_eval_set()
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        run(Sometimes(), eval_set, names=(name,))


def test_the_evaluation_itself_may_run_in_lower_precision():
    """The attack does not: its pixels are those of float32."""
    eval_set, network = make_eval_set(), make_network()
    seen = []
    network[0].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype))
    options = {"settings": {}, "batch_size": 50, "autocast": lambda: torch.autocast("cpu", torch.bfloat16)}
    run_evaluators(network, eval_set, names=["fgsm"], **options)
    assert seen == [torch.float32, torch.bfloat16]
    assert evaluate(network, eval_set, batch_size=50).total == 50


@pytest.mark.parametrize("name", ["fgsm", "pgd"])
def test_quantized_pixels_are_those_that_a_file_can_hold(name, monkeypatch):
    """Another metric: it is another attack."""
    eval_set, network, seen = make_eval_set(), make_network(), []
    monkeypatch.setattr(attacked, "_stored", lambda *a, inner=attacked._stored: seen.append(inner(*a)) or seen[-1])
    plain = run(network, eval_set, names=(name,), batch_size=50)
    assert seen == []
    found = run(network, eval_set, names=(name,), batch_size=50, **{name: {"quantize": True}})
    assert set(found["metrics"]) == {key.replace(name, f"{name}_quantized") for key in plain["metrics"]}
    levels = (seen[0] * 255).round()
    assert torch.equal(seen[0], levels / 255) and levels.min() >= 0 and levels.max() <= 255
    batch = whole(eval_set)
    assert (levels - batch.inputs * 255).abs().max() <= 8.5  # eps is whole levels here
    model = PixelNetwork(network, eval_set.normalise).eval()
    assert found["counts"][name]["correct1"] == int((model(seen[0]).argmax(1) == batch.labels).sum())


def test_stored_sound_has_16_bits():
    sound = torch.tensor([[-1.0, -0.5, 0.3, 1.0]])
    expected = torch.tensor([[-(2**15), -(2**14), round(0.3 * 2**15), 2**15 - 1]]) / 2**15
    assert torch.equal(attacked._stored(sound, (-1.0, 1.0)), expected)


# --- Sound -----------------------------------------------------------------------------------------------------------

SOUND_EPS = [0.0, 0.001, 0.01, 0.1]


def sound_problem(count=31, length=40):
    """Clips (n, 1, L) as int16 and a network with features of its own."""
    draw = torch.Generator().manual_seed(2)
    clips = (torch.randn(count, length, 1, generator=draw) * 3000).clamp(-32768, 32767).short().numpy()
    labels = torch.randint(0, 3, (count,), generator=draw).numpy()
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv1d(1, 4, 9), nn.BatchNorm1d(4), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3))
    network(torch.randn(8, 1, length))
    return network, ArrayData("toy", tuple("abc"), clips, labels, clips, labels, (0.0,), (0.1,)).eval_set(CPU)


def test_eps_of_sound_is_in_units_of_full_scale():
    network, eval_set = sound_problem()
    assert eval_set.value_range == (-1.0, 1.0)
    found = run(network, eval_set, names=("clean", "fgsm_sound"), fgsm_sound={"eps": SOUND_EPS})
    metrics, counts = found["metrics"], found["counts"]["fgsm_sound"]
    batch, model = whole(eval_set), PixelNetwork(network, eval_set.normalise).eval()
    for eps, correct in zip(SOUND_EPS, counts["correct1"], strict=True):
        leaf = batch.inputs.clone().requires_grad_()
        nn.functional.cross_entropy(model(leaf), batch.labels).backward()
        moved = (batch.inputs + eps * leaf.grad.sign()).clamp(-1, 1)
        assert correct == int((model(moved).argmax(1) == batch.labels).sum())
        assert metrics[f"fgsm_sound_error_{eps:g}"] == 100 * (31 - correct) / 31
    assert (counts["total"], counts["eps"]) == (31, SOUND_EPS)
    assert metrics["fgsm_sound_error_0"] == metrics["top1_error"] < metrics["fgsm_sound_error_0.1"]
    assert metrics["fgsm_sound_error"] == pytest.approx(sum(metrics[f"fgsm_sound_error_{e:g}"] for e in SOUND_EPS) / 4)
    assert counts["entries"] == 31 * 40 and metrics["fgsm_sound_zero_gradient_images"] == 0


def test_sound_is_attacked_the_same_for_any_batches_and_ranks():
    network, eval_set = sound_problem()
    options = {"names": ("fgsm_sound",), "fgsm_sound": {"eps": SOUND_EPS}}
    expected = run(network, eval_set, batch_size=100, **options)["counts"]["fgsm_sound"]
    for batch_size in (1, 7):
        assert run(network, eval_set, batch_size=batch_size, **options)["counts"]["fgsm_sound"] == expected
    for world_size in (2, 3):
        worlds = [World(rank, world_size) for rank in range(world_size)]
        parts = [run(network, eval_set, world=world, **options)["counts"]["fgsm_sound"] for world in worlds]
        assert [sum(column) for column in zip(*(part["correct1"] for part in parts), strict=True)] == expected[
            "correct1"
        ]
