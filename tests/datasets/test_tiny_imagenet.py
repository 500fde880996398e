"""Tiny-ImageNet: every layout against PIL's own reading, every bad tree and file."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFile

import datasets
from datasets.formats.decoding import decode_rgb
from datasets.preparing import sets as prepare_sets
from datasets.preparing import stamps as prepared
from datasets.subsets import balanced_subset
from randomix.errors import ConfigError, DataError
from randomix.records import record
from tests.datasets.tiny_imagenet_files import (
    WNIDS,
    build,
    content,
    jpeg,
    obvious,
    problem,
    same,
    sort_val,
)
from tests.support import tiny_config, train


def test_every_pixel_and_label(tree, capsys):
    data = build(tree, workers=2)
    assert same(content(data), obvious(tree))
    assert data.class_names == ("goldfish, Carassius auratus", "Egyptian cat", "iPod", "reel")  # of the sorted wnids
    assert (data.sample_shape, data.mean, data.std) == ((3, 64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    found = data.describe()
    assert found["source"] == "Tiny-ImageNet" and found["verified"] == "classes, names and counts"
    assert (found["train_samples"], found["test_samples"]) == (24, 12) and "/" not in str(found)
    grey = data.train_images[2]
    assert np.array_equal(grey[..., 0], grey[..., 1]) and grey.std() > 0
    assert capsys.readouterr().err.count("decoding 36 images") == 1


@pytest.mark.parametrize("keep_list", [True, False])
@pytest.mark.parametrize("inner", ["images", ""])
def test_sorted_layouts_give_the_same_samples(tree, inner, keep_list, capsys):
    expected, digest = obvious(tree), build(tree).describe()
    sort_val(tree, inner, keep_list)
    again = build(tree)
    assert same(content(again), expected) and again.describe() == digest
    assert capsys.readouterr().err.count("decoding") == 1  # moved files keep their times: the cache still holds


def test_train_without_inner_folders_and_other_suffixes(tree):
    expected = obvious(tree)
    for wnid in WNIDS:
        for path in (tree / "train" / wnid / "images").iterdir():
            path.rename(tree / "train" / wnid / path.name.replace(".JPEG", ".jpg"))
        (tree / "train" / wnid / "images").rmdir()
        (tree / "train" / wnid / "Thumbs.db").write_bytes(b"x")
        (tree / "train" / wnid / "._n.JPEG").write_bytes(b"x")
    (tree / "train" / ".DS_Store").write_bytes(b"x")
    assert same(content(build(tree)), expected)


def test_places(tree, monkeypatch):
    monkeypatch.setenv("RANDOMIX_DATA", str(tree.parent))
    for root in (tree.parent, tree, None):
        assert datasets.build({"name": "tiny_imagenet", "root": root and str(root)}).num_train == 24
    monkeypatch.delenv("RANDOMIX_DATA")
    monkeypatch.chdir(tree)
    assert build(".").num_train == 24  # and its cache lies beside it, not in it
    assert not (tree / ".randomix-cache").exists()
    assert "not found in" in problem(tree / "train")


def rewrite(path, change):
    path.write_text(change(path.read_text()))


LIST = "val/val_annotations.txt"
BAD_TREES = {  # what contradicts itself: refused whatever dataset.verify says
    "no wnids in it": (lambda t: (t / "wnids.txt").write_text(""), "at least two classes, found 0"),
    "wnid twice": (lambda t: rewrite(t / "wnids.txt", lambda s: s + WNIDS[0] + "\n"), f"found '{WNIDS[0]}' 2 times"),
    "wnid a path": (lambda t: rewrite(t / "wnids.txt", lambda s: s + "../x\n"), "found '../x' 1 times"),
    "a page": (lambda t: (t / "wnids.txt").write_text("<html>\n</html>\n"), "found '<html>'"),
    "no words": (lambda t: (t / "words.txt").unlink(), "words.txt: cannot be read"),
    "missing class": (lambda t: shutil.rmtree(t / "train" / WNIDS[1]), f"found 3: missing {WNIDS[1]}"),
    "extra class": (lambda t: (t / "train" / "n09999999").mkdir(), "found 5: extra n09999999"),
    "class not in the list": (
        lambda t: rewrite(t / "wnids.txt", lambda s: s.replace(WNIDS[0] + "\n", "")),
        f"expected the 3 class folders of wnids.txt, found 4: extra {WNIDS[0]}",
    ),
    "empty class": (
        lambda t: [p.unlink() for p in (t / "train" / WNIDS[2] / "images").iterdir()],
        f"train/{WNIDS[2]}: expected JPEG images, found none",
    ),
    "no val": (lambda t: shutil.rmtree(t / "val"), "val: cannot be read (No such file or directory)"),
    "no val images": (lambda t: shutil.rmtree(t / "val/images"), "val: expected the 4 class folders of wnids.txt"),
    "unsorted val without a list": (lambda t: (t / LIST).unlink(), "with the classes of these 12 images, found none"),
    "image missing": (
        lambda t: (t / "val/images/val_4.JPEG").unlink(),
        "expected the file val_4.JPEG, which the list names, found none (1 such)",
    ),
    "image not in the list": (
        lambda t: rewrite(t / LIST, lambda s: s.replace("val_0.JPEG", "val_00.JPEG")),
        "the file val_00.JPEG",
    ),
    "image without class": (
        lambda t: rewrite(t / LIST, lambda s: s[s.index("\n") + 1 :]),
        "expected val_0.JPEG in the list of classes, found none (1 such)",
    ),
    "image listed twice": (
        lambda t: rewrite(t / LIST, lambda s: s + s.splitlines()[2] + "\n"),
        "expected each image once, found 'val_2.JPEG' again in line 13",
    ),
    "unknown class": (
        lambda t: rewrite(t / LIST, lambda s: s.replace(WNIDS[1], "n09999999", 1)),
        "expected a class of wnids.txt in line 1, found 'n09999999'",
    ),
    "spaces for tabs": (lambda t: rewrite(t / LIST, lambda s: s.replace("\t", " ")), "line 1, found ''"),
    "class without images in val": (
        lambda t: rewrite(t / LIST, lambda s: s.replace(WNIDS[3], WNIDS[0])),
        f"expected images of every class, found none of {WNIDS[3]}",
    ),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("kind", BAD_TREES)
def test_bad_trees(tree, kind, verify):
    change, message = BAD_TREES[kind]
    change(tree)
    text = problem(tree, verify=verify)
    assert message in text and str(tree) in text
    assert not (tree.parent / ".randomix-cache").exists()  # found before anything is decoded


def test_bad_sorted_val(tree):
    sort_val(tree)
    victim = next((tree / "val" / WNIDS[0] / "images").iterdir())
    victim.rename(tree / "val" / WNIDS[1] / "images" / victim.name)
    text = problem(tree, verify=False)
    assert f"expected it in {WNIDS[0]}, as " in text and f"found it in {WNIDS[1]}" in text
    (tree / LIST).unlink()
    assert f"expected 3 images of {WNIDS[1]}, found 4" in problem(tree, verify=True)
    (tree / "val" / "images").rmdir()
    (tree / "val" / "other").mkdir()
    assert "val: expected the 4 class folders of wnids.txt, found 5: extra other" in problem(tree, verify=False)
    (tree / "val" / "other").rmdir()
    shutil.rmtree(tree / "val" / WNIDS[0])
    assert f"found 3: missing {WNIDS[0]}" in problem(tree, verify=False)


def drop_class(tree):
    wnid = WNIDS[0]
    shutil.rmtree(tree / "train" / wnid)
    sort_val(tree)
    shutil.rmtree(tree / "val" / wnid)
    (tree / LIST).unlink()
    rewrite(tree / "wnids.txt", lambda s: s.replace(wnid + "\n", ""))


OTHER_TREES = {  # consistent but not official: refused with dataset.verify, used with a warning without
    "one image less": (
        lambda t: (t / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_5.JPEG").unlink(),
        f"train: expected 6 images of {WNIDS[0]}, found 5",
    ),
    "one image more": (
        lambda t: (t / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_6.JPEG").write_bytes(jpeg(99)),
        f"train: expected 6 images of {WNIDS[0]}, found 7",
    ),
    "swapped classes": (
        lambda t: [
            (t / "train" / a).rename(t / "train" / b)
            for a, b in ((WNIDS[0], "x"), (WNIDS[1], WNIDS[0]), ("x", WNIDS[1]))
        ],
        f"expected a name that starts with {WNIDS[1]}_, found {WNIDS[0]}_0.JPEG",
    ),
    "uneven val": (
        lambda t: rewrite(t / LIST, lambda s: s.replace(WNIDS[0], WNIDS[1], 1)),
        f"val: expected 3 images of {WNIDS[1]}, found 4",
    ),
    "a class less": (drop_class, "wnids.txt: expected 4 classes, found 3"),
    "no words for a class": (
        lambda t: rewrite(t / "words.txt", lambda s: s.replace(WNIDS[0], "n00000000")),
        f"words.txt: expected the words of {WNIDS[0]}, found none",
    ),
}


@pytest.mark.parametrize("kind", OTHER_TREES)
def test_other_trees(tree, kind, capsys):
    change, message = OTHER_TREES[kind]
    change(tree)
    text = problem(tree)
    assert message in text and "dataset.verify=false" in text
    data = build(tree, verify=False)
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and message in warnings[0] and warnings[0].endswith("because dataset.verify=false")
    found = data.describe()
    assert not found["verified"] and found["source"] == "files in Tiny-ImageNet's layout, not the official ones"


def test_a_stamp_of_the_archive_is_compared(tree):
    digests = prepare_sets.ENTRIES["tiny_imagenet"].digests
    prepared.write_stamp(tree, prepared.make_stamp(tree, "tiny_imagenet", digests))
    assert build(tree).describe()["verified"] == "names and sizes of all files as in the official archive"
    victim = tree / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG"
    victim.write_bytes(victim.read_bytes() + b"\0")
    assert "in train/" in problem(tree)


BAD_IMAGES = {
    "cut": (lambda b: b[: len(b) // 2], "expected a whole image, found: "),
    "cut at the end": (lambda b: b[:-40], "expected a whole image, found: "),
    "empty": (lambda b: b"", "found: not an image of a known format"),
    "a page": (lambda b: b"<html>not found</html>", "found: not an image of a known format"),
    "PNG in disguise": (lambda b: jpeg(1, form="PNG"), "found: not an image of a known format"),
    "GIF in disguise": (lambda b: jpeg(1, form="GIF"), "found: not an image of a known format"),
    "wide": (lambda b: jpeg(1, size=(65, 64)), "expected an image of 64 x 64 pixels, found 64 x 65"),
    "small": (lambda b: jpeg(1, size=(32, 32)), "expected an image of 64 x 64 pixels, found 32 x 32"),
    "header only": (lambda b: b[:200], "expected a whole image, found: "),
}


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_bad_images(tree, kind, workers, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other packages leave it
    change, message = BAD_IMAGES[kind]
    victim = tree / "val" / "images" / "val_7.JPEG"
    whole = victim.read_bytes()
    victim.write_bytes(change(whole))
    for verify in (True, False):
        text = problem(tree, verify=verify, workers=workers)
        assert text.startswith(f"{victim}: expected ") and message in text
    assert not list((tree.parent / ".randomix-cache").glob("*/manifest.json"))
    victim.write_bytes(whole)
    assert same(content(build(tree, workers=workers)), obvious(tree))


def test_colour_spaces(tree):
    folder = tree / "train" / WNIDS[0] / "images"
    (folder / f"{WNIDS[0]}_1.JPEG").write_bytes(jpeg(5, "CMYK"))
    (folder / f"{WNIDS[0]}_3.JPEG").write_bytes(jpeg(6, "YCbCr"))
    assert same(content(build(tree)), obvious(tree))


def test_decoding_of_other_modes(monkeypatch):
    pixels = np.full((3, 5), 0xABCD, np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert np.array_equal(decode_rgb(buffer.getvalue()), np.full((3, 5, 3), 0xAB))  # PIL alone says 255
    for mode, form in (("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("1", "PNG"), ("L", "TIFF"), ("RGB", "WEBP")):
        data = jpeg(3, mode, form=form)
        assert np.array_equal(decode_rgb(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))), (mode, form)
    for mode, form, message in (("F", "TIFF", "pixels of 32 bits"), ("RGB", "EPS", "not an image of a known format")):
        with pytest.raises(DataError, match=message):
            decode_rgb(jpeg(3, mode, form=form), "it")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(bomb, "PNG")
    with pytest.raises(DataError, match="it: expected a whole image, found: Image size"):
        decode_rgb(bomb.getvalue(), "it")
    monkeypatch.setattr("datasets.formats.decoding.MAX_PIXELS", 4000)
    with pytest.raises(DataError, match="found: 64 x 64 pixels, more than 4000"):
        decode_rgb(jpeg(3))


def test_options(tree):
    everything, part = build(tree), build(tree, train_size=8, std=[1, 1, 1], crop_padding=4, flip=True)
    chosen = balanced_subset(everything.train_labels, 8, "tiny_imagenet.train")
    assert np.array_equal(part.train_images, everything.train_images[chosen])
    assert np.bincount(part.train_labels).tolist() == [2] * 4 and (part.crop_padding, part.flip) == (4, True)
    assert part.std == (1.0, 1.0, 1.0)
    for options, message in (
        ({"workers": -1}, "dataset.workers is -1"),
        ({"mean": 0.5}, "dataset.mean"),
        ({"on_bad_sample": "skip"}, "dataset.on_bad_sample is not an option"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(tree, **options)


def test_two_epochs(tree, tmp_path):
    dataset = {"name": "tiny_imagenet", "root": str(tree), "crop_padding": 4, "flip": True}
    model = {"name": "preact_resnet18", "width": 16}  # below 16 channels oneDNN's 1x1 stride-2 kernel overruns
    recipe = {"name": "tiny", "epochs": 2, "batch_size": 8, "lr": 0.05}
    found = record.read(train(tiny_config(tmp_path) | {"dataset": dataset, "model": model, "recipe": recipe}).record)
    assert found.counts["clean"]["total"] == 12 and found.data["train_samples"] == 24
