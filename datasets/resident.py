"""Data sets that live on the device as one integer array: a batch is one gather, with crop and flip in the index.

The integers of an epoch, which name its crops and mirror images (``datasets.windows``), are computed on the host and
sent in one copy. What is not an image (``datasets.sound.audio``) brings its own loader, of more integers a sample.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.corrupted.generated import Generated, cache_folder, require_images
from datasets.corrupted.published import PublishedImages, require_published
from datasets.windows import FULL_SCALE, Samples, Windows, on_device, plan_epoch
from randomix.devices import host_tensor, to_device
from randomix.engine.protocols import Batch
from randomix.errors import ConfigError


@dataclass(frozen=True)
class Feed:
    """Whose batches a loader makes: a global batch size, a seed, one rank of world_size, where and in which dtype."""

    batch_size: int
    seed: int
    rank: int
    world_size: int
    device: torch.device
    dtype: torch.dtype

    def check(self, name: str, num_train: int, what: str) -> None:
        """Raise ConfigError if the batch exceeds the ``num_train`` samples, called ``what``, or is no share a rank."""
        if self.batch_size > num_train:
            raise ConfigError(
                f"recipe.batch_size {self.batch_size} exceeds the {num_train} training {what} of "
                f"{name}; use recipe.batch_size={num_train} or less"
            )
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ConfigError(
                f"recipe.batch_size {self.batch_size} does not divide by {self.world_size} processes; "
                f"use a multiple of {self.world_size}"
            )


class WindowLoader(ABC):
    """One rank's training batches: rank r holds positions r * n .. (r + 1) * n - 1 of each global batch of n * W.

    Concatenated over ranks, the batches equal those of one process. The last incomplete batch is dropped.
    """

    any_ranks = True
    replaced = 0

    def __init__(self, samples: Samples, labels: np.ndarray, padding: int, flip: bool, feed: Feed) -> None:
        self._feed, self._flip, self._num_train = feed, flip, len(samples)
        self.steps_per_epoch = len(samples) // feed.batch_size
        share = feed.batch_size // feed.world_size
        self._share = slice(feed.rank * share, (feed.rank + 1) * share)
        self._windows = Windows(samples, padding, flip, feed.device)
        self._labels = host_tensor(labels.astype(np.int64)).to(feed.device)
        self._plan: tuple[int, Tensor] | None = None

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches of global steps start .. stop - 1, inputs normalised in the loader's dtype."""
        for step in range(start, stop):
            epoch, index = divmod(step, self.steps_per_epoch)
            indices, *columns = self._epoch(epoch)[:, index]
            yield Batch(self._inputs(*columns), self._labels.index_select(0, indices), indices)

    def _epoch(self, epoch: int) -> Tensor:
        """The epoch's (columns, steps, n) integers on the device, sample indices first; the latest epoch is kept."""
        if self._plan is None or self._plan[0] != epoch:
            columns = np.stack(self._columns(epoch))[:, : self.steps_per_epoch * self._feed.batch_size]
            columns = columns.reshape(len(columns), self.steps_per_epoch, self._feed.batch_size)
            self._plan = epoch, to_device(columns[:, :, self._share], self._feed.device)
        return self._plan[1]

    def _columns(self, epoch: int) -> list[np.ndarray]:
        """What the epoch shows, by global position: sample indices (N,), then the integers ``_inputs`` takes."""
        windows = self._windows
        dims = len(windows.spatial)
        plan = plan_epoch(self._feed.seed, epoch, self._num_train, dims, windows.padding, self._flip)
        return [plan.order, windows.places(plan.order, plan.offsets, plan.flips)]

    @abstractmethod
    def _inputs(self, places: Tensor, *columns: Tensor) -> Tensor:
        """The normalised samples of the windows at ``places`` (n,), in the loader's dtype."""


class ResidentTrainLoader(WindowLoader):
    """Training batches of images: cropped, flipped and normalised by one gather, one product and one sum."""

    def __init__(self, data: ArrayData, feed: Feed) -> None:
        super().__init__(data.train_images, data.train_labels, data.crop_padding, data.flip, feed)
        std, mean = torch.tensor(data.std, device=feed.device), torch.tensor(data.mean, device=feed.device)
        row = self._windows.spatial[-1]
        self._scale = (1 / (self._windows.full_scale * std)).repeat(row)  # a whole row at once: no inner loop over C
        self._shift = (-mean / std).repeat(row)

    def _inputs(self, places: Tensor, *columns: Tensor) -> Tensor:
        rows = self._windows.take(places).mul_(self._scale).add_(self._shift)
        return _channels_first(rows.to(self._feed.dtype).view(len(places), *self._windows.spatial, -1))


