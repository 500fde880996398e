"""Decoding and cropping: the crops against torchvision's and PIL's."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from datasets.streams import crops
from datasets.streams.crops import DRAWS, CentreCrop, RandomCrop


def picture(width, height, seed=0, quality=90, kind="JPEG", mode="RGB"):
    cells = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **({"quality": quality} if kind == "JPEG" else {}))
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (60, 900), (900, 60), (20, 20), (1, 1)])
def test_boxes_are_distributed_like_torchvisions(height, width):
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    crop, draws = RandomCrop(8, scale, ratio), np.random.default_rng(0).random((2000, DRAWS))
    ours = np.array([crop.box(row, height, width) for row in draws.tolist()])
    ours[:, 2:] -= ours[:, :2]  # to top, left, height, width
    image = torch.empty(1, height, width)
    torch.manual_seed(0)
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, scale, ratio) for _ in range(2000)])
    for column in range(4):
        assert distance(ours[:, column], theirs[:, column]) < 0.065, column  # 0.1 % of equal ones are above 0.0617
    assert distance(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3]) < 0.065
    ends = ours[:, :2] + ours[:, 2:]
    assert (ours[:, :2] >= 0).all() and (ends[:, 0] <= height).all() and (ends[:, 1] <= width).all()


def distance(left, right):
    """The largest difference between two distribution functions (Kolmogorov, Smirnov)."""
    at = np.concatenate([left, right])
    places = [np.searchsorted(np.sort(side), at, side="right") / len(side) for side in (left, right)]
    return np.abs(places[0] - places[1]).max()


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB")])
def test_random_crops_differ_from_pils_by_rounding(kind, mode):
    crop, rng = RandomCrop(32, (0.08, 1.0), (0.75, 1.3333)), np.random.default_rng(1)
    data = picture(61, 47, kind=kind, mode=mode)
    for draws in rng.random((20, DRAWS)).tolist():
        top, left, bottom, right = crop.box(draws, 47, 61)
        exact = opened(data).crop((left, top, right, bottom)).resize((32, 32), Image.Resampling.BILINEAR)
        found = crop(data, "x", draws)
        difference = np.abs(found.numpy().astype(int) - np.asarray(exact))
        assert found.shape == (32, 32, 3) and found.dtype == torch.uint8
        assert difference.max() <= 2 and difference.mean() < 0.3


def test_without_torchvisions_decoder_the_crops_are_bit_equal(monkeypatch):
    draws = np.random.default_rng(1).random(DRAWS).tolist()
    for data in (picture(61, 47), picture(61, 47, mode="L")):
        crop = RandomCrop(32, (0.3, 1.0), (0.75, 1.3333))
        found = crop(data, "x", draws)
        with monkeypatch.context() as patch:
            patch.setattr(crops, "_jpeg_decoder", lambda: None)
            assert torch.equal(crop(data, "x", draws), found)


def test_large_jpegs_are_decoded_smaller_with_little_difference(monkeypatch):
    decoded, real = [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda im, *args, **k: decoded.append(im.size) or real(im, *args, **k))
    crop, rng, data = RandomCrop(32, (0.3, 1.0), (0.75, 1.3333)), np.random.default_rng(1), picture(800, 600)
    for draws in rng.random((10, DRAWS)).tolist():
        top, left, bottom, right = box = crop.box(draws, 600, 800)
        exact = np.asarray(real(opened(data).crop((left, top, right, bottom)), (32, 32), Image.Resampling.BILINEAR))
        decoded.clear()
        difference = np.abs(crop(data, "x", draws).numpy().astype(int) - exact)
        assert difference.mean() < 1 and difference.max() <= 8
        assert len(decoded) == 1 and decoded[0][0] <= 400  # at half its size or less
        covered = min((box[2] - box[0]) * decoded[0][1] / 600, (box[3] - box[1]) * decoded[0][0] / 800)
        assert covered >= 63  # twice the pixels that the crop needs, but for rounding


@pytest.mark.parametrize(("height", "width"), [(47, 61), (61, 47), (50, 50), (29, 90), (36, 200), (36, 36)])
def test_central_crops_differ_from_torchvisions_by_rounding(height, width):
    data = picture(width, height)
    theirs = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32)])(opened(data))
    found = CentreCrop(32, 36)(data, "x").numpy().astype(int)
    difference = np.abs(found - np.asarray(theirs))
    assert difference.max() <= 2 and difference.mean() < 0.3
