"""Spoken words from a synthesiser, in the layout of Speech Commands: python scripts/make_spoken_words.py /tmp/spoken.

A stand-in where the real set is not at hand: espeak-ng says each word with many voices, which differ in accent, timbre,
speed and pitch, at a random place and loudness in light noise. Speakers are in one split only. The folder is marked as
synthetic (SYNTHETIC.json), and everything that reads it says so. The same arguments and the same espeak-ng give equal
files; an interrupted run continues. Exit codes: 0 done, 2 wrong argument or no espeak-ng, 5 storage.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import wave
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

import numpy as np  # noqa: E402

from datasets.sound.spoken_words import MARKER, SOURCE  # noqa: E402
from randomix.errors import DataError, RunError  # noqa: E402
from randomix.files import storage_errors, write_atomic  # noqa: E402

WORDS = (
    "backward",
    "bed",
    "bird",
    "cat",
    "dog",
    "down",
    "eight",
    "five",
    "follow",
    "forward",
    "four",
    "go",
    "happy",
    "house",
    "learn",
    "left",
    "marvin",
    "nine",
    "no",
    "off",
    "on",
    "one",
    "right",
    "seven",
    "sheila",
    "six",
    "stop",
    "three",
    "tree",
    "two",
    "up",
    "visual",
    "wow",
    "yes",
    "zero",
)
RATE, LENGTH = 16_000, 16_000
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbcwmd", "en-gb-x-gbclan", "en-029")
TIMBRES = (
    "f1",
    "f2",
    "f3",
    "f4",
    "f5",
    "m1",
    "m2",
    "m3",
    "m4",
    "m5",
    "m6",
    "m7",
    "m8",
    "klatt",
    "klatt2",
    "klatt3",
    "klatt4",
    "adam",
    "belinda",
    "benjamin",
    "caleb",
    "david",
    "linda",
    "michael",
    "steph",
    "Alicia",
    "Andrea",
    "Andy",
    "Annie",
    "Gene",
    "Lee",
    "Mario",
    "Michael",
    "Mike",
)
BACKGROUND = {"white_noise": 0.0, "pink_noise": 0.5, "brown_noise": 1.0, "mains_hum": 1.0, "waves": 0.5, "ticking": 0.5}
BACKGROUND_SECONDS = 60
MIN_SPEAKERS = 10  # one in ten speakers is held out for validation, one for the test
MIN_PER_CLASS = 8  # the fourth speaker is for validation, the eighth for the test: each word is in all three splits


@dataclass(frozen=True)
class Speaker:
    """A voice of espeak-ng: accent, timbre, words a minute and pitch (0 to 99)."""

    name: str
    accent: str
    timbre: str
    speed: int
    pitch: int
    split: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        settings = {
            "words": sorted(set(options.words)),
            "per_class": options.per_class,
            "speakers": options.speakers,
            "seed": options.seed,
            "espeak_ng": espeak_version(),
        }
        made = make(options.out, settings)
    except RunError as error:
        print(f"make_spoken_words.py: {error}", file=sys.stderr)
        return error.exit_code
    words, clips = len(settings["words"]), len(settings["words"]) * options.per_class
    state = "" if made else ", already there"
    print(
        f"{options.out}: {clips} synthetic clips of {words} words by {options.speakers} voices{state}; "
        f"use: dataset=speech_commands dataset.root={options.out} dataset.verify=false"
    )
    return 0


def make(out: Path, settings: dict[str, Any]) -> bool:
    """Write the data set to ``out``, False if it is there already.

    Everything is written next to it first, so that a folder with its name is whole. Raises DataError if ``out`` holds
    anything else, StorageError if it cannot be written.
    """
    marker = {"source": SOURCE, "generator": settings}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if _read_json(out / MARKER) == marker:
            return False
        raise DataError(f"{out}: expected an empty or a new folder, found other content; name another folder")
    part = out.with_name(f"{out.name}.part")
    with storage_errors(part):
        if part.exists() and _read_json(part / MARKER) != marker:  # of other settings
            if not (part / MARKER).exists() and any(part.iterdir()):
                raise DataError(f"{part}: expected what an interrupted run left, found other content; remove it")
            shutil.rmtree(part)
        part.mkdir(parents=True, exist_ok=True)
        write_atomic(part / MARKER, json.dumps(marker, indent=1))
        for folder in (*settings["words"], "_background_noise_"):
            (part / folder).mkdir(exist_ok=True)
        _write_clips(part, settings)
        for name in BACKGROUND:
            _write_once(part / "_background_noise_" / f"{name}.wav", lambda n=name: background(settings["seed"], n))
        if out.exists():
            out.rmdir()
        part.rename(out)
    return True


def _write_clips(part: Path, settings: dict[str, Any]) -> None:
    """All clips, by as many processes of espeak-ng as there are cores, and the two lists."""
    people = speakers(settings["seed"], settings["speakers"])
    jobs = [
        (word, people[number % len(people)], number // len(people))
        for word in settings["words"]
        for number in range(settings["per_class"])
    ]
    lists: dict[str, list[str]] = {"validation": [], "testing": []}
    for word, speaker, take in jobs:
        if speaker.split in lists:
            lists[speaker.split].append(f"{word}/{speaker.name}_nohash_{take}.wav")
    for split, names in lists.items():
        write_atomic(part / f"{split}_list.txt", "".join(f"{name}\n" for name in sorted(names)))

    def write(job: tuple[str, Speaker, int]) -> None:
        word, speaker, take = job
        path = part / word / f"{speaker.name}_nohash_{take}.wav"
        _write_once(path, lambda: clip(word, speaker, take, settings["seed"]))

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(write, jobs):  # raises the first error
            pass


def speakers(seed: int, count: int) -> list[Speaker]:
    """``count`` different voices. Of every ten one is for validation and one for the test."""
    found: dict[tuple[Any, ...], Speaker] = {}
    rng = _rng(seed, "speakers")
    while len(found) < count:
        key = (
            str(rng.choice(ACCENTS)),
            str(rng.choice(TIMBRES)),
            int(rng.integers(120, 201)),
            int(rng.integers(25, 76)),
        )
        name = hashlib.sha256(f"{seed} {key}".encode()).hexdigest()[:8]
        split = {3: "validation", 7: "testing"}.get(len(found) % 10, "training")
        found.setdefault(key, Speaker(name, *key, split))
    return list(found.values())


def clip(word: str, speaker: Speaker, take: int, seed: int) -> np.ndarray:
    """One second (16000,) int16: the word at a random place and loudness, in pink noise 15 to 40 dB below it."""
    rng = _rng(seed, f"{word} {speaker.name} {take}")
    speed = round(speaker.speed * rng.uniform(0.9, 1.1))
    pitch = int(np.clip(speaker.pitch + rng.integers(-5, 6), 0, 99))
    voice = say(word, f"{speaker.accent}+{speaker.timbre}", speed, pitch)[:LENGTH]
    sound = np.zeros(LENGTH)
    start = int(rng.integers(0, LENGTH - len(voice) + 1))
    sound[start : start + len(voice)] = voice * rng.uniform(0.1, 0.9) / max(np.abs(voice).max(), 1e-9)
    loudness = np.sqrt((sound**2).sum() / len(voice))
    return _to_int16(sound + loudness * 10 ** (-rng.uniform(15, 40) / 20) * _coloured(rng, LENGTH, 0.5))


def say(word: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """What espeak-ng says, in [-1, 1] at 16 kHz, without the silence around it."""
    from scipy.signal import resample_poly

    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", word]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode or len(done.stdout) < 44:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise DataError(
            f"espeak-ng: expected sound for {word!r} from voice {voice}, found exit code {done.returncode} "
            f"({reason[0] if reason else 'no message'}); reinstall espeak-ng"
        )
    with wave.open(io.BytesIO(done.stdout)) as reader:
        rate = reader.getframerate()
        sound = np.frombuffer(reader.readframes(2**24), "<i2") / 32768  # it streams: its header knows no length
    loud = np.flatnonzero(np.abs(sound) > 0.01)
    if not len(loud):
        raise DataError(
            f"espeak-ng: expected sound for {word!r} from voice {voice}, found silence; choose another word"
        )
    divisor = np.gcd(rate, RATE)
    return resample_poly(sound[loud[0] : loud[-1] + 1], RATE // divisor, rate // divisor)


def background(seed: int, name: str) -> np.ndarray:
    """A minute (960000,) int16 of noise of a colour, with hum, swell or ticks as its name says."""
    rng, count = _rng(seed, f"background {name}"), BACKGROUND_SECONDS * RATE
    sound, time = _coloured(rng, count, BACKGROUND[name]), np.arange(count) / RATE
    if name == "mains_hum":
        sound = 0.3 * sound + sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6.3)) / k for k in range(1, 8))
    elif name == "waves":
        sound = sound * (1 + np.sin(2 * np.pi * time / rng.uniform(5, 9))) / 2
    elif name == "ticking":
        sound = 0.2 * sound + 3 * np.exp(-(time % 0.5) * 200) * rng.standard_normal(count)
    return _to_int16(0.2 * sound / sound.std())


def espeak_version() -> str:
    """The version of espeak-ng; raises DataError if it is not installed."""
    try:
        done = subprocess.run(["espeak-ng", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise DataError(
            "espeak-ng: expected to be installed, found no such program; run: apt install espeak-ng "
            "(Debian, Ubuntu) or brew install espeak-ng"
        ) from error
    return done.stdout.partition("Data at")[0].rpartition(":")[2].strip()


def _coloured(rng: np.random.Generator, count: int, slope: float) -> np.ndarray:
    """Noise (count,) of standard deviation 1 whose amplitude falls with frequency to the power ``slope``."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20)  # flat below what can be heard
    sound = np.fft.irfft(spectrum / frequency**slope, count)
    return sound / sound.std()