class ResidentEvalSet:
    """Held-out samples (N, *S, C) on the device, yielded in [0, 1] (images) or [-1, 1], each once over all ranks."""

    def __init__(
        self, samples: Samples, labels: np.ndarray, mean: Sequence[float], std: Sequence[float], device: torch.device
    ) -> None:
        self.num_samples = len(samples)
        self._samples = on_device(samples, device)
        self._labels = host_tensor(labels.astype(np.int64)).to(device)
        self.value_range = (0.0, 1.0) if self._samples.dtype == torch.uint8 else (-1.0, 1.0)
        shape = (-1, *[1] * (len(samples.shape) - 2))
        self._mean = torch.tensor(mean, device=device).view(shape)
        self._std = torch.tensor(std, device=device).view(shape)

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """Samples rank, rank + world_size, ... in order; inputs (n, C, *S) float32 in the value range."""
        for start in range(rank, self.num_samples, batch_size * world_size):
            part = slice(start, start + batch_size * world_size, world_size)
            pixels = self._samples[part].to(torch.float32, memory_format=torch.contiguous_format)
            pixels = pixels.div_(FULL_SCALE[self._samples.dtype])
            indices = torch.arange(self.num_samples, device=self._labels.device)[part]
            yield Batch(_channels_first(pixels), self._labels[part], indices)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Samples (n, C, *S) to what the network was trained on; differentiable."""
        return (inputs - self._mean) / self._std


@dataclass(frozen=True)
class ArrayData:
    """A data set in memory: images (N, *S, C) uint8 or int16 and labels (N,), with its training augmentation.

    mean, std: per channel, in units of [0, 1] pixels; source: what ``describe`` adds (origin, checksums, synthetic).
    published: the corrupted test sets that others made of it; cache: where those made here are kept, None for the usual
    place.
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
    published: PublishedImages | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        channels = {self.train_images.shape[-1], self.test_images.shape[-1], len(self.mean), len(self.std)}
        if len(channels) != 1:
            raise ValueError(
                f"{self.name}: training images, test images, mean and std disagree on the number of "
                f"channels: {sorted(channels)}"
            )
        side = min(self.train_images.shape[1:-1])
        if self.crop_padding >= side:
            raise ConfigError(
                f"dataset.crop_padding is {self.crop_padding}, expected less than the side of the "
                f"{side}-pixel images of {self.name}: crops would show nothing of them"
            )

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
        feed = Feed(batch_size, seed, rank, world_size, torch.device(device), dtype)
        feed.check(self.name, self.num_train, "images")
        return ResidentTrainLoader(self, feed)

    def eval_set(self, device: torch.device, split: str = "test") -> ResidentEvalSet:
        """The held-out images on ``device``; "test" is the only split."""
        if split != "test":
            raise ValueError(f"{self.name} has no split {split!r}, only 'test'")
        return ResidentEvalSet(self.test_images, self.test_labels, self.mean, self.std, torch.device(device))

    def check_corrupted(
        self, names: Sequence[str], severities: Sequence[int], *, source: str = "official", allow_missing: bool = False
    ) -> tuple[str, ...]:
        """Those of ``names`` that are there; raises DataError for files that are missing or damaged, ConfigError."""
        if source == "official":
            return require_published(self.name, self.published).check(names, severities, allow_missing)
        require_images(self.name, self.test_images.shape[1:], self.test_images.dtype)
        return tuple(names)

    def corrupted_set(
        self, device: torch.device, corruption: str, severity: int, *, source: str = "official", seed: int = 0
    ) -> ResidentEvalSet:
        """The test images under a corruption, published ("official") or "generated" with ``seed``."""
        if source == "official":
            images, labels = require_published(self.name, self.published).cell(corruption, severity)
        else:
            images, labels = self._generated.cell(corruption, severity, seed), None
        labels = self.test_labels if labels is None else labels
        return ResidentEvalSet(images, labels, self.mean, self.std, torch.device(device))

    def identify_corrupted(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """What tells the published files of these corruptions from others."""
        return require_published(self.name, self.published).identify(names, severities)

    @functools.cached_property
    def _generated(self) -> Generated:
        return Generated(self.name, self.test_images, self.cache or cache_folder({}))

    def describe(self) -> dict[str, Any]:
        """Source, checksums and sizes, for the record of a run; no paths."""
        return {**self.source, "train_samples": self.num_train, "test_samples": self.num_test}


def _channels_first(samples: Tensor) -> Tensor:
    """(n, *S, C) to (n, C, *S): in 2-D without a copy, which makes it channels_last; else contiguous."""
    moved = samples.movedim(-1, 1)
    return moved if moved.ndim == 4 else moved.contiguous()
