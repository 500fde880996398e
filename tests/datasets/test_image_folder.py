"""Your own images: classes from the training folder, decoded while training or once, and the settings' file."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import datasets
from datasets.resident import ArrayData
from datasets.streams.crops import CentreCrop
from datasets.streams.streaming import StreamData
from randomix.errors import ConfigError, DataError
from tests.datasets.pictures import CPU, cut, load, make_folders, same
from tests.support import tiny_config, train, weights_digest

ROOT = Path(__file__).parents[2]


def build(root, **options):
    return datasets.build({"name": "image_folder", "root": str(root), "image_size": 32, "workers": 0, **options})


@pytest.fixture
def folder(tmp_path):
    return make_folders(tmp_path / "mine", train=6, val=4, classes=("apple", "pear"))


@pytest.mark.parametrize("name", ["imagenet", "image_folder"])
def test_the_settings_file_names_every_option(folder, name):
    config = yaml.safe_load((ROOT / f"configs/dataset/{name}.yaml").read_text())
    config |= {"root": str(folder), "workers": 0, "image_size": 32, "resize": None}
    data = datasets.build(config | ({"verify": False} if name == "imagenet" else {}))
    assert isinstance(data, StreamData) and data.num_train == 12
    assert data.mean == (0.485, 0.456, 0.406) and data.std == (0.229, 0.224, 0.225)


def test_classes_come_from_the_training_folder(folder):
    assert build(folder).class_names == ("apple", "pear")
    (folder / "val" / "plum").mkdir()
    with pytest.raises(DataError, match=r"val: expected 2 class folders, found 3: extra plum; its classes have to be"):
        build(folder)
    (folder / "val" / "plum").rename(folder / "train" / "plum")
    with pytest.raises(DataError, match=r"train/plum: expected images"):
        build(folder)
    make_folders(folder / "other", classes=("plum",))
    (folder / "train" / "plum").rmdir()
    (folder / "other" / "train" / "plum").rename(folder / "train" / "plum")
    with pytest.raises(DataError, match=r"val: expected 3 class folders, found 2: missing plum"):
        build(folder)
    (folder / "val").rename(folder / "old")
    (folder / "other" / "val").rename(folder / "val")
    for name in ("apple", "pear"):
        (folder / "old" / name).rename(folder / "val" / name)
    nested = build(folder / "..", train_folder=f"{folder.name}/train", test_folder=f"{folder.name}/val")
    assert nested.num_classes == 3


def test_the_training_images_are_no_test(folder):
    (folder / "link").symlink_to("train")
    for other in ("train", "./train/", "val/../train", "link"):
        with pytest.raises(ConfigError, match=r"dataset.train_folder=train and dataset.test_folder=.* are one folder"):
            build(folder, test_folder=other)


def test_what_is_missing(folder, tmp_path):
    with pytest.raises(ConfigError, match=r"dataset.root is null, expected the folder of your images"):
        datasets.build({"name": "image_folder", "root": None})
    with pytest.raises(DataError, match=r"none/train: expected a folder with one folder a class"):
        build(tmp_path / "none")
    make_folders(tmp_path / "single", classes=("apple",))
    with pytest.raises(DataError, match=r"expected folders of 2 classes or more, found 1"):
        build(tmp_path / "single")


def test_resident_images_are_decoded_once_and_the_same(folder, tmp_path):
    data = build(folder, storage="resident", crop_padding=2)
    assert isinstance(data, ArrayData) and data.sample_shape == (3, 32, 32) and data.crop_padding == 2
    files = build(folder).train.files
    for index in range(12):
        exact = CentreCrop(32, 32)(files.read(index), "x").numpy()
        assert np.array_equal(data.train_images[index], exact) and data.train_labels[index] == files.labels[index]
    assert next(load(data).batches(0, 1)).inputs.shape == (6, 3, 32, 32)
    caches = sorted((tmp_path / ".randomix-cache").glob("image_folder-*/manifest.json"))
    times = [path.stat().st_mtime_ns for path in caches]
    again = build(folder, storage="resident", workers=1)
    assert len(caches) == 1 and [path.stat().st_mtime_ns for path in caches] == times
    assert np.array_equal(again.train_images, data.train_images)
    assert build(folder, storage="resident", image_size=16).sample_shape == (3, 16, 16)
    build(folder, storage="resident", cache=str(tmp_path / "here"))
    assert len(list((tmp_path / "here").glob("image_folder-*/manifest.json"))) == 1


def test_a_changed_file_is_decoded_again(folder):
    before = build(folder, storage="resident").train_images[0].copy()
    first, second = (folder / "train" / "apple" / f"apple_{i}.JPEG" for i in (0, 1))
    first.write_bytes(second.read_bytes())
    after = build(folder, storage="resident").train_images
    assert not np.array_equal(after[0], before) and np.array_equal(after[0], after[1])


def test_resident_with_bad_images(folder, capsys):
    cut(folder / "train" / "pear" / "pear_2.JPEG")
    with pytest.raises(DataError, match=r"pear_2.JPEG: expected a whole image"):
        build(folder, storage="resident")
    with pytest.raises(DataError, match=r"1 of 12 training images cannot be read, more than dataset.max_bad"):
        build(folder, storage="resident", on_bad_sample="skip", max_bad_share=0.01)
    data = build(folder, storage="resident", on_bad_sample="skip", max_bad_share=0.2)
    assert data.num_train == 11 and np.bincount(data.train_labels).tolist() == [6, 5]
    assert data.describe()["left_out"] == 1 and "pear_2.JPEG" in capsys.readouterr().err
    build(folder, storage="resident", on_bad_sample="skip", max_bad_share=0.2)
    assert "1 images that cannot be read are left out" in capsys.readouterr().err  # from the cache: said again
    with pytest.raises(DataError, match=r"1 of \d+ images cannot be read, more than dataset.max_bad_share=0.01 allows"):
        build(folder, storage="resident", on_bad_sample="skip", max_bad_share=0.01)
    cut(folder / "val" / "pear" / "pear_1.JPEG")
    with pytest.raises(DataError, match=r"val/pear/pear_1.JPEG: expected a whole image"):
        build(folder, storage="resident", on_bad_sample="skip", max_bad_share=1)


def test_the_description_is_of_the_images_not_of_the_place(folder, tmp_path):
    first = build(folder).describe()
    other = make_folders(tmp_path / "other", train=6, val=4, classes=("apple", "pear"))
    assert build(other).describe() == first and "/" not in str(first)
    (other / "val" / "pear" / "pear_1.JPEG").rename(other / "val" / "pear" / "pear_7.JPEG")
    assert build(other).describe() != first
    assert build(folder, train_size=6).num_train == 6


def test_evaluation_of_both_ways(folder):
    stream, resident = build(folder, resize=32), build(folder, storage="resident")
    assert same(list(stream.eval_set(CPU).batches(3)), list(resident.eval_set(CPU).batches(3)))
    images = torch.rand(2, 3, 32, 32)
    assert torch.allclose(stream.eval_set(CPU).normalise(images), resident.eval_set(CPU).normalise(images))


@pytest.mark.parametrize("storage", ["stream", "resident"])
def test_a_run_interrupted_in_an_epoch_ends_with_the_same_weights(folder, tmp_path, monkeypatch, storage):
    from randomix.engine.stopper import Stopper
    from randomix.errors import Interrupted
    from tests.support import group_net, stop_once

    settings = {"name": "image_folder", "root": str(folder), "image_size": 16, "workers": 0, "storage": storage}

    def config(output):
        return tiny_config(tmp_path / output, recipe={"batch_size": 4}) | {"dataset": settings}

    whole = weights_digest(train(config("whole"), group_net))
    with monkeypatch.context() as patch:
        patch.setattr(Stopper, "check", stop_once(Stopper.check, 3))
        with pytest.raises(Interrupted):
            train(config("parts"), group_net)
    assert weights_digest(train(config("parts"), group_net)) == whole
