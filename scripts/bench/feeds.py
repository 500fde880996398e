"""How fast samples come: ours against the plain way (PIL and torchvision, soundfile and torchaudio) in one process.

Both deliver augmented, normalised float32 batches; files are made in the official formats and read from a warm disk
cache. Worker processes are left out on both sides: what counts is images a CPU-second, which is what a core can feed.

Log-mel cannot be fed 8x as fast. A clip is 32 real FFTs of 2,048 samples, 32 * 2.5 * 2048 * 11 = 1.8 MFLOP, made by
the same library in both ways (MKL on an AMD EPYC, at 33 GFLOP/s: 54 us), and a product with the mels, half of which is
left out as zeros: 2.1 MFLOP (at 70 of the core's 90 GFLOP/s: 31 us; smaller blocks take as long). That is 85 us of our
125 to 150, where an eighth of the plain way's 600 to 650 us would be 80 us for everything. Two matrix products in place
of each FFT would take 17 MFLOP.
"""

from __future__ import annotations

import itertools
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import datasets
from bench import made_sets
from bench.loops import MEAN, STD
from bench.measure import Sample, interleaved, quartiles, ratios
from randomix.engine.protocols import Data
from randomix.records import provenance

CPU = torch.device("cpu")
BATCH = 128
Run = Callable[[], None]


@dataclass(frozen=True)
class Feed:
    """One data set: ours and the plain way, each called for ``samples`` samples, and what ours keeps in memory."""

    name: str
    samples: int
    ours: Run
    plain: Run
    what: str  # the plain way, in words
    resident_bytes: int  # of the training samples on the device, a sample; 0: nothing is kept


@dataclass(frozen=True)
class Table:
    """What was measured, by data set."""

    rounds: int
    rows: dict[str, dict[str, Any]]

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        where = provenance.collect(world_size=1, device="cpu", precision="fp32", threads=threads, started=time.time())
        return {"suite": "feed", "rounds": self.rounds, "batch": BATCH, "rows": self.rows, "provenance": where}

    def markdown(self, content: dict[str, Any]) -> str:
        """The table that people read."""
        return _markdown(content)


def measure(rounds: int, progress: Callable[[str], None], names: Sequence[str] | None = None) -> Table:
    """Every feed's samples a CPU-second both ways, interleaved."""
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names or list(FEEDS):
            feed = FEEDS[name](Path(folder) / name)
            found = interleaved({"ours": feed.ours, "plain": feed.plain}, rounds, progress=progress)
            rows[name] = {
                "plain": feed.what,
                "resident_bytes_per_sample": feed.resident_bytes,
                "samples": feed.samples,
                "ours_per_cpu_second": _rates(found["ours"], feed.samples),
                "plain_per_cpu_second": _rates(found["plain"], feed.samples),
                "speed_ratio": list(ratios(found, "plain", "ours", "cpu")),
                "speed_ratio_wall": list(ratios(found, "plain", "ours", "wall")),
            }
    return Table(rounds, rows)


