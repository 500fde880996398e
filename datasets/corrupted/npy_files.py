"""CIFAR-10-C and CIFAR-100-C: NAME.npy holds five severities, one after the other, and labels.npy their labels.

The files are mapped, not read, and trusted for nothing: not for their sizes, nor for belonging to this data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.corrupted.published import find, fix, parts_digest, say_once, without_missing
from datasets.integrity import file_digest
from randomix.errors import DataError
from randomix.robustness.corruptions import CORRUPTIONS

SEVERITIES = 5
_BLOCK = 256  # images compared at a time


@dataclass(frozen=True, eq=False)
class NpyFiles:
    """title: also the folder's name; entry: of scripts/prepare_data.py; places: where the folder may be.

    images (N, H, W, C) uint8, labels (N,): the clean test set, which the files have to fit; CIFAR-100: fine labels.
    """

    title: str
    entry: str
    places: tuple[Path, ...]
    images: np.ndarray
    labels: np.ndarray

    def check(self, names: Sequence[str], severities: Sequence[int], allow_missing: bool) -> tuple[str, ...]:
        """Those of ``names`` whose files are there, all of them checked; raises DataError naming the file."""
        folder = self._folder()
        self._check_labels(folder / "labels.npy")
        missing = {name: [f"{name}.npy"] for name in names if not (folder / f"{name}.npy").is_file()}
        there = without_missing(folder, names, missing, allow_missing, self._fix)
        for name in there:
            array = self._open(folder / f"{name}.npy")
            for severity in severities:
                if not _differs(self._part(array, severity), self.images):
                    raise self._error(
                        folder / f"{name}.npy", f"corrupted images at severity {severity}", "the clean test images"
                    )
        known = {f"{name}.npy" for name in (*CORRUPTIONS, "labels")}
        foreign = sorted(path.name for path in folder.glob("*.npy") if path.name not in known)
        if foreign:
            say_once(f"note: {folder}: not part of {self.title} and not used: {', '.join(foreign)}")
        return there

    def cell(self, name: str, severity: int) -> tuple[np.ndarray, None]:
        """The images of one severity, a map of their file, in the order of the test set."""
        return self._part(self._open(self._folder() / f"{name}.npy"), severity), None

    def identify(self, names: Sequence[str], severities: Sequence[int]) -> dict[str, str]:
        """Digests by file: labels.npy in full, of the others size and parts. Raises DataError."""
        folder = self._folder()
        there = [path for name in names if (path := folder / f"{name}.npy").is_file()]
        return {"labels.npy": file_digest(folder / "labels.npy")} | {path.name: parts_digest(path) for path in there}

    @property
    def _fix(self) -> str:
        return fix(self.entry, self.places)

    def _folder(self) -> Path:
        known = [f"{name}.npy" for name in (*CORRUPTIONS, "labels")]
        return find(self.title, self.entry, self.places, lambda folder: any((folder / n).is_file() for n in known))

    def _part(self, array: np.ndarray, severity: int) -> np.ndarray:
        count = len(self.images)
        return array[(severity - 1) * count : severity * count]

    def _open(self, path: Path) -> np.ndarray:
        """The map of a file of images, of the right type and shape."""
        array, shape = self._load(path), (SEVERITIES * len(self.images), *self.images.shape[1:])
        if array.dtype != np.uint8 or array.shape != shape:
            raise self._error(
                path,
                f"uint8 of shape {shape}, five severities of the {len(self.images)} test images",
                f"{array.dtype} of shape {array.shape}",
            )
        return array

    def _check_labels(self, path: Path) -> None:
        """The clean test labels, five times over: others belong to another set, or to another order of this one."""
        if not path.is_file():
            raise DataError(f"{path.parent}: missing {path.name}; {self._fix}")
        found, wanted = self._load(path), np.tile(self.labels, SEVERITIES)
        if found.dtype.kind not in "iu" or found.shape != wanted.shape:
            raise self._error(path, f"whole numbers of shape {wanted.shape}", f"{found.dtype} of shape {found.shape}")
        wrong = np.flatnonzero(found != wanted)
        if wrong.size:
            raise self._error(
                path,
                "the labels of the clean test images, five times over",
                f"{found[wrong[0]]} instead of {wanted[wrong[0]]} in row {wrong[0]} and {wrong.size - 1} "
                "more differences, as of another set or another order",
            )

    def _load(self, path: Path) -> np.ndarray:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise self._error(path, "a whole .npy file of numbers", " ".join(str(error).split())) from error
        if not isinstance(array, np.ndarray):
            array.close()
            raise self._error(path, "a .npy file", "an archive of several")
        return array

    def _error(self, path: Path, expected: str, found: str) -> DataError:
        return DataError(f"{path}: expected {expected}, found {found}; {self._fix}")


def _differs(images: np.ndarray, clean: np.ndarray) -> bool:
    """Whether any pixel differs; reads no further than that."""
    starts = range(0, len(clean), _BLOCK)
    return any(not np.array_equal(images[i : i + _BLOCK], clean[i : i + _BLOCK]) for i in starts)
