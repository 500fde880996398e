"""Images in one folder a class: ``<split>/<class>/*.jpg``. The list of classes is fixed, not what happens to be there.

A class folder that is missing, extra or empty is an error: a scan that just numbered the folders it found would shift
every later label without a word. Hidden files are ignored, files of other kinds too, but with a warning. 100,000 files
take 0.07 s, all of ImageNet about one second: there is no index to go stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from randomix.errors import ConfigError, DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm")  # in upper case as well
_NAMED = 5  # of a list of wrong folders


@dataclass(frozen=True)
class ImageFiles:
    """The images of one split, ordered by class, then by name: ``names`` (N,) of dtype S, ``labels`` (N,) int64.

    Arrays instead of lists of strings: data workers get a copy, and theirs stays 40 MB for ImageNet.
    """

    folder: Path
    classes: tuple[str, ...]
    names: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Where sample ``index`` lies."""
        return os.path.join(self.folder, self.classes[self.labels[index]], os.fsdecode(self.names[index]))

    def read(self, index: int) -> bytes:
        """The bytes of sample ``index``; raises DataError naming its file."""
        path = self.path(index)
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error

    def subset(self, indices: np.ndarray) -> ImageFiles:
        """Some of the images, the classes unchanged."""
        return ImageFiles(self.folder, self.classes, self.names[indices], self.labels[indices])


def split_folders(root: Path, options: Mapping[str, Any]) -> tuple[Path, Path]:
    """Where the training and the test samples of one's own set lie; raises ConfigError if that is one folder."""
    train, test = (root / options[key] for key in ("train_folder", "test_folder"))
    if train.resolve() == test.resolve():
        raise ConfigError(
            f"dataset.train_folder={options['train_folder']} and "
            f"dataset.test_folder={options['test_folder']} are one folder, expected two: what a network "
            "was trained on does not test it"
        )
    return train, test


def class_names(folder: Path) -> tuple[str, ...]:
    """The names of the class folders in ``folder``, sorted; hidden ones are none. Raises DataError."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    except OSError as error:
        raise DataError(
            f"{folder}: expected a folder with one folder a class, found none that can be read "
            f"({error.strerror}); correct dataset.root"
        ) from error
    return tuple(names)


def digest_of(*splits: ImageFiles, sizes: bool = False) -> str:
    """SHA-256 of classes, file names and labels; with ``sizes`` also of every file's size and time."""
    digest = hashlib.sha256()
    for files in splits:
        digest.update("\0".join(files.classes).encode(errors="surrogateescape"))
        digest.update(b"\0".join(files.names.tolist()) + files.labels.astype("<i8").tobytes())
        for index in range(len(files)) if sizes else ():
            with contextlib.suppress(OSError):
                stat = os.stat(files.path(index))
                digest.update(b"%d %d;" % (stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()


def scan(folder: Path, classes: Sequence[str], fix: str) -> ImageFiles:
    """The images of ``folder``, whose class folders have to be exactly ``classes``; labels are places in that list.

    fix: ends the message about missing, extra or empty class folders, all of which raise DataError.
    """
    found = class_names(folder)
    for wrong, what in ((sorted(set(classes) - set(found)), "missing"), (sorted(set(found) - set(classes)), "extra")):
        if wrong:
            names = ", ".join(wrong[:_NAMED]) + (", ..." if len(wrong) > _NAMED else "")
            raise DataError(
                f"{folder}: expected {len(classes)} class folders, found {len(found)}: {what} {names}; {fix}"
            )
    names, labels, others = [], [], []
    for label, name in enumerate(classes):
        images = _images(folder / name, others)
        if not images:
            raise DataError(f"{folder / name}: expected images ({' '.join(SUFFIXES)}), found none; {fix}")
        names += images
        labels.append(np.full(len(images), label, np.int64))
    if others:
        print(
            f"warning: {folder}: what is no image file is ignored, folders in class folders too ({len(others)}), "
            f"the first is {others[0]}",
            file=sys.stderr,
        )
    return ImageFiles(folder, tuple(classes), np.array(names, dtype=np.bytes_), np.concatenate(labels))


def _images(folder: Path, others: list[str]) -> list[bytes]:
    """The names of the image files in ``folder``, sorted as bytes; what else is there is added to ``others``."""
    images = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                image = os.path.splitext(entry.name)[1].lower() in SUFFIXES
                if image and entry.is_symlink() and not os.path.exists(entry.path):
                    raise DataError(
                        f"{entry.path}: expected an image, found a link that leads nowhere; mount the disk "
                        "that it leads to, or remove it"
                    )
                if image and entry.is_file():
                    images.append(os.fsencode(entry.name))
                else:
                    others.append(entry.path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    return sorted(images)
