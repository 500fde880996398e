"""Folders and files that this user may not read: one line that names the place, whatever the data set."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import datasets
from randomix.errors import DataError, RunError, StorageError
from scripts.bench import made_sets
from tests.support import fork, wait

NOBODY = 65534
SETS = {
    "cifar10": (partial(made_sets.cifar10, train=80), "cifar-10-batches-py"),
    "cifar100": (partial(made_sets.cifar100, train=100), "cifar-100-python"),
    "tiny_imagenet": (partial(made_sets.tiny_imagenet, classes=2, per_class=2), "tiny-imagenet-200"),
    "imagenet": (partial(made_sets.imagenet, classes=2, per_class=2, height=40, width=48), "imagenet"),
    "speech_commands": (partial(made_sets.speech_commands, per_word=8), "SpeechCommands"),
    "image_folder": (partial(made_sets.imagenet, classes=2, per_class=2, height=40, width=48), "imagenet"),
}


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for name, folders, _ in os.walk(folder):
        for inner in folders:
            (Path(name) / inner).chmod(0o755)
    shutil.rmtree(folder)


def as_nobody(config: dict[str, Any], log: Path) -> str:
    """What building ``config`` prints for a user without rights."""

    def build() -> int:
        with log.open("w") as file:  # while it may be written
            if not os.geteuid():
                os.seteuid(NOBODY)
            try:
                datasets.build(config)
            except RunError as error:
                print(type(error).__name__, error, sep="\n", file=file)
                return error.exit_code
        return 0

    assert wait([fork(build, log.with_name("output"))]) != [0]
    return log.read_text()


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("inner", [False, True])
def test_one_line_names_the_place(root, tmp_path, name, inner):
    make, folder = SETS[name]
    make(root)
    place = root / folder if name == "image_folder" else root
    config = {"name": name, "root": str(place), "verify": False}
    if name == "image_folder":
        config = {k: v for k, v in config.items() if k != "verify"} | {"image_size": 32, "resize": 36}
    datasets.build(config)  # imports what is needed, while it may be read
    (root / folder if inner else root).chmod(0)
    kind, line = as_nobody(config, tmp_path / "log").splitlines()
    assert kind == DataError.__name__
    assert str(root) in line and "(Permission denied)" in line and "dataset.root" in line


def test_decoded_images_that_cannot_be_kept_name_the_key(root, tmp_path):
    make, folder = SETS["image_folder"]
    make(root)
    config = {"name": "image_folder", "root": str(root / folder), "image_size": 32, "resize": 32, "storage": "resident"}
    datasets.build(config | {"cache": str(tmp_path / "cache")})
    root.chmod(0o555)
    kind, line = as_nobody(config, tmp_path / "log").splitlines()
    assert kind == StorageError.__name__
    assert line.startswith("cannot write ") and line.endswith(
        "; set dataset.cache=FOLDER to one where decoded images can be kept, or dataset.storage=stream"
    )