def _markdown(content: dict[str, Any]) -> str:
    where = content["provenance"]
    lines = [
        "# Benchmark: feed",
        "",
        f"Samples a CPU-second, augmented and normalised float32 batches of {content['batch']}, no worker processes, "
        f"{where['threads']} thread(s), {content['rounds']} interleaved rounds; {where['hardware']['cpu']}, torch "
        f"{where['versions']['torch']}. Content is random, files are in the official formats. Brackets: quartiles.",
        "",
        "| feed | ours | plain | ours / plain | kept in memory, bytes a sample | the plain way |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in content["rows"].items():
        ratio = "{1:.1f} [{0:.1f}, {2:.1f}]".format(*row["speed_ratio"])
        kept = f"{row['resident_bytes_per_sample']:,}" if row["resident_bytes_per_sample"] else "none"
        rates = (f"{row[f'{who}_per_cpu_second'][1]:,.0f}" for who in ("ours", "plain"))
        lines.append(f"| {name} | {' | '.join(rates)} | {ratio} | {kept} | {row['plain']} |")
    return "\n".join(lines) + "\n"


def _rates(samples: list[Sample], count: int) -> list[float]:
    low, middle, high = quartiles([s.cpu for s in samples])
    return [count / high, count / middle, count / low]


def _ours(data: Data, samples: int) -> Run:
    """The training loader as the trainer drives it, on and on."""
    loader = data.train_loader(batch_size=BATCH, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32)
    batches = loader.batches(0, 10**6)

    def run() -> None:
        for _ in range(samples // BATCH):
            next(batches)

    return run


def _plain(dataset: torch.utils.data.Dataset, samples: int) -> Run:
    """torch's DataLoader in this process."""

    def forever() -> Iterator[Any]:
        while True:
            yield from torch.utils.data.DataLoader(dataset, batch_size=BATCH, shuffle=True, drop_last=True)

    batches = forever()

    def run() -> None:
        for _ in itertools.islice(batches, samples // BATCH):
            pass

    return run


def _config(name: str, root: Path, **options: Any) -> Data:
    return datasets.build({"name": name, "root": str(root), "verify": False, **options})


def _crop_flip(size: int) -> Any:
    from torchvision import transforms as T

    steps = [T.RandomCrop(size, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
    return T.Compose(steps)


def cifar10(root: Path) -> Feed:
    """torchvision's CIFAR10 with PIL transforms: what every mixing repository does."""
    from torchvision.datasets import CIFAR10

    made_sets.cifar10(root, 5120)

    class Unchecked(CIFAR10):
        def _check_integrity(self) -> bool:
            return True

        def _load_meta(self) -> None:
            self.classes = []

    data = _config("cifar10", root, crop_padding=4, flip=True)
    theirs = Unchecked(str(root), transform=_crop_flip(32))
    size = 2 * 40 * 40 * 3
    return Feed("cifar10", 5120, _ours(data, 5120), _plain(theirs, 5120), "torchvision CIFAR10, PIL transforms", size)


def tiny_imagenet(root: Path) -> Feed:
    """torchvision's ImageFolder, which decodes every JPEG in every epoch."""
    from torchvision.datasets import ImageFolder

    made_sets.tiny_imagenet(root, 8, 160)
    data = _config("tiny_imagenet", root, crop_padding=4, flip=True)
    theirs = ImageFolder(str(root / "tiny-imagenet-200" / "train"), transform=_crop_flip(64))
    size = 2 * 72 * 72 * 3
    return Feed("tiny_imagenet", 1280, _ours(data, 1280), _plain(theirs, 1280), "torchvision ImageFolder", size)


def imagenet(root: Path) -> Feed:
    """torchvision's ImageFolder with RandomResizedCrop, flip, ToTensor and Normalize."""
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    made_sets.imagenet(root, 2, 64)
    data = _config("imagenet", root, workers=0)
    steps = [T.RandomResizedCrop(224), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
    theirs = ImageFolder(str(root / "imagenet" / "train"), transform=T.Compose(steps))
    return Feed("imagenet", 128, _ours(data, 128), _plain(theirs, 128), "torchvision ImageFolder, PIL transforms", 0)


class _Clips(torch.utils.data.Dataset):
    """One WAV file after another: read, shift by up to 100 ms, mix with background noise, transform."""

    def __init__(self, root: Path, transform: Callable[[Tensor], Tensor]) -> None:
        folder = root / "SpeechCommands" / "speech_commands_v0.02"
        self.files = sorted(f for f in folder.glob("*/*.wav") if not f.parent.name.startswith("_"))
        self.noises = [self._read(file) for file in sorted((folder / "_background_noise_").iterdir())]
        self.transform = transform

    @staticmethod
    def _read(file: Path) -> Tensor:
        import soundfile

        return torch.from_numpy(soundfile.read(file, dtype="float32")[0])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        start = random.randrange(3201)
        sound = torch.nn.functional.pad(self._read(self.files[index]), (1600, 1600))[start : start + 16000]
        if random.random() < 0.8:
            noise = random.choice(self.noises)
            place = random.randrange(len(noise) - 16000)
            sound = sound + random.uniform(0, 0.1) * noise[place : place + 16000]
        return self.transform(sound.clamp(-1, 1)[None]), 0


def _speech(root: Path, features: str, transform: Callable[[Tensor], Tensor], words: str) -> Feed:
    made_sets.speech_commands(root, 60)
    data = _config("speech_commands", root, features=features)
    size = 2 * (16000 + 3200)
    name = f"speech_commands {features}"
    return Feed(name, 640, _ours(data, 640), _plain(_Clips(root, transform), 640), words, size)


def speech_waveform(root: Path) -> Feed:
    """One-second clips as they are."""
    return _speech(root, "waveform", lambda sound: sound / 0.1, "soundfile and torch, clip by clip")


def speech_log_mel(root: Path) -> Feed:
    """1 x 32 x 32 log-mel features."""
    from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

    mel = MelSpectrogram(16000, n_fft=2048, hop_length=512, n_mels=32, norm="slaney", mel_scale="slaney")
    decibels = torch.nn.Sequential(mel, AmplitudeToDB(top_db=80))

    def transform(sound: Tensor) -> Tensor:
        features = decibels(sound)
        return (features - features.amax() + 40) / 80

    return _speech(root, "log_mel", transform, "the same, then torchaudio's MelSpectrogram and AmplitudeToDB")


FEEDS: dict[str, Callable[[Path], Feed]] = {
    "cifar10": cifar10,
    "tiny_imagenet": tiny_imagenet,
    "imagenet": imagenet,
    "speech_waveform": speech_waveform,
    "speech_log_mel": speech_log_mel,
}
