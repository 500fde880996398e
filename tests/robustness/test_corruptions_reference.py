"""The fast corruptions against slow and obvious ones, image by image, on images of any size."""

import colorsys
import math

import numpy as np
import pytest
import torch

from randomix.robustness.corruptions import blur, corrupt, digital
from randomix.robustness.corruptions.draws import ImageRng

ndimage = pytest.importorskip("scipy.ndimage")
Image = pytest.importorskip("PIL.Image")
SIZES = [(8, 8), (12, 20), (33, 9), (5, 32)]


def pictures(count, height, width, channels=3):
    return np.random.default_rng(height + width).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def assert_close(ours, theirs):
    """Within a level, and that only where a rounding decides."""
    difference = np.abs(np.asarray(ours).astype(int) - theirs.astype(int))
    assert difference.max() <= 1 and (difference == 0).mean() >= 0.99


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sigma", [0.4, 1, 3])
def test_gaussian_blur(size, sigma):
    images = pictures(2, *size)
    expected = [ndimage.gaussian_filter(i / 255, (sigma, sigma, 0), mode="nearest", truncate=4) for i in images]
    expected = (np.clip(expected, 0, 1) * 255).astype(np.uint8)
    assert_close(blur.gaussian_blur(torch.from_numpy(images), sigma), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parameters", [(0.3, 1, 2), (0.3, 2, 2), (0.3, 4, 3)])
def test_glass_blur(size, parameters):
    """The original's loop: from the lower right corner, each pixel takes what its neighbour holds."""
    sigma, delta, iterations = parameters
    images = torch.from_numpy(pictures(3, *size))
    shifts = blur.draw_glass(ImageRng(1, "glass_blur", 1, torch.arange(3)), (*size, 3), parameters)["shifts"]
    expected = blur.gaussian_blur(images, sigma)
    height, width = size
    for image, moves in zip(expected, shifts, strict=True):
        for iteration in range(iterations):
            for row in range(height - delta, delta, -1):
                for column in range(width - delta, delta, -1):
                    dx, dy = moves[iteration, row - delta - 1, column - delta - 1].tolist()
                    image[row, column] = image[row + dy, column + dx].clone()
    expected = blur.gaussian_blur(expected, sigma)
    assert torch.equal(blur.glass_blur(images, parameters, shifts=shifts), expected)
    if min(size) > 2 * delta:
        assert shifts.min() == -delta and shifts.max() == delta - 1


@pytest.mark.parametrize("size", [*SIZES, (1, 3)])
@pytest.mark.parametrize("parameters", [(0.5, 0.6), (3, 0.1), (10, 0.5)])
def test_defocus_blur(size, parameters):
    images = pictures(2, *size)
    kernel = blur._disk(*parameters)
    assert np.allclose(kernel, kernel[::-1].T, atol=1e-7)
    # the original smooths a disk that touches the ends of its array, and mirrors there
    assert kernel.sum() == pytest.approx(1, abs=1e-5 if parameters[0] < 8 else 0.02)
    expected = []
    for image in images:
        wide = np.pad(image / 255, [(len(kernel) // 2,) * 2] * 2 + [(0, 0)], mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(wide, kernel.shape, (0, 1))
        expected.append(np.uint8(np.clip((windows * kernel).sum((-2, -1)), 0, 1) * 255))
    assert_close(blur.defocus_blur(torch.from_numpy(images), parameters), np.stack(expected))


@pytest.mark.parametrize("size", SIZES)
def test_motion_blur(size):
    images, degrees = pictures(4, *size), torch.tensor([-45.0, -10.0, 0.0, 44.0])
    radius, sigma = 6, 2.0
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * radius + 1)]
    expected = np.zeros(images.shape)
    for n, angle in enumerate(np.deg2rad(degrees.numpy().astype(float))):
        for i, weight in enumerate(weights):
            down, right = (math.ceil(i * part - 0.5) for part in (math.sin(angle), math.cos(angle)))
            for row in range(size[0]):
                for column in range(size[1]):
                    source = min(max(row + down, 0), size[0] - 1), min(max(column + right, 0), size[1] - 1)
                    expected[n, row, column] += weight / sum(weights) * images[n][source]
    assert_close(blur.motion_blur(torch.from_numpy(images), (radius, sigma), degrees=degrees), expected + 1e-4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("parameters", [(1.06, 0.01), (1.31, 0.03)])
def test_zoom_blur(size, parameters):
    images, factors = pictures(2, *size), np.arange(1, *parameters)
    expected = []
    for image in images.astype(np.float32) / np.float32(255):
        total = image.copy()
        for factor in factors:
            crops = [math.ceil(side / factor) for side in size]
            (top, left) = ((side - crop) // 2 for side, crop in zip(size, crops, strict=True))
            large = ndimage.zoom(image[top : top + crops[0], left : left + crops[1]], (factor, factor, 1), order=1)
            (top, left) = ((a - b) // 2 for a, b in zip(large.shape, size, strict=False))
            total += large[top : top + size[0], left : left + size[1]]
        expected.append(np.uint8(np.clip(total / (len(factors) + 1), 0, 1) * 255 + 1e-4))  # float32 sums
    assert_close(blur.zoom_blur(torch.from_numpy(images), parameters), np.stack(expected))


def test_zoom_blur_of_a_large_image_is_made_in_bands(monkeypatch):
    images = torch.from_numpy(pictures(1, 300, 300))
    in_bands = blur.zoom_blur(images, (1.06, 0.03))
    matrix = blur._zoom_matrix(300, 300, 0, 300, 1.06, 0.03, images.device)
    whole = matrix @ (images.float() / 255).double().view(300 * 300, 3)
    assert torch.equal(in_bands.view(-1, 3), (whole.clamp(0, 1) * 255 + 255e-7).to(torch.uint8))


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (5, 32), (28, 28), (65, 49), (224, 113), (1, 2)])
def test_pixelate(size):
    """PIL takes images more than twice as high as wide the other way round; we do not."""
    images = pictures(2, *size)
    for share in (0.95, 0.85, 0.65, 0.5, 0.25):
        small = [max(1, int(side * share)) for side in reversed(size)]
        ours = digital.pixelate(torch.from_numpy(images), share)
        for result, image in zip(ours.numpy(), images, strict=True):
            shrunk = Image.fromarray(image).resize(small, Image.Resampling.BOX)
            assert np.array_equal(result, np.asarray(shrunk.resize(size[::-1], Image.Resampling.BOX)))


def test_hue_saturation_and_value():
    colors = torch.from_numpy(pictures(1, 16, 16)).double() / 255
    colors[0, 0, :4] = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 1, 0], [0, 0.5, 0.5]])
    hue, saturation, value = digital._to_hsv(colors)
    for place in np.ndindex(1, 16, 16):
        expected = colorsys.rgb_to_hsv(*colors[place].tolist())
        assert (float(hue[place]) / 6, float(saturation[place]), float(value[place])) == pytest.approx(expected)
    assert torch.allclose(digital._from_hsv(hue, saturation, value), colors, atol=1e-12)


