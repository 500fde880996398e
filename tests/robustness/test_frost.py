"""Frost: the original's pictures where they are installed, else our own, cut and blended."""

import numpy as np
import pytest
import torch
from PIL import Image

from randomix.errors import DataError
from randomix.robustness.corruptions import CORRUPTIONS, corrupt, frost
from randomix.robustness.corruptions.parameters import CIFAR
from tests.parity import golden

PATH = golden.folder() / "corruptions.npz"
installed = pytest.mark.skipif(frost.frost_source() == "procedural", reason="imagecorruptions is not installed")


@pytest.fixture
def own_pictures(monkeypatch):
    """As if the package were not there."""
    monkeypatch.setattr(frost, "_folder", lambda: None)
    _forget()
    yield
    _forget()


def _forget() -> None:
    frost._pictures.cache_clear()
    frost.textures.cache_clear()
    frost._joined.cache_clear()


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@installed
@pytest.mark.skipif(not PATH.is_file(), reason=f"no recorded pictures at {PATH}")
@pytest.mark.parametrize("severity", range(1, 6))
def test_the_originals_pixels(severity):
    with np.load(PATH, allow_pickle=False) as archive:
        clean, theirs = archive["clean"], archive["frost"][severity - 1]
    draws = {"texture": [], "top": [], "left": []}
    for image in range(len(clean)):
        state = np.random.RandomState(10_000 * CORRUPTIONS.index("frost") + 1000 * severity + image)
        texture = state.randint(5)
        height, width = frost.textures(32, 32)[texture].shape[:2]
        for name, value in zip(draws, (texture, state.randint(height - 32), state.randint(width - 32)), strict=True):
            draws[name].append(value)
    draws = {name: torch.tensor(values) for name, values in draws.items()}
    ours = frost.frost(torch.from_numpy(clean), CIFAR["frost"][severity - 1], **draws).numpy()
    np.testing.assert_array_equal(ours, theirs)


@installed
def test_a_picture_is_read_as_it_is_and_resized_at_pixel_centres():
    folder = frost._folder()
    with Image.open(folder / frost.FILES[0]) as image:
        theirs = np.asarray(image.convert("RGB"))
    assert frost.frost_source() == "textures"
    np.testing.assert_array_equal(frost.textures(224, 224)[0], theirs)
    np.testing.assert_array_equal(frost.textures(32, 32)[0], theirs[2::5, 2::5])  # every fifth pixel's centre
    third = frost.textures(64, 64)[0]
    y, x = (0.5 / 0.3 - 0.5 + np.array([10, 20]) / 0.3).tolist()  # of row 10, column 20
    (top, down), (left, right) = divmod(y, 1), divmod(x, 1)
    corners = theirs[int(top) : int(top) + 2, int(left) : int(left) + 2].astype(float)
    mixed = np.einsum("y,x,yxc->c", [1 - down, down], [1 - right, right], corners)
    np.testing.assert_array_equal(third[10, 20], np.floor(mixed + 0.5))


def test_our_own_pictures_stand_in_and_say_so(own_pictures):
    assert frost.frost_source() == "procedural"
    pictures = frost.textures(224, 224)
    assert len(pictures) == 5 and {tuple(p.shape) for p in pictures} == {(512, 512, 3)}
    assert all(float(p.float().std()) > 10 for p in pictures)  # ice, no plain colour
    assert not any(torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    first = corrupt(images(4, 32, 32, 3), "frost", 3)
    _forget()
    np.testing.assert_array_equal(corrupt(images(4, 32, 32, 3), "frost", 3), first)


def test_the_sum_is_cut_off_not_rounded(own_pictures):
    clean, draws = torch.from_numpy(images(3, 8, 10, 3)), torch.tensor([0, 2, 4])
    tops, lefts = torch.tensor([0, 3, 5]), torch.tensor([1, 0, 7])
    ours = frost.frost(clean, (0.9, 0.4), texture=draws, top=tops, left=lefts)
    for image, result, number, top, left in zip(clean, ours, draws, tops, lefts, strict=True):
        part = frost.textures(8, 10)[number][top : top + 8, left : left + 10]
        slow = np.uint8(np.clip(0.9 * image.numpy().astype(float) + 0.4 * part.numpy(), 0, 255))
        np.testing.assert_array_equal(result, slow)


@pytest.mark.parametrize("shape", [(2, 8, 8, 1), (2, 28, 28, 1), (2, 5, 300, 3), (1, 700, 40, 3)])
def test_parts_lie_inside_whatever_the_size(own_pictures, shape):
    sizes = [picture.shape for picture in frost.textures(*shape[1:3])]
    assert all(height > shape[1] and width > shape[2] for height, width, _ in sizes)
    assert corrupt(images(*shape), "frost", 5).shape == shape


def test_gray_is_the_luma_of_the_coloured_result(own_pictures):
    gray = images(6, 28, 28, 1)
    coloured = corrupt(np.repeat(gray, 3, -1), "frost", 4).astype(float)
    luma = coloured @ [0.299, 0.587, 0.114]
    assert np.abs(corrupt(gray, "frost", 4)[..., 0] - luma).max() < 2  # each was cut off once


def test_every_picture_and_every_place_is_drawn(own_pictures):
    from randomix.robustness.corruptions.draws import ImageRng

    draws = frost.draw(ImageRng(0, "frost", 1, torch.arange(4000)), (32, 32, 3), (1, 0.2))
    room = torch.tensor([picture.shape[:2] for picture in frost.textures(32, 32)])[draws["texture"]] - 32
    assert torch.bincount(draws["texture"], minlength=5).min() > 700
    for axis, name in enumerate(("top", "left")):
        share = draws[name] / (room[:, axis] - 1)
        assert share.min() == 0 and share.max() == 1 and abs(float(share.mean()) - 0.5) < 0.03


def test_a_damaged_picture_is_named(tmp_path, monkeypatch):
    (tmp_path / "frost1.png").write_bytes(b"no picture")
    monkeypatch.setattr(frost, "_folder", lambda: tmp_path)
    _forget()
    with pytest.raises(DataError, match=r"frost1.png: expected a picture of frost, found .*imagecorruptions"):
        frost.textures(32, 32)
    _forget()
