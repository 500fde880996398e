"""Data sets that live on the device as one integer array: a batch is one gather, with crop and flip in the index.

The array is padded, and for ``flip`` mirrored, once. An overlapping view then names every possible crop by one
integer, the place of its first element, so that ordering, cropping and flipping a batch is a single
``index_select`` that copies whole rows. The integers of an epoch are computed on the host and sent in one copy.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randomix.devices import host_tensor, to_device
from randomix.engine.protocols import Batch
from randomix.errors import ConfigError
from randomix.rng import StepRng

FULL_SCALE = {torch.uint8: 255.0, torch.int16: 32768.0}  # the stored value that means 1.0


class Windows:
    """Every window of shape S of padded images (N, *S, C), each addressed by one integer.

    padding: zeros added on every side of each spatial dimension; mirror: hold a flipped copy of each image too,
    which doubles the memory (CIFAR: 240 MB each) and keeps flipping inside the copy of whole rows.
    """

    def __init__(self, images: Tensor, padding: int, mirror: bool) -> None:
        count, *spatial, channels = images.shape
        padded = [size + 2 * padding for size in spatial]
        self.copies, self.padding, self.spatial = 1 + mirror, padding, spatial
        store = images.new_zeros(count, self.copies, *padded, channels)
        store[(slice(None), 0, *(slice(padding, padding + size) for size in spatial))] = images
        if mirror:
            store[:, 1] = store[:, 0].flip(-2)
        strides = store.stride()[2:-1]
        extent = sum((size - 1) * stride for size, stride in zip(spatial, strides, strict=True)) + channels
        rows = (*spatial[:-1], spatial[-1] * channels)  # the last dimension and the channels are contiguous
        places = (store.numel() - extent) // channels + 1
        self.view = store.as_strided((places, *rows), (channels, *strides[:-1], 1))
        self.pixels = math.prod(padded)
        self.steps = np.array([stride // channels for stride in strides])

    def places(self, indices: np.ndarray, offsets: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """The places (n,) of the crops of images ``indices`` (n,) at ``offsets`` (n, D), mirrored where ``flips``."""
        offsets = offsets.copy()
        offsets[:, -1] = np.where(flips, 2 * self.padding - offsets[:, -1], offsets[:, -1])  # crop, then mirror
        return (indices * self.copies + flips) * self.pixels + offsets @ self.steps


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


class ResidentTrainLoader:
    """One rank's training batches: rank r holds positions r * n .. (r + 1) * n - 1 of each global batch of n * W.

    Concatenated over ranks, the batches equal those of one process. The last incomplete batch is dropped.
    """

    replaced = 0

    def __init__(
        self, data: ArrayData, batch_size: int, seed: int, rank: int, world_size: int,
        device: torch.device, dtype: torch.dtype,
    ) -> None:  # fmt: skip
        self.steps_per_epoch = data.num_train // batch_size
        self._batch_size, self._seed, self._device, self._dtype = batch_size, seed, device, dtype
        share = batch_size // world_size
        self._share = slice(rank * share, (rank + 1) * share)
        self._padding, self._flip, self._num_train = data.crop_padding, data.flip, data.num_train
        images = host_tensor(data.train_images).to(device)
        self._windows = Windows(images, data.crop_padding, data.flip)
        self._labels = host_tensor(data.train_labels.astype(np.int64)).to(device)
        std, mean = torch.tensor(data.std, device=device), torch.tensor(data.mean, device=device)
        row = images.shape[-2]
        self._scale = (1 / (FULL_SCALE[images.dtype] * std)).repeat(row)  # a whole row at once: no inner loop over C
        self._shift = (-mean / std).repeat(row)
        self._plan: tuple[int, Tensor] | None = None

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches of global steps start .. stop - 1, inputs normalised in the loader's dtype."""
        for step in range(start, stop):
            epoch, index = divmod(step, self.steps_per_epoch)
            indices, places = self._epoch(epoch)[:, index]
            yield Batch(self._inputs(places), self._labels.index_select(0, indices), indices)

    def _epoch(self, epoch: int) -> Tensor:
        """The epoch's (2, steps, n) sample indices and window places on the device; the latest epoch is kept."""
        if self._plan is None or self._plan[0] != epoch:
            plan = plan_epoch(self._seed, epoch, self._num_train, len(self._windows.spatial), self._padding, self._flip)
            places = self._windows.places(plan.order, plan.offsets, plan.flips)
            used = self.steps_per_epoch * self._batch_size
            both = np.stack([plan.order, places])[:, :used].reshape(2, self.steps_per_epoch, self._batch_size)
            self._plan = epoch, to_device(both[:, :, self._share], self._device)
        return self._plan[1]

    def _inputs(self, places: Tensor) -> Tensor:
        rows = self._windows.view.index_select(0, places).float().mul_(self._scale).add_(self._shift)
        return _channels_first(rows.to(self._dtype).view(len(places), *self._windows.spatial, -1))


