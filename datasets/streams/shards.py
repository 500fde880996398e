"""ImageNet as a stream of tar shards, for data in object storage or larger than a disk.

Training: an epoch is a permutation of the shards by (seed, epoch). The sequence is cut into equal ranges, one a rank,
and those into one a worker; a worker reads its range through a shuffle buffer. So the batches depend on the seed, the
step and the numbers of ranks and workers; a run resumed with the same numbers sees the same batches. Evaluation shows
each sample exactly once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from datasets.streams.shard_files import Sample, ShardSet
from datasets.streams.streaming import Decoded, Share, StreamOptions, step_draws
from randomix.errors import DataError
from randomix.rng import StepRng


@dataclass(frozen=True)
class ShardSource:
    """A split in shards as a source of batches."""

    any_ranks: ClassVar[bool] = False  # each has shards of its own
    shards: ShardSet

    def __len__(self) -> int:
        return len(self.shards)

    def training(
        self, options: StreamOptions, seed: int, share: Share, start: int, stop: int
    ) -> tuple[IterableDataset[Any], None]:
        """Decoded batches in the order of the steps, made by the workers in turn."""
        return ShardTraining(self.shards, options, seed, share, start, stop), None

    def evaluation(self, options: StreamOptions, share: Share) -> tuple[IterableDataset[Any], None]:
        """An equal part of the sequence, to within one sample."""
        return ShardEvaluation(self.shards, options, share), None


@dataclass(frozen=True)
class Lane:
    """The samples of an epoch that one worker shows: ``count`` from ``first`` on, for steps number, number + lanes, ...

    Several workers deliver batches in turn, so that a lane has every ``lanes``-th step of its rank.
    """

    number: int
    first: int
    count: int

    @classmethod
    def of(cls, number: int, lanes: int, share: Share, steps: int) -> Lane:
        """Lane ``number`` of ``lanes`` of the rank's steps in an epoch."""
        before = sum(len(range(other, steps, lanes)) for other in range(number))
        own = len(range(number, steps, lanes))
        return cls(number, (share.rank * steps + before) * share.count, own * share.count)


class ShardTraining(IterableDataset[Any]):
    """One rank's decoded batches of steps start .. stop - 1; each worker makes those of its turn.

    With ``skip`` a sample that cannot be read is replaced by the next of its batch that can, with that one's crop.
    """

    def __init__(
        self, shards: ShardSet, options: StreamOptions, seed: int, share: Share, start: int, stop: int
    ) -> None:
        self._shards, self._options, self._seed, self._share = shards, options, seed, share
        self._start, self._stop, self._steps = start, stop, len(shards) // share.batch_size

    def __iter__(self) -> Iterator[Decoded | str]:
        worker, workers = _this_worker()
        try:
            for epoch in range(self._start // self._steps, -(-self._stop // self._steps)):
                begin = epoch * self._steps
                lane = Lane.of((worker + self._start - begin) % workers, workers, self._share, self._steps)
                wanted = range(lane.number, self._steps, workers)
                skipped = sum(begin + k < self._start for k in wanted)
                samples = self._samples(epoch, lane, skipped * self._share.count)
                for step in wanted[skipped:]:
                    if begin + step >= self._stop:
                        break
                    yield self._batch(begin + step, samples)
        except DataError as error:
            yield str(error)

    def _samples(self, epoch: int, lane: Lane, skipped: int) -> Iterator[Sample]:
        """The lane's samples in the order in which they leave the shuffle buffer, without the first ``skipped``.

        The order is computed before anything is read; what is not shown any more is neither kept nor decoded.
        """
        rng = StepRng(self._seed, step=epoch, rank=self._share.rank)
        sequence = rng.generator("data.shards", shared=True).permutation(len(self._shards.names))
        order = buffer_order(lane.count, self._options.shuffle_buffer, rng.generator(f"data.order.{lane.number}"))[
            skipped:
        ]
        if not len(order):
            return
        wanted, waiting = set(order.tolist()), {}
        reader = self._shards.read(sequence, lane.first + int(order.min()), lane.first + lane.count)
        for place in order.tolist():
            while place not in waiting:
                position, sample = next(reader)
                if position - lane.first in wanted:
                    waiting[position - lane.first] = sample
            yield waiting.pop(place)

    def _batch(self, step: int, samples: Iterator[Sample]) -> Decoded:
        draws, flips = step_draws(self._seed, step, self._share, self._options.flip)
        images, crop = self._options.images(self._share.count), self._options.random_crop
        labels, indices = np.empty((2, self._share.count), np.int64)
        bad, good = [], []
        for row, uniforms in enumerate(draws):
            sample = next(samples)
            labels[row], indices[row] = sample.label, sample.index
            try:
                images[row] = crop(sample.data, sample.name, uniforms)
                good.append(row)
            except DataError as error:
                if not self._options.skip:
                    raise DataError(f"{error}, or set dataset.on_bad_sample=skip") from error
                bad.append((row, sample.index, str(error)))
        if not good:
            raise DataError(f"no image of a whole batch can be read; the last: {bad[-1][2]}")
        for row, _, _ in bad:
            other = next((r for r in good if r > row), good[0])
            images[row], labels[row], indices[row] = images[other], labels[other], indices[other]
        why = [(index, text) for _, index, text in bad]
        return Decoded(images, torch.from_numpy(labels), torch.from_numpy(indices), flips, why, len(bad))


class ShardEvaluation(IterableDataset[Any]):
    """A rank's part of the sequence in decoded batches; the workers share its batches."""

    def __init__(self, shards: ShardSet, options: StreamOptions, share: Share) -> None:
        self._shards, self._options, self._share = shards, options, share

    def __iter__(self) -> Iterator[Decoded | str]:
        worker, workers = _this_worker()
        total, size, rank, world = len(self._shards), self._share.count, self._share.rank, self._share.world_size
        low, high = total * rank // world, total * (rank + 1) // world
        batches = -(-(high - low) // size)
        first = low + size * sum(len(range(w, batches, workers)) for w in range(worker))
        last = min(high, first + size * len(range(worker, batches, workers)))
        reader = (sample for _, sample in self._shards.read(range(len(self._shards.names)), first, last))
        try:
            for start in range(first, last, size):
                yield self._batch([next(reader) for _ in range(min(size, last - start))])
        except DataError as error:
            yield str(error)

    def _batch(self, samples: list[Sample]) -> Decoded:
        images, crop = self._options.images(len(samples)), self._options.centre_crop
        for row, sample in enumerate(samples):
            images[row] = crop(sample.data, sample.name)
        labels, indices = torch.tensor([(s.label, s.index) for s in samples]).T.contiguous()
        return Decoded(images, labels, indices, torch.empty(0, dtype=torch.uint8), [], 0)


def buffer_order(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """The order (count,) in which 0 .. count - 1 leave a buffer of ``size``: each time a random one of it, whose place
    the next to come takes.
    """
    buffer = list(range(min(size, count)))
    order = np.empty(count, np.int64)
    for place, uniform in enumerate(rng.random(count).tolist()):
        slot = int(uniform * len(buffer))
        order[place] = buffer[slot]
        if place + size < count:
            buffer[slot] = place + size
        else:
            buffer[slot] = buffer[-1]
            buffer.pop()
    return order


def _this_worker() -> tuple[int, int]:
    """Number of this worker and of all; (0, 1) in the training process."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
