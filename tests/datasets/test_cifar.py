"""CIFAR: both official forms against an obvious reader, checksums before anything is opened, and every bad file."""

import os
import pickle

import numpy as np
import pytest

import datasets
from datasets import cifar
from datasets.subsets import balanced_subset
from randomix.errors import ConfigError, DataError
from randomix.records import record
from tests.datasets.cifar_files import md5, official_names, python2, toy, write_binary, write_python
from tests.support import tiny_config, train

SETS = ("cifar10", "cifar100")


def build(root, name="cifar10", **options):
    return datasets.build({"name": name, "root": str(root), "verify": False, **options})


def problem(root, name="cifar10", **options):
    with pytest.raises(DataError) as caught:
        build(root, name, **options)
    assert "\n" not in str(caught.value) and "run: python scripts/prepare_data.py" in str(caught.value)
    return str(caught.value)


def obvious(name, content, files, kind):
    """Images and labels, one pixel after the other, as the set's page describes the files."""
    images, labels = [], []
    for file in files:
        planes, by_kind = content[file]
        for row, label in zip(planes, by_kind[kind], strict=True):
            image = [[[row[1024 * c + 32 * y + x] for c in range(3)] for x in range(32)] for y in range(32)]
            images.append(image)
            labels.append(label)
    return np.array(images), np.array(labels)


@pytest.mark.parametrize("name", SETS)
def test_the_files_of_names_are_the_official_ones(tmp_path, name):
    file = cifar.FORMS[name][0].names[0]
    (tmp_path / file).write_bytes(official_names(name))
    assert md5(tmp_path) == {file: cifar.MD5[name][file]}


def test_folders_and_files_are_those_of_the_official_archives():
    batches = [f"data_batch_{i}" for i in (1, 2, 3, 4, 5)] + ["test_batch"]
    expected = {
        "cifar-10-batches-py": ["batches.meta", *batches],
        "cifar-10-batches-bin": ["batches.meta.txt", *(f"{name}.bin" for name in batches)],
        "cifar-100-python": ["meta", "train", "test"],
        "cifar-100-binary": ["coarse_label_names.txt", "fine_label_names.txt", "train.bin", "test.bin"],
    }
    forms = [form for both in cifar.FORMS.values() for form in both]
    assert {form.folder: [*form.names, *form.train, *form.test] for form in forms} == expected


def test_checksums_are_those_of_torchvision():
    torchvision = pytest.importorskip("torchvision.datasets")
    for name, theirs in (("cifar10", torchvision.CIFAR10), ("cifar100", torchvision.CIFAR100)):
        expected = dict([*theirs.train_list, *theirs.test_list]) | {theirs.meta["filename"]: theirs.meta["md5"]}
        assert cifar.MD5[name] == expected


@pytest.mark.parametrize(("name", "labels"), [("cifar10", None), ("cifar100", "fine"), ("cifar100", "coarse")])
def test_every_pixel_and_label_in_both_forms(tmp_path, name, labels):
    content, option = toy(name, 6, 4), {"labels": labels} if labels else {}
    form = cifar.FORMS[name][0]
    kind = f"{labels}_labels" if labels else "labels"
    write_python(tmp_path / "python", name, content)
    write_binary(tmp_path / "binary", name, content)
    for place in ("python", "binary"):
        data = build(tmp_path / place, name, **option)
        for files, images, found in (
            (form.train, data.train_images, data.train_labels),
            (form.test, data.test_images, data.test_labels),
        ):
            expected, expected_labels = obvious(name, content, files, kind)
            assert images.dtype == np.uint8 and np.array_equal(images, expected)
            assert np.array_equal(found, expected_labels)
        assert data.class_names == tuple(cifar.NAMES[kind].split())
        assert data.num_classes == {"labels": 10, "fine_labels": 100, "coarse_labels": 20}[kind]
        assert data.describe()["version"] == place and data.sample_shape == (3, 32, 32)


def test_agrees_with_torchvision(tmp_path, monkeypatch):
    theirs = pytest.importorskip("torchvision.datasets").CIFAR100
    folder = write_python(tmp_path, "cifar100", toy("cifar100", 8, 4))
    digests = md5(folder)
    monkeypatch.setattr(theirs, "train_list", [["train", digests["train"]]])
    monkeypatch.setattr(theirs, "test_list", [["test", digests["test"]]])
    data = build(tmp_path, "cifar100")
    for train_part, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        reference = theirs(tmp_path, train=train_part)
        assert np.array_equal(reference.data, images) and reference.targets == labels.tolist()
    assert tuple(reference.classes) == data.class_names


