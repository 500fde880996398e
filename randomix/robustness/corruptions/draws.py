"""What a corruption is, and its random numbers: a pure function of (seed, corruption, severity, data set index)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from randomix.robustness.counter import hash64, normals, uniform_integers, unit_interval


@dataclass(frozen=True)
class ImageRng:
    """Random numbers of a batch of images, a row an image; the same in every batch, order and rank.

    indices: (n,) int64 into the data set, on the device of the images. A ``stream`` names what is drawn.
    """

    seed: int
    name: str
    severity: int
    indices: Tensor

    def bits(self, stream: str, *size: int) -> Tensor:
        """(n, *size) int64: 64 random bits each."""
        positions = torch.arange(math.prod(size), device=self.indices.device)
        which = zlib.crc32(f"{self.name}/{self.severity}/{stream}".encode())
        return hash64(self.seed, which, self.indices[:, None], positions).view(len(self.indices), *size)

    def uniform(self, stream: str, *size: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(n, *size) float32 in (low, high]."""
        return unit_interval(self.bits(stream, *size)).mul_(high - low).add_(low)

    def normal(self, stream: str, *size: int) -> Tensor:
        """(n, *size) float32, standard normal."""
        count = math.prod(size)
        pairs = normals(self.bits(stream, (count + 1) // 2)).flatten(1)
        return pairs[:, :count].reshape(len(self.indices), *size)

    def integers(self, stream: str, stop: int, *size: int) -> Tensor:
        """(n, *size) int64 in 0 .. stop - 1."""
        return uniform_integers(self.bits(stream, *size), stop)


Draw = Callable[[ImageRng, tuple[int, int, int], Any], dict[str, Tensor]]
Apply = Callable[..., Tensor]


@dataclass(frozen=True)
class Corruption:
    """``apply(images, parameters, **draw(rng, shape, parameters))``.

    images: (n, H, W, C) uint8, C 1 or 3, never modified; the result is new and of the same shape, dtype and device.
    shape: (H, W, C) of an image; parameters: the entry of ``parameters.py`` for one severity.
    """

    draw: Draw
    apply: Apply


def no_draws(rng: ImageRng, shape: tuple[int, int, int], parameters: object) -> dict[str, Tensor]:
    """Of a corruption without randomness: nothing."""
    return {}


def to_unit(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Bytes as floats in [0, 1]."""
    return images.to(dtype).div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Floats, clamped to [0, 1] and overwritten, as bytes: cut off, not rounded, as in the original."""
    return images.clamp_(0, 1).mul_(255).to(torch.uint8)
