"""Fashion-MNIST: 60,000 + 10,000 grey 28x28 photographs of ten kinds of clothing.

H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747. The four IDX files are read directly, compressed or not, and identified by the MD5 of their
content. Debian's package dataset-fashion-mnist holds the same compressed data under another gzip header (no file name,
another time stamp), so that the MD5s of its .gz files differ from the published ones; with the original header put
back they are equal, byte for byte.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import struct
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from datasets.idx import read_idx
from datasets.integrity import expect_digest, file_digest
from datasets.options import check_train_size, parse_options
from datasets.resident import ArrayData
from datasets.subsets import balanced_subset
from randomix.errors import DataError

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MEAN, STD = (0.286041,), (0.353024,)  # of the 60,000 training images

CONTENT_MD5 = {  # of the unpacked files; checked before use, whatever form they come in
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
GZIP_MD5 = {  # published with the data set; checked after a download
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
FILES = tuple(GZIP_MD5)
MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CACHE = Path("data")


def build(config: Mapping[str, Any]) -> ArrayData:
    """Fashion-MNIST with options root, train_size, crop_padding, flip, verify.

    A root that is given is the only place looked in. Raises DataError if it is no folder, or if the files are missing
    and cannot be downloaded, are damaged, or (with verify) are others.
    """
    options, root = parse_options(config, extra=("root",)), config.get("root")
    if root and not Path(root).is_dir():
        raise DataError(f"dataset.root is {str(root)!r}, which is not a folder; correct it, create the folder to "
                        "download into it, or leave dataset.root out for the usual places")  # fmt: skip
    base = Path(root or CACHE)
    folder = _find(base, fallback=not root) or _download(base)
    arrays = {name: read_idx(_file(folder, name), ndim=3 if "images" in name else 1) for name in FILES}
    md5 = {name: idx_md5(array) for name, array in arrays.items()}
    _check_content(folder, md5, options.verify)
    train_images, train_labels = _split(folder, "train", arrays)
    test_images, test_labels = _split(folder, "t10k", arrays)
    size = check_train_size("fashion_mnist", options.train_size, len(train_images))
    if size < len(train_images):
        chosen = balanced_subset(train_labels, size, "fashion_mnist.train")
        train_images, train_labels = train_images[chosen], train_labels[chosen]
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


def idx_md5(array: np.ndarray) -> str:
    """The MD5 of the unpacked IDX file that holds ``array``: its header follows from the shape."""
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return hashlib.md5(header + array.tobytes(), usedforsecurity=False).hexdigest()


def _check_content(folder: Path, md5: Mapping[str, str], verify: bool) -> None:
    """Raise DataError for content other than Fashion-MNIST's; without ``verify`` one warning, printed, names it."""
    other = [name for name in FILES if md5[name] != CONTENT_MD5[name]]
    if verify:
        for name in other:
            expect_digest(str(_file(folder, name)), md5[name], CONTENT_MD5[name], "MD5 of the content",
                          "delete it, or set dataset.verify=false to use another set of this format")  # fmt: skip
    elif other:
        found = ", ".join(other)
        print(f"warning: {folder}: {found} not of Fashion-MNIST; used because dataset.verify=false", file=sys.stderr)


def _split(folder: Path, prefix: str, arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, 1) uint8 and labels (N,) int64 of one split; raises DataError if they do not fit together."""
    images, labels = arrays[f"{prefix}-images-idx3-ubyte"], arrays[f"{prefix}-labels-idx1-ubyte"]
    if len(images) != len(labels):
        raise DataError(f"{folder}: expected one label an image, found {len(images)} {prefix} images and "
                        f"{len(labels)} labels; replace the four files")  # fmt: skip
    if labels.max() >= len(CLASS_NAMES):
        raise DataError(f"{folder}: expected {prefix} labels 0 to 9, found {labels.max()}; replace the label file")
    return images[..., None], labels.astype(np.int64)


def _forms(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, folder / f"{name}.gz"


def _file(folder: Path, name: str) -> Path:
    return next(path for path in _forms(folder, name) if path.is_file())


def _find(base: Path, fallback: bool) -> Path | None:
    """The first folder that holds all four files: under ``base``, then with ``fallback`` Debian's."""
    folders = [base, base / "raw", base / "FashionMNIST" / "raw", *([DEBIAN] if fallback else [])]
    complete = (all(any(path.is_file() for path in _forms(folder, name)) for name in FILES) for folder in folders)
    return next((folder for folder, found in zip(folders, complete, strict=True) if found), None)


def _download(base: Path) -> Path:
    """Fetch the four files into torchvision's layout below ``base``, once for all processes of the machine."""
    folder = base / "FashionMNIST" / "raw"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            for name in FILES:
                if not any(path.is_file() for path in _forms(folder, name)):
                    _fetch(f"{MIRROR}/{name}.gz", folder / f"{name}.gz", GZIP_MD5[name])
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise DataError(
            f"fashion_mnist: not found in {base} and the download failed ({error}); install the Debian package "
            f"dataset-fashion-mnist, or set dataset.root=FOLDER with the four IDX files, or connect to the network"
        ) from error
    return folder


def _fetch(url: str, target: Path, md5: str) -> None:
    """Download to a temporary name, check, rename: a file under its own name is always whole."""
    part = target.with_suffix(".part")
    with urllib.request.urlopen(url, timeout=30) as response, part.open("wb") as file:
        shutil.copyfileobj(response, file)
    expect_digest(
        target.name, file_digest(part, "md5"), md5, "MD5", f"the download from {MIRROR} is damaged; try again"
    )
    part.replace(target)