class ResidentEvalSet:
    """Held-out images (N, *S, C) on the device, yielded as pixels in [0, 1], each exactly once over all ranks."""

    value_range = (0.0, 1.0)

    def __init__(self, data: ArrayData, device: torch.device) -> None:
        self.num_samples = data.num_test
        self._images = host_tensor(data.test_images).to(device)
        self._labels = host_tensor(data.test_labels.astype(np.int64)).to(device)
        shape = (-1, *[1] * (data.test_images.ndim - 2))
        self._mean = torch.tensor(data.mean, device=device).view(shape)
        self._std = torch.tensor(data.std, device=device).view(shape)

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Samples rank, rank + world_size, ... in order; inputs (n, C, *S) float32 in [0, 1], not normalised."""
        for start in range(rank, self.num_samples, batch_size * world_size):
            part = slice(start, start + batch_size * world_size, world_size)
            pixels = self._images[part].to(torch.float32, memory_format=torch.contiguous_format)
            pixels = pixels.div_(FULL_SCALE[self._images.dtype])
            indices = torch.arange(self.num_samples, device=self._labels.device)[part]
            yield Batch(_channels_first(pixels), self._labels[part], indices)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Pixels (n, C, *S) to what the network was trained on; differentiable."""
        return (inputs - self._mean) / self._std


@dataclass(frozen=True)
class ArrayData:
    """A data set in memory: images (N, *S, C) uint8 or int16 and labels (N,), with its training augmentation.

    mean, std: per channel, in units of [0, 1] pixels; source: what ``describe`` adds (origin, checksums, synthetic).
    """

    name: str
    class_names: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int = 0
    flip: bool = False
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        channels = {self.train_images.shape[-1], self.test_images.shape[-1], len(self.mean), len(self.std)}
        if len(channels) != 1:
            raise ValueError(f"{self.name}: training images, test images, mean and std disagree on the number of "
                             f"channels: {sorted(channels)}")  # fmt: skip

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, *S)."""
        *spatial, channels = self.train_images.shape[1:]
        return (channels, *spatial)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, *S): images are evaluated as they are stored."""
        return self.sample_shape

    @property
    def splits(self) -> tuple[str, ...]:
        """The held-out sets."""
        return ("test",)

    @property
    def num_train(self) -> int:
        """Training images."""
        return len(self.train_images)

    @property
    def num_test(self) -> int:
        """Held-out images."""
        return len(self.test_images)

    def train_loader(
        self, *, batch_size: int, seed: int, rank: int, world_size: int, device: torch.device, dtype: torch.dtype
    ) -> ResidentTrainLoader:
        """This rank's loader; raises ConfigError if ``batch_size`` exceeds the images or does not divide by ranks."""
        if batch_size > self.num_train:
            raise ConfigError([f"recipe.batch_size {batch_size} exceeds the {self.num_train} training images of "
                               f"{self.name}; use recipe.batch_size={self.num_train} or less"])  # fmt: skip
        if batch_size < 1 or batch_size % world_size:
            raise ConfigError([f"recipe.batch_size {batch_size} does not divide by {world_size} processes; "
                               f"use a multiple of {world_size}"])  # fmt: skip
        return ResidentTrainLoader(self, batch_size, seed, rank, world_size, torch.device(device), dtype)

    def eval_set(self, device: torch.device, split: str = "test") -> ResidentEvalSet:
        """The held-out images on ``device``; "test" is the only split."""
        if split != "test":
            raise ValueError(f"{self.name} has no split {split!r}, only 'test'")
        return ResidentEvalSet(self, torch.device(device))

    def describe(self) -> dict[str, Any]:
        """Source, checksums and sizes, for the record of a run; no paths."""
        return {**self.source, "train_samples": self.num_train, "test_samples": self.num_test}


def _channels_first(samples: Tensor) -> Tensor:
    """(n, *S, C) to (n, C, *S): in 2-D without a copy, which makes it channels_last; else contiguous."""
    moved = samples.movedim(-1, 1)
    return moved if moved.ndim == 4 else moved.contiguous()
