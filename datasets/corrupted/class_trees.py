"""Tiny-ImageNet-C and ImageNet-C: NAME/SEVERITY/CLASS/*.JPEG, the classes those of training.

Tiny-ImageNet-C was made from other crops than Tiny-ImageNet's own test images, and has the 15 standard corruptions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.corrupted.published import find, fix, parts_digest, without_missing
from datasets.formats.class_folders import ImageFiles, class_names, scan
from randomix.errors import DataError
from randomix.robustness.corruptions import CORRUPTIONS

GROUPS = ("", "noise", "blur", "weather", "digital", "extra")  # ImageNet-C comes in five archives


@dataclass(frozen=True, eq=False)
class ClassTrees:
    """title: also the folder's name; entry: of scripts/prepare_data.py; places: where the folder may be.

    classes: of training, in the order of the labels. counts: test images of each class, None where only their sum,
    ``total``, is known. decode: makes pixels (N, H, W, 3) of files, None for sets that are decoded as they are used.
    """

    title: str
    entry: str
    places: tuple[Path, ...]
    classes: tuple[str, ...]
    total: int
    counts: tuple[int, ...] | None = None
    decode: Callable[[ImageFiles], np.ndarray] | None = None

    def check(self, names: Sequence[str], severities: Sequence[int], allow_missing: bool) -> tuple[str, ...]:
        """Those of ``names`` that are there, their classes checked; raises DataError.

        The images of sets that are decoded once are counted too; millions of files are left for when they are used.
        """
        folder = self._folder()
        missing = {
            name: lacking
            for name in names
            if (lacking := [f"{name}/{s}" for s in severities if not self._place(folder, name, s).is_dir()])
        }
        there = without_missing(folder, names, missing, allow_missing, self._fix)
        for name in there:
            for severity in severities:
                if self.decode is not None:
                    self.files(name, severity)
                else:
                    self._check_classes(self._place(folder, name, severity))
        return there

    def files(self, name: str, severity: int) -> ImageFiles:
        """The images of one corruption and severity, ordered by class, then by name; raises DataError."""
        place = self._place(self._folder(), name, severity)
        files = scan(place, self.classes, self._fix)
        found = np.bincount(files.labels, minlength=len(self.classes))
        for label, count in enumerate(self.counts or ()):
            if found[label] != count:
                raise DataError(
                    f"{place / self.classes[label]}: expected {count} images, as in the test set, found "
                    f"{found[label]}; {self._fix}"
                )
        if len(files) != self.total:
            raise DataError(
                f"{place}: expected {self.total} images, as in the test set, found {len(files)}; {self._fix}"
            )
        return files

    def cell(self, name: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
        """The decoded images of one corruption and severity, and their labels."""
        assert self.decode is not None
        files = self.files(name, severity)
        return self.decode(files), files.labels

    def identify(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """Digests by NAME/SEVERITY of the first image of the first, the middle and the last class."""
        folder, found = self._folder(), {}
        for name, severity in ((name, severity) for name in names for severity in severities):
            place, ordered = self._place(folder, name, severity), sorted(self.classes)
            if place.is_dir():
                some = {ordered[len(ordered) * third // 2 - (third == 2)] for third in range(3)}
                firsts = [min((place / label).iterdir(), default=None) for label in sorted(some)]
                found[f"{name}/{severity}"] = parts_digest(*(path for path in firsts if path is not None))
        return found

    @property
    def _fix(self) -> str:
        return fix(self.entry, self.places)

    def _folder(self) -> Path:
        def holds(folder: Path) -> bool:
            return any((folder / group / name).is_dir() for group in GROUPS for name in CORRUPTIONS)

        return find(self.title, self.entry, self.places, holds)

    def _place(self, folder: Path, name: str, severity: int) -> Path:
        """The class folders of a cell, below the folder itself or that of its archive."""
        places = [folder / group / name / str(severity) for group in GROUPS]
        return next((place for place in places if place.is_dir()), places[0])

    def _check_classes(self, place: Path) -> None:
        found = class_names(place)
        if found != tuple(sorted(self.classes)):
            wrong = sorted(set(found) ^ set(self.classes))
            raise DataError(
                f"{place}: expected the {len(self.classes)} classes of training, found {len(found)}, the "
                f"first difference is {wrong[0]}; {self._fix}"
            )
