"""Sound that lives on the device as one int16 array: a batch is one gather for the clips and one for their background.

Clips are padded with silence, so that a shift in time is the place where a window begins; a window of a background
recording is added at a random volume. Shifts, windows and volumes of an epoch are integers by global position, drawn on
the host from (seed, epoch) and sent in one copy. Features, if any, are made last: what is mixed is what the network
takes. Order and defaults of the augmentations are those of TensorFlow's speech_commands tutorial.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datasets.resident import Feed, ResidentEvalSet, WindowLoader
from datasets.sound import log_mel
from datasets.sound.background import Noise
from datasets.sound.clips import ClipSet
from randomix.devices import host_tensor
from randomix.errors import ConfigError
from randomix.rng import StepRng

MEAN, STD = (0.0,), (0.1,)  # of waveforms in [-1, 1]; not stated in the paper; 0.1: about the RMS of a spoken word
_CHUNK = 32  # clips at once on a CPU: they stay in its cache from the first operation to the last
LEVELS = 2**24  # steps of a volume: a float32 holds each exactly


class AudioTrainLoader(WindowLoader):
    """Training batches of sound: shifted in time, mixed with background, clipped to [-1, 1], then normalised."""

    def __init__(self, data: AudioData, feed: Feed) -> None:
        super().__init__(data.train, data.train.labels, data.shift, False, feed)
        self._data = data
        self._features = data.normaliser(feed.device) if data.features != "waveform" else None
        self._unit = 1.0 if self._features else 1 / STD[0]  # waveforms are normalised as they are read: their mean is 0
        self._background: Tensor | None = None
        if data.noise is not None:
            samples = host_tensor(data.noise.samples).to(feed.device)
            self._background = samples.unfold(0, data.noise.length, 1)  # a view: every window, none copied

    def _columns(self, epoch: int) -> list[np.ndarray]:
        columns = super()._columns(epoch)
        if self._data.noise is not None:
            columns += plan_background(self._data, self._feed.seed, epoch)
        return columns

    def _inputs(self, places: Tensor, *columns: Tensor) -> Tensor:
        batch = torch.empty(len(places), *self._data.sample_shape, dtype=self._feed.dtype, device=places.device)
        size = _CHUNK if places.device.type == "cpu" else len(places)
        parts = (column.split(size) for column in (batch, places, *columns))
        for part, *numbers in zip(*parts, strict=True):
            if self._features is None and part.dtype == torch.float32:
                self._mix(part[:, 0], *numbers)
                continue
            sound = torch.empty(len(part), *self._data.input_shape, device=places.device)
            self._mix(sound[:, 0], *numbers)
            part.copy_(self._features(sound) if self._features else sound)
        return batch

    def _mix(self, sound: Tensor, places: Tensor, *columns: Tensor) -> None:
        """Write the clips that begin at ``places`` (n,), with their background, into ``sound`` (n, L)."""
        unit = self._unit / self._windows.full_scale
        sound.copy_(self._windows.view.index_select(0, places)).mul_(unit)
        if self._background is not None:
            starts, levels = columns
            volumes = (levels * (unit * self._data.background_volume / LEVELS)).float()
            noise = self._background.index_select(0, starts).float()
            sound.addcmul_(noise, volumes[:, None]).clamp_(-self._unit, self._unit)


def plan_background(data: AudioData, seed: int, epoch: int) -> list[np.ndarray]:
    """Where the background of each global position begins (N,) and its volume (N,) in LEVELS, 0 for none."""
    assert data.noise is not None
    rng, count = StepRng(seed, step=epoch), data.num_train
    numbers = rng.generator("data.background", shared=True).integers(0, len(data.noise), count)
    levels = rng.generator("data.background_volume", shared=True).integers(0, LEVELS, count)
    mixed = rng.generator("data.background_prob", shared=True).random(count) < data.background_prob
    return [data.noise.starts(numbers), levels * mixed]


class AudioEvalSet(ResidentEvalSet):
    """Held-out clips, yielded as sound (n, 1, L) float32 in [-1, 1], each exactly once over all ranks."""

    def __init__(self, data: AudioData, clips: ClipSet, device: torch.device) -> None:
        super().__init__(clips, clips.labels, data.mean, data.std, device)
        self._normaliser = data.normaliser(device)

    def normalise(self, inputs: Tensor) -> Tensor:
        """Sound (n, 1, L) to what the network was trained on, (n, *sample_shape); differentiable."""
        return self._normaliser(inputs)


@dataclass(frozen=True)
class AudioData:
    """Clips in memory or mapped from a file, with their training augmentation.

    rate: Hz; features: "waveform" or "log_mel"; shift: samples by which clips move at most, either way. noise: what is
    mixed in with ``background_prob`` at a volume U(0, background_volume), None for nothing.
    """

    name: str
    class_names: tuple[str, ...]
    train: ClipSet
    held_out: Mapping[str, ClipSet]
    rate: int
    features: str = "waveform"
    shift: int = 0
    noise: Noise | None = None
    background_prob: float = 0.0
    background_volume: float = 0.0
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        length = self.train.shape[1]
        if self.features == "log_mel" and length < log_mel.shortest():
            raise ConfigError(
                f"dataset.seconds gives clips of {length} samples at {self.rate} Hz, but "
                f"dataset.features=log_mel takes {log_mel.shortest()} or more"
            )

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(1, L)."""
        return (1, self.train.shape[1])

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """(1, L), or (1, mels, frames) of log-mel features."""
        return self.input_shape if self.features == "waveform" else log_mel.feature_shape(self.input_shape[1])

    @property
    def splits(self) -> tuple[str, ...]:
        """The held-out sets."""
        return tuple(self.held_out)

    @property
    def mean(self) -> tuple[float, ...]:
        """Of waveforms in [-1, 1], or of log-mel features in [0, 1]."""
        return MEAN if self.features == "waveform" else log_mel.MEAN

    @property
    def std(self) -> tuple[float, ...]:
        """As ``mean``."""
        return STD if self.features == "waveform" else log_mel.STD

    @property
    def num_train(self) -> int:
        """Training clips, silence included."""
        return len(self.train)

    @property
    def num_test(self) -> int:
        """Test clips, silence included."""
        return len(self.held_out["test"])

    def normaliser(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The function from sound (n, 1, L) in [-1, 1] to what the network takes, on ``device``; differentiable."""
        if self.features == "log_mel":
            return log_mel.LogMel(self.rate, device)
        return lambda sound: (sound - MEAN[0]) / STD[0]

    def train_loader(
        self, *, batch_size: int, seed: int, rank: int, world_size: int, device: torch.device, dtype: torch.dtype
    ) -> AudioTrainLoader:
        """This rank's loader; raises ConfigError if ``batch_size`` exceeds the clips or does not divide by ranks."""
        feed = Feed(batch_size, seed, rank, world_size, torch.device(device), dtype)
        feed.check(self.name, self.num_train, "clips")
        return AudioTrainLoader(self, feed)

    def eval_set(self, device: torch.device, split: str = "test") -> AudioEvalSet:
        """The held-out clips of one of ``splits``, on ``device``."""
        if split not in self.held_out:
            raise ValueError(f"{self.name} has no split {split!r}, only {', '.join(map(repr, self.splits))}")
        return AudioEvalSet(self, self.held_out[split], torch.device(device))

    def check_corrupted(
        self, names: Sequence[str], severities: Sequence[int], *, source: str = "official", allow_missing: bool = False
    ) -> tuple[str, ...]:
        """Raises ConfigError: the corruptions are those of images."""
        raise ConfigError(f"evaluators has corruptions, which is for images; {self.name} is sound: use snr_noise")

    def corrupted_set(
        self, device: torch.device, corruption: str, severity: int, *, source: str = "official", seed: int = 0
    ) -> AudioEvalSet:
        """Raises ConfigError."""
        raise ConfigError(f"evaluators has corruptions, which is for images; {self.name} is sound: use snr_noise")

    def identify_corrupted(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """None: there are no such sets of sound."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Source, checksums and sizes, for the record of a run; no paths."""
        sizes = {f"{split}_samples": len(clips) for split, clips in self.held_out.items()}
        return {**self.source, "train_samples": self.num_train, **sizes}