def _to_int16(sound: np.ndarray) -> np.ndarray:
    return np.rint(sound * 32767).clip(-32768, 32767).astype(np.int16)


def _write_once(path: Path, make_sound: Any) -> None:
    """A 16-bit mono WAV file; one that is there is whole and stays."""
    if path.exists():
        return
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE, 0, "NONE", ""))
        writer.writeframes(make_sound().astype("<i2").tobytes())
    write_atomic(path, file.getvalue(), durable=False)


def _rng(seed: int, stream: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(stream.encode())])


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _parser() -> argparse.ArgumentParser:
    def at_least(low: int) -> Any:
        def number(text: str) -> int:
            if (value := int(text)) < low:
                raise argparse.ArgumentTypeError(f"{value} is below {low}")
            return value

        return number

    def word(text: str) -> str:
        if not (text.isascii() and text.isalpha() and text.islower()):
            raise argparse.ArgumentTypeError(f"{text!r} is no word of the letters a to z")
        return text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new or an empty folder")
    parser.add_argument("--per-class", type=at_least(MIN_PER_CLASS), default=100, help="default: 100")
    parser.add_argument("--words", nargs="+", type=word, default=WORDS, help="default: the 35 of Speech Commands v0.02")
    parser.add_argument("--speakers", type=at_least(MIN_SPEAKERS), default=50, help="voices (default: 50)")
    parser.add_argument("--seed", type=at_least(0), default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
