"""Generated corrupted test sets, those in class folders, and those of streamed data."""

import shutil

import numpy as np
import pytest
import torch

import datasets
from datasets.corrupted import published
from datasets.corrupted.class_trees import ClassTrees
from datasets.corrupted.generated import Generated
from datasets.preparing import prepare
from datasets.preparing.sets import ENTRIES
from randomix.errors import DataError, StorageError
from randomix.robustness import corruptions
from tests.datasets.corrupted_files import NAMES, corrupted_trees
from tests.datasets.pictures import make_folders
from tests.datasets.prepare_driver import toy_entry
from tests.datasets.toy_archives import md5, tar

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setenv("RANDOMIX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(published, "_said", set())


@pytest.fixture
def stub(monkeypatch):
    """A generator that counts its calls."""
    calls = []

    def corrupt(images, name, severity, seed=0, indices=None):
        calls.append((name, severity, seed))
        return images ^ (severity + 8 * len(name) + seed)

    monkeypatch.setattr(corruptions, "corrupt", corrupt)
    return calls


def pixels(eval_set, batch_size=100):
    """(N, H, W, C) uint8 in the order of the indices, and the labels."""
    batches = list(eval_set.batches(batch_size))
    order = torch.cat([b.indices for b in batches]).argsort()
    images = torch.cat([b.inputs for b in batches])[order]
    images = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    return images.numpy(), torch.cat([b.labels for b in batches])[order].numpy()


@pytest.mark.parametrize("name", ["digits", "fake_images"])
def test_a_generated_set_is_what_the_corruption_makes(name):
    data = datasets.build({"name": name})
    for corruption in ("gaussian_noise", "brightness"):
        images, labels = pixels(data.corrupted_set(CPU, corruption, 3, source="generated", seed=4))
        assert np.array_equal(images, corruptions.corrupt(data.test_images, corruption, 3, seed=4))
        assert np.array_equal(labels, data.test_labels)


def test_made_once_and_after_a_stop_only_what_is_missing(tmp_path, stub, monkeypatch):
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    cells = [("fog", 1), ("fog", 2), ("snow", 1)]

    def all_of(seed=0):
        return [np.array(Generated("toy", images, tmp_path).cell(*cell, seed)) for cell in cells]

    with monkeypatch.context() as patch:
        patch.setattr(corruptions, "corrupt", stopped_after(1, corruptions.corrupt))
        with pytest.raises(KeyboardInterrupt):
            all_of()
    assert stub == [("fog", 1, 0)]
    found = all_of()
    assert stub == [("fog", 1, 0), ("fog", 2, 0), ("snow", 1, 0)]
    assert all(np.array_equal(a, images ^ (s + 8 * len(n))) for a, (n, s) in zip(found, cells, strict=True))
    all_of()
    assert len(stub) == 3
    all_of(seed=1)
    assert len(stub) == 6
    Generated("toy", images + 1, tmp_path).cell("fog", 1, 0)
    assert len(stub) == 7


def stopped_after(count, original):
    def corrupt(*arguments, **options):
        nonlocal count
        count -= 1
        if count < 0:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    return corrupt


def test_a_stale_or_damaged_cell_is_made_again_with_a_line(tmp_path, stub, monkeypatch, capsys):
    images = np.zeros((3, 4, 4, 1), np.uint8)
    made = Generated("toy", images, tmp_path)
    made.cell("fog", 1, 0)
    (folder,) = tmp_path.glob("*/fog-1")
    assert not capsys.readouterr().err
    for spoil in (
        lambda: (folder / "images.npy").write_bytes((folder / "images.npy").read_bytes()[:-1] + b"x"),
        lambda: (folder / "manifest.json").write_text("{"),
        lambda: monkeypatch.setattr(corruptions, "VERSION", "another"),
    ):
        before = len(stub)
        spoil()
        assert np.array_equal(made.cell("fog", 1, 0), images ^ 25) and len(stub) == before + 1
        assert capsys.readouterr().err == f"{folder}: damaged, or made by another generator; made again\n"


def test_frost_of_other_pictures_is_made_again(tmp_path, stub, monkeypatch):
    made = Generated("toy", np.zeros((3, 4, 4, 1), np.uint8), tmp_path)
    for source, calls in (("textures", 2), ("procedural", 3), ("procedural", 3)):
        monkeypatch.setattr("randomix.robustness.corruptions.frost.frost_source", lambda source=source: source)
        made.cell("frost", 1, 0)
        made.cell("fog", 1, 0)
        assert len(stub) == calls


def test_a_place_that_cannot_be_written_is_named(tmp_path, stub):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="generated test sets are kept beside the data set, or in"):
        Generated("toy", np.zeros((1, 4, 4, 3), np.uint8), tmp_path / "file").cell("fog", 1, 0)


