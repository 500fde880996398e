"""Co-Mixup: objective, prices and mixing against slow loops; the mixer's settings."""

import itertools
from pathlib import Path

import pytest
import torch
import yaml

from randomix import CoMixup, StepRng, functional, mixers, partition
from randomix.functional import cooperative
from tests.cooperative_problems import batch, loop_objective, random_masks

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mixer"


# -- functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_the_objective_is_the_sum(seed):
    draw = torch.Generator().manual_seed(seed)
    masks, costs = random_masks(5, 3, seed), torch.randn(5, 3, 3, generator=draw)
    compatibility = torch.rand(5, 5, generator=draw)
    for matrix, thresholded in itertools.product((None, compatibility), (True, False)):
        slow = loop_objective(
            masks, costs, torch.eye(5) if matrix is None else matrix, 0.4 / 9, 1.5 / 9, 6.3 if thresholded else 0.0
        )
        settings = {"beta": 0.4, "gamma": 1.5, "tau": 0.7, "thresholded": thresholded}
        fast = functional.comixup_objective(masks, costs, matrix, **settings)
        assert float(fast) == pytest.approx(slow, rel=1e-5)
        many = functional.comixup_objective(masks.expand(2, 1, -1, -1, -1, -1), costs, matrix, **settings)
        torch.testing.assert_close(many, fast.expand(2, 1))


def test_prices_are_the_formulas():
    draw = torch.Generator().manual_seed(0)
    others, matrix = 4 * torch.rand(6, generator=draw), torch.rand(6, 6, generator=draw)
    value = matrix @ others
    threshold = float(value.median())
    expected = {
        ("hard", "paper"): [3 * float(v) * (v > threshold) for v in value],
        ("hard", "code"): [
            3 * sum(float(a * o) for a, o, v in zip(row, others, value, strict=True) if v > threshold) for row in matrix
        ],
        ("soft", "paper"): [3 * max(float(v) - threshold, 0) for v in value],
        ("soft", "code"): [3 * max(float(v) - threshold, 0) for v in value],
    }
    for (penalty, precedence), prices in expected.items():
        found = partition.diversity_penalty(others, matrix, 1.5, threshold, penalty, precedence)
        torch.testing.assert_close(found, torch.tensor(prices))


