"""Images read file by file: any step's batch can be made by any worker, because it depends on (seed, step) alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datasets.formats.class_folders import ImageFiles
from datasets.streams.streaming import Decoded, Share, StreamOptions, step_draws
from randomix.devices import host_tensor
from randomix.errors import DataError
from randomix.rng import StepRng

_IN_A_ROW = 1000  # samples after a bad one that may be bad as well


@dataclass(frozen=True)
class FileSource:
    """A split in class folders as a source of batches."""

    any_ranks: ClassVar[bool] = True
    files: ImageFiles

    def __len__(self) -> int:
        return len(self.files)

    def training(
        self, options: StreamOptions, seed: int, share: Share, start: int, stop: int
    ) -> tuple[Dataset[Any], range]:
        """Decoded batches by global step."""
        return FileTraining(self.files, options, seed, share), range(start, stop)

    def evaluation(self, options: StreamOptions, share: Share) -> tuple[Dataset[Any], range]:
        """Samples rank, rank + world_size, ... in order."""
        mine = range(share.rank, len(self.files), share.world_size)
        return FileEvaluation(self.files, options, mine, share.count), range(-(-len(mine) // share.count))


class FileTraining(Dataset[Any]):
    """Global step to one rank's decoded batch. Every epoch is one permutation of all samples.

    With ``skip`` a sample that cannot be read gives way to the next of the data set that can, which is cropped where
    the other would have been; several epochs replace it by the same one.
    """

    def __init__(self, files: ImageFiles, options: StreamOptions, seed: int, share: Share) -> None:
        self._files, self._options, self._seed, self._share = files, options, seed, share
        self._crop, self._steps = options.random_crop, len(files) // share.batch_size
        self._order: tuple[int, np.ndarray] | None = None

    def __getitem__(self, step: int) -> Decoded | str:
        epoch, place = divmod(step, self._steps)
        wanted = self._epoch(epoch)[place * self._share.batch_size :][self._share.rows]
        draws, flips = step_draws(self._seed, step, self._share, self._options.flip)
        images, indices, bad = self._options.images(len(wanted)), np.empty_like(wanted), []
        try:
            for row, index in enumerate(wanted.tolist()):
                indices[row] = self._sample(images[row], index, draws[row], bad)
        except DataError as error:
            return str(error)
        replaced = int((indices != wanted).sum())
        return Decoded(images, host_tensor(self._files.labels[indices]), host_tensor(indices), flips, bad, replaced)

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            rng = StepRng(self._seed, step=epoch).generator("data.order", shared=True)
            self._order = epoch, rng.permutation(len(self._files))
        return self._order[1]

    def _sample(self, out: Tensor, index: int, draws: list[float], bad: list[tuple[int, str]]) -> int:
        """Write the crop of sample ``index`` into ``out``, or of the first after it that can be read; its index."""
        for at in range(index, index + min(_IN_A_ROW, len(self._files))):
            at %= len(self._files)
            try:
                out.copy_(self._crop(self._files.read(at), self._files.path(at), draws))
                return at
            except DataError as error:
                if not self._options.skip:
                    raise DataError(f"{error}, or set dataset.on_bad_sample=skip") from error
                bad.append((at, str(error)))
        raise DataError(
            f"{self._files.path(index)}: cannot be read, nor can the {_IN_A_ROW} images after it; "
            f"the last: {bad[-1][1]}"
        )


class FileEvaluation(Dataset[Any]):
    """Number of a batch to the central crops of its samples, not mirrored.

    A sample that cannot be read is an error: accuracy counts all of them. With ``leave_out`` it is missing instead, and
    ``bad`` says so.
    """

    def __init__(
        self, files: ImageFiles, options: StreamOptions, mine: range, batch_size: int, leave_out: bool = False
    ) -> None:
        self._files, self._options, self._mine, self._batch_size = files, options, mine, batch_size
        self._crop, self._leave_out = options.centre_crop, leave_out

    def __getitem__(self, number: int) -> Decoded | str:
        mine = self._mine[number * self._batch_size :][: self._batch_size]
        crops, indices, bad = [], [], []
        for index in mine:
            try:
                crops.append(self._crop(self._files.read(index), self._files.path(index)))
                indices.append(index)
            except DataError as error:
                if not self._leave_out:
                    return str(error)
                bad.append((index, str(error)))
        images = torch.stack(crops) if crops else self._options.images(0)
        labels = host_tensor(self._files.labels[indices])
        return Decoded(images, labels, torch.tensor(indices), torch.empty(0, dtype=torch.uint8), bad, 0)
