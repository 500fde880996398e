"""What the trainer asks of data and networks; ``datasets/`` and ``models/`` provide it, the library imports neither."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
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
    any_ranks: bool  # whether the global batches are the same for any number of ranks
    replaced: int  # samples of this rank that could not be read and gave way to others, so far

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches of global steps start .. stop - 1. Closing the iterator ends whatever reads ahead for it."""


class EvalSet(Protocol):
    """Held-out samples as they are perceived (pixels, sound), each exactly once over all ranks."""

    num_samples: int
    value_range: tuple[float, float]  # of the inputs: (0, 1) for pixels, (-1, 1) for sound

    def batches(self, batch_size: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
        """This rank's samples (a share of its own, none twice), inputs float32 in the value range, not normalised."""

    def normalise(self, inputs: Tensor) -> Tensor:
        """What is perceived, (n, *input_shape), to what the network takes, (n, *sample_shape); differentiable."""


class Data(Protocol):
    """A data set ready for training."""

    name: str
    num_classes: int
    sample_shape: tuple[int, ...]  # (C, *S) of what is mixed and what the network takes
    input_shape: tuple[int, ...]  # (C, *S) of held-out samples before ``normalise``: differs where features are made
    splits: tuple[str, ...]  # the held-out sets: "test", with or without "validation"
    class_names: tuple[str, ...]
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]: what the training inputs are normalised with
    std: tuple[float, ...]
    num_train: int
    num_test: int

    def train_loader(
        self, *, batch_size: int, seed: int, rank: int, world_size: int, device: torch.device, dtype: torch.dtype
    ) -> TrainLoader:
        """``batch_size`` is global and divisible by ``world_size``; the last incomplete batch is dropped."""

    def eval_set(self, device: torch.device, split: str = "test") -> EvalSet:
        """The samples of one of ``splits``, on ``device``."""

    def check_corrupted(
        self, names: Sequence[str], severities: Sequence[int], *, source: str, allow_missing: bool = False
    ) -> tuple[str, ...]:
        """Those of the corruptions ``names`` whose corrupted test sets are there; without ``allow_missing`` all.

        source: "official" files or "generated" from the test images. Cheap, before any work. Raises DataError and
        ConfigError for what is missing or damaged, and for data that have no such sets.
        """

    def corrupted_set(
        self, device: torch.device, corruption: str, severity: int, *, source: str, seed: int = 0
    ) -> EvalSet:
        """The test set under a corruption of severity 1 to 5; ``seed`` is that of generated ones."""

    def identify_corrupted(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """What tells the official files of these corruptions from others, by file; cheap, for journal and record."""

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
