"""A folder of pictures and its shards, made once; no proxy between tests and their servers."""

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
