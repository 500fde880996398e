"""The folders of Tiny-ImageNet: which image belongs to which class, in every layout in which people keep the set.

``val`` comes with all images in one folder and a list of their classes; many sort it into one folder a class. Both give
the same samples in the same order. The classes are those of wnids.txt, sorted, as a scan of class folders numbers them.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from randomix.errors import DataError

CLASSES, TRAIN_EACH, VAL_EACH = 200, 500, 50
ANNOTATIONS = "val_annotations.txt"
SUFFIXES = (".jpeg", ".jpg")


@dataclass(frozen=True, order=True)
class Photo:
    """An image file; photos are ordered by name, which does not depend on the layout."""

    name: str
    path: str
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Tree:
    """All images of a folder that are consistent; ``wnids`` are sorted, ``names`` are their words.

    sorted_val: whether ``val`` has class folders.
    """

    folder: Path
    wnids: tuple[str, ...]
    names: tuple[str, ...]
    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    sorted_val: bool

    def digest(self) -> str:
        """SHA-256 over class, name and size of every image, in order: the same in every layout."""
        return self._digest(lambda photo: f"{self.wnids[photo.label]}/{photo.name} {photo.size}")

    def times(self) -> str:
        """SHA-256 over the times at which the images were changed, in order."""
        return self._digest(lambda photo: str(photo.mtime_ns))

    def _digest(self, text: Callable[[Photo], str]) -> str:
        lines = [text(photo) for photo in (*self.train, *self.val)]
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def read_tree(folder: Path, fix: str) -> Tree:
    """The classes and images below ``folder``; raises DataError, ending in ``fix``, for what contradicts itself."""
    wnids = _wnids(folder / "wnids.txt", fix)
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt", fix) if "\t" in line)
    _check_folders(folder / "train", wnids, fix)
    train = [photo for label, wnid in enumerate(wnids) for photo in _class_photos(folder / "train" / wnid, label, fix)]
    val, sorted_val = _val(folder / "val", wnids, fix)
    names = tuple(words.get(wnid, wnid) for wnid in wnids)
    return Tree(folder, wnids, names, tuple(train), tuple(val), sorted_val)


def differences(tree: Tree) -> Iterator[str]:
    """What tells a consistent tree from the official set by names and counts, one line each."""
    if len(tree.wnids) != CLASSES:
        yield f"{tree.folder / 'wnids.txt'}: expected {CLASSES} classes, found {len(tree.wnids)}"
    for part, photos, each in (("train", tree.train, TRAIN_EACH), ("val", tree.val, VAL_EACH)):
        counts = np.bincount([photo.label for photo in photos], minlength=len(tree.wnids))
        for wnid, count in zip(tree.wnids, counts, strict=True):
            if count != each:
                yield f"{tree.folder / part}: expected {each} images of {wnid}, found {count}"
    for photo in tree.train:
        if not photo.name.startswith(f"{tree.wnids[photo.label]}_"):
            yield f"{photo.path}: expected a name that starts with {tree.wnids[photo.label]}_, found {photo.name}"
    for wnid, name in zip(tree.wnids, tree.names, strict=True):
        if name == wnid:
            yield f"{tree.folder / 'words.txt'}: expected the words of {wnid}, found none"


def _lines(path: Path, fix: str) -> list[str]:
    """The lines of a text file that are not empty; raises DataError if it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {fix}") from error
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _wnids(path: Path, fix: str) -> tuple[str, ...]:
    wnids = [line.strip() for line in _lines(path, fix)]
    for wnid, count in Counter(wnids).items():
        if not re.fullmatch(r"\w+", wnid) or count > 1:
            raise DataError(f"{path}: expected names of classes, each once, found {wnid[:60]!r} {count} times; {fix}")
    if len(wnids) < 2:
        raise DataError(f"{path}: expected names of at least two classes, found {len(wnids)}; {fix}")
    return tuple(sorted(wnids))


