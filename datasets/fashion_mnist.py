"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 photographs of ten kinds of clothing.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747. The four IDX files are read directly, compressed or not, and identified by the MD5 of their
content. Debian's package dataset-fashion-mnist holds the same compressed data under another gzip header (no file name,
another time stamp), so that the MD5s of its .gz files differ from the published ones; with the original header put
back they are equal, byte for byte.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.formats.idx import read_idx
from datasets.integrity import expect_digest
from datasets.options import check_train_size, is_count, parse_options
from datasets.places import data_root, find_folder, prepare_command
from datasets.preparing.sets import ENTRIES
from datasets.resident import ArrayData
from datasets.subsets import balanced_subset, proportional_subset
from randomix.errors import ConfigError, DataError

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MEAN, STD = (0.286041,), (0.353024,)  # of the 60,000 training images

_PUBLISHED = {archive.name.removesuffix(".gz"): archive for archive in ENTRIES["fashion_mnist"].archives}
CONTENT_MD5 = {name: archive.content for name, archive in _PUBLISHED.items()}  # whatever form the files come in
FILES = tuple(_PUBLISHED)
PLACES = (".", "raw", "FashionMNIST/raw")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def build(config: Mapping[str, Any]) -> ArrayData:
    """Fashion-MNIST with options root, train_size, test_size, crop_padding, flip, verify.

    test_size: images of a fixed part of the test set in which every class keeps its share, None for all. A root that
    is given is the only place looked in. Raises DataError if it is no folder, or if the files are missing, are damaged,
    or (with verify) are others.
    """
    options, root = parse_options(config, extra=("root", "test_size")), config.get("root")
    folder = _find(root)
    arrays = {name: read_idx(_file(folder, name), ndim=3 if "images" in name else 1) for name in FILES}
    md5 = {name: idx_md5(array) for name, array in arrays.items()}
    _check_content(folder, md5, options.verify, prepare_command("fashion_mnist", root))
    train_images, train_labels = _split(folder, "train", arrays)
    test_images, test_labels = _split(folder, "t10k", arrays)
    size = check_train_size("fashion_mnist", options.train_size, len(train_images))
    if size < len(train_images):
        chosen = balanced_subset(train_labels, size, "fashion_mnist.train")
        train_images, train_labels = train_images[chosen], train_labels[chosen]
    if config.get("test_size") is not None:
        chosen = proportional_subset(test_labels, _test_size(config, len(test_labels)), "fashion_mnist.test")
        test_images, test_labels = test_images[chosen], test_labels[chosen]
    return ArrayData(
        name="fashion_mnist",
        class_names=CLASS_NAMES,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=MEAN,
        std=STD,
        crop_padding=options.crop_padding,
        flip=options.flip,
        source={
            "source": "Fashion-MNIST" if options.verify else "IDX files, not verified",
            "md5": md5,
            "synthetic": False,
        },
    )


def _test_size(config: Mapping[str, Any], available: int) -> int:
    """``test_size``; raises ConfigError for what is no number of images or more than there are."""
    size = config["test_size"]
    if not is_count(size, 1) or size > available:
        raise ConfigError(f"dataset.test_size is {size!r}, expected null or a number of images from 1 to {available}")
    return size


def idx_md5(array: np.ndarray) -> str:
    """The MD5 of the unpacked IDX file that holds ``array``: its header follows from the shape."""
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def _check_content(folder: Path, md5: Mapping[str, str], verify: bool, mend: str) -> None:
    """Raise DataError for content other than Fashion-MNIST's; without ``verify`` one warning, printed, names it."""
    other = [name for name in FILES if md5[name] != CONTENT_MD5[name]]
    if verify:
        for name in other:
            expect_digest(
                str(_file(folder, name)),
                md5[name],
                CONTENT_MD5[name],
                "MD5 of the content",
                f"{mend}, or set dataset.verify=false to use another set of this format",
            )
    elif other:
        found = ", ".join(other)
        print(f"warning: {folder}: {found} not of Fashion-MNIST; used because dataset.verify=false", file=sys.stderr)


def _split(folder: Path, prefix: str, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 1) uint8 and labels (N,) int64 of one split; raises DataError if they do not fit together."""
    images, labels = arrays[f"{prefix}-images-idx3-ubyte"], arrays[f"{prefix}-labels-idx1-ubyte"]
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: expected one label an image, found {len(images)} {prefix} images and "
            f"{len(labels)} labels; replace the four files"
        )
    if labels.max() >= len(CLASS_NAMES):
        raise DataError(f"{folder}: expected {prefix} labels 0 to 9, found {labels.max()}; replace the label file")
    return images[..., None], labels.astype(np.int64)


def _forms(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, folder / f"{name}.gz"


def _file(folder: Path, name: str) -> Path:
    return next(path for path in _forms(folder, name) if path.is_file())


def _find(root: str | None) -> Path:
    """The first folder that holds all four files: below ``root``, and without one also Debian's."""
    if root and not data_root(root).is_dir():
        mend = prepare_command("fashion_mnist", root)
        raise DataError(
            f"dataset.root is {str(root)!r}, which is not a folder; correct it, or {mend}, or leave "
            "dataset.root out for the usual places"
        )
    try:
        return find_folder("fashion_mnist", root, PLACES, _complete)
    except DataError as error:
        if root:
            raise
        if _complete(DEBIAN):
            return DEBIAN
        raise DataError(f"{error}, or install the Debian package dataset-fashion-mnist") from None


def _complete(folder: Path) -> bool:
    return all(any(path.is_file() for path in _forms(folder, name)) for name in FILES)
