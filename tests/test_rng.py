"""Draws are a function of (seed, stream, step, rank, scope) and of nothing else."""

import zlib
from itertools import combinations

import numpy as np
import pytest
import torch

from randomix.mixers.cutmix import CutMix
from randomix.rng import StepRng, as_step_rng


def draws(rng, stream="mixup", shared=False):
    return rng.generator(stream, shared=shared).random(4).tolist()


def test_the_same_counters_give_the_same_draws():
    assert draws(StepRng(3, step=5, rank=1)) == draws(StepRng(3, rank=1).at(5))
    # recorded: a change of these numbers changes every run that anyone wants to repeat
    assert StepRng(0).generator("mixup").integers(0, 1000, 5).tolist() == [276, 202, 209, 515, 0]
    assert StepRng(1, 2, 3).child("cutmix").generator("x", shared=True).integers(0, 1000, 3).tolist() == [600, 127, 909]


def test_every_counter_and_name_matters():
    base = StepRng(1)
    others = [
        draws(base),
        draws(StepRng(2)),
        draws(base.at(1)),
        draws(StepRng(1, rank=1)),
        draws(base.child("a")),
        draws(base.child("b")),
        draws(base.child("a").child("b")),
        draws(base.child("b").child("a")),
        draws(base, "cutmix"),
        draws(base, shared=True),
    ]
    assert all(a != b for a, b in combinations(others, 2))


def test_shared_draws_leave_the_rank_out():
    assert draws(StepRng(1, 4, rank=0), shared=True) == draws(StepRng(1, 4, rank=7), shared=True)
    assert draws(StepRng(1, 4, rank=0)) != draws(StepRng(1, 4, rank=7))


def test_neighbouring_steps_are_independent():
    values = np.array([StepRng(0, step).generator("mixup").random() for step in range(2000)])
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.07
    assert abs(values.mean() - 0.5) < 0.03


def test_negative_counters_are_refused():
    with pytest.raises(ValueError, match="1, -2, 0"):
        StepRng(1, step=-2)


def test_a_step_rng_from_what_the_caller_has():
    rng = StepRng(1, 2, 3)
    assert as_step_rng(rng) is rng
    assert as_step_rng(7) == as_step_rng(np.int64(7)) == StepRng(7)
    torch.manual_seed(0)
    first, second = as_step_rng(None), as_step_rng(None)
    torch.manual_seed(0)
    assert as_step_rng(None) == first != second
    assert as_step_rng(torch.Generator().manual_seed(5)) == as_step_rng(torch.Generator().manual_seed(5))


def test_a_default_device_is_not_where_the_seed_is_drawn():
    torch.manual_seed(0)
    expected = as_step_rng(None)
    torch.manual_seed(0)
    with torch.device("meta"):  # drawing there would give no number
        assert as_step_rng(None) == expected
        assert as_step_rng(torch.Generator("cpu").manual_seed(5)) == as_step_rng(torch.Generator("cpu").manual_seed(5))


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**32, 2**62 - 3])
def test_a_generator_is_numpys_of_the_counters(seed):
    """However it is made: the same draws as ``default_rng`` of the list."""
    words = [seed, zlib.crc32(b"mixup"), 0, 5, 3]
    expected = np.random.default_rng(words).bit_generator.state
    assert StepRng(seed, step=5, rank=2).generator("mixup").bit_generator.state == expected


@pytest.mark.parametrize("spatial", [(32, 32), (1, 7, 12), (16_000,), (3, 2**33)])
def test_a_center_is_drawn_as_one_array_would_be(spatial):
    mixer, inputs = CutMix(), torch.empty(2, 3, *spatial, device="meta")
    for seed in range(50):
        ours, whole = np.random.default_rng(seed), np.random.default_rng(seed)
        assert mixer.draw_centers(ours, inputs) == whole.integers(0, spatial).tolist()
        assert ours.bit_generator.state == whole.bit_generator.state
