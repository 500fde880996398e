"""Digits, fake images, subsets, options and the package's entry point."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import datasets
from datasets import digits, fake_images
from datasets.integrity import array_digest, file_digest
from datasets.subsets import balanced_subset, class_ranks, proportional_subset
from randomix.errors import ConfigError, DataError

CPU = torch.device("cpu")


def test_importing_the_packages_loads_no_torch():
    code = "import sys, datasets, models; sys.exit('torch' in sys.modules)"
    root = Path(datasets.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_unknown_data_set():
    with pytest.raises(ConfigError, match=r"dataset.name is 'cifar11', expected one of audio_folder, cifar10"):
        datasets.build({"name": "cifar11"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 4}, "dataset.crop is not an option of digits"),
        ({"flip": 1}, "dataset.flip is 1, expected true or false"),
        ({"crop_padding": -1}, "dataset.crop_padding is -1"),
        ({"train_size": 0}, "dataset.train_size is 0"),
        ({"train_size": 1201}, "dataset.train_size 1201 exceeds the 1200 training images of digits"),
        ({"flip": "x", "verify": None}, "dataset.flip is 'x'.*\n.*dataset.verify is None"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ConfigError, match=message):
        datasets.build({"name": "digits", **options})


@pytest.fixture(scope="module")
def all_digits():
    return datasets.build({"name": "digits"})


def test_digits_are_those_of_scikit_learn(all_digits):
    from sklearn.datasets import load_digits

    theirs = load_digits()
    table = {(np.rint(i * 255 / 16).astype(np.uint8).tobytes(), t) for i, t in zip(theirs.images, theirs.target)}  # noqa: B905
    images = np.concatenate([all_digits.train_images, all_digits.test_images])
    labels = np.concatenate([all_digits.train_labels, all_digits.test_labels])
    assert len(images) == 1797 and images.dtype == np.uint8 and images.max() == 255
    assert {(i.tobytes(), t) for i, t in zip(images, labels)} == table  # noqa: B905


def test_digits_split(all_digits):
    assert (all_digits.num_train, all_digits.num_test, all_digits.sample_shape) == (1200, 597, (1, 8, 8))
    shares = np.bincount(all_digits.test_labels) / np.bincount(
        np.concatenate([all_digits.train_labels, all_digits.test_labels])
    )
    assert np.abs(shares - 597 / 1797).max() < 0.006  # within one image a class
    digest = array_digest(all_digits.test_images, all_digits.test_labels)
    assert digest == TEST_DIGEST, "the test split changed: recorded results are no longer comparable"
    pixels = all_digits.train_images / 255
    assert abs(pixels.mean() - digits.MEAN[0]) < 1e-6 and abs(pixels.std() - digits.STD[0]) < 1e-6


TEST_DIGEST = "2073e0ebb9fff41abafc480077748006b5984ebb62849f087840027cef13f1b9"


@pytest.mark.parametrize("size", [10, 37, 200, 1000])
def test_digits_subset_is_balanced_fixed_and_nested(all_digits, size):
    small = datasets.build({"name": "digits", "train_size": size})
    counts = np.bincount(small.train_labels, minlength=10)
    assert counts.sum() == size == small.num_train and counts.max() - counts.min() <= 1
    assert array_digest(small.test_images) == array_digest(all_digits.test_images)
    known = [image.tobytes() for image in datasets.build({"name": "digits", "train_size": size + 1}).train_images]
    assert all(image.tobytes() in known for image in small.train_images)


def test_digits_description_has_no_path(all_digits, tmp_path):
    description = all_digits.describe()
    assert description["sha256"] == digits.SHA256 and description["synthetic"] is False
    assert (description["train_samples"], description["test_samples"]) == (1200, 597)
    assert "/" not in str(description)


def test_digits_damaged_or_missing(tmp_path):
    with pytest.raises(DataError, match=r"digits.csv.gz: not found in dataset.root="):
        datasets.build({"name": "digits", "root": str(tmp_path)})
    original = digits._find(None).read_bytes()
    target = tmp_path / "digits.csv.gz"
    target.write_bytes(original[: len(original) // 2])
    with pytest.raises(DataError, match=r"digits.csv.gz: expected rows of 65 numbers"):
        datasets.build({"name": "digits", "root": str(tmp_path)})
    text = gzip.decompress(original)
    target.write_bytes(gzip.compress(text.replace(b"16", b"15", 1)))
    with pytest.raises(DataError, match=r"digits.csv.gz: expected sha256 .* found .*verify=false"):
        datasets.build({"name": "digits", "root": str(tmp_path)})
    assert datasets.build({"name": "digits", "root": str(tmp_path), "verify": False}).num_train == 1200
    target.write_bytes(gzip.compress(text.replace(b"16", b"99", 1)))
    with pytest.raises(DataError, match="pixels up to 99"):
        datasets.build({"name": "digits", "root": str(tmp_path)})
    target.write_bytes(gzip.compress(b"1,2\n3,4\n"))
    with pytest.raises(DataError, match=r"1797 x 65 numbers, found \(2, 2\)"):
        datasets.build({"name": "digits", "root": str(tmp_path)})


def make_fake(**options):
    return datasets.build({"name": "fake_images", "train_size": 60, "test_size": 30, "num_classes": 3, **options})


def test_fake_images_shapes_and_label():
    data = make_fake(channels=2, height=5, width=9)
    assert data.sample_shape == (2, 5, 9) and data.num_classes == 3 and data.describe()["synthetic"] is True
    assert data.train_images.dtype == np.uint8 and data.train_images.std() > 40
    assert data.mean == data.std == (0.5, 0.5)


def test_fake_images_depend_on_their_place_alone():
    small, large = make_fake(train_size=7), make_fake(train_size=60)
    assert np.array_equal(small.train_images, large.train_images[:7])
    assert len({image.tobytes() for image in np.concatenate([large.train_images, large.test_images])}) == 90
    assert make_fake().describe() == make_fake().describe()


def test_fake_images_can_be_learnt():
    data = make_fake(num_classes=3)
    centres = np.stack([data.train_images[data.train_labels == k].mean(0) for k in range(3)])
    distances = ((data.test_images[:, None] - centres) ** 2).sum((2, 3, 4))
    assert (distances.argmin(1) == data.test_labels).all()


def test_fake_images_wrong_sizes():
    with pytest.raises(ConfigError, match=r"dataset.height is 0.*\n.*dataset.width is 'x'"):
        make_fake(height=0, width="x")
    assert make_fake(train_size=None).num_train == 1000


def test_class_ranks_number_each_class():
    labels = np.array([2, 0, 0, 1, 2, 2, 0])
    ranks = class_ranks(labels, "test")
    for label in range(3):
        assert sorted(ranks[labels == label]) == list(range((labels == label).sum()))
    assert not np.array_equal(class_ranks(np.zeros(50, int), "a"), class_ranks(np.zeros(50, int), "b"))


def test_subsets():
    labels = np.repeat([0, 1, 2], [3, 10, 30])
    assert np.bincount(labels[balanced_subset(labels, 15, "t")]).tolist() == [3, 6, 6]  # class 0 ran out
    counts = np.bincount(labels[proportional_subset(labels, 21, "t")])
    assert counts.sum() == 21 and np.abs(counts - np.array([3, 10, 30]) * 21 / 43).max() <= 1


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"
    with pytest.raises(DataError, match="cannot be read"):
        file_digest(tmp_path / "b")
    values = np.arange(6, dtype=np.int64)
    assert array_digest(values) == array_digest(values.astype(">i8"))
    assert len({array_digest(v) for v in (values, values.reshape(2, 3), values.astype(np.int32), values + 1)}) == 4
    assert array_digest(values[::2]) == array_digest(values[::2].copy())


def test_fake_and_digits_train(all_digits):
    """The first batch of every set has the statistics that normalisation promises."""
    loader = all_digits.train_loader(batch_size=1200, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32)
    inputs = next(loader.batches(0, 1)).inputs
    assert abs(inputs.mean()) < 1e-4 and abs(inputs.std() - 1) < 1e-3
    assert fake_images.build({"name": "fake_images"}).num_test == 200
