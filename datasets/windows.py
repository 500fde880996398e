"""Every crop and mirror image of stored samples, named by one integer each; and which of them an epoch shows.

The array is padded, and for ``flip`` mirrored, once. An overlapping view then names every possible crop by one
integer, the place of its first element, so that ordering, cropping and flipping a batch is a single
``index_select`` that copies whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from randomix.devices import host_tensor
from randomix.rng import StepRng

FULL_SCALE = {torch.uint8: 255.0, torch.int16: 32768.0}  # the stored value that means 1.0
BLOCK_BYTES = 2**26  # of samples on their way to the device: files that are mapped are never in memory as a whole


class Samples(Protocol):
    """Samples (N, *S, C) that can be sliced: an array, or something that makes arrays of its slices."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __getitem__(self, part: slice, /) -> np.ndarray:
        """The samples of a slice."""

    def __len__(self) -> int:
        """N."""


def blocks(samples: Samples) -> Iterator[tuple[slice, Tensor]]:
    """The samples as tensors of up to BLOCK_BYTES on the host, each with its place."""
    size = max(1, BLOCK_BYTES // max(1, math.prod(samples.shape[1:]) * samples.dtype.itemsize))
    for start in range(0, len(samples), size):
        part = slice(start, start + size)
        yield part, host_tensor(samples[part])


def on_device(samples: Samples, device: torch.device) -> Tensor:
    """All samples as one tensor on ``device``, which shares the memory of a writable array on the host."""
    if isinstance(samples, np.ndarray) and samples.flags.writeable:
        return host_tensor(samples).to(device)
    store = torch.empty(samples.shape, dtype=torch.from_numpy(np.empty(0, samples.dtype)).dtype, device=device)
    for part, block in blocks(samples):
        store[part] = block.to(device)
    return store


class Windows:
    """Every window of shape S of padded samples (N, *S, C), each addressed by one integer.

    padding: zeros added on every side of each spatial dimension; mirror: hold a flipped copy of each image too,
    which doubles the memory (CIFAR: 240 MB each) and keeps flipping inside the copy of whole rows.
    """

    def __init__(self, samples: Samples, padding: int, mirror: bool, device: torch.device | None = None) -> None:
        count, *spatial, channels = samples.shape
        padded = [size + 2 * padding for size in spatial]
        self.copies, self.padding, self.spatial, self.channels = 1 + mirror, padding, spatial, channels
        dtype = torch.from_numpy(np.empty(0, samples.dtype)).dtype
        store = torch.zeros(count, self.copies, *padded, channels, dtype=dtype, device=device)
        inside = tuple(slice(padding, padding + size) for size in spatial)
        for part, block in blocks(samples):
            store[(part, 0, *inside)] = block.to(store.device)
            if mirror:
                store[part, 1] = store[part, 0].flip(-2)
        strides = store.stride()[2:-1]
        extent = sum((size - 1) * stride for size, stride in zip(spatial, strides, strict=True)) + channels
        rows = (*spatial[:-1], spatial[-1] * channels)  # the last dimension and the channels are contiguous
        places = (store.numel() - extent) // channels + 1
        self.view = store.as_strided((places, *rows), (channels, *strides[:-1], 1))
        self.full_scale = FULL_SCALE[dtype]
        self.pixels = math.prod(padded)
        self.steps = np.array([stride // channels for stride in strides])

    def places(self, indices: np.ndarray, offsets: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """The places (n,) of the crops of images ``indices`` (n,) at ``offsets`` (n, D), mirrored where ``flips``."""
        offsets = offsets.copy()
        offsets[:, -1] = np.where(flips, 2 * self.padding - offsets[:, -1], offsets[:, -1])  # crop, then mirror
        return (indices * self.copies + flips) * self.pixels + offsets @ self.steps

    def take(self, places: Tensor) -> Tensor:
        """The windows (n, *S[:-1], S[-1] * C) at ``places`` (n,), as float32 in the units of the store."""
        return self.view.index_select(0, places).float()


@dataclass(frozen=True)
class EpochPlan:
    """What one epoch shows: order (N,), crop offsets (N, D) in 0 .. 2 * padding and flips (N,), by global position."""

    order: np.ndarray
    offsets: np.ndarray
    flips: np.ndarray


def plan_epoch(seed: int, epoch: int, num_samples: int, dims: int, padding: int, flip: bool) -> EpochPlan:
    """Draw an epoch's plan, a pure function of its arguments: the same on every rank and after every resume."""
    rng = StepRng(seed, step=epoch)
    order = rng.generator("data.order", shared=True).permutation(num_samples)
    offsets = rng.generator("data.crop", shared=True).integers(0, 2 * padding + 1, (num_samples, dims))
    flips = rng.generator("data.flip", shared=True).integers(0, 1 + flip, num_samples)
    return EpochPlan(order, offsets, flips)
