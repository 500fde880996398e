"""ImageNet's class folders: labels by the fixed list, every way in which folders can be wrong, and the options."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from datasets import imagenet
from datasets.formats.class_folders import scan
from datasets.imagenet import official_classes
from randomix.errors import ConfigError, DataError
from tests.datasets.pictures import CPU, load, make_folders


def build(root, **options):
    settings = {"name": "imagenet", "root": str(root), "image_size": 32, "workers": 0, "verify": False}
    return datasets.build(settings | options)


@pytest.fixture
def folder(tmp_path):
    return make_folders(tmp_path / "imagenet", train=5, val=3).parent


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """1,000 classes with two training and one validation image each: hard links to one JPEG."""
    root = tmp_path_factory.mktemp("official")
    Image.new("RGB", (40, 40), "red").save(root / "one.jpg")
    for split, count in (("train", 2), ("val", 1)):
        for name in official_classes():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                os.link(root / "one.jpg", root / split / name / f"{name}_{number}.JPEG")
    return root


def test_the_list_of_classes():
    names = official_classes()
    assert len(names) == len(set(names)) == 1000 and list(names) == sorted(names)
    assert names[0] == "n01440764" and names[999] == "n15075141"  # tench, toilet tissue
    assert names[1] == "n01443537" and names[207] == "n02099601"  # goldfish, golden retriever


def test_verified_counts(official, monkeypatch, capsys):
    with pytest.raises(
        DataError,
        match=r"expected 1281167 images in train, found 2000; run: python scripts/prepare_"
        r"data.*, or set dataset.verify=false",
    ):
        build(official, verify=True)
    monkeypatch.setattr(imagenet, "SPLITS", {"train": 2000, "val": 1000})
    data = build(official, verify=True)
    assert (data.num_train, data.num_test, data.num_classes) == (2000, 1000, 1000)
    assert data.describe()["source"] == "ILSVRC 2012" and str(official) not in str(data.describe())
    assert "archives" not in data.describe() and data.describe()["checked"] == "classes and numbers of images"
    assert not capsys.readouterr().err
    small = build(official, verify=True, train_size=1500)
    assert np.bincount(small.train.files.labels).tolist().count(2) == 500 and small.num_train == 1500
    with pytest.raises(ConfigError, match="train_size 2001 exceeds the 2000 training images of imagenet"):
        build(official, verify=True, train_size=2001)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_extra_and_empty_classes(official, monkeypatch, split, verify):
    monkeypatch.setattr(imagenet, "SPLITS", {"train": 2000, "val": 1000})
    folder, away = official / split / "n01484850", official / "away"
    other = official / {"train": "val", "val": "train"}[split]
    folder.rename(away)
    try:
        with pytest.raises(DataError) as caught:
            build(official, verify=verify)
        if verify or split == "val":
            assert f"{official / split}: expected 1000 class folders, found 999: missing n01484850" in str(caught.value)
        else:  # the classes are those of train
            assert f"{other}: expected 999 class folders, found 1000: extra n01484850" in str(caught.value)
        folder.mkdir()
        with pytest.raises(DataError, match=rf"{folder}: expected images \(.jpg .*\), found none"):
            build(official, verify=verify)
        folder.rmdir()
    finally:
        away.rename(folder)
    extra = official / split / "n99999999"
    extra.mkdir()
    try:
        with pytest.raises(DataError, match="n99999999"):
            build(official, verify=verify)
    finally:
        extra.rmdir()


def test_labels_are_places_in_the_list_not_in_the_folder(official):
    """A class that is missing moves no label: it is an error. Files count by name, suffixes in any case."""
    files = scan(official / "val", official_classes(), "")
    for index in (0, 1, 207, 999):
        assert files.path(index).endswith(f"/val/{official_classes()[index]}/{official_classes()[index]}_0.JPEG")
        assert files.labels[index] == index


def test_which_files_count(folder, capsys):
    place = folder / "imagenet" / "train" / "n02"
    for name in ("b.jpeg", "a.PNG", ".hidden.jpg", "z.JPG"):
        Image.new("RGB", (40, 40)).save(place / name, "PNG" if "PNG" in name else "JPEG")
    (place / "notes.txt").write_text("x")
    (place / "folder.jpg").mkdir()
    (folder / "imagenet" / "train" / ".cache").mkdir()
    (folder / "imagenet" / "train" / "n01.tar").write_bytes(b"")
    data = build(folder)
    files = data.train.files
    names = [os.path.basename(files.path(i)) for i in range(len(files)) if files.labels[i] == 1]
    assert names == ["a.PNG", "b.jpeg", *(f"n02_{i}.JPEG" for i in range(5)), "z.JPG"]
    errors = capsys.readouterr().err
    assert "what is no image file is ignored, folders in class folders too (2), the first is " in errors
    assert len(list(load(data).batches(0, 3))) == 3
    (place / "link.jpg").symlink_to("/nowhere/image.jpg")
    with pytest.raises(
        DataError, match=r"link.jpg: expected an image, found a link that leads nowhere; mount the disk"
    ):
        build(folder)


def test_another_set_of_this_layout_is_taken_with_one_warning(folder, capsys):
    data = build(folder)
    assert (data.num_train, data.num_test, data.class_names) == (15, 9, ("n01", "n02", "n03"))
    errors = capsys.readouterr().err
    assert errors.count("warning") == 1 and "used because dataset.verify=false" in errors
    assert data.describe()["source"] == "class folders, not verified"
    assert build(folder / "imagenet").num_train == 15  # the folder itself works as well
    with pytest.raises(DataError, match=r"expected 1000 class folders, found 3"):
        build(folder, verify=True)


def test_the_description_is_of_the_files(folder, tmp_path):
    first = build(folder).describe()
    assert build(make_folders(tmp_path / "other", train=5, val=3)).describe() == first
    (folder / "imagenet" / "train" / ".prepared.json").write_text("{}")  # evidence comes and goes, the data stay
    assert build(folder).describe() == first
    file = folder / "imagenet" / "val" / "n01" / "n01_2.JPEG"
    file.rename(file.with_name("n01_9.JPEG"))
    assert build(folder).describe() != first


def test_what_is_not_there(tmp_path):
    with pytest.raises(DataError, match=r"not found in .*; run: python scripts/prepare_data.py imagenet --root"):
        build(tmp_path)
    (tmp_path / "train").mkdir()  # val is missing
    with pytest.raises(DataError, match="imagenet: not found in"):
        build(tmp_path)


def test_what_vanishes_during_training_is_named(folder):
    data = build(folder)
    (folder / "imagenet" / "train" / "n01" / "n01_0.JPEG").unlink()
    with pytest.raises(DataError, match=r"n01_0.JPEG: cannot be read \(No such file or directory\)"):
        list(load(data, batch_size=15).batches(0, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_padding": 4}, "dataset.crop_padding is not an option of imagenet"),
        ({"workers": -1}, "dataset.workers is -1, expected null or a number of processes >= 0"),
        ({"scale": [0, 1]}, r"dataset.scale is \[0, 1\]"),
        ({"ratio": [2, 1]}, r"dataset.ratio is \[2, 1\]"),
        ({"on_bad_sample": "ignore"}, "dataset.on_bad_sample is 'ignore', expected error or skip"),
        ({"max_bad_share": 2}, "dataset.max_bad_share is 2"),
        ({"resize": 31}, "dataset.resize is 31, less than dataset.image_size 32"),
        ({"flip": 1, "image_size": 0}, "dataset.image_size is 0.*\n.*dataset.flip is 1"),
        ({"mean": [0.5]}, r"dataset.mean is \[0.5\], expected three numbers"),
        ({"shuffle_buffer": 0}, "dataset.shuffle_buffer is 0"),
    ],
)
def test_wrong_options(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        build(folder, **options)


def test_options_reach_the_loader(folder):
    data = build(folder, scale=[1.0, 1.0], ratio=[1.0, 1.0], flip=False, mean=[0.5] * 3, std=[0.5] * 3, image_size=24)
    assert data.sample_shape == (3, 24, 24) and data.options.resize == 27
    batch = next(load(data, batch_size=15).batches(0, 1))
    again = next(load(data, batch_size=15, seed=9).batches(0, 1))
    by_index = {i: x for i, x in zip(batch.indices.tolist(), batch.inputs, strict=True)}
    square = [i for i in by_index if len(set(Image.open(data.train.files.path(i)).size)) == 1]
    for index, inputs in zip(again.indices.tolist(), again.inputs, strict=True):
        assert index not in square or torch.equal(inputs, by_index[index])  # nothing left to draw
    assert batch.inputs.abs().max() <= 1
    assert torch.allclose(data.eval_set(CPU).normalise(torch.full((1, 3, 1, 1), 0.75)), torch.tensor(0.5))