def _check_folders(folder: Path, wnids: Sequence[str], fix: str, but: str = "") -> None:
    """Every class of wnids.txt has a folder here, and there is no other folder, except ``but``."""
    try:
        with os.scandir(folder) as entries:
            found = {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()} - {but}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); {fix}") from error
    for wrong, what in ((set(wnids) - found, "missing"), (found - set(wnids), "extra")):
        if wrong:
            names = ", ".join(sorted(wrong)[:5]) + (", ..." if len(wrong) > 5 else "")
            raise DataError(
                f"{folder}: expected the {len(wnids)} class folders of wnids.txt, found {len(found)}: "
                f"{what} {names}; {fix}"
            )


def _class_photos(folder: Path, label: int, fix: str) -> list[Photo]:
    """The images of one class folder or of ``images`` in it, which has to hold some."""
    inner = folder / "images"
    photos = _photos(inner if inner.is_dir() else folder, label, fix)
    if not photos:
        raise DataError(f"{folder}: expected JPEG images, found none; {fix}")
    return photos


def _photos(folder: Path, label: int, fix: str) -> list[Photo]:
    """The images in a folder, sorted by name; files of other kinds are ignored."""
    photos = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file():
                    status = entry.stat()
                    photos.append(Photo(entry.name, entry.path, label, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); {fix}") from error
    return sorted(photos)


def _val(folder: Path, wnids: Sequence[str], fix: str) -> tuple[list[Photo], bool]:
    """The images of ``val``, sorted by name, and whether they lie in class folders."""
    path = folder / ANNOTATIONS
    labels = _annotations(path, wnids, fix) if path.is_file() else None
    pool = _photos(folder / "images", -1, fix) if (folder / "images").is_dir() else []
    if pool and labels is None:
        raise DataError(
            f"{folder / 'images'}: expected {path} with the classes of these {len(pool)} images, found none; {fix}"
        )
    if pool:
        return _label(pool, labels, folder / "images", wnids, fix), False
    _check_folders(folder, wnids, fix, but="images")
    photos = [photo for label, wnid in enumerate(wnids) for photo in _class_photos(folder / wnid, label, fix)]
    for photo in photos:
        if labels is not None and labels.get(photo.name, photo.label) != photo.label:
            raise DataError(
                f"{photo.path}: expected it in {wnids[labels[photo.name]]}, as {path} says, "
                f"found it in {wnids[photo.label]}; {fix}"
            )
    return sorted(photos), True


def _annotations(path: Path, wnids: Sequence[str], fix: str) -> dict[str, int]:
    """The label of every image name in val_annotations.txt: name, class and a box, separated by tabs."""
    places, labels = {wnid: label for label, wnid in enumerate(wnids)}, {}
    for number, line in enumerate(_lines(path, fix), 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in places:
            raise DataError(f"{path}: expected a class of wnids.txt in line {number}, found {wnid[:60]!r}; {fix}")
        if name in labels:
            raise DataError(f"{path}: expected each image once, found {name[:60]!r} again in line {number}; {fix}")
        labels[name] = places[wnid]
    return labels


def _label(
    pool: Sequence[Photo], labels: Mapping[str, int], folder: Path, wnids: Sequence[str], fix: str
) -> list[Photo]:
    """The images of the raw layout with their labels; every image has one, and every label its image."""
    there = {photo.name for photo in pool}
    for wrong, what in (
        (labels.keys() - there, "the file {}, which the list names"),
        (there - labels.keys(), "{} in the list of classes"),
    ):
        if wrong:
            raise DataError(f"{folder}: expected {what.format(min(wrong))}, found none ({len(wrong)} such); {fix}")
    empty = set(range(len(wnids))) - set(labels.values())
    if empty:
        raise DataError(f"{folder}: expected images of every class, found none of {wnids[min(empty)]}; {fix}")
    return [replace(photo, label=labels[photo.name]) for photo in pool]
