"""The counter-based hash against arithmetic on Python's integers, and the quality of what is made from it."""

import pytest
import torch

from randomix.robustness.counter import hash64, normals, uniform_integers

MASK = 2**64 - 1


def slow_mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_hash(seed, *counters):
    state = slow_mix(seed & MASK)
    for counter in counters:
        state = slow_mix((state + counter * 0x9E3779B97F4A7C15) & MASK)
    return state - 2**64 if state >= 2**63 else state


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63, 2**64 - 1])
def test_hash_equals_python_integers(seed):
    values = [0, 1, 2, 77, 2**31, 2**40 + 3]
    assert hash64(seed, torch.tensor(values)).tolist() == [slow_hash(seed, v) for v in values]
    assert hash64(seed, 3, torch.tensor(values)).tolist() == [slow_hash(seed, 3, v) for v in values]
    assert hash64(seed, torch.tensor(values), 9).tolist() == [slow_hash(seed, v, 9) for v in values]
    table = hash64(seed, torch.tensor(values)[:, None], torch.arange(4))
    assert table.tolist() == [[slow_hash(seed, v, k) for k in range(4)] for v in values]


def test_mixing_is_that_of_splitmix64():
    """The first outputs of SplitMix64 with seed 0, whose state after n steps is n times the increment."""
    # hash64(s, n) = mix(mix(s) + n * increment), and mix(0) = 0
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [v & MASK for v in hash64(0, torch.arange(1, 4)).tolist()] == expected


def test_seeds_and_counters_do_not_collide():
    tables = [hash64(seed, torch.arange(100)[:, None], torch.arange(50)) for seed in range(4)]
    assert len(torch.cat(tables).unique()) == 4 * 5000


def test_uniform_integers_are_in_range_and_even():
    bits = hash64(0, torch.arange(100_000))
    for stop in (1, 2, 7, 32):
        counts = torch.bincount(uniform_integers(bits, stop), minlength=stop)
        assert len(counts) == stop
        assert (counts - 100_000 / stop).abs().max() < 5 * (100_000 / stop) ** 0.5
    extremes = torch.tensor([0, -1, 2**63 - 1, -(2**63)])
    assert uniform_integers(extremes, 10).tolist() == [0, 9, 4, 5]


def test_normals_are_normal():
    pair = normals(hash64(1, torch.arange(200_000)))
    assert pair.shape == (200_000, 2) and pair.dtype == torch.float32 and pair.isfinite().all()
    values = pair.flatten().double()
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    assert abs((values**4).mean() - 3) < 0.1 and abs((values**3).mean()) < 0.03
    assert abs((pair[:, 0] * pair[:, 1]).mean()) < 0.01
    for limit, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert abs((values.abs() < limit).double().mean() - share) < 0.004
    assert normals(torch.tensor([0, -1, 2**63 - 1])).isfinite().all()
