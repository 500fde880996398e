"""Seeds made ahead are NumPy's own, whichever way the steps go."""

import numpy as np
import pytest

from randomix import seeding
from randomix.rng import StepRng
from randomix.seeding import Family, KnownSeed, pcg64_seeds

LAST = 2**32 - 1


@pytest.mark.parametrize("words", [4, 5, 8])
def test_seeds_are_those_of_a_seed_sequence(words):
    rng = np.random.default_rng(words)
    entropy = rng.integers(0, 2**32, (words, 200), dtype=np.uint32)
    entropy[:, :2] = 0, LAST
    entropy[0] = entropy[0, 5]
    seeds = pcg64_seeds([entropy[0, :1], *entropy[1:]])
    expected = [np.random.SeedSequence(column.tolist()).generate_state(4, np.uint64) for column in entropy.T]
    assert seeds.dtype == np.uint64 and seeds.tolist() == np.array(expected).tolist()


@pytest.mark.parametrize(
    "steps",
    [
        [0, 1, 2, 3, 255, 256, 257, 258, 1_000],
        [5, 5, 5, 6, 6, 7, 3, 2, 900, 7],
        [LAST - 1, LAST, LAST - 300, LAST],
        [40, 0, 40, 0, 1],
    ],
)
def test_a_family_gives_the_generators_that_numpy_makes(steps):
    own = Family((3, 77, LAST), LAST)
    for step in steps:
        expected = np.random.default_rng([3, 77, LAST, step, LAST])
        assert own.generator(step).bit_generator.state == expected.bit_generator.state
        assert own.generator(step).random(3).tolist() == expected.random(3).tolist()  # a fresh one each time


@pytest.mark.parametrize("rng", [StepRng(2**32, 7), StepRng(1, 2**32), StepRng(1, 7, rank=LAST)])
def test_larger_counters_are_numpys_too(rng):
    words = [rng.seed, *StepRng(0).generator("a").bit_generator.seed_seq.entropy[1:3], rng.step, rng.rank + 1]
    for _ in range(3):
        assert rng.generator("a").bit_generator.state == np.random.default_rng(words).bit_generator.state


def test_only_those_who_come_again_have_seeds_made_ahead(monkeypatch):
    made = []
    monkeypatch.setattr(seeding, "pcg64_seeds", lambda entropy: made.append(entropy) or pcg64_seeds(entropy))
    for seed in range(100):  # a seed for each call, as rng=None has it
        Family((seed, 1, 2), 1).generator(0)
    same = Family((1, 2, 3), 1)
    for _ in range(3):
        same.generator(9)
    assert not made
    for step in range(10, 10 + 2 * seeding._AHEAD):
        same.generator(step)
    assert len(made) == 2


def test_a_known_seed_serves_pcg64_only():
    seed = KnownSeed(np.zeros(4, dtype=np.uint64))
    with pytest.raises(ValueError, match="4 words of 64 bits, not 8 of uint64"):
        seed.generate_state(8, np.uint64)
    with pytest.raises(ValueError, match="not 624 of uint32"):
        np.random.MT19937(seed)
