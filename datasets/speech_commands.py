"""Google Speech Commands: one-second recordings of 35 (v0.01: 30) English words, 16 kHz, by thousands of speakers.

P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition", arXiv:1804.03209. The official lists
split it so that no speaker is in two splits. 12 classes are those of the Kaggle challenge that the paper's peers train
on: ten words, all other words as "unknown", and "silence", of which the set has none: it is cut from the recordings of
background noise, or is zeros, as in FMix.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.places import find_folder, prepare_command
from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import check_tree, read_stamp
from datasets.sound.audio import AudioData
from datasets.sound.background import noise_of, silence
from datasets.sound.clips import ClipSet, Recordings, load_clips
from datasets.sound.options import parse_audio_options
from datasets.sound.spoken_words import MARKER, read_marker
from datasets.subsets import proportional_subset
from randomix.errors import DataError

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE = "unknown", "silence"
_ADDED = ("backward", "follow", "forward", "learn", "visual")  # in v0.02
_WORDS = (
    "bed",
    "bird",
    "cat",
    "dog",
    "down",
    "eight",
    "five",
    "four",
    "go",
    "happy",
    "house",
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
    "wow",
    "yes",
    "zero",
)
WORDS = {"v0.01": _WORDS, "v0.02": tuple(sorted(_WORDS + _ADDED))}
COUNTS = {  # clips in training, validation and test
    "v0.01": {"train": 51_088, "validation": 6_798, "test": 6_835},
    "v0.02": {"train": 84_843, "validation": 9_981, "test": 11_005},
}
RECORDINGS = 6  # of background noise, in both versions
BACKGROUND = "_background_noise_"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}
RATE, LENGTH = 16_000, 16_000
_DEFAULTS = {
    "version": "v0.02",
    "classes": 12,
    "silence": "background",
    "silence_share": 0.1,
    "unknown_share": 1.0,
    "verify": True,
}


@dataclass(frozen=True)
class Listing:
    """The files of a folder: clips ``word/file.wav``, their splits, background recordings, a digest of the lists."""

    names: tuple[str, ...]
    splits: np.ndarray  # (F,) of "train", "validation", "test"
    words: tuple[str, ...]
    background: tuple[str, ...]
    sha256: str


def build(config: Mapping[str, Any]) -> AudioData:
    """Speech Commands with the options of ``configs/dataset/speech_commands.yaml``.

    Raises DataError if files are missing, damaged, in two splits or (with verify) not those of the official set.
    """
    options = parse_audio_options(config, _DEFAULTS)
    root, version = options["root"], options["version"]
    places = (f"SpeechCommands/speech_commands_{version}", f"speech_commands_{version}", ".")
    entry = ENTRIES["speech_commands" if version == "v0.02" else f"speech_commands_{version}"]
    folder = find_folder(entry.command or entry.name, root, places, _is_there)
    fix = prepare_command(entry.command or entry.name, root)
    listing = list_files(folder, fix)
    marker = read_marker(folder)
    verified = _verify(folder, listing, version, entry.digests, options["verify"], marker is not None, fix)
    if marker:
        print(f"note: {folder}: {marker['source']}", file=sys.stderr)
    recordings = load_clips(
        folder,
        listing.names,
        listing.background,
        rate=RATE,
        length=LENGTH,
        cache=options["cache"],
        skip=options["on_bad_sample"] == "skip",
        max_bad_share=options["max_bad_share"],
    )
    class_names, sets = _clip_sets(folder, listing, recordings, options, fix)
    noise = noise_of(recordings.background, "train", LENGTH) if options["background_prob"] > 0 else None
    if noise is not None and not len(noise):
        raise _too_little(folder, "train", "dataset.background_prob=0")
    return AudioData(
        name="speech_commands",
        class_names=class_names,
        train=sets.pop("train"),
        held_out={split: sets[split] for split in ("test", "validation")},
        rate=RATE,
        features=options["features"],
        shift=round(options["time_shift_ms"] * RATE / 1000),
        noise=noise,
        background_prob=options["background_prob"],
        background_volume=options["background_volume"],
        source=_source(listing, recordings, version, verified, marker),
    )


def list_files(folder: Path, fix: str) -> Listing:
    """What a folder in the official layout holds; raises DataError for lists that do not fit the files."""
    try:
        words = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
        names = tuple(f"{word}/{file}" for word in words for file in _wav_files(folder / word))
        background = _wav_files(folder / BACKGROUND) if (folder / BACKGROUND).is_dir() else []
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error
    if not names:
        raise DataError(f"{folder}: expected a folder of .wav files a word, found none; {fix}")
    number = {name: index for index, name in enumerate(names)}
    splits = np.full(len(names), "train", dtype="<U10")
    digest = hashlib.sha256("\n".join(names).encode(errors="surrogateescape"))
    for split, file in LISTS.items():
        listed = _read_list(folder / file, fix)
        missing = [name for name in listed if name not in number]
        if missing:
            raise DataError(
                f"{folder / file}: expected all {len(listed)} listed files in {folder}, found "
                f"{len(listed) - len(missing)}; missing is {missing[0]!r}; {fix}"
            )
        rows = [number[name] for name in listed]
        if (taken := np.flatnonzero(splits[rows] != "train")).size:
            raise DataError(
                f"{folder / file}: expected files of no other split, found {listed[taken[0]]} in "
                f"{LISTS[str(splits[rows[taken[0]]])]} too; {fix}"
            )
        splits[rows] = split
        digest.update(f"\0{split}\0{','.join(sorted(listed))}".encode(errors="surrogateescape"))
    return Listing(names, splits, tuple(words), tuple(f"{BACKGROUND}/{f}" for f in background), digest.hexdigest())


def _is_there(folder: Path) -> bool:
    return any((folder / name).is_file() for name in LISTS.values())


def _wav_files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.suffix == ".wav" and not p.name.startswith("."))


def _read_list(path: Path, fix: str) -> list[str]:
    """The lines ``word/file.wav``, also with ./ before them and with the line ends of other systems."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: expected the official list, found no file; {fix}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {fix}") from error
    names = [line.strip().removeprefix("./") for line in lines if line.strip()]
    if not names:
        raise DataError(f"{path}: expected a list of files, found an empty one; {fix}")
    if len(set(names)) != len(names):
        double = next(name for index, name in enumerate(names) if name in names[:index])
        raise DataError(f"{path}: expected every file once, found {double} twice; {fix}")
    return names


