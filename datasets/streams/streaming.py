"""Data sets that do not fit in memory: workers decode and crop to uint8, the device flips, normalises and casts.

Where the images come from is a ``Source``: files in class folders (``file_stream``) or tar shards (``shards``).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.corrupted.generated import require_images
from datasets.corrupted.published import Published, require_published
from datasets.streams.crops import DRAWS, CentreCrop, RandomCrop
from datasets.streams.workers import check_shared_memory, ranks_here, read_ahead, start_fork_server
from randomix.engine.protocols import Batch
from randomix.errors import ConfigError, DataError
from randomix.rng import StepRng

_PIXELS = 64 * 224**2  # of a batch of evaluation
_WARNINGS = 10  # lines about single files; more are only counted


class Decoded(NamedTuple):
    """images (n, S, S, 3) uint8; labels, indices (n,) int64; flips (n,) uint8, 255 to mirror (evaluation: empty).

    bad: (index, why) of each sample that was tried in vain; replaced: rows that hold another sample than they should.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    flips: Tensor
    bad: list[tuple[int, str]]
    replaced: int


@dataclass(frozen=True)
class StreamOptions:
    """scale, ratio: of the random crop; flip: mirror half of the samples; workers: processes that decode, 0 for none.

    size: of the square that the network sees; resize: the shorter side before the central crop of the evaluation.
    skip: replace samples that cannot be read, at most ``max_bad_share`` of all, instead of stopping at the first.
    shuffle_buffer: samples of which a worker draws the next, where they come from shards.
    """

    size: int = 224
    resize: int = 256
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (0.75, 1.3333)
    flip: bool = True
    workers: int = 0
    skip: bool = False
    max_bad_share: float = 0.001
    shuffle_buffer: int = 1

    @property
    def random_crop(self) -> RandomCrop:
        """The crop of training."""
        return RandomCrop(self.size, self.scale, self.ratio)

    @property
    def centre_crop(self) -> CentreCrop:
        """The crop of evaluation."""
        return CentreCrop(self.size, self.resize)

    @property
    def most_evaluated(self) -> int:
        """Images of a batch of evaluation at most: 64 of 224 x 224 pixels, 10 MB; shared memory has to hold several."""
        return max(1, _PIXELS // self.size**2)

    def images(self, count: int) -> Tensor:
        """Memory for the crops of a batch."""
        return torch.empty(count, self.size, self.size, 3, dtype=torch.uint8)


@dataclass(frozen=True)
class Share:
    """One rank's part of global batches of ``batch_size``: positions rank * n .. (rank + 1) * n - 1 of each."""

    batch_size: int
    rank: int
    world_size: int

    @property
    def count(self) -> int:
        """n."""
        return self.batch_size // self.world_size

    @property
    def rows(self) -> slice:
        """Those positions."""
        return slice(self.rank * self.count, (self.rank + 1) * self.count)


class Source(Protocol):
    """Where a split's images are read; the data sets it makes are picklable and yield ``Decoded``, or a text that
    becomes a DataError.

    any_ranks: whether the global batches are the same for any number of ranks.
    """

    any_ranks: ClassVar[bool]

    def __len__(self) -> int:
        """Samples."""

    def training(
        self, options: StreamOptions, seed: int, share: Share, start: int, stop: int
    ) -> tuple[Dataset[Any], range | None]:
        """The batches of steps start .. stop - 1 and the sampler for them, None for an iterable data set."""

    def evaluation(self, options: StreamOptions, share: Share) -> tuple[Dataset[Any], range | None]:
        """A rank's share of the samples, each exactly once over all ranks, in batches of at most ``batch_size``."""


def step_draws(seed: int, step: int, share: Share, flip: bool) -> tuple[list[list[float]], Tensor]:
    """Uniform numbers (n, DRAWS) for crops, and flips (n,), 0 or 255: a rank's rows of what the global batch draws."""
    rng = StepRng(seed, step=step)
    draws = rng.generator("data.crop", shared=True).random((share.batch_size, DRAWS))
    flips = rng.generator("data.flip", shared=True).integers(0, 1 + flip, share.batch_size)
    return draws[share.rows].tolist(), torch.from_numpy(255 * flips[share.rows].astype(np.uint8))


class BadSamples:
    """What a rank could not read: one line a file for the first ten, an error beyond the allowed share."""

    def __init__(
        self, data_name: str, num_train: int, max_share: float, what: str = "another image takes its place"
    ) -> None:
        self._name, self._num_train, self._max_share, self._what = data_name, num_train, max_share, what
        self._seen: set[int] = set()

    def add(self, bad: list[tuple[int, str]]) -> None:
        """Count samples (index, why), each once; raises DataError beyond ``max_share`` of the training samples."""
        for index, why in bad:
            if index in self._seen:
                continue
            self._seen.add(index)
            if len(self._seen) > self._max_share * self._num_train:
                raise DataError(
                    f"{self._name}: {len(self._seen)} of {self._num_train} training images cannot be read, "
                    f"more than dataset.max_bad_share={self._max_share:g}; the last: {why}"
                )
            if len(self._seen) <= _WARNINGS:
                more = "; further ones are only counted" if len(self._seen) == _WARNINGS else ""
                print(f"warning: {self._what}: {why}{more}", file=sys.stderr, flush=True)


class StreamTrainLoader:
    """One rank's training batches, decoded ahead by workers. Concatenated over ranks they are the global batches."""

    def __init__(self, data: StreamData, share: Share, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self.steps_per_epoch = data.num_train // share.batch_size
        self.any_ranks = data.train.any_ranks
        self.replaced = 0
        self.workers = data.options.workers
        if self.workers:
            held_out = min(data.options.most_evaluated, -(-data.num_test // share.world_size))
            check_shared_memory(self.workers, (share.count + held_out) * data.options.size**2 * 3, ranks_here())
            start_fork_server()
        self._data, self._share, self._seed, self._device, self._dtype = data, share, seed, device, dtype
        self._bad = BadSamples(data.name, data.num_train, data.options.max_bad_share)
        means, stds = torch.tensor(data.mean, device=device), torch.tensor(data.std, device=device)
        self._scale = (1 / (255 * stds)).repeat(data.options.size)  # a whole row at once: no inner loop over channels
        self._shift = (-means / stds).repeat(data.options.size)

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches of global steps start .. stop - 1, inputs normalised; closing the generator ends the workers.

        Raises DataError for an image that cannot be read, or with ``skip`` for too many of them.
        """
        options = self._data.options
        source = self._data.train.training(options, self._seed, self._share, start, stop)
        with _decode(source, options, self._share.count, self._device) as items:
            for item in items:
                self.replaced += item.replaced
                self._bad.add(item.bad)
                yield self._finish(item)

    def _finish(self, decoded: Decoded) -> Batch:
        """What the device does: flip, normalise in float32, cast; channels_last without a copy."""
        images, labels, indices, flips = (part.to(self._device, non_blocking=True) for part in decoded[:4])
        mask = flips[:, None, None, None]
        images = (
            images.flip(2).bitwise_xor_(images).bitwise_and_(mask).bitwise_xor_(images)
        )  # where() takes 4 x as long
        rows = images.flatten(2).float().mul_(self._scale).add_(self._shift)
        return Batch(rows.to(self._dtype).view(images.shape).permute(0, 3, 1, 2), labels, indices)


class StreamEvalSet:
    """Held-out images, decoded anew for each evaluation: the central crop, pixels in [0, 1], each exactly once.

    change: what is done to the crops of a batch (n, S, S, 3) uint8, with their indices (n,), on the device.
    """

    value_range = (0.0, 1.0)

    def __init__(
        self, data: StreamData, device: torch.device, change: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> None:
        self.num_samples = data.num_test
        self._data, self._device, self._change = data, device, change
        self._mean = torch.tensor(data.mean, device=device).view(-1, 1, 1)
        self._std = torch.tensor(data.std, device=device).view(-1, 1, 1)

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Generator[Batch, None, None]:
        """This rank's samples; inputs (n, C, H, W) float32 in [0, 1]. Raises DataError for any that cannot be read."""
        options = self._data.options
        batch_size = min(batch_size, options.most_evaluated)
        share = Share(batch_size * world_size, rank, world_size)
        with _decode(self._data.test.evaluation(options, share), options, batch_size, self._device) as items:
            for item in items:
                images, labels, indices = (part.to(self._device, non_blocking=True) for part in item[:3])
                if self._change is not None:
                    images = self._change(images, indices)
                yield Batch(images.permute(0, 3, 1, 2).float().div_(255), labels, indices)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Pixels (n, C, H, W) to what the network was trained on; differentiable."""
        return (inputs - self._mean) / self._std


def _decode(
    source: tuple[Dataset[Any], range | None], options: StreamOptions, count: int, device: torch.device
) -> contextlib.closing[Generator[Decoded, None, None]]:
    """What workers decode of a source, ``count`` images a batch; leaving the context ends them."""
    size = count * options.size**2 * 3
    return contextlib.closing(read_ahead(*source, options.workers, device.type == "cuda", size))


@dataclass(frozen=True)
class StreamData:
    """A data set that is read while it is used: RGB images with labels from two sources.

    mean, std: per channel, in units of [0, 1] pixels; source: what ``describe`` adds (origin, sizes, synthetic).
    published: the corrupted test sets that others made of it; corrupted_source: opens one by name and severity.
    """

    name: str
    class_names: tuple[str, ...]
    train: Source
    test: Source
    mean: tuple[float, ...]
    std: tuple[float, ...]
    options: StreamOptions
    source: dict[str, Any] = field(default_factory=dict)
    published: Published | None = None
    corrupted_source: Callable[[str, int], Source] | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (3, self.options.size, self.options.size)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W): images are evaluated as they are cropped."""
        return self.sample_shape

    @property
    def splits(self) -> tuple[str, ...]:
        """The held-out sets."""
        return ("test",)

    @property
    def num_train(self) -> int:
        """Training images."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Held-out images."""
        return len(self.test)

    def train_loader(
        self, *, batch_size: int, seed: int, rank: int, world_size: int, device: torch.device, dtype: torch.dtype
    ) -> StreamTrainLoader:
        """This rank's loader; raises ConfigError if ``batch_size`` exceeds the images or does not divide by ranks."""
        if batch_size > self.num_train:
            raise ConfigError(
                f"recipe.batch_size {batch_size} exceeds the {self.num_train} training images of "
                f"{self.name}; use recipe.batch_size={self.num_train} or less"
            )
        if batch_size < 1 or batch_size % world_size:
            raise ConfigError(
                f"recipe.batch_size {batch_size} does not divide by {world_size} processes; "
                f"use a multiple of {world_size}"
            )
        share = Share(batch_size, rank, world_size)
        return StreamTrainLoader(self, share, seed, torch.device(device), dtype)

    def eval_set(self, device: torch.device, split: str = "test") -> StreamEvalSet:
        """The held-out images; "test" is the only split."""
        if split != "test":
            raise ValueError(f"{self.name} has no split {split!r}, only 'test'")
        return StreamEvalSet(self, torch.device(device))

    def check_corrupted(
        self, names: Sequence[str], severities: Sequence[int], *, source: str = "official", allow_missing: bool = False
    ) -> tuple[str, ...]:
        """Those of ``names`` that are there; raises DataError for folders that are missing or wrong, ConfigError."""
        if source == "official":
            return require_published(self.name, self.published).check(names, severities, allow_missing)
        require_images(self.name, (*self.sample_shape[1:], 3))
        return tuple(names)

    def corrupted_set(
        self, device: torch.device, corruption: str, severity: int, *, source: str = "official", seed: int = 0
    ) -> StreamEvalSet:
        """The test images under a corruption, published ("official"), or "generated" from each batch's crops."""
        if source == "official":
            files = require_published(self.name, self.corrupted_source)(corruption, severity)
            options = replace(self.options, resize=self.options.size)  # they were cropped before they were corrupted
            return StreamEvalSet(replace(self, test=files, options=options), torch.device(device))
        from randomix.robustness import corruptions

        def change(images: Tensor, indices: Tensor) -> Tensor:
            return corruptions.corrupt(images, corruption, severity, seed=seed, indices=indices)

        return StreamEvalSet(self, torch.device(device), change)

    def identify_corrupted(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """What tells the published folders of these corruptions from others."""
        return require_published(self.name, self.published).identify(names, severities)

    def describe(self) -> dict[str, Any]:
        """Source and sizes, for the record of a run; no paths."""
        return {**self.source, "train_samples": self.num_train, "test_samples": self.num_test}
