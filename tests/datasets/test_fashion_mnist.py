"""Fashion-MNIST: the IDX reader, the places it is looked for in, and checksums; test_prepare_sets.py gets it."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import fashion_mnist
from datasets.formats.idx import read_idx
from datasets.preparing.sets import ENTRIES
from randomix.errors import ConfigError, DataError

needs_debian = pytest.mark.skipif(
    not fashion_mnist.DEBIAN.is_dir(), reason="the Debian package dataset-fashion-mnist is not installed"
)


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def toy_files(num_train=40, num_test=20):
    rng = np.random.default_rng(0)
    files = {}
    for prefix, count in (("train", num_train), ("t10k", num_test)):
        files[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        files[f"{prefix}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    return files


def write(folder, files, compress=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in files.items():
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array), 1))
        else:
            (folder / name).write_bytes(idx(array))


@pytest.fixture
def toy(monkeypatch):
    """Toy files that count as the genuine ones, no Debian package and no network."""
    files = toy_files()
    monkeypatch.setattr(fashion_mnist, "CONTENT_MD5", {n: fashion_mnist.idx_md5(a) for n, a in files.items()})
    monkeypatch.setattr(fashion_mnist, "DEBIAN", Path("nowhere"))
    monkeypatch.delenv("RANDOMIX_DATA", raising=False)
    return files


def build(root, **options):
    return datasets.build({"name": "fashion_mnist", "root": str(root), **options})


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("where", ["", "raw", "FashionMNIST/raw"])
def test_found_in_every_layout(toy, tmp_path, where, compress):
    write(tmp_path / where, toy, compress)
    data = build(tmp_path, crop_padding=4, flip=True)
    assert np.array_equal(data.train_images[..., 0], toy["train-images-idx3-ubyte"])
    assert np.array_equal(data.test_labels, toy["t10k-labels-idx1-ubyte"])
    assert data.sample_shape == (1, 28, 28) and data.num_classes == 10
    assert data.describe()["md5"] == fashion_mnist.CONTENT_MD5 and "/" not in str(data.describe())
    assert np.bincount(build(tmp_path, train_size=20).train_labels).tolist() == [2] * 10
    part, whole = build(tmp_path, test_size=10), build(tmp_path)
    assert len(part.test_images) == len(part.test_labels) == 10 < len(whole.test_labels)
    assert {x.tobytes() for x in part.test_images} <= {x.tobytes() for x in whole.test_images}
    for wrong in (0, 1.5, True, len(whole.test_labels) + 1):
        with pytest.raises(ConfigError, match="test_size is"):
            build(tmp_path, test_size=wrong)


def test_missing_says_the_three_ways(toy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        datasets.build({"name": "fashion_mnist", "root": None})
    text = str(caught.value)
    assert "dataset-fashion-mnist" in text and "dataset.root=" in text and "\n" not in text
    assert "run: python scripts/prepare_data.py fashion_mnist" in text and not list(tmp_path.iterdir())


@pytest.mark.parametrize("verify", [True, False])
def test_a_root_that_is_given_is_the_only_place(toy, tmp_path, monkeypatch, verify):
    write(tmp_path / "debian", toy)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "debian")
    mistyped = tmp_path / "mistyped"
    with pytest.raises(DataError, match=r"dataset.root is '.*mistyped', which is not a folder; correct it") as caught:
        build(mistyped, verify=verify)
    assert "\n" not in str(caught.value) and not mistyped.exists()
    mistyped.mkdir()
    with pytest.raises(
        DataError, match=r"not found in .*mistyped; run: .*prepare_data.py fashion_mnist --root .*mistyped"
    ):
        build(mistyped, verify=verify)
    monkeypatch.chdir(tmp_path)
    assert datasets.build({"name": "fashion_mnist", "root": None}).num_train == 40
    write(tmp_path / "elsewhere", toy_files(30))
    monkeypatch.setenv("RANDOMIX_DATA", str(tmp_path / "elsewhere"))
    assert datasets.build({"name": "fashion_mnist", "root": None, "verify": False}).num_train == 30


def test_other_content_is_refused_unless_asked_for(toy, tmp_path, capsys):
    other = toy | {name: toy[name] ^ 1 for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")}
    write(tmp_path, other)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.gz: expected MD5 of the content .*verify=false"):
        build(tmp_path)
    data = build(tmp_path, verify=False)
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}: train-images-idx3-ubyte, t10k-images-idx3-ubyte not of Fashion-MNIST; "
        "used because dataset.verify=false\n"
    )
    assert data.describe()["source"] == "IDX files, not verified"
    assert np.array_equal(data.test_images[..., 0], other["t10k-images-idx3-ubyte"])


def test_files_that_do_not_fit_together(toy, tmp_path):
    write(tmp_path / "a", toy | {"train-labels-idx1-ubyte": np.zeros(39, np.uint8)})
    write(tmp_path / "b", toy | {"train-labels-idx1-ubyte": np.full(40, 11, np.uint8)})
    with pytest.raises(DataError, match="found 40 train images and 39 labels"):
        build(tmp_path / "a", verify=False)
    with pytest.raises(DataError, match="train labels 0 to 9, found 11"):
        build(tmp_path / "b", verify=False)


def damaged(valid):
    header, body = valid[:16], valid[16:]
    return {
        "empty": (b"", "IDX magic 00000803, found nothing"),
        "page": (b"<html>not found</html>", "IDX magic 00000803, found 3c68746d"),
        "labels": (b"\0\0\x08\x01" + valid[4:], "found 00000801"),
        "floats": (b"\0\0\x0d\x03" + valid[4:], "found 00000d03"),
        "header only": (valid[:9], "a header of 16 bytes, found 9"),
        "no images": (header[:4] + struct.pack(">3I", 0, 28, 28), "found (0, 28, 28) in the header"),
        "huge": (header[:4] + struct.pack(">3I", 2**31, 2**31, 28) + body, "in the header"),
        "short": (valid[:-1], "expected 1568 bytes after the header for (2, 28, 28), found 1567 bytes"),
        "long": (valid + b"\0", "found more"),
    }


DAMAGED = damaged(idx(np.zeros((2, 28, 28), np.uint8)))


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_idx(tmp_path, kind, compress):
    content, message = DAMAGED[kind]
    path = tmp_path / ("x.gz" if compress else "x")
    path.write_bytes(gzip.compress(content) if compress else content)
    with pytest.raises(DataError) as caught:
        read_idx(path, 3)
    assert str(path) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)


def test_broken_compression_and_missing_file(tmp_path):
    path = tmp_path / "x.gz"
    whole = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (2, 28, 28), dtype=np.uint8)))
    for content in (whole[: len(whole) // 2], b"not gzip at all", whole[:40] + b"\xff" * 40 + whole[80:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="complete gzip data"):
            read_idx(path, 3)
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "nothing", 3)


@needs_debian
def test_debian_package_is_the_published_set(monkeypatch, tmp_path):
    """With the published gzip header put back, Debian's small files have the published MD5s: the data are the same."""
    import hashlib

    stamps = {
        "t10k-labels-idx1-ubyte": 1504176627,
        "train-labels-idx1-ubyte": 1504176606,
        "t10k-images-idx3-ubyte": 1504176627,
    }
    published = {archive.name: archive.digest for archive in ENTRIES["fashion_mnist"].archives}
    for name, stamp in stamps.items():
        stored = (fashion_mnist.DEBIAN / f"{name}.gz").read_bytes()
        header = b"\x1f\x8b\x08\x08" + struct.pack("<I", stamp) + b"\0\x03" + name.encode() + b"\0"
        assert hashlib.md5(header + stored[10:]).hexdigest() == published[f"{name}.gz"]
    monkeypatch.chdir(tmp_path)
    data = datasets.build({"name": "fashion_mnist"})
    assert (data.num_train, data.num_test) == (60000, 10000)
    assert abs((data.train_images / np.float32(255)).mean() - fashion_mnist.MEAN[0]) < 1e-5
    assert abs(data.train_images.astype(np.float32).std() / 255 - fashion_mnist.STD[0]) < 1e-5
    assert not list(tmp_path.iterdir())  # nothing was created