def _verify(
    folder: Path, listing: Listing, version: str, digests: Mapping[str, str], verify: bool, synthetic: bool, fix: str
) -> str | bool:
    """What was verified; DataError with ``verify`` and one printed warning without if the set is another one."""
    if synthetic and verify:
        raise DataError(
            f"{folder}: expected Google Speech Commands, found synthetic speech ({MARKER}); {fix}, or set "
            "dataset.verify=false to use it"
        )
    evidence, differs = "words, counts and speakers", _differences(listing, version)
    stamp = read_stamp(folder)
    if not differs and stamp is not None and stamp.archives == digests:
        evidence, problem = "names and sizes of all files as in the official archive", check_tree(folder, stamp)
        differs = [problem] if problem else []
    if differs and verify:
        raise DataError(
            f"{folder}: not Speech Commands {version}: {'; '.join(differs)}; {fix}, or set "
            "dataset.verify=false to use another set of this format"
        )
    if differs and not synthetic:
        print(
            f"warning: {folder}: not Speech Commands {version} ({'; '.join(differs)}); used because "
            "dataset.verify=false",
            file=sys.stderr,
        )
    return False if differs else evidence


def _differences(listing: Listing, version: str) -> list[str]:
    """In what a folder differs from the official set."""
    found = {split: int((listing.splits == split).sum()) for split in COUNTS[version]}
    return [
        f"{what}: expected {expected}, found {there}"
        for what, expected, there in [
            *((f"{split} clips", COUNTS[version][split], found[split]) for split in found),
            ("missing words", "none", _some(set(WORDS[version]) - set(listing.words))),
            ("other words", "none", _some(set(listing.words) - set(WORDS[version]))),
            ("recordings of background noise", RECORDINGS, len(listing.background)),
            ("speakers in two splits", 0, _shared_speakers(listing)),
        ]
        if expected != there
    ]


