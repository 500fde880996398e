"""ImageNet (ILSVRC 2012): 1,281,167 training and 50,000 validation photographs of 1,000 classes.

O. Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015, arXiv:1409.0575. Class folders
``train/n01440764/*.JPEG`` and ``val/n01440764/*.JPEG``, or tar shards made of them (``dataset.shards``). The validation
images are the test set, as everywhere.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from datasets.corrupted.class_trees import ClassTrees
from datasets.corrupted.published import roots
from datasets.formats.class_folders import ImageFiles, class_names, digest_of, scan
from datasets.options import check_train_size
from datasets.places import find_folder, prepare_command
from datasets.streams.file_stream import FileSource
from datasets.streams.options import parse_image_options
from datasets.streams.shard_files import open_manifest
from datasets.streams.shards import ShardSource
from datasets.streams.streaming import Source, StreamData, StreamOptions
from datasets.streams.workers import worker_count
from datasets.subsets import balanced_subset
from randomix.errors import ConfigError, DataError

NUM_TRAIN, NUM_VAL = 1_281_167, 50_000
SPLITS = {"train": NUM_TRAIN, "val": NUM_VAL}
_DEFAULTS = {"corrupted_root": None, "shards": None, "shuffle_buffer": 512, "verify": True}
SHARD_WORKERS = 4  # of a rank, if nobody says how many: what a step shows must not depend on the machine
_LIST = Path(__file__).with_name("imagenet_classes.txt")


def build(config: Mapping[str, Any]) -> StreamData:
    """ImageNet with the options of ``configs/dataset/imagenet.yaml``.

    With ``verify`` the classes and the number of images have to be those of ILSVRC 2012. Raises DataError.
    """
    options = parse_image_options(config, _DEFAULTS)
    if options["shards"] and options["workers"] is None:
        options["workers"] = SHARD_WORKERS
    if options["shards"] and options["train_size"]:
        raise ConfigError("dataset.train_size takes single files and dataset.shards has none; leave one of them out")
    opened = _shards(options) if options["shards"] else _folders(options)
    sources, classes, found = opened
    val = sources["val"]
    counts = tuple(np.bincount(val.files.labels).tolist()) if isinstance(val, FileSource) else None
    trees = ClassTrees("ImageNet-C", "imagenet_c", roots(options), classes, len(val), counts)
    return StreamData(
        name="imagenet",
        class_names=classes,
        train=sources["train"],
        test=sources["val"],
        mean=tuple(options["mean"]),
        std=tuple(options["std"]),
        options=stream_options(options),
        source={**found, "checked": "classes and numbers of images" if options["verify"] else None, "synthetic": False},
        published=trees,
        corrupted_source=lambda name, severity: FileSource(trees.files(name, severity)),
    )


def official_classes() -> tuple[str, ...]:
    """The 1,000 WordNet IDs, sorted: a class's label is its place."""
    return tuple(_LIST.read_text().split())


def stream_options(options: Mapping[str, Any]) -> StreamOptions:
    """The settings of the decoding workers."""
    return StreamOptions(
        size=options["image_size"],
        resize=options["resize"],
        scale=tuple(options["scale"]),
        ratio=tuple(options["ratio"]),
        flip=options["flip"],
        workers=worker_count(options["workers"]),
        skip=options["on_bad_sample"] == "skip",
        max_bad_share=options["max_bad_share"],
        shuffle_buffer=options.get("shuffle_buffer", 1),
    )


def open_folders(root: str | None, verify: bool) -> dict[str, ImageFiles]:
    """The images of "train" and "val" in ``root/imagenet`` or ``root``; raises DataError."""
    folder = find_folder("imagenet", root, ("imagenet", "."), lambda f: all((f / s).is_dir() for s in SPLITS))
    fix = f"{prepare_command('imagenet', root)}, or remove what is not part of it"
    if verify:
        classes = official_classes()
    else:
        classes = class_names(folder / "train")
        fix = "the class folders of train and val have to be the same, and none may be empty"
    files = {split: scan(folder / split, classes, fix) for split in SPLITS}
    check_official(folder, classes, {split: len(found) for split, found in files.items()}, verify, fix)
    return files


def check_official(place: Any, classes: tuple[str, ...], counts: Mapping[str, int], verify: bool, fix: str) -> None:
    """Raise DataError if classes or counts are not ImageNet's; without ``verify`` print one warning instead."""
    problem = None
    if classes != official_classes():
        problem = f"expected the 1000 classes of ILSVRC 2012, found {len(classes)}, the first of which is {classes[:1]}"
    for split, expected in SPLITS.items():
        if problem is None and counts[split] != expected:
            problem = f"expected {expected} images in {split}, found {counts[split]}"
    if problem and verify:
        raise DataError(f"{place}: {problem}; {fix}, or set dataset.verify=false to use another set of this layout")
    if problem:
        print(f"warning: {place}: {problem}; used because dataset.verify=false", file=sys.stderr)


def _folders(options: Mapping[str, Any]) -> tuple[dict[str, Source], tuple[str, ...], dict[str, Any]]:
    files = open_folders(options["root"], options["verify"])
    train = files["train"]
    size = check_train_size("imagenet", options["train_size"], len(train))
    if size < len(train):
        train = train.subset(balanced_subset(train.labels, size, "imagenet.train"))
    found = {
        "source": "ILSVRC 2012" if options["verify"] else "class folders, not verified",
        "sha256": digest_of(train, files["val"]),  # of names and labels: to read 150 GB takes longer than a short run
    }
    return {"train": FileSource(train), "val": FileSource(files["val"])}, train.classes, found


def _shards(options: Mapping[str, Any]) -> tuple[dict[str, Source], tuple[str, ...], dict[str, Any]]:
    sets = {split: open_manifest(options["shards"], split) for split in SPLITS}
    classes = sets["train"].classes
    if classes != sets["val"].classes:
        raise DataError(
            f"{options['shards']}: the shards of train and val have different classes; make both from one "
            f"set: {prepare_command('imagenet-shards')} --out FOLDER"
        )
    check_official(
        options["shards"],
        classes,
        {split: len(found) for split, found in sets.items()},
        options["verify"],
        f"{prepare_command('imagenet-shards')} --out FOLDER",
    )
    smaller = {shards.resize for shards in sets.values()} - {None}
    name = "ILSVRC 2012" if options["verify"] else "shards, not verified"
    found = {
        "source": f"{name}, images made smaller" if smaller else name,
        "shards": {split: {"sha256": s.sha256, "resize": s.resize, "quality": s.quality} for split, s in sets.items()},
        "workers": max(1, options["workers"]),  # they share the shards: others would not continue a run, but 0 is 1
    }
    return {split: ShardSource(shards) for split, shards in sets.items()}, classes, found