@pytest.mark.parametrize("name", SETS)
def test_pickles_of_every_protocol(tmp_path, name):
    content = toy(name, 3, 2)
    write_python(tmp_path / "python2", name, content)
    expected = build(tmp_path / "python2", name)
    for protocol in range(6):
        for encode in (str.encode, str):
            root = tmp_path / f"{protocol}{encode.__name__}"
            write_python(
                root, name, content, lambda b, p=protocol, e=encode: pickle.dumps({e(k): v for k, v in b.items()}, p)
            )
            data = build(root, name)
            assert np.array_equal(data.train_images, expected.train_images)
            assert np.array_equal(data.test_labels, expected.test_labels)


@pytest.mark.parametrize("write", [write_python, write_binary])
@pytest.mark.parametrize("name", SETS)
def test_places(tmp_path, monkeypatch, name, write):
    content = toy(name, 2, 2)
    folder = write(tmp_path / "a", name, content)
    monkeypatch.setenv("RANDOMIX_DATA", str(tmp_path / "a"))
    for root in (tmp_path / "a", folder, None):
        assert datasets.build({"name": name, "root": root and str(root), "verify": False}).num_test == 2
    monkeypatch.delenv("RANDOMIX_DATA")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        datasets.build({"name": name})
    assert str(caught.value) == (
        f"{name}: not found in data; run: python scripts/prepare_data.py {name}, "
        "or set dataset.root=FOLDER to where it is"
    )
    (tmp_path / "b" / "train").mkdir(parents=True)  # a folder of that name is no batch
    assert "not found in" in problem(tmp_path / "b", name)