def test_contrast():
    images = pictures(2, 12, 20)
    for image, result in zip(images, corrupt(images, "contrast", 3), strict=True):
        means = (image / 255).mean((0, 1))
        assert_close(result, np.uint8(np.clip((image / 255 - means) * 0.4 + means, 0, 1) * 255))


EXACT = ("brightness", "contrast", "pixelate", "jpeg_compression", "defocus_blur", "gaussian_blur", "zoom_blur")


@pytest.mark.parametrize("name", EXACT)
def test_gray_images_are_what_three_equal_channels_give(name):
    gray = pictures(3, 32, 32, 1)
    for severity in (1, 4):
        colored = corrupt(gray.repeat(3, -1), name, severity)
        assert np.array_equal(corrupt(gray, name, severity), colored[..., :1])
        assert np.array_equal(colored[..., 0], colored[..., 1])


def test_saturation_of_gray():
    gray = pictures(3, 32, 32, 1)
    assert np.array_equal(corrupt(gray, "saturate", 1), gray)  # nothing is added: gray stays gray
    colored = corrupt(gray.repeat(3, -1), "saturate", 5).astype(float)
    luma = colored @ [0.299, 0.587, 0.114]
    assert np.abs(corrupt(gray, "saturate", 5)[..., 0] - luma).max() <= 1 and (colored[..., 0] >= colored[..., 1]).all()


def test_impulses_replace_their_share():
    images = np.full((50, 32, 32, 3), 100, np.uint8)
    for severity, share in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1):
        result = corrupt(images, "impulse_noise", severity)
        for value in (0, 255):
            count = (result == value).sum()
            assert abs(count - result.size * share / 2) < 5 * math.sqrt(result.size * share / 2)
        assert set(np.unique(result)) == {0, 100, 255}


def test_flat_images_keep_their_level():
    levels = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 9, 9, 3).contiguous()
    assert torch.equal(blur.motion_blur(levels, (9, 2.5), degrees=torch.linspace(-45, 45, 256)), levels)
    assert torch.equal(corrupt(levels, "zoom_blur", 5), levels)
    assert torch.equal(corrupt(levels, "pixelate", 5), levels)
