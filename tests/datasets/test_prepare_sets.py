"""The layouts of the official data sets, made of small archives; the checksums that are expected."""

import gzip
import os
from pathlib import Path

import pytest

from datasets.preparing import prepare
from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import read_stamp
from randomix.errors import DataError
from tests.datasets.file_server import serving
from tests.datasets.prepare_driver import toy_entry
from tests.datasets.toy_archives import contents, md5, tar, zipped

pytestmark = pytest.mark.usefixtures("no_proxy")


def test_tiny_imagenet(tmp_path):
    files = {
        "wnids.txt": b"n1\nn2\n",
        "words.txt": b"",
        "val/val_annotations.txt": b"",
        "test/images/t.JPEG": b"t",
        "val/images/val_0.JPEG": b"v",
        "train/n1/images/a.JPEG": b"a",
        "train/n2/images/b.JPEG": b"b",
    }
    data = zipped({f"tiny-imagenet-200/{name}": value for name, value in files.items()})
    digests = {"tiny-imagenet-200.zip": md5(data)}
    (tmp_path / "tiny-imagenet-200.zip").write_bytes(data)
    for changes, message in (
        ({"subfolders": {"train": 200}}, "expected 200 folders in train, found 2"),
        ({"counts": {"val/images": 10_000}}, "expected 10000 files in val/images, found 1"),
    ):
        with pytest.raises(DataError, match=message):
            prepare.run(toy_entry(ENTRIES["tiny_imagenet"], digests, **changes), tmp_path, say=lambda line: None)
    entry = toy_entry(ENTRIES["tiny_imagenet"], digests, subfolders={"train": 2}, counts={"val/images": 1})
    prepare.run(entry, tmp_path, say=lambda line: None)
    assert contents(tmp_path / "tiny-imagenet-200") == files
    stamp = read_stamp(tmp_path / "tiny-imagenet-200")
    assert stamp.archives == {"tiny-imagenet-200.zip": f"md5:{md5(data)}"} == entry.digests
    assert stamp.folders["train"] == [2, 2]


@pytest.mark.parametrize(("name", "folder"), [("speech_commands", "v0.02"), ("speech_commands_v0.01", "v0.01")])
def test_speech_commands(tmp_path, name, folder):
    """The archive has no folder of its own, and writes ./ before every path."""
    files = {
        "validation_list.txt": b"bed/a.wav\n",
        "testing_list.txt": b"",
        "bed/a.wav": b"RIFF",
        "_background_noise_/n.wav": b"RIFF",
    }
    data = tar({f"./{key}": value for key, value in files.items()})
    archive = f"speech_commands_{folder}.tar.gz"
    (tmp_path / archive).write_bytes(data)
    entry = toy_entry(ENTRIES[name], {archive: md5(data)}, subfolders={".": 2})
    prepare.run(entry, tmp_path, say=lambda line: None)
    assert contents(tmp_path / "SpeechCommands" / f"speech_commands_{folder}") == files
    with pytest.raises(
        DataError,
        match=f"run: python scripts/prepare_data.py speech_commands{' --version v0.01' * ('0.01' in name)} --root",
    ):
        prepare.run(entry, tmp_path / "other", verify_only=True)


def test_fashion_mnist(tmp_path):
    entry, files, said = ENTRIES["fashion_mnist"], {}, []
    raw = {archive.name: f"IDX {archive.name}".encode() * 50 for archive in entry.archives}
    zips = {name: gzip.compress(data, mtime=1) for name, data in raw.items()}
    archives = tuple(prepare.Archive(a.name, md5(zips[a.name]), content=md5(raw[a.name])) for a in entry.archives)
    entry = prepare.Entry("fashion_mnist", "files", entry.folder, archives, 1000, max_bytes=10**6)
    files = {f"/{name}": data for name, data in zips.items()}
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(raw["train-images-idx3-ubyte.gz"])  # as torchvision leaves it
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(raw["train-labels-idx1-ubyte.gz"], mtime=2))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"<html>")
    with serving(files) as (address, server):
        report = prepare.run(entry, tmp_path, url=address, say=said.append)
        assert report.files == 4 and sorted(path for path, _, _ in server.log) == [
            "/t10k-images-idx3-ubyte.gz",
            "/t10k-labels-idx1-ubyte.gz",
        ]
        assert any('starts with "<html>"); moved to t10k-images-idx3-ubyte.gz.old-1' in line for line in said)
        assert prepare.run(entry, tmp_path, url=address) == report and len(server.log) == 2
        (folder / "train-images-idx3-ubyte").write_bytes(b"other")
        with pytest.raises(DataError, match="train-images-idx3-ubyte: expected md5"):
            prepare.run(entry, tmp_path, verify_only=True)
        assert prepare.run(entry, tmp_path, url=address, say=said.append).files == 4
    assert (folder / "train-images-idx3-ubyte.old-1").read_bytes() == b"other"


def test_checksums_are_those_of_torchvision_and_torchaudio():
    """Compared with the installed packages' sources, which are not imported."""
    import importlib.util

    sources = ""
    for package, files in (("torchvision", ("cifar", "mnist", "imagenet")), ("torchaudio", ("speechcommands",))):
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed")
        folder = Path(os.fspath(spec.submodule_search_locations[0])) / "datasets"
        sources += "".join((folder / f"{name}.py").read_text() for name in files)
    for name, entry in ENTRIES.items():
        for archive in entry.archives if name != "tiny_imagenet" and not name.endswith("_c") else ():
            assert archive.name in sources and archive.digest in sources
