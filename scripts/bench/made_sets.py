"""Data sets of random content in the official formats, to time how they are read. Nothing can be learnt from them."""

from __future__ import annotations

import pickle
import wave
from pathlib import Path

import numpy as np

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "bed", "cat")


def cifar10(root: Path, train: int) -> None:
    """The six pickles of CIFAR-10 and its label names, ``train`` / 5 images each."""
    folder, rng = root / "cifar-10-batches-py", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        count = train // 5
        content = {
            "data": rng.integers(0, 256, (count, 3072), np.uint8),
            "labels": [int(i) % 10 for i in range(count)],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}, 2))


def cifar100(root: Path, train: int) -> None:
    """The two pickles of CIFAR-100 and its label names, ``train`` images and a fifth of them to test."""
    folder, rng = root / "cifar-100-python", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for name, count in (("train", train), ("test", train // 5)):
        fine = [i % 100 for i in range(count)]
        content = {
            "data": rng.integers(0, 256, (count, 3072), np.uint8),
            "fine_labels": fine,
            "coarse_labels": [label // 5 for label in fine],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {"fine_label_names": [f"fine{i}" for i in range(100)]}
    names |= {"coarse_label_names": [f"coarse{i}" for i in range(20)]}
    (folder / "meta").write_bytes(pickle.dumps(names, protocol=2))


def tiny_imagenet(root: Path, classes: int, per_class: int) -> None:
    """``classes`` word-net folders of 64 x 64 JPEGs, and a raw val/ with its annotations."""
    folder, rng = root / "tiny-imagenet-200", np.random.default_rng(0)
    names = [f"n{10000000 + i:08d}" for i in range(classes)]
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "words.txt").write_text("".join(f"{name}\tword {name}\n" for name in names))
    lines = []
    for number, name in enumerate(names):
        images = folder / "train" / name / "images"
        images.mkdir(parents=True)
        for i in range(per_class):
            _jpeg(images / f"{name}_{i}.JPEG", 64, 64, rng)
        file = f"val_{number}.JPEG"
        _jpeg(folder / "val" / "images" / file, 64, 64, rng)
        lines.append(f"{file}\t{name}\t0\t0\t10\t10\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))


def imagenet(root: Path, classes: int, per_class: int, height: int = 375, width: int = 500) -> None:
    """Class folders of textured JPEGs; at 500 x 375 of about 80 KB, as ImageNet's are on average."""
    rng = np.random.default_rng(0)
    for split, count in (("train", per_class), ("val", 2)):
        for number in range(classes):
            folder = root / "imagenet" / split / f"n{10000000 + number:08d}"
            folder.mkdir(parents=True)
            for i in range(count):
                _jpeg(folder / f"{folder.name}_{i}.JPEG", height, width, rng, quality=85)


def speech_commands(root: Path, per_word: int) -> None:
    """Twelve words of one-second clips of noise, with list files and two background recordings."""
    folder, rng = root / "SpeechCommands" / "speech_commands_v0.02", np.random.default_rng(0)
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for word in WORDS:
        (folder / word).mkdir(parents=True)
        for i in range(per_word):
            file = f"{word}/{i:08x}_nohash_0.wav"
            _wav(folder / file, rng.integers(-8000, 8000, 16000, np.int16))
            if i < 4:
                lists["validation" if i < 2 else "testing"].append(file)
    (folder / "_background_noise_").mkdir()
    for name in ("pink_noise", "running_tap"):
        _wav(folder / "_background_noise_" / f"{name}.wav", rng.integers(-3000, 3000, 960_000, np.int16))
    for name, files in lists.items():
        (folder / f"{name}_list.txt").write_text("".join(f"{file}\n" for file in files))


def _jpeg(path: Path, height: int, width: int, rng: np.random.Generator, quality: int = 75) -> None:
    """Smooth colours with fine grain: compresses like a photograph."""
    from PIL import Image

    cells = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth).astype(np.int16) + rng.integers(-20, 21, (height, width, 3), np.int16)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=quality)


def _wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.astype("<i2").tobytes())
