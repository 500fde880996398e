"""Long recordings of noise: windows of them to mix into clips and to stand for silence.

What one split hears no other does: of every recording the first 80 % are for training, then 10 % for validation, the
last 10 % for the test.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TENTHS = {"train": (0, 8), "validation": (8, 9), "test": (9, 10), "all": (0, 10)}


@dataclass(frozen=True)
class Noise:
    """Stretches of recordings, one after another in samples (T,) int16, and the windows within each, numbered.

    first (R,): where a stretch begins; before (R + 1,): how many windows lie in earlier ones.
    """

    samples: np.ndarray
    length: int
    first: np.ndarray
    before: np.ndarray

    def __len__(self) -> int:
        return int(self.before[-1])

    def starts(self, numbers: np.ndarray) -> np.ndarray:
        """The places (n,) in ``samples`` at which the windows ``numbers`` (n,) of 0 .. len - 1 begin."""
        stretch = np.searchsorted(self.before, numbers, side="right") - 1
        return self.first[stretch] + numbers - self.before[stretch]


def noise_of(recordings: Sequence[np.ndarray], split: str, length: int) -> Noise:
    """The windows of ``length`` samples in a split's part of the recordings; those that are too short have none."""
    low, high = TENTHS[split]
    stretches = [r[len(r) * low // 10 : len(r) * high // 10] for r in recordings]
    stretches = [s for s in stretches if len(s) >= length]
    ends = np.cumsum([0, *(len(s) for s in stretches)])
    windows = np.cumsum([0, *(len(s) - length + 1 for s in stretches)])
    samples = np.concatenate(stretches) if stretches else np.zeros(0, np.int16)
    return Noise(samples, length, ends[:-1].astype(np.int64), windows.astype(np.int64))


def silence(noise: Noise, count: int, salt: str) -> np.ndarray:
    """``count`` windows (count, L) int16, each at its own volume from 0 to 1; a function of the arguments alone.

    Volumes as in TensorFlow's speech_commands tutorial. A smaller count gives the first of a larger one.
    """
    numbers = _raw(f"{salt}.window", count) % len(noise)
    volumes = _raw(f"{salt}.volume", count) / 2**64
    clips = np.empty((count, noise.length), np.int16)
    for clip, start, volume in zip(clips, noise.starts(numbers.astype(np.int64)), volumes, strict=True):
        clip[:] = np.rint(noise.samples[start : start + noise.length] * volume)
    return clips


def _raw(salt: str, count: int) -> np.ndarray:
    return np.random.Philox(key=zlib.crc32(salt.encode())).random_raw(count)
