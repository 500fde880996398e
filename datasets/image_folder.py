"""Your own images: a folder a class below a training and a test folder.

    ROOT/train/CLASS/*.jpg   ROOT/val/CLASS/*.jpg

The classes are those of the training folder, sorted; the test folder has to have the same. ``storage: stream`` decodes
while it trains, as for ImageNet; ``resident`` decodes once, for sets that fit into the device's memory as small images.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.cache import cached_arrays
from datasets.corrupted.generated import cache_folder
from datasets.formats.class_folders import ImageFiles, class_names, digest_of, scan, split_folders
from datasets.imagenet import stream_options
from datasets.options import check_train_size
from datasets.places import data_root
from datasets.resident import ArrayData
from datasets.streams.file_stream import FileEvaluation, FileSource
from datasets.streams.options import parse_image_options
from datasets.streams.streaming import BadSamples, StreamData, StreamOptions
from datasets.streams.workers import read_ahead
from datasets.subsets import balanced_subset
from randomix.errors import ConfigError, DataError, StorageError

_DEFAULTS = {
    "cache": None,
    "train_folder": "train",
    "test_folder": "val",
    "storage": "stream",
    "crop_padding": 4,
}
_VERSION = 1  # of what is decoded: to be raised when the pixels change
_CHUNK = 64  # images that a worker decodes at a time


def build(config: Mapping[str, Any]) -> StreamData | ArrayData:
    """The images below ``dataset.root`` with the options of ``configs/dataset/image_folder.yaml``.

    Raises DataError if a split lacks a class, has another one, or holds no image of one.
    """
    options = parse_image_options(config, _DEFAULTS)
    train, test = _scan(options)
    size = check_train_size("image_folder", options["train_size"], len(train))
    if size < len(train):
        train = train.subset(balanced_subset(train.labels, size, "image_folder.train"))
    streaming = stream_options(options)
    common: dict[str, Any] = {
        "name": "image_folder",
        "class_names": train.classes,
        "mean": tuple(options["mean"]),
        "std": tuple(options["std"]),
    }
    source = {"source": "folder of images", "sha256": digest_of(train, test), "synthetic": False}
    if options["storage"] == "stream":
        return StreamData(**common, train=FileSource(train), test=FileSource(test), options=streaming, source=source)
    beside = Path(os.path.abspath(data_root(options["root"]))).parent / ".randomix-cache"
    cache = Path(options["cache"]).expanduser() if options["cache"] else beside
    arrays, left_out = _decode_once(cache, train, test, streaming)
    return ArrayData(
        **common,
        **arrays,
        crop_padding=options["crop_padding"],
        flip=options["flip"],
        source={**source, "left_out": left_out},
        cache=cache_folder(options, data_root(options["root"])),
    )


def _scan(options: Mapping[str, Any]) -> tuple[ImageFiles, ImageFiles]:
    if options["root"] is None:
        raise ConfigError(
            "dataset.root is null, expected the folder of your images, with "
            f"{options['train_folder']} and {options['test_folder']} in it"
        )
    train, test = split_folders(data_root(options["root"]), options)
    classes = class_names(train)
    if len(classes) < 2:
        raise DataError(
            f"{train}: expected folders of 2 classes or more, found {len(classes)}; put the images of each "
            "class into a folder of its own"
        )
    return scan(train, classes, "add images, or remove the class everywhere"), scan(
        test, classes, f"its classes have to be those of {train}"
    )


def _decode_once(
    cache: Path, train: ImageFiles, test: ImageFiles, options: StreamOptions
) -> tuple[dict[str, np.ndarray], int]:
    """All images as arrays, from the cache if the files are those it was made of; how many were left out."""
    square = StreamOptions(size=options.size, resize=options.size, workers=options.workers)
    digest = digest_of(train, test, sizes=True)
    source = {"version": _VERSION, "files": digest, "size": square.size, "skip": options.skip}

    def make() -> dict[str, np.ndarray]:
        arrays = {}
        for name, files, leave_out in (("train", train, options.skip), ("test", test, False)):
            bad = BadSamples("image_folder", len(files), options.max_bad_share, "it is left out")
            arrays |= {f"{name}_{key}": array for key, array in _decoded(files, square, leave_out, bad).items()}
        return arrays

    need = (len(train) + len(test)) * square.size**2 * 3
    try:
        arrays = cached_arrays(cache / f"image_folder-{digest[:12]}-{square.size}", source, make, need)
    except StorageError as error:
        raise StorageError(
            f"{error}; set dataset.cache=FOLDER to one where decoded images can be kept, or dataset.storage=stream"
        ) from error
    left_out = len(train) - len(arrays["train_labels"])
    if left_out > options.max_bad_share * len(train):  # decoded before, when more were allowed
        raise DataError(
            f"{train.folder}: {left_out} of {len(train)} images cannot be read, more than "
            f"dataset.max_bad_share={options.max_bad_share:g} allows; replace them"
        )
    if left_out:
        print(f"note: {train.folder}: {left_out} images that cannot be read are left out", file=sys.stderr)
    return arrays, left_out


def _decoded(files: ImageFiles, options: StreamOptions, leave_out: bool, bad: BadSamples) -> dict[str, np.ndarray]:
    """images (N, S, S, 3) uint8 and labels (N,): the shorter side resized to S, the central square of that."""
    images, labels = np.empty((len(files), options.size, options.size, 3), np.uint8), []
    batches = FileEvaluation(files, options, range(len(files)), _CHUNK, leave_out)
    chunks = range(-(-len(files) // _CHUNK))
    count = 0
    with contextlib.closing(read_ahead(batches, chunks, options.workers, False, _CHUNK * images[0].nbytes)) as items:
        for item in items:
            bad.add(item.bad)
            images[count : count + len(item.labels)] = item.images.numpy()
            labels.append(item.labels.numpy())
            count += len(item.labels)
    return {"images": images[:count], "labels": np.concatenate(labels)}
