"""Tiny-ImageNet: 100,000 + 10,000 colour photographs, 64 x 64, of 200 of ImageNet's classes (Stanford CS231n, 2015).

The held-out images are those of ``val``; ``test`` has no public labels and is ignored. The 110,000 JPEG files are
decoded once, into a cache of 1.4 GB beside the set's folder, which is mapped from then on.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from datasets.cache import cached_arrays
from datasets.corrupted.class_trees import ClassTrees
from datasets.corrupted.generated import cache_folder
from datasets.corrupted.published import roots
from datasets.formats import tiny_tree
from datasets.formats.class_folders import ImageFiles
from datasets.formats.decoding import decode_rgb
from datasets.formats.tiny_tree import Photo, Tree
from datasets.options import channel_values, check_train_size, is_count, parse_options
from datasets.places import find_folder, prepare_command
from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import check_tree, read_stamp
from datasets.resident import ArrayData
from datasets.subsets import balanced_subset
from randomix.errors import ConfigError, DataError, StorageError

NAME, FOLDER = "tiny_imagenet", "tiny-imagenet-200"
SIDE = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as FMix uses for this set
DECODER = 1  # to be raised when this code decodes to other pixels


def build(config: Mapping[str, Any]) -> ArrayData:
    """Tiny-ImageNet with the options of ``configs/dataset/tiny_imagenet.yaml``.

    Raises DataError for what is missing, damaged or (with ``verify``) not the official set, StorageError where the
    cache cannot be written.
    """
    options = parse_options(config, extra=("root", "corrupted_root", "cache", "workers", "mean", "std"))
    mean, std = channel_values(config, "mean", MEAN), channel_values(config, "std", STD)
    workers = _workers(config.get("workers"))
    folder = find_folder(NAME, config.get("root"), (FOLDER, "."), _is_tree)
    fix = prepare_command(NAME, config.get("root"))
    tree = tiny_tree.read_tree(folder, fix)
    verified = _verify(tree, options.verify, fix)
    arrays = _decoded(tree, config.get("cache"), workers, fix)
    images, labels = arrays["train"], np.array([photo.label for photo in tree.train])
    size = check_train_size(NAME, options.train_size, len(labels))
    if size < len(labels):
        chosen = balanced_subset(labels, size, f"{NAME}.train")
        images, labels = images[chosen], labels[chosen]
    return ArrayData(
        name=NAME,
        class_names=tree.names,
        train_images=images,
        train_labels=labels,
        test_images=arrays["val"],
        test_labels=np.array([photo.label for photo in tree.val]),
        mean=mean,
        std=std,
        crop_padding=options.crop_padding,
        flip=options.flip,
        source={
            "source": "Tiny-ImageNet" if verified else "files in Tiny-ImageNet's layout, not the official ones",
            "verified": verified,
            "sha256_of_names_and_sizes": tree.digest(),
            "synthetic": False,
        },
        published=_published(tree, config, workers),
        cache=cache_folder(config, tree.folder),
    )


def _workers(workers: object) -> int:
    if workers is None:
        return min(16, os.cpu_count() or 1)
    if not is_count(workers, 0):
        raise ConfigError(f"dataset.workers is {workers!r}, expected null or a number of threads >= 0")
    return int(workers)


def _is_tree(folder: Path) -> bool:
    return (folder / "wnids.txt").is_file() and (folder / "train").is_dir()


def _verify(tree: Tree, verify: bool, fix: str) -> str | bool:
    """What was verified; DataError with ``verify`` and one printed warning without if the set is another one."""
    problem, evidence = next(tiny_tree.differences(tree), None), "classes, names and counts"
    stamp = read_stamp(tree.folder)
    if problem is None and stamp is not None and stamp.archives == ENTRIES[NAME].digests:
        problem, evidence = check_tree(tree.folder, stamp), "names and sizes of all files as in the official archive"
        problem = problem and f"{tree.folder}: {problem}"
    if problem is None:
        return evidence
    if verify:
        raise DataError(f"{problem}; {fix}, or set dataset.verify=false to use another set of this layout")
    print(f"warning: {problem}; used because dataset.verify=false", file=sys.stderr)
    return False


def _published(tree: Tree, config: Mapping[str, Any], workers: int) -> ClassTrees:
    """Tiny-ImageNet-C."""
    counts = np.bincount([photo.label for photo in tree.val], minlength=len(tree.wnids)).tolist()

    def pixels(files: ImageFiles) -> np.ndarray:
        photos = [Photo("", files.path(index), int(label), 0, 0) for index, label in enumerate(files.labels)]
        return decode(photos, workers, prepare_command("tiny_imagenet_c", config.get("corrupted_root")))

    return ClassTrees(
        "Tiny-ImageNet-C", "tiny_imagenet_c", roots(config), tree.wnids, sum(counts), tuple(counts), pixels
    )


def _decoded(tree: Tree, cache: str | None, workers: int, fix: str) -> dict[str, np.ndarray]:
    """The images of both splits, (N, 64, 64, 3) uint8, decoded now or before."""
    digest, count = tree.digest(), len(tree.train) + len(tree.val)
    name = f"{NAME}-{digest[:8]}"  # by content, not by path: a copy that kept its times finds it too
    beside = Path(os.path.abspath(tree.folder)).parent / ".randomix-cache"  # also where others may only read it
    folder = (Path(cache).expanduser() if cache else beside) / name

    def make() -> dict[str, np.ndarray]:
        print(f"{NAME}: decoding {count} images into {folder}, once", file=sys.stderr)
        return {"train": decode(tree.train, workers, fix), "val": decode(tree.val, workers, fix)}

    source = {"set": NAME, "decoder": DECODER, "files": digest, "times": tree.times()}
    try:
        return cached_arrays(folder, source, make, need=count * SIDE * SIDE * 3)
    except StorageError as error:
        raise StorageError(f"{error}; set dataset.cache=FOLDER to one where {NAME} can be kept decoded") from error


def decode(photos: Sequence[Photo], workers: int, fix: str) -> np.ndarray:
    """The pixels (N, 64, 64, 3) uint8 of JPEG files; raises DataError naming the first that is not one of that size.

    Threads read ahead, which hides the waiting for network disks. Decoding stays in one: it is mostly Python, some 15 s
    for the whole set, and took no less time in several threads.
    """
    images = np.empty((len(photos), SIDE, SIDE, 3), np.uint8)
    parts = [photos[start : start + 64] for start in range(0, len(photos), 64)]
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        files = itertools.chain.from_iterable((pool.map if workers else map)(_read, parts))
        for image, photo, data in zip(images, photos, files, strict=True):
            image[:] = _pixels(photo.path, data, fix)
    finally:
        pool.shutdown(cancel_futures=True)  # an error does not wait for the rest
    return images


def _read(photos: Sequence[Photo]) -> list[bytes | OSError]:
    """The bytes of files, or why there are none."""
    found: list[bytes | OSError] = []
    for photo in photos:
        try:
            found.append(Path(photo.path).read_bytes())
        except OSError as error:
            found.append(error)
    return found


def _pixels(path: str, data: bytes | OSError, fix: str) -> np.ndarray:
    if isinstance(data, OSError):
        raise DataError(f"{path}: cannot be read ({data.strerror}); {fix}") from data
    try:
        pixels = decode_rgb(data, path, formats=("JPEG",))
    except DataError as error:
        raise DataError(f"{error}, or {fix}") from error
    if pixels.shape != (SIDE, SIDE, 3):
        raise DataError(
            f"{path}: expected an image of {SIDE} x {SIDE} pixels, found {pixels.shape[0]} x {pixels.shape[1]}; {fix}"
        )
    return pixels
