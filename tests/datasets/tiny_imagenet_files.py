"""A small Tiny-ImageNet in exactly the official layout, and its plain reading by PIL."""

import io

import numpy as np
import pytest
from PIL import Image

import datasets
from randomix.errors import DataError

WNIDS = ("n02124075", "n01443537", "n04067472", "n03584254")  # as in wnids.txt: not sorted
WORDS = {
    "n01443537": "goldfish, Carassius auratus",
    "n02124075": "Egyptian cat",
    "n04067472": "reel",
    "n03584254": "iPod",
    "n00001740": "entity",
}
TRAIN, VAL = 6, 3


def jpeg(seed, mode="RGB", size=(64, 64), form="JPEG"):
    """A smooth picture of its own: its first pixels differ from those of any other seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode).save(buffer, form)
    return buffer.getvalue()


def make_tree(root):
    """A small set in exactly the official layout; returns its folder."""
    folder, seed, lines = root / "tiny-imagenet-200", 0, []
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "test" / "images").mkdir(parents=True)
    (folder / "test" / "images" / "test_0.JPEG").write_bytes(b"no picture: never looked at")
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (folder / "words.txt").write_text("".join(f"{wnid}\t{words}\n" for wnid, words in WORDS.items()))
    for wnid in WNIDS:
        (folder / "train" / wnid / "images").mkdir(parents=True)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
        for i in range(TRAIN):
            mode = "L" if i == 2 else "RGB"
            (folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG").write_bytes(jpeg(seed := seed + 1, mode))
    for i in range(VAL * len(WNIDS)):
        (folder / "val" / "images" / f"val_{i}.JPEG").write_bytes(jpeg(seed := seed + 1))
        lines.append(f"val_{i}.JPEG\t{WNIDS[(3 * i + 1) % 4]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def sort_val(folder, inner="images", keep_list=True):
    """Re-sort val into one folder a class, as many people's scripts do."""
    val = folder / "val"
    for line in (val / "val_annotations.txt").read_text().splitlines():
        name, wnid, *_ = line.split("\t")
        (val / wnid / inner).mkdir(parents=True, exist_ok=True)
        (val / "images" / name).rename(val / wnid / inner / name)
    if not keep_list:
        (val / "val_annotations.txt").unlink()
        (val / "images").rmdir()


def build(folder, **options):
    return datasets.build({"name": "tiny_imagenet", "root": str(folder), **options})


def problem(folder, error=DataError, **options):
    with pytest.raises(error) as caught:
        build(folder, **options)
    assert "\n" not in str(caught.value)
    if error is DataError:
        assert "run: python scripts/prepare_data.py tiny_imagenet --root" in str(caught.value)
    return str(caught.value)


def obvious(folder):
    """Images and labels of both splits, one file after the other, by PIL alone."""
    wnids, found = sorted(WNIDS), []
    files = [(folder / "train" / w / "images" / f"{w}_{i}.JPEG", w) for w in wnids for i in range(TRAIN)]
    classes = dict(line.split("\t")[:2] for line in (folder / "val" / "val_annotations.txt").read_text().splitlines())
    val = [(folder / "val" / "images" / name, wnid) for name, wnid in sorted(classes.items())]
    for part in (files, val):
        found.append(np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in part]))
        found.append(np.array([wnids.index(wnid) for _, wnid in part]))
    return found


def content(data):
    return [data.train_images, data.train_labels, data.test_images, data.test_labels]


def same(left, right):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(left, right, strict=True))