def test_an_error_of_the_generator_is_none_of_the_place(tmp_path, monkeypatch):
    def corrupt(*arguments, **options):
        raise OSError("encoder error -2")

    monkeypatch.setattr(corruptions, "corrupt", corrupt)
    with pytest.raises(DataError, match=r"^toy: fog at severity 1 cannot be made: encoder error -2$"):
        Generated("toy", np.zeros((1, 4, 4, 3), np.uint8), tmp_path).cell("fog", 1, 0)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_streamed_crops_are_corrupted_by_their_index(tmp_path, batch_size):
    make_folders(tmp_path / "set", train=2, val=4)
    data = datasets.build({"name": "image_folder", "root": str(tmp_path / "set"), "image_size": 24, "workers": 0})
    clean, labels = pixels(data.eval_set(CPU))
    found, same = pixels(data.corrupted_set(CPU, "gaussian_noise", 2, source="generated", seed=3), batch_size)
    assert np.array_equal(found, corruptions.corrupt(clean, "gaussian_noise", 2, seed=3))
    assert np.array_equal(labels, same) and not list(tmp_path.rglob(".randomix-cache"))
    assert data.check_corrupted(NAMES, [1], source="generated") == NAMES


def imagenet(tmp_path, group=""):
    """A toy ImageNet with an ImageNet-C whose images are its own, 24 pixels wide."""
    root = make_folders(tmp_path / "imagenet", train=2, val=3, sides=(24, 25)).parent
    corrupted_trees(root / "ImageNet-C", root / "imagenet" / "val", group=group)
    config = {"name": "imagenet", "root": str(root), "verify": False, "image_size": 24, "workers": 0}
    return config, root / "ImageNet-C" / group


@pytest.mark.parametrize("group", ["", "weather"])
def test_published_crops_are_taken_as_they_are(tmp_path, group):
    config, _ = imagenet(tmp_path, group)
    data = datasets.build(config | {"resize": 40})
    assert data.check_corrupted(NAMES, [1, 5], source="official") == NAMES
    whole = datasets.build(config | {"resize": 24})
    (found, labels), (wanted, same) = pixels(data.corrupted_set(CPU, "fog", 2)), pixels(whole.eval_set(CPU))
    assert np.array_equal(found, wanted) and np.array_equal(labels, same)
    assert not np.array_equal(found, pixels(data.eval_set(CPU))[0])


def test_wrong_class_folders_are_found_before_and_wrong_counts_when_used(tmp_path):
    config, folder = imagenet(tmp_path)
    data = datasets.build(config)
    known = data.identify_corrupted(NAMES, [2, 3])
    (folder / "fog" / "3" / "n02" / "n02_0.JPEG").unlink()
    other = data.identify_corrupted(NAMES, [2, 3])
    assert len(known) == 4 and {name for name in known if other[name] != known[name]} == {"fog/3"}
    data.check_corrupted(NAMES, [3], source="official")
    with pytest.raises(DataError, match=r"fog/3/n02: expected 3 images, as in the test set, found 2; run: "):
        data.corrupted_set(CPU, "fog", 3)
    (folder / "snow" / "1" / "n02").rename(folder / "snow" / "1" / "n04")
    with pytest.raises(DataError, match=r"snow/1: expected the 3 classes of training, found 3, .* n02"):
        data.check_corrupted(NAMES, [1], source="official")
    shutil.rmtree(folder / "snow" / "2")
    with pytest.raises(DataError, match="ImageNet-C: missing snow/2; run"):
        data.check_corrupted(NAMES, [1, 2], source="official")
    assert data.check_corrupted(NAMES, [1, 2], source="official", allow_missing=True) == ("fog",)


def test_trees_decoded_once_are_counted_before(tmp_path):
    root = make_folders(tmp_path / "set", train=1, val=3)
    corrupted_trees(tmp_path / "T-C", root / "val")

    def decode(files):
        return np.full((len(files), 2, 2, 3), 7, np.uint8)

    trees = ClassTrees("T-C", "tiny_imagenet_c", (tmp_path,), ("n01", "n02", "n03"), 9, (3, 3, 3), decode)
    assert trees.check(NAMES, range(1, 6), False) == NAMES
    images, labels = trees.cell("fog", 5)
    assert images.shape == (9, 2, 2, 3) and labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    (tmp_path / "T-C" / "fog" / "5" / "n03" / "n03_1.JPEG").unlink()
    with pytest.raises(
        DataError, match=r"fog/5/n03: expected 3 images, as in the test set, found 2; .*tiny_imagenet_c"
    ):
        trees.check(NAMES, range(1, 6), False)


def test_archives_of_imagenet_c_have_a_folder_each(tmp_path):
    files = {"noise.tar": {"gaussian_noise/1/n01/a.JPEG": b"1"}, "blur.tar": {"zoom_blur/1/n01/a.JPEG": b"2"}}
    data = {name: tar(content, compress=False) for name, content in files.items()}
    entry = toy_entry(
        ENTRIES["imagenet_c"],
        {name: md5(content) for name, content in data.items()},
        subfolders={"noise": 1, "blur": 1},
    )
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    prepare.run(entry, tmp_path, say=lambda line: None)
    assert (tmp_path / "ImageNet-C/noise/gaussian_noise/1/n01/a.JPEG").read_bytes() == b"1"
    said = []
    (tmp_path / "ImageNet-C/blur/zoom_blur/1/n01/a.JPEG").unlink()
    with pytest.raises(DataError, match="blur/: expected 1 files"):
        prepare.run(entry, tmp_path, verify_only=True)
    prepare.run(entry, tmp_path, say=said.append)
    assert len(said) == 1 and "blur.tar" in said[0]
    assert (tmp_path / "ImageNet-C/blur/zoom_blur/1/n01/a.JPEG").read_bytes() == b"2"