def _some(words: Collection[str]) -> str:
    return ", ".join(sorted(words)[:5]) + (", ..." if len(words) > 5 else "") or "none"


def _shared_speakers(listing: Listing) -> int:
    """How many speakers, the part of a file's name before _nohash_, are in more than one split."""
    seen: dict[str, set[str]] = {}
    for name, split in zip(listing.names, listing.splits, strict=True):
        seen.setdefault(name.rpartition("/")[2].partition("_nohash_")[0], set()).add(split)
    return sum(len(splits) > 1 for splits in seen.values())


def _clip_sets(
    folder: Path, listing: Listing, recordings: Recordings, options: Mapping[str, Any], fix: str
) -> tuple[tuple[str, ...], dict[str, ClipSet]]:
    """The names of the classes and the clips of every split with their labels."""
    words = np.array([name.partition("/")[0] for name in listing.names])[recordings.kept]
    splits = listing.splits[recordings.kept]
    short = options["classes"] == len(COMMANDS) + 2
    class_names = (*COMMANDS, UNKNOWN, SILENCE) if short else listing.words
    number = {
        word: class_names.index(word) if word in class_names else class_names.index(UNKNOWN) for word in listing.words
    }
    labels = np.array([number[word] for word in words], np.int64)
    sets = {}
    for split in ("train", *LISTS):
        rows = np.flatnonzero(splits == split)
        if short:
            rows = _thin(rows, labels, words, options["unknown_share"], split)
        extra = np.zeros((0, LENGTH), np.int16)
        if short:
            extra = _silence(folder, recordings, split, int(options["silence_share"] * len(rows)), options["silence"])
        ends = np.full(len(extra), class_names.index(SILENCE) if short else 0, np.int64)
        sets[split] = ClipSet(recordings.clips, rows, np.concatenate([labels[rows], ends]), extra)
    needed = class_names[: len(COMMANDS) + (options["unknown_share"] > 0)] if short else class_names
    absent = [name for index, name in enumerate(needed) if not (sets["train"].labels == index).any()]
    if absent:
        raise DataError(f"{folder}: expected training clips of every class, found none of {', '.join(absent)}; {fix}")
    return class_names, sets


def _thin(rows: np.ndarray, labels: np.ndarray, words: np.ndarray, share: float, split: str) -> np.ndarray:
    """The ascending rows of a split with a fixed ``share`` of those of class "unknown", of each word alike."""
    unknown = labels[rows] == len(COMMANDS)
    if share == 1 or not unknown.any():
        return rows
    others = rows[unknown]
    _, word = np.unique(words[others], return_inverse=True)
    kept = proportional_subset(word, round(share * len(others)), f"speech_commands.unknown.{split}")
    return np.sort(np.concatenate([rows[~unknown], others[kept]]))


def _silence(folder: Path, recordings: Recordings, split: str, count: int, kind: str) -> np.ndarray:
    """``count`` clips (count, L) int16 of silence."""
    if kind == "zeros" or not count:
        return np.zeros((count, LENGTH), np.int16)
    noise = noise_of(recordings.background, split, LENGTH)
    if not len(noise):
        raise _too_little(folder, split, "dataset.silence=zeros")
    return silence(noise, count, f"speech_commands.silence.{split}")


def _too_little(folder: Path, split: str, instead: str) -> DataError:
    return DataError(
        f"{folder / BACKGROUND}: expected recordings of 10 s or more at {RATE} Hz, found none with a part "
        f"for {split}; add some, or set {instead}"
    )


def _source(
    listing: Listing, recordings: Recordings, version: str, verified: str | bool, marker: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What ``describe`` says about where the clips are from."""
    own = "folder in the layout of Speech Commands, not the official one"
    digest = hashlib.sha256(f"{listing.sha256}{recordings.sha256}".encode()).hexdigest()
    return {
        **({"generator": marker["generator"]} if marker else {}),
        "source": marker["source"] if marker else f"Google Speech Commands {version}" if verified else own,
        "verified": verified,
        "sha256": digest,
        "words": len(listing.words),
        "clips": recordings.notes,
        "synthetic": marker is not None,
    }
