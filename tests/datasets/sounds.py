"""Small files in the layout of Speech Commands, and WAV files with every mistake."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np

RATE = 16_000


def wav_bytes(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of int16 samples, as the standard library writes it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((channels, 2, rate, 0, "NONE", ""))
        writer.writeframes(np.asarray(samples, "<i2").tobytes())
    return file.getvalue()


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF file of any chunks."""
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def fmt(kind: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16) -> bytes:
    """The format chunk of a WAV file."""
    frame = channels * bits // 8
    return struct.pack("<HHIIHH", kind, channels, rate, rate * frame, frame, bits)


def tone(number: int, length: int = RATE) -> np.ndarray:
    """Samples (length,) int16 that differ from file to file, over the whole range of values."""
    return np.random.default_rng(number).integers(-32768, 32768, length, dtype=np.int16)


def word_sound(word: int, number: int, length: int = RATE) -> np.ndarray:
    """A sound of one pitch a word, so that a network can tell words apart."""
    rng = np.random.default_rng([word, number])
    wave_form = np.sin(2 * np.pi * (300 + 400 * word) * np.arange(length) / RATE + rng.uniform(0, 6))
    return np.rint(10_000 * wave_form + rng.normal(0, 300, length)).astype(np.int16)


def make_speech_commands(
    root: Path, words: tuple[str, ...], takes: int = 6, noise_seconds: float = 10.0, make=word_sound
) -> dict[str, list[str]]:
    """The official layout below ``root``: lists, words, background noise. Returns the names of each split.

    Take 0 of every word is for validation, take 1 for the test, each by a speaker of its own.
    """
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, word in enumerate(words):
        (root / word).mkdir(parents=True)
        for take in range(takes):
            name = f"{word}/{take:08x}_nohash_{number % 3}.wav"
            (root / name).write_bytes(wav_bytes(make(number, take)))
            splits[{0: "validation", 1: "test"}.get(take, "train")].append(name)
    (root / "validation_list.txt").write_text("".join(f"{n}\n" for n in splits["validation"]))
    (root / "testing_list.txt").write_text("".join(f"{n}\n" for n in splits["test"]))
    (root / "README.md").write_text("## Speech Commands Data Set\n")
    (root / "LICENSE").write_text("CC BY 4.0\n")
    (root / "_background_noise_").mkdir()
    (root / "_background_noise_" / "README.md").write_text("noise\n")
    for number, name in enumerate(("doing_the_dishes", "pink_noise")):
        noise = tone(1000 + number, int(RATE * noise_seconds)) // 8
        (root / "_background_noise_" / f"{name}.wav").write_bytes(wav_bytes(noise))
    return splits
