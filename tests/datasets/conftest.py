"""A folder of pictures and its shards, and a Tiny-ImageNet, made once; no proxy between tests and their servers."""

import shutil

import pytest


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    from tests.datasets.pictures import make_folders

    return make_folders(tmp_path_factory.mktemp("pictures"), train=11, val=7)


@pytest.fixture(scope="session")
def place(folder):
    from tests.datasets.shard_sets import write

    write(folder, folder / "shards", "--per-shard", "5")
    return folder / "shards"


@pytest.fixture
def copy(place, tmp_path):
    for path in place.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.fixture
def no_proxy(monkeypatch):
    from datasets.preparing import download

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "_opener", download._opener)
    for handler in download._opener.handlers:
        if hasattr(handler, "proxies"):
            monkeypatch.setattr(handler, "proxies", {})


@pytest.fixture(scope="session")
def original_tree(tmp_path_factory):
    from tests.datasets.tiny_imagenet_files import make_tree

    return make_tree(tmp_path_factory.mktemp("original"))


@pytest.fixture
def tree(original_tree, tmp_path, monkeypatch):
    """A copy of a small Tiny-ImageNet; its numbers of classes and images count as the official ones."""
    from datasets.formats import tiny_tree
    from tests.datasets.tiny_imagenet_files import TRAIN, VAL, WNIDS

    for name, value in (("CLASSES", len(WNIDS)), ("TRAIN_EACH", TRAIN), ("VAL_EACH", VAL)):
        monkeypatch.setattr(tiny_tree, name, value)
    return shutil.copytree(original_tree, tmp_path / "tiny-imagenet-200")