def test_python_before_binary(tmp_path):
    write_binary(tmp_path, "cifar10", toy("cifar10", 2, 2))
    assert build(tmp_path).describe()["version"] == "binary"
    write_python(tmp_path, "cifar10", toy("cifar10", 2, 2))
    assert build(tmp_path).describe()["version"] == "python"


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A folder of the python version whose checksums count as the official ones."""
    folder = write_python(tmp_path, "cifar10", toy("cifar10"))
    monkeypatch.setitem(cifar.MD5, "cifar10", md5(folder))
    return folder


def test_official_files(official, capsys):
    data = build(official, verify=True)
    assert data.describe() == {
        "source": "CIFAR-10",
        "version": "python",
        "verified": "MD5 of every file",
        "md5": cifar.MD5["cifar10"],
        "synthetic": False,
        "train_samples": 100,
        "test_samples": 10,
    }
    assert build(official).describe()["source"] == "CIFAR-10" and not capsys.readouterr().err


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
def test_a_wrong_checksum_is_refused_before_the_file_is_opened(official, file, tmp_path):
    marker = tmp_path / "marker"
    payload = pickle.dumps({"data": type("Call", (), {"__reduce__": lambda self: (os.system, (f"touch {marker}",))})()})
    (official / file).write_bytes(payload)
    text = problem(official, verify=True)
    assert f"{file}: expected MD5 {cifar.MD5['cifar10'][file]}, found " in text and "dataset.verify=false" in text
    text = problem(official, verify=False)
    assert f"{file}: expected a pickled dictionary" in text and "nothing of it was executed" in text
    assert not marker.exists()


def test_other_files_are_used_on_request_with_one_warning(official, capsys):
    planes = np.zeros((3, 3072), np.uint8)
    (official / "data_batch_2").write_bytes(python2({"data": planes, "labels": [0, 9, 5]}))
    assert "expected MD5" in problem(official, verify=True)
    data = build(official)
    assert data.num_train == 83 and data.describe()["source"] == "files in CIFAR-10's format, not the official ones"
    assert data.describe()["verified"] is False
    assert capsys.readouterr().err == (
        f"warning: {official}: data_batch_2 not of CIFAR-10; used because dataset.verify=false\n"
    )


PLANES = np.zeros((3, 3072), np.uint8)
BAD_BATCHES = {
    "no labels": ({"data": PLANES}, "'labels' as a list of whole numbers, found NoneType"),
    "no data": ({"labels": [0, 1, 2]}, "'data' as an array, found a value of type NoneType"),
    "another set": ({"data": PLANES, "fine_labels": [0, 1, 2], "coarse_labels": [0, 1, 2]}, "'labels' as a list"),
    "label too large": ({"data": PLANES, "labels": [0, 10, 2]}, "labels from 0 to 9, found 10"),
    "label negative": ({"data": PLANES, "labels": [0, 1, -2]}, "labels from 0 to 9, found -2"),
    "label huge": ({"data": PLANES, "labels": [0, 1, 2**70]}, "'labels' as a list of whole numbers"),
    "label a text": ({"data": PLANES, "labels": [0, 1, "2"]}, "'labels' as a list of whole numbers"),
    "label a fraction": ({"data": PLANES, "labels": [0, 1, 2.0]}, "'labels' as a list of whole numbers"),
    "fewer labels": ({"data": PLANES, "labels": [0, 1]}, "one of the labels an image, found 3 images and 2 labels"),
    "wrong width": ({"data": PLANES[:, 1:], "labels": [0, 1, 2]}, "shape (N, 3072), found uint8 of shape (3, 3071)"),
    "images": ({"data": PLANES.reshape(3, 32, 32, 3), "labels": [0, 1, 2]}, "found uint8 of shape (3, 32, 32, 3)"),
    "floats": ({"data": PLANES.astype("f4"), "labels": [0, 1, 2]}, "found float32 of shape (3, 3072)"),
    "objects": ({"data": PLANES.astype(object), "labels": [0, 1, 2]}, "numbers of type 'O8'; nothing"),
    "a list": ({"data": PLANES.tolist(), "labels": [0, 1, 2]}, "'data' as an array, found a value of type list"),
    "none": ({"data": PLANES[:0], "labels": []}, "shape (N, 3072), found uint8 of shape (0, 3072)"),
    "a number": ({"data": np.array(3, np.uint8), "labels": []}, "found uint8 of shape ()"),
    "no dictionary": ([PLANES, [0, 1, 2]], "found a list; nothing"),
}


@pytest.mark.parametrize("kind", BAD_BATCHES)
def test_bad_batches(tmp_path, kind):
    batch, found = BAD_BATCHES[kind]
    folder = write_python(tmp_path, "cifar10", toy("cifar10", 2, 2))
    (folder / "data_batch_3").write_bytes(pickle.dumps(batch, 2))
    text = problem(tmp_path)
    assert f"{folder / 'data_batch_3'}: expected " in text and found in text


@pytest.mark.parametrize("name", SETS)
def test_missing_cut_and_foreign_files(tmp_path, name):
    file = cifar.FORMS[name][0].train[-1]
    for place, write, suffix in (("python", write_python, ""), ("binary", write_binary, ".bin")):
        folder = write(tmp_path / place, name, toy(name, 3, 2))
        path = folder / f"{file}{suffix}"
        whole = path.read_bytes()
        for content in (whole[:-1], whole[: len(whole) // 2], b"", b"<html>not found</html>", whole + b"\0"):
            path.write_bytes(content)
            assert f"{path}: expected " in problem(folder, name)
        path.unlink()
        assert f"{path}: cannot be read (No such file or directory)" in problem(folder, name)
        path.mkdir()
        assert f"{path}: cannot be read (Is a directory)" in problem(folder, name)
        path.rmdir()
        path.write_bytes(whole)
        names = folder / cifar.FORMS[name][write is write_binary].names[-1]
        for content in (b"", b"cat\n", b"cat\ncat\n", python2({"x": 1}), python2({"label_names": [1, 2]})):
            names.write_bytes(content)
            assert f"{names}: expected " in problem(folder, name)


def test_files_of_absurd_size_are_not_read(tmp_path, monkeypatch):
    folder = write_python(tmp_path, "cifar10", toy("cifar10", 2, 2))
    with open(folder / "data_batch_1", "wb") as file:
        file.truncate(2**40)  # a sparse file: takes no space
    assert f"data_batch_1: expected at most {2**30} bytes, found {2**40}" in problem(tmp_path)


def small_binary(monkeypatch, name):
    """Content with the official shares of each class, in files of which 20 and 10 a class or fewer count as whole."""
    monkeypatch.setattr(cifar, "TRAIN", 500 if name == "cifar10" else 400)
    monkeypatch.setattr(cifar, "TEST", 100 if name == "cifar10" else 200)
    return toy(name, 100 if name == "cifar10" else 400, 100 if name == "cifar10" else 200)


@pytest.mark.parametrize("name", SETS)
def test_binary_files_that_count_as_official(tmp_path, monkeypatch, name, capsys):
    folder = write_binary(tmp_path, name, small_binary(monkeypatch, name))
    found = build(tmp_path, name, verify=True).describe()
    assert found["verified"] == "sizes, labels, class counts and names" and found["md5"] == md5(folder)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("cifar10", lambda c: c["data_batch_2"][1]["labels"].__setitem__(slice(None), 3), "images of each class"),
        (
            "cifar10",
            lambda c: (
                c.update(test_batch=c["data_batch_1"])
                or c.update(
                    data_batch_5=tuple([c["data_batch_5"][0][:50], {"labels": c["data_batch_5"][1]["labels"][:50]}])
                )
            ),
            "data_batch_5.bin: expected 100 images, found 50",
        ),
        (
            "cifar100",
            lambda c: c["train"][1].update(fine_labels=np.roll(c["train"][1]["fine_labels"], 1)),
            "one coarse label for each fine label",
        ),
        (
            "cifar100",
            lambda c: c["test"][1].update(
                {"fine_labels": c["test"][1]["coarse_labels"], "coarse_labels": c["test"][1]["fine_labels"]}
            ),
            "coarse_labels from 0 to 19",
        ),
    ],
)
def test_binary_files_that_are_not_official(tmp_path, monkeypatch, name, change, message, capsys):
    content = small_binary(monkeypatch, name)
    change(content)
    write_binary(tmp_path, name, content)
    assert message in problem(tmp_path, name, verify=True)
    if "from 0" not in message:
        build(tmp_path, name)
        err = capsys.readouterr().err
        assert err.startswith("warning: ") and message in err and err.count("\n") == 1


@pytest.mark.parametrize("name", SETS)
def test_names_in_another_order_are_not_official(tmp_path, monkeypatch, name):
    folder = write_binary(tmp_path, name, small_binary(monkeypatch, name))
    path = folder / cifar.FORMS[name][1].names[-1]
    first, second, *rest = path.read_text().split("\n")
    path.write_text("\n".join([second, first, *rest]))
    assert f"{path}: expected the class {first} at its place, found {second}" in problem(folder, name, verify=True)
    assert build(folder, name).class_names[0] == second


def test_options(tmp_path):
    write_python(tmp_path, "cifar100", toy("cifar100", 300, 20))
    data = build(tmp_path, "cifar100", labels="coarse", train_size=40, mean=[0.5, 0.5, 0.5], crop_padding=4, flip=True)
    assert np.bincount(data.train_labels).tolist() == [2] * 20 and data.mean == (0.5, 0.5, 0.5)
    assert data.std == cifar.STD and (data.crop_padding, data.flip) == (4, True)
    everything = build(tmp_path, "cifar100", labels="coarse")
    chosen = balanced_subset(everything.train_labels, 40, "cifar100.train")
    assert np.array_equal(data.train_images, everything.train_images[chosen])
    for options, message in (
        ({"labels": "all"}, "dataset.labels is 'all'"),
        ({"mean": [1, 2]}, "dataset.mean"),
        ({"std": [0, 1, 1]}, "dataset.std"),
        ({"train_size": 301}, "dataset.train_size 301"),
        ({"cache": "x"}, "dataset.cache is not an option"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(tmp_path, "cifar100", **options)
    with pytest.raises(ConfigError, match=r"dataset.labels is not an option of cifar10"):
        build(tmp_path, labels="fine")


@pytest.mark.parametrize(("name", "write"), [("cifar10", write_python), ("cifar100", write_binary)])
def test_two_epochs(tmp_path, name, write):
    write(tmp_path / "data", name, toy(name, 16 if name == "cifar10" else 64, 20))
    dataset = {"name": name, "root": str(tmp_path / "data"), "verify": False, "crop_padding": 4, "flip": True}
    run = train(tiny_config(tmp_path) | {"dataset": dataset, "model": {"name": "preact_resnet18", "width": 16}})
    found = record.read(run.record)
    assert found.counts["clean"]["total"] == 20 and found.data["train_samples"] == (80 if name == "cifar10" else 64)