@pytest.mark.parametrize(("count", "part_size"), [(5, 5), (7, 3), (1, 4)])
def test_cells_are_taken_pixel_by_pixel(count, part_size):
    inputs, targets, *_ = batch(count, (8, 12))
    parts = [random_masks(part_size, 2, seed) for seed in range(-(-count // part_size))]
    for start, masks in zip(range(0, count, part_size), parts, strict=True):  # none shows an input that is not there
        masks[..., count - start :] = 0
        masks[..., 0] += 1 - masks.sum(-1)
    expected, shares = torch.zeros_like(inputs), torch.zeros(count, count)
    for i, y, x in itertools.product(range(count), range(8), range(12)):
        for j in range(min(part_size, count - i // part_size * part_size)):
            weight, source = parts[i // part_size][i % part_size, y // 4, x // 6, j], i // part_size * part_size + j
            expected[i, :, y, x] += weight * inputs[source, :, y, x]
            shares[i, source] += weight / 96
    for layout in (torch.contiguous_format, torch.channels_last):
        mixed = cooperative.mix_cells(inputs.contiguous(memory_format=layout), targets, torch.stack(parts))
        torch.testing.assert_close(mixed.inputs, expected)
        torch.testing.assert_close(mixed.targets, shares @ targets)
        torch.testing.assert_close(mixed.lam, shares.diagonal())
        assert mixed.inputs.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(("count", "part_size"), [(7, 3), (13, 8)])
def test_parts_do_not_meet(count, part_size):
    """A smaller last part, padded inside, is mixed as if it were alone."""
    whole = functional.comixup(*batch(count, part_size=part_size), part_size=part_size)
    for start in range(0, count, part_size):
        rows = slice(start, start + part_size)
        alone = functional.comixup(*(value[rows] for value in batch(count, part_size=part_size)))
        assert torch.equal(alone.inputs, whole.inputs[rows])
        assert torch.equal(alone.targets, whole.targets[rows])
        assert torch.equal(alone.lam, whole.lam[rows])
        assert whole.targets[rows, rows].sum() == len(alone.lam)


def test_the_only_input_of_a_part_stays_as_it_is():
    inputs, *_ = arguments = batch(7, part_size=3)
    mixed = functional.comixup(*arguments, part_size=3)
    assert mixed.lam[6] == 1.0
    assert torch.equal(mixed.inputs[6], inputs[6])


def test_compatibility_is_the_formula():
    peaks = torch.tensor([[0.0, 0], [3, 4], [10, 2], [7, 7]])
    present = torch.tensor([[True] * 4, [True] * 3 + [False], [True] + [False] * 3])
    found = cooperative.comixup_compatibility(peaks.expand(3, 4, 2), present, 0.1)
    for matrix, count in zip(found, (4, 3, 1), strict=True):
        distance = torch.tensor([[float((p - q).abs().sum()) for q in peaks[:count]] for p in peaks[:count]])
        expected = 0.9 * torch.eye(count) + 0.1 * count * distance / max(float(distance.sum()), 1.0)
        torch.testing.assert_close(matrix[:count, :count], expected)


@pytest.mark.parametrize(("spatial", "blocks"), [((8, 8), 4), ((12, 20), 2), ((15, 25), 5), ((3, 5), 1), ((4, 6), 2)])
def test_every_size(spatial, blocks):
    for count in (1, 2, 5):
        mixed = functional.comixup(*batch(count, spatial, blocks))
        torch.testing.assert_close(mixed.targets.sum(1), torch.ones(count))
        torch.testing.assert_close(mixed.targets.diagonal(), mixed.lam)
        assert mixed.inputs.shape == (count, 3, *spatial)
        assert mixed.inputs.isfinite().all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_and_layout_change_nothing_else(dtype, layout):
    reference = functional.comixup(*batch())
    inputs, *rest = batch(dtype=dtype)
    inputs = inputs.contiguous(memory_format=layout)
    before = [value.clone() for value in (inputs, *rest)]
    mixed = functional.comixup(inputs, *rest)
    assert mixed.inputs.dtype == dtype
    assert mixed.inputs.is_contiguous(memory_format=layout)
    torch.testing.assert_close(mixed.inputs.float(), reference.inputs, atol=2e-2, rtol=2e-2)
    assert torch.equal(mixed.targets, reference.targets)
    assert all(torch.equal(a, b) for a, b in zip(before, (inputs, *rest), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(functional.comixup(inputs, *rest).targets, reference.targets)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_sample_without_saliency_has_it_everywhere(value):
    inputs, targets, saliency, dirichlet, labels = batch(20, (16, 16))
    broken, uniform = saliency.clone(), saliency.clone()
    broken[3], uniform[3] = value, 1.0
    costs = functional.comixup_costs(broken, (4, 4))
    torch.testing.assert_close(costs[3], torch.full((4, 4), -1 / 16))
    assert torch.equal(costs, functional.comixup_costs(uniform, (4, 4)))
    mixed = functional.comixup(inputs, targets, broken, dirichlet, labels)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(20))
    everywhere = functional.comixup(inputs, targets, torch.ones_like(saliency), dirichlet, labels)
    torch.testing.assert_close(everywhere.targets.sum(1), torch.ones(20))  # ties choose one input


def test_sizes_that_disagree_are_named():
    inputs, targets, saliency, dirichlet, labels = batch(7)
    with pytest.raises(ValueError, match="inputs has 7 samples, targets has 6 and dirichlet has 5"):
        functional.comixup(inputs, targets[:6], saliency, dirichlet[:5], labels)
    with pytest.raises(ValueError, match=r"floating \(N, C, H, W\), got torch.uint8"):
        functional.comixup(inputs.to(torch.uint8), targets, saliency, dirichlet, labels)
    with pytest.raises(ValueError, match=r"saliency must be .*average over the channels"):
        functional.comixup(inputs, targets, inputs, dirichlet, labels)
    with pytest.raises(ValueError, match="block_num 5 does not divide images of 16 x 24 pixels; use one of 2, 4, 8"):
        functional.comixup(inputs, targets, saliency, dirichlet, torch.zeros(7, 5, 5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"init_labels must be integers \(N, B, B\)"):
        functional.comixup(inputs, targets, saliency, dirichlet, labels.float())
    with pytest.raises(ValueError, match="penalty must be one of hard, soft, got 'firm'"):
        functional.comixup(inputs, targets, saliency, dirichlet, labels, penalty="firm")
    with pytest.raises(ValueError, match="precedence must be one of paper, code, got 'none'"):
        functional.comixup(inputs, targets, saliency, dirichlet, labels, precedence="none")
    with pytest.raises(ValueError, match="part_size must be >= 1, got 0"):
        functional.comixup(inputs, targets, saliency, dirichlet, labels, part_size=0)


# -- the mixer ----------------------------------------------------------------------------------------------------


def mix(mixer, inputs, seed=0, rank=0):
    gradient = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
    return mixer.mix(inputs, torch.eye(len(inputs)), gradient, StepRng(seed, rank=rank))


def test_mixer_hands_its_settings_on(monkeypatch):
    taken = {}

    def record(*arguments, **settings):
        taken.update(settings, draws=arguments[3:])
        return real(*arguments, **settings)

    real = functional.comixup
    monkeypatch.setattr(functional, "comixup", record)
    settings = {
        "part_size": 6,
        "beta": 0.5,
        "gamma": 0.7,
        "eta": 0.1,
        "tau": 0.5,
        "omega": 0.01,
        "n_iter": 2,
        "set_resolve": False,
        "penalty": "soft",
        "precedence": "code",
        "repair": False,
    }
    mix(CoMixup(**settings, block_num=2, dirichlet_alpha=3.0), batch(8)[0])
    assert {key: taken[key] for key in settings} == settings
    dirichlet, labels = taken["draws"]
    torch.testing.assert_close(torch.stack([dirichlet[:6].sum(), dirichlet[6:].sum()]), torch.ones(2))
    assert labels.shape == (8, 2, 2)
    assert labels[6:].max() <= 1


def test_ranks_draw_the_same_number_of_cells(monkeypatch):
    seen = []
    monkeypatch.setattr(functional, "comixup", lambda *arguments, **_: seen.append(arguments[4].shape[1]))
    inputs = torch.zeros(4, 3, 24, 36)
    for seed, rank in itertools.product(range(40), range(2)):
        mix(CoMixup(block_num=None), inputs, seed, rank)
    assert seen[::2] == seen[1::2]
    assert set(seen) == {2, 3, 4, 6, 12}


def test_sizes_are_refused_before_training():
    CoMixup().check_shape((1, 28, 28))
    CoMixup().check_shape((1, 8, 8))
    with pytest.raises(ValueError, match="block_num 4 does not divide images of 30 x 32 pixels; use one of 2"):
        CoMixup().check_shape((3, 30, 32))
    with pytest.raises(ValueError, match="no block_num from 2 to 16 divides images of 31 x 31 pixels; crop or pad"):
        CoMixup(block_num=-1).check_shape((3, 31, 31))
    with pytest.raises(ValueError, match="mixes 2-D samples only"):
        CoMixup().check_shape((1, 16000))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"part_size": 0}, "part_size must be an integer >= 1, got 0"),
        ({"n_iter": 2.5}, "n_iter must be an integer >= 1, got 2.5"),
        ({"block_num": 1}, "block_num must be an integer from 2 to 16, or None, got 1"),
        ({"dirichlet_alpha": 0}, "dirichlet_alpha must be a number > 0"),
        ({"omega": 2}, r"omega must be a number in \[0, 1\]"),
        ({"beta": -1}, "beta must be a number in"),
        ({"penalty": "firm"}, "penalty must be one of hard, soft"),
        ({"precedence": "none"}, "precedence must be one of paper, code"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(ValueError, match=message):
        CoMixup(**setting)


def test_configurations_are_the_defaults_but_for_what_they_say():
    for name, changed in (("comixup", {}), ("comixup_as_published", {"precedence": "code", "repair": False})):
        config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        assert config.pop("label") == "Co-Mixup"
        assert mixers.build(config).__dict__ == (CoMixup().__dict__ | changed)
