"""What published corrupted test sets share: where they lie, and what is said about those that are not whole."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from datasets.places import data_root, prepare_command
from randomix.errors import ConfigError, DataError

_said: set[str] = set()
_PARTS, _PART = 32, 4096  # how many blocks of a file are looked at, and their bytes
_P = TypeVar("_P")


class Published(Protocol):
    """The corrupted test sets that the authors of the corruptions published for a data set."""

    def check(self, names: Sequence[str], severities: Sequence[int], allow_missing: bool) -> tuple[str, ...]:
        """Those of ``names`` that are there; raises DataError for what is damaged or, if not allowed, missing."""

    def identify(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """A digest of the size and of parts of each file or folder of ``names`` that is there, by its name."""


class PublishedImages(Published, Protocol):
    """A published set that fits in memory."""

    def cell(self, name: str, severity: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Images (N, H, W, C) uint8 of one corruption and severity, and labels (N,); raises DataError.

        None for labels: those of the test set, in its order.
        """


def roots(config: Mapping[str, Any]) -> tuple[Path, ...]:
    """Where to look: ``dataset.corrupted_root`` alone, without one beside the data set and in the usual place."""
    if config.get("corrupted_root"):
        return (Path(config["corrupted_root"]).expanduser(),)
    return tuple(dict.fromkeys([data_root(config.get("root")), data_root()]))


def find(title: str, entry: str, places: Sequence[Path], holds: Callable[[Path], bool]) -> Path:
    """The folder of the set ``title``, one of ``places`` or in one; raises DataError with what gets it.

    entry: its name for scripts/prepare_data.py. holds: whether a folder has anything of the set.
    """
    for folder in (folder for place in places for folder in (place / title, place)):
        if holds(folder):
            return folder
    raise DataError(
        f"{title}: not found in {' or '.join(map(str, places))}; {fix(entry, places)}, or set dataset."
        "corrupted_root=FOLDER to where it is, or evaluator.corruptions.source=generated"
    )


def parts_digest(*paths: Path) -> str:
    """16 digits of the SHA-256 of sizes and 32 blocks, spread over each file: 19 files of 150 MB take milliseconds."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(b"%d;" % size)
            for number in range(_PARTS):
                file.seek((size - _PART) * number // (_PARTS - 1) if size > _PART else 0)
                digest.update(file.read(_PART))
    return digest.hexdigest()[:16]


def fix(entry: str, places: Sequence[Path]) -> str:
    """The words that end a message about missing or damaged files."""
    return prepare_command(entry, None if places[0] == data_root() else places[0])


def without_missing(
    folder: Path, names: Sequence[str], missing: Mapping[str, Sequence[str]], allow_missing: bool, mend: str
) -> tuple[str, ...]:
    """``names`` without those that lack files (``missing``, by name); DataError with all of these if not allowed."""
    lacking = [file for files in missing.values() for file in files]
    if lacking and not allow_missing:
        raise DataError(
            f"{folder}: missing {', '.join(lacking)}; {mend}, or leave out what is missing with "
            "evaluator.corruptions.allow_missing=true"
        )
    there = tuple(name for name in names if name not in missing)
    if not there:
        raise DataError(f"{folder}: none of {', '.join(names)} is there; {mend}")
    if lacking:
        say_once(f"warning: {folder}: without {', '.join(missing)}, of which files are missing")
    return there


def require_published(name: str, published: _P | None) -> _P:
    """The published set; ConfigError if the data set has none."""
    if published is None:
        raise ConfigError(
            f"evaluator.corruptions.source=official: no corrupted test set of {name} was published; "
            "set evaluator.corruptions.source=generated"
        )
    return published


def say_once(line: str) -> None:
    """Print a line that has not been printed before."""
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)
