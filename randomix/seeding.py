"""Seeds of NumPy's generators for many steps at once.

A generator seeded from (seed, stream, scope, step, rank) costs a step 20 microseconds of cold code, more than all other
draws of a mixing method. Only the step changes from call to call: one vectorised pass makes the seeds of the next ones.
The numbers are those of ``numpy.random.SeedSequence``, which NumPy promises to keep (NEP 19); its algorithm is
M. E. O'Neill's ``seed_seq_fe`` of 4 words (https://www.pcg-random.org/posts/developing-a-seed_seq-alternative.html).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence

_AHEAD = 256  # steps of one pass, which takes as long as 10 generators
_POOL, _BITS = 4, 0xFFFFFFFF
_INIT_A, _MULT_A, _INIT_B, _MULT_B = 0x43B0D7E5, 0x931E8875, 0x8B51F9DD, 0x58F38DED
_MIX_LEFT, _MIX_RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)
_SHIFT = np.uint32(16)


class KnownSeed(ISeedSequence):
    """The seed of a PCG64 generator, known already: 4 words of 64 bits."""

    __slots__ = ("words",)

    def __init__(self, words: np.ndarray) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> np.ndarray:
        """The words, to who asks for as many of them as PCG64 does."""
        if n_words != len(self.words) or np.dtype(dtype) != self.words.dtype:
            raise ValueError(f"a known seed has {len(self.words)} words of 64 bits, not {n_words} of {np.dtype(dtype)}")
        return self.words


def pcg64_seeds(entropy: Sequence[np.ndarray]) -> np.ndarray:
    """PCG64's seeds (N, 4) uint64 from entropy: at least 4 words, each (N,) or () uint32.

    Row i is ``SeedSequence([word[i] for word in entropy]).generate_state(4, np.uint64)``.
    """
    hashed = _Hash(_INIT_A, _MULT_A)
    pool = [hashed(word) for word in entropy[:_POOL]]
    for source in range(_POOL):
        for target in range(_POOL):
            if source != target:
                pool[target] = _mix(pool[target], hashed(pool[source]))
    for word in entropy[_POOL:]:
        pool = [_mix(value, hashed(word)) for value in pool]
    hashed = _Hash(_INIT_B, _MULT_B)
    halves = np.stack(np.broadcast_arrays(*(hashed(pool[i % _POOL]) for i in range(2 * _POOL))), axis=-1)
    return halves.astype("<u4").view("<u8").astype(np.uint64)  # the low half first on every machine


class _Hash:
    """A multiplicative hash of words whose constant changes with every call."""

    def __init__(self, constant: int, multiplier: int) -> None:
        self.constant, self.multiplier = constant, multiplier

    def __call__(self, word: np.ndarray) -> np.ndarray:
        word = word ^ np.uint32(self.constant)
        self.constant = self.constant * self.multiplier & _BITS
        word = word * np.uint32(self.constant)
        return word ^ word >> _SHIFT


def _mix(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = _MIX_LEFT * left - _MIX_RIGHT * right
    return mixed ^ mixed >> _SHIFT


class Family:
    """The generators of (seed, stream, scope, step, rank) for every step; each word below 2**32."""

    def __init__(self, before: tuple[int, int, int], after: int) -> None:
        self._before, self._after = before, after
        self._last: int | None = None  # the step of the last call without seeds at hand
        self._block: tuple[int, np.ndarray] = 0, np.empty((0, _POOL), dtype=np.uint64)  # from which step; seeds

    def generator(self, step: int) -> np.random.Generator:
        """A fresh generator of a step in [0, 2**32)."""
        start, seeds = self._block
        if not 0 <= step - start < len(seeds):
            # seeds are made ahead for those who come again, with another step: not for one batch, nor a seed a call
            again, self._last = self._last not in (None, step), step
            if not again:
                return np.random.Generator(np.random.PCG64([*self._before, step, self._after]))
            start, seeds = self._block = step, self._ahead(step)
        seed: Any = KnownSeed(seeds[step - start])  # numpy's stubs know no ISeedSequence here
        return np.random.Generator(np.random.PCG64(seed))

    def _ahead(self, step: int) -> np.ndarray:
        steps = np.arange(step, min(step + _AHEAD, _BITS + 1), dtype=np.uint32)
        before, after = np.array(self._before, dtype=np.uint32), np.array([self._after], dtype=np.uint32)
        return pcg64_seeds([*before[:, None], steps, after])


@functools.lru_cache(maxsize=256)
def family(before: tuple[int, int, int], after: int) -> Family:
    """The one family of these words, for as long as it is among the 256 used last."""
    return Family(before, after)
