"""Your own recordings: a folder a class below ``train`` and ``test``, and below ``validation`` if you have one.

    ROOT/train/CLASS/*.wav   ROOT/test/CLASS/*.wav   [ROOT/validation/CLASS/*.wav]   [ROOT/_background_noise_/*.wav]

WAV, FLAC and Ogg files, mono, all at one rate. Nothing is resampled: see ``docs/your_own_recordings.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.formats.class_folders import split_folders
from datasets.formats.wav import ENDINGS
from datasets.places import data_root
from datasets.sound.audio import AudioData
from datasets.sound.background import Noise, noise_of
from datasets.sound.clips import ClipSet, Recordings, load_clips
from datasets.sound.options import parse_audio_options
from datasets.sound.spoken_words import read_marker
from randomix.errors import ConfigError, DataError

VALIDATION, BACKGROUND = "validation", "_background_noise_"
_DEFAULTS = {
    "train_folder": "train",
    "test_folder": "test",
    "sample_rate": 16_000,
    "seconds": 1.0,
    "background_prob": 0.0,
}


def build(config: Mapping[str, Any]) -> AudioData:
    """The recordings below ``dataset.root`` with the options of ``configs/dataset/audio_folder.yaml``.

    Raises DataError if a split lacks a class, has another one, or holds no recording of one.
    """
    options = parse_audio_options(config, _DEFAULTS)
    root, rate, length = _root(options), options["sample_rate"], round(options["seconds"] * options["sample_rate"])
    if length < 1:
        raise ConfigError(f"dataset.seconds is {options['seconds']}, less than one sample at {rate} Hz")
    folders = {"train": options["train_folder"], "test": options["test_folder"]}
    taken = [(root / folder).resolve() for folder in folders.values()]
    if (root / VALIDATION).is_dir() and (root / VALIDATION).resolve() not in taken:
        folders[VALIDATION] = VALIDATION
    class_names, names, labels = _files(root, folders)
    background = _background(root, options["background_prob"])
    recordings = load_clips(
        root,
        [name for split in folders for name in names[split]],
        background,
        rate=rate,
        length=length,
        cache=options["cache"],
        skip=options["on_bad_sample"] == "skip",
        max_bad_share=options["max_bad_share"],
    )
    marker = read_marker(root)
    if marker:
        print(f"note: {root}: {marker['source']}", file=sys.stderr)
    sets = _clip_sets(root, class_names, labels, recordings)
    return AudioData(
        name="audio_folder",
        class_names=class_names,
        train=sets.pop("train"),
        held_out=sets,
        rate=rate,
        features=options["features"],
        shift=round(options["time_shift_ms"] * rate / 1000),
        noise=_noise(root, recordings, length) if background else None,
        background_prob=options["background_prob"],
        background_volume=options["background_volume"],
        source={
            "source": marker["source"] if marker else "folder of recordings",
            "sha256": recordings.sha256,
            "clips": recordings.notes,
            "synthetic": marker is not None,
        },
    )


def _root(options: Mapping[str, Any]) -> Path:
    if options["root"] is None:
        raise ConfigError(
            "dataset.root is null, expected the folder of your recordings, with "
            f"{options['train_folder']} and {options['test_folder']} in it"
        )
    root = data_root(options["root"])
    split_folders(root, options)
    for key in ("train_folder", "test_folder"):
        if not (root / options[key]).is_dir():
            raise DataError(
                f"{root / options[key]}: expected a folder with one folder a class, found none; set "
                f"dataset.root and dataset.{key} to where the recordings are"
            )
    return root


def _files(
    root: Path, folders: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, list[str]], dict[str, np.ndarray]]:
    """The classes of the training folder, and of every split its files, relative to ``root``, with their labels."""
    class_names: tuple[str, ...] = ()
    names, labels = {}, {}
    for split, folder in folders.items():
        classes = tuple(sorted(p.name for p in (root / folder).iterdir() if p.is_dir() and p.name[0] not in "._"))
        class_names = class_names or classes
        if len(class_names) < 2:
            raise DataError(
                f"{root / folder}: expected folders of 2 classes or more, found {len(class_names)}; "
                "put the recordings of each class into a folder of its own"
            )
        for what, others in (("no", set(class_names) - set(classes)), ("also", set(classes) - set(class_names))):
            if others:
                raise DataError(
                    f"{root / folder}: expected the {len(class_names)} classes of {folders['train']}, "
                    f"found {what} {', '.join(sorted(others)[:5])}; make them agree"
                )
        others: list[Path] = []
        files = [
            sorted(f"{folder}/{name}/{p.name}" for p in _recordings(root / folder / name, others)) for name in classes
        ]
        if others:
            print(
                f"warning: {root / folder}: what is no recording is ignored ({len(others)}), folders in class "
                f"folders too; the first is {others[0]}",
                file=sys.stderr,
            )
        if [] in files:
            raise DataError(
                f"{root / folder / classes[files.index([])]}: expected recordings "
                f"({', '.join(ENDINGS)}), found none; add some or remove the class everywhere"
            )
        names[split] = [name for group in files for name in group]
        labels[split] = np.repeat(np.arange(len(files)), [len(group) for group in files])
    return class_names, names, labels


def _recordings(folder: Path, others: list[Path] | None = None) -> list[Path]:
    """The recordings in ``folder``; what else is there, hidden names apart, is added to ``others``."""
    seen = [p for p in folder.iterdir() if not p.name.startswith(".")]
    found = [p for p in seen if p.suffix.lower() in ENDINGS and not p.is_dir()]
    if others is not None:
        others += sorted(set(seen) - set(found))
    return found


def _background(root: Path, prob: float) -> list[str]:
    if prob == 0:
        return []
    folder = root / BACKGROUND
    files = sorted(f"{BACKGROUND}/{p.name}" for p in _recordings(folder)) if folder.is_dir() else []
    if not files:
        raise DataError(
            f"{folder}: expected recordings of background noise for dataset.background_prob={prob:g}, "
            "found none; add some, or set dataset.background_prob=0"
        )
    return files


def _noise(root: Path, recordings: Recordings, length: int) -> Noise:
    noise = noise_of(recordings.background, "all", length)
    if not len(noise):
        longest = max(map(len, recordings.background))
        raise DataError(
            f"{root / BACKGROUND}: expected recordings of {length} samples or more, found at most "
            f"{longest}; add longer ones, or set dataset.background_prob=0"
        )
    return noise


def _clip_sets(
    root: Path, class_names: tuple[str, ...], labels: Mapping[str, np.ndarray], recordings: Recordings
) -> dict[str, ClipSet]:
    """The clips of every split that could be used, with their labels."""
    nothing = np.zeros((0, recordings.clips.shape[1]), np.int16)
    places = np.cumsum(recordings.kept) - 1  # of each file among the clips
    sets, start = {}, 0
    for split, own in labels.items():
        kept = recordings.kept[start : start + len(own)]
        sets[split] = ClipSet(recordings.clips, places[start : start + len(own)][kept], own[kept], nothing)
        lost = set(range(len(class_names))) - set(own[kept].tolist())
        if lost:
            raise DataError(
                f"{root}: expected recordings of every class in {split}, found only bad ones of "
                f"{class_names[min(lost)]}; dataset.on_bad_sample=error says what is wrong"
            )
        start += len(own)
    return sets
