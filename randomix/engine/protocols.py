"""What the trainer asks of data and networks; ``datasets/`` and ``models/`` provide it, the library imports neither."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """inputs (n, C, *S) normalised, channels_last in 2-D; labels (n,) int64; indices (n,) int64 into the data set."""

    inputs: Tensor
    labels: Tensor
    indices: Tensor


class TrainLoader(Protocol):
    """One rank's share of the training batches, each a function of (seed, step) alone."""

    steps_per_epoch: int

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of global steps start .. stop - 1."""


class EvalSet(Protocol):
    """The held-out samples in pixel space, each exactly once over all ranks."""

    num_samples: int

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """This rank's samples (indices rank::world_size) with inputs in [0, 1] float32, not normalised."""

    def normalise(self, inputs: Tensor) -> Tensor:
        """Pixel space to what the network was trained on."""


class Data(Protocol):
    """A data set ready for training."""

    name: str
    num_classes: int
    sample_shape: tuple[int, ...]  # (C, *S)
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]: what the training inputs are normalised with
    std: tuple[float, ...]
    num_train: int
    num_test: int

    def train_loader(
        self, *, batch_size: int, seed: int, rank: int, world_size: int, device: torch.device, dtype: torch.dtype
    ) -> TrainLoader:
        """``batch_size`` is global and divisible by ``world_size``; the last incomplete batch is dropped."""

    def eval_set(self, device: torch.device) -> EvalSet:
        """The test samples, resident on ``device``."""

    def describe(self) -> dict[str, Any]:
        """Source, checksum and sizes, for the record of a run."""


class DataFactory(Protocol):
    """``datasets.build``: a data set from its configuration."""

    def __call__(self, config: Mapping[str, Any]) -> Data:
        """Verify the files and read them. Raises DataError, ConfigError."""


class ModelFactory(Protocol):
    """``models.build``: a network from its configuration."""

    def __call__(self, config: Mapping[str, Any], *, sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
        """A network with ``forward(inputs, tap=None)`` and ``num_taps``."""
