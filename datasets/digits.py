"""Digits: the 1,797 grey 8x8 images of handwritten digits that scikit-learn ships; real data without a download.

597 images, fixed and stratified, are the test set; ``train_size`` takes a class-balanced part of the other 1,200 that
depends on nothing but its size. E. Alpaydin, C. Kaynak, UCI Optical Recognition of Handwritten Digits, 1998.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.integrity import array_digest, expect_digest
from datasets.options import check_train_size, parse_options
from datasets.resident import ArrayData
from datasets.subsets import balanced_subset, proportional_subset
from randomix.errors import DataError

TEST_SIZE = 597
SHA256 = "ebecda1be494c8317af2fcb5cf3dd954ffb4935cb724195ac497b5239f0a5948"
MEAN, STD = (0.305659,), (0.375687,)  # of the 1,200 training images


def build(config: Mapping[str, Any]) -> ArrayData:
    """Digits with options root (a digits.csv.gz in place of scikit-learn's), train_size, crop_padding, flip, verify."""
    options = parse_options(config, extra=("root",))
    path = _find(config.get("root"))
    images, labels = read_digits(path)
    digest = array_digest(images, labels)
    if options.verify:
        expect_digest(
            path.name,
            digest,
            SHA256,
            "sha256 of the images and labels",
            "reinstall scikit-learn, or set dataset.verify=false",
        )
    test = proportional_subset(labels, TEST_SIZE, "digits.test")
    pool = np.setdiff1d(np.arange(len(labels)), test)
    size = check_train_size("digits", options.train_size, len(pool))
    train = pool[balanced_subset(labels[pool], size, "digits.train")]
    return ArrayData(
        name="digits",
        class_names=tuple("0123456789"),
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        mean=MEAN,
        std=STD,
        crop_padding=options.crop_padding,
        flip=options.flip,
        source={"source": "scikit-learn digits", "sha256": digest, "synthetic": False},
    )


def read_digits(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 8, 8, 1) uint8, the file's 0 .. 16 scaled to 0 .. 255, and labels (N,) int64; raises DataError."""
    try:
        table = np.loadtxt(path, delimiter=",")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: expected rows of 65 numbers, found {error}; reinstall scikit-learn") from error
    if table.ndim != 2 or table.shape[1] != 65 or len(table) < TEST_SIZE + 1:
        raise DataError(f"{path}: expected a table of 1797 x 65 numbers, found {table.shape}; reinstall scikit-learn")
    pixels, labels = table[:, :64], table[:, 64].astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 16 or labels.min() < 0 or labels.max() > 9:
        raise DataError(
            f"{path}: expected pixels 0 to 16 and labels 0 to 9, found pixels up to {pixels.max():g} and "
            f"labels up to {labels.max()}; reinstall scikit-learn"
        )
    return np.rint(pixels * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1), labels


def _find(root: str | None) -> Path:
    """The digits.csv.gz of ``root`` or of scikit-learn, which is located but not imported: that takes seconds."""
    if root is not None:
        folders = [Path(root)]
    else:
        spec = importlib.util.find_spec("sklearn")
        folders = [Path(place, "datasets", "data") for place in (spec.submodule_search_locations or [])] if spec else []
    for folder in folders:
        if (path := folder / "digits.csv.gz").is_file():
            return path
    where = f"in dataset.root={root}" if root is not None else "because scikit-learn is not installed"
    raise DataError(f"digits.csv.gz: not found {where}; run: pip install scikit-learn")
