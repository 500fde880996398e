"""Fog, snow, elastic transform and spatter, and their parts, against slow and obvious loops on images of any size."""

import heapq
import math

import numpy as np
import pytest
import torch

from randomix.robustness.corruptions import REGISTRY, blur, corrupt, edges, elastic, resampling, spatter, weather
from randomix.robustness.corruptions.draws import ImageRng
from randomix.robustness.corruptions.parameters import parameters

ndimage = pytest.importorskip("scipy.ndimage")
NAMES = ("fog", "snow", "elastic_transform", "spatter")
SIZES = [(8, 8), (5, 9), (28, 28), (17, 12)]


def pictures(count, height, width, channels=3):
    return np.random.default_rng(height + width).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def layers(count, height, width, levels=256):
    """Blobs of whole numbers below ``levels`` (n, H, W)."""
    rng = np.random.default_rng(height * width)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(height, width)), 1.5, mode="wrap") for _ in range(count)]
    low = np.min(smooth, (1, 2), keepdims=True)
    return np.floor((smooth - low) / np.ptp(smooth, (1, 2), keepdims=True) * (levels - 1))


def draws(name, severity, images):
    rng = ImageRng(2, name, severity, torch.arange(len(images)))
    return REGISTRY[name].draw(rng, images.shape[1:], parameters(name, severity, *images.shape[1:3]))


def assert_close(ours, theirs):
    """Within a level, and that only where a rounding decides."""
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    assert difference.max() <= 1 and (difference == 0).mean() >= 0.99


@pytest.mark.parametrize("side", [2, 8, 32])
@pytest.mark.parametrize("decay", [1.5, 3])
def test_height_map(side, decay):
    """Point by point: middles of squares from their corners, then middles of sides from what lies around them."""
    wobble = np.random.default_rng(side).uniform(-1, 1, (2, side, side))
    expected = np.zeros_like(wobble)
    for heights, shaken in zip(expected, wobble, strict=True):
        step, wibble = side, 100.0
        while step > 1:
            half = step // 2
            squares, diamonds = [(-half, -half), (-half, half), (half, -half), (half, half)], []
            diamonds += [(-half, 0), (half, 0), (0, -half), (0, half)]
            for first, around in (((half, half), squares), ((0, half), diamonds), ((half, 0), diamonds)):
                for y in range(first[0], side, step):
                    for x in range(first[1], side, step):
                        near = [heights[(y + down) % side, (x + right) % side] for down, right in around]
                        heights[y, x] = sum(near) / 4 + wibble**2 * shaken[y, x]
            step, wibble = half, wibble / decay
        heights -= heights.min()
        heights /= heights.max()
    assert np.allclose(weather.height_map(torch.from_numpy(wobble), decay), expected, atol=1e-12)


def test_side_of_the_height_map_covers_the_image():
    sides = [weather.map_side(*size) for size in ((1, 1), (5, 9), (32, 32), (33, 8), (224, 224), (256, 257))]
    assert sides == [2, 16, 32, 64, 256, 512]


@pytest.mark.parametrize("size", SIZES)
def test_fog(size):
    images = pictures(3, *size)
    wobble = draws("fog", 4, images)["wobble"]
    cloud = weather.height_map(wobble, 2).numpy()[:, : size[0], : size[1], None]
    pixels = images / 255
    brightest = pixels.max((1, 2, 3), keepdims=True)
    expected = np.clip((pixels + cloud) * brightest / (brightest + 1), 0, 1) * 255
    assert_close(weather.fog(torch.from_numpy(images), (1, 2), wobble=wobble), expected.astype(np.uint8))
    assert not corrupt(np.zeros_like(images), "fog", 5).any()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("severity", [1, 3, 4, 5])
def test_snow(size, severity):
    """Noise, enlarged, cut, blurred pixel by pixel, added to a whitened image, once more turned by 180 degrees."""
    images = pictures(3, *size)
    drawn = draws("snow", severity, images)
    mean, deviation, zoom, threshold, radius, sigma, blend = values = parameters("snow", severity, *size)
    expected = np.empty_like(images)
    for n, image in enumerate(images / 255):
        flakes = clipped_zoom(mean + deviation * drawn["noise"][n].double().numpy(), zoom)
        flakes[flakes < threshold] = 0
        flakes = np.floor(np.clip(flakes, 0, 1) * 255)
        flakes = np.floor(blown(flakes, radius, sigma, float(drawn["angles"][n])) + 1e-9)[..., None] / 255
        gray = image @ [0.299, 0.587, 0.114]
        image = blend * image + (1 - blend) * np.maximum(image, gray[..., None] * 1.5 + 0.5)
        expected[n] = np.clip(image + flakes + np.rot90(flakes, 2), 0, 1) * 255
    ours = weather.snow(torch.from_numpy(images), values, **drawn)
    assert_close(ours, expected)
    assert drawn["angles"].min() >= -135 and drawn["angles"].max() <= -45


def clipped_zoom(layer, zoom):
    """The middle of a layer, enlarged by SciPy; what is too much is cut off."""
    crops = [math.ceil(side / zoom) for side in layer.shape]
    top, left = ((side - crop) // 2 for side, crop in zip(layer.shape, crops, strict=True))
    large = ndimage.zoom(layer[top : top + crops[0], left : left + crops[1]], zoom, order=1)
    top, left = ((a - b) // 2 for a, b in zip(large.shape, layer.shape, strict=True))
    return large[top : top + layer.shape[0], left : left + layer.shape[1]].copy()


def blown(layer, radius, sigma, degrees):
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * radius + 1)]
    result, angle = np.zeros_like(layer), math.radians(degrees)
    for y, x in np.ndindex(layer.shape):
        for i, weight in enumerate(weights):
            down, right = math.ceil(i * math.sin(angle) - 0.5), math.ceil(i * math.cos(angle) - 0.5)
            place = min(max(y + down, 0), layer.shape[0] - 1), min(max(x + right, 0), layer.shape[1] - 1)
            result[y, x] += weight / sum(weights) * layer[place]
    return result


def test_line_blur_to_all_sides():
    dot = torch.zeros(4, 9, 9, 1)
    dot[:, 4, 4] = 1
    blurred = blur.line_blur(dot, 2, 1.0, torch.tensor([0.0, 90.0, 180.0, 270.0]))[..., 0]
    weights = torch.exp(-0.5 * torch.arange(5.0) ** 2) / torch.exp(-0.5 * torch.arange(5.0) ** 2).sum()
    assert torch.allclose(blurred[0, 4, :5].flip(0), weights)  # reads to the right: what is there moves to the left
    assert torch.allclose(blurred[1, :5, 4].flip(0), weights)
    assert torch.allclose(blurred[2, 4, 4:], weights) and torch.allclose(blurred[3, 4:, 4], weights)


@pytest.mark.parametrize("size", [*SIZES, (1, 6)])
@pytest.mark.parametrize(("sigma", "mirror"), [(0, False), (0.7, False), (3, False), (0.96, True), (6.4, True)])
def test_smoothing(size, sigma, mirror):
    noise = np.random.default_rng(1).normal(size=(2, *size))
    mode, truncate = ("reflect", 3.0) if mirror else ("nearest", 4.0)
    expected = [ndimage.gaussian_filter(layer, sigma, mode=mode, truncate=truncate) for layer in noise]
    ours = resampling.smooth(torch.from_numpy(noise), sigma, truncate, mirror=mirror)
    assert np.allclose(ours, expected if sigma else noise, atol=1e-12)


def reflected(at, side):
    """c b | a b c"""
    period = max(2 * (side - 1), 1)
    at %= period
    return min(at, period - at) if side > 1 else 0


def mirrored(at, side):
    """a | a b c"""
    at %= 2 * side
    return min(at, 2 * side - 1 - at)


def read(image, y, x, beyond):
    """Bilinear."""
    top, left = math.floor(y), math.floor(x)
    total = 0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - abs(y - row)) * (1 - abs(x - column))
        total = total + weight * image[beyond(row, image.shape[0]), beyond(column, image.shape[1])]
    return total


@pytest.mark.parametrize("size", [*SIZES, (2, 5)])
@pytest.mark.parametrize("severity", [1, 2, 5])
def test_elastic_transform(size, severity):
    images = pictures(3, *size)
    alpha, sigma, affine = values = parameters("elastic_transform", severity, *size)
    drawn = draws("elastic_transform", severity, images)
    expected = np.empty(images.shape)
    third, center = max(min(size) // 3, 1), np.array([size[1] // 2, size[0] // 2])
    corners = np.array([center + third, [center[0] + third, center[1] - third], center - third], dtype=float)
    for n, image in enumerate(images):
        moved = corners + affine * drawn["corners"][n].double().numpy()
        matrix = np.linalg.solve(np.c_[moved, np.ones(3)], corners)  # from where (x, y, 1) is read
        warped = np.empty(image.shape)
        for y, x in np.ndindex(size):
            from_x, from_y = np.array([x, y, 1]) @ matrix
            warped[y, x] = read(image, from_y, from_x, reflected)
        shifts = [
            alpha * ndimage.gaussian_filter(d, sigma, mode="reflect", truncate=3) if alpha else np.zeros(size)
            for d in drawn["displacement"][n].double().numpy()
        ]
        for y, x in np.ndindex(size):
            expected[n, y, x] = read(warped, y + shifts[1][y, x], x + shifts[0][y, x], mirrored)
    ours = elastic.elastic_transform(torch.from_numpy(images), values, **drawn)
    assert_close(ours, np.clip(expected + 2e-4, 0, 255).astype(np.uint8))


STEPS = [
    (y, x, {1: 1.0, 2: 1.4, 3: 2.1969}[abs(y) + abs(x) if y * x else 1])
    for y in range(-2, 3)
    for x in range(-2, 3)
    if (abs(y), abs(x)) in ((0, 1), (1, 0), (1, 1), (1, 2), (2, 1))
]


@pytest.mark.parametrize("size", [*SIZES, (1, 5), (40, 33)])
@pytest.mark.parametrize("farthest", [20, 7])
def test_distances_are_those_of_shortest_paths(size, farthest):
    """Dijkstra's, within the image."""
    starts = np.random.default_rng(3).random((3, *size)) < [[[0.01]], [[0.1]], [[0]]]
    ours = edges.distance_to(torch.from_numpy(starts), farthest)
    for found, edge in zip(ours.numpy(), starts, strict=True):
        expected = np.where(edge, 0.0, farthest)
        queue = [(0.0, *place) for place in np.argwhere(edge).tolist()]
        while queue:
            length, y, x = heapq.heappop(queue)
            for down, right, step in STEPS:
                place = y + down, x + right
                if 0 <= place[0] < size[0] and 0 <= place[1] < size[1] and length + step < expected[place]:
                    expected[place] = length + step
                    heapq.heappush(queue, (length + step, *place))
        assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("size", [*SIZES, (1, 5), (2, 2), (32, 32)])
def test_canny(size):
    found = edges.canny(torch.from_numpy(layers(4, *size)).float(), 50, 150).numpy()
    for ours, layer in zip(found, layers(4, *size), strict=True):
        assert np.array_equal(ours, slow_canny(layer, 50, 150))
    assert found.any() or size[0] < 3


def slow_canny(layer, low, high):
    height, width = layer.shape
    wide = np.pad(layer, 1, mode="edge")
    gradients = np.zeros((2, height, width))
    for y, x in np.ndindex(layer.shape):
        window = wide[y : y + 3, x : x + 3]
        gradients[:, y, x] = [1, 2, 1] @ (window[:, 2] - window[:, 0]), (window[2] - window[0]) @ [1, 2, 1]
    length = np.pad(np.abs(gradients).sum(0), 1)
    weak = np.zeros(layer.shape, bool)
    for y, x in np.ndindex(layer.shape):
        right, down = gradients[:, y, x]
        angle = math.degrees(math.atan2(abs(down), abs(right)))
        sign = -1 if right * down < 0 else 1
        away = (0, 1) if angle < 22.5 else (1, 0) if angle > 67.5 else (1, sign)
        here = length[y + 1, x + 1]
        before, after = length[y + 1 - away[0], x + 1 - away[1]], length[y + 1 + away[0], x + 1 + away[1]]
        longest = here > before and (here > after if all(away) else here >= after)
        weak[y, x] = longest and here > low
    found, stack = np.zeros(layer.shape, bool), list(zip(*np.nonzero(weak & (length[1:-1, 1:-1] > high)), strict=True))
    while stack:
        y, x = stack.pop()
        found[y, x] = True
        near = np.ix_(range(max(y - 1, 0), min(y + 2, height)), range(max(x - 1, 0), min(x + 2, width)))
        first = near[0][0, 0], near[1][0, 0]
        stack += np.add(np.argwhere(weak[near] & ~found[near]), first).tolist()
    return found


def test_linking_follows_a_line_around_corners():
    weak = torch.zeros(2, 9, 12, dtype=torch.bool)
    weak[:, 0, :], weak[:, :, 11], weak[:, 8, 3:] = True, True, True
    weak[1, 4, 11], weak[:, 6, :4] = False, True  # broken; a part of its own
    strong = torch.zeros_like(weak)
    strong[:, 0, 0] = True
    linked = edges._linked(weak, strong, 40)
    whole = weak[0].clone()
    whole[6, :4] = False
    assert torch.equal(linked[0], whole)
    assert torch.equal(linked[1], whole & (torch.arange(9) < 4)[:, None])
    assert edges._linked(weak, strong, 3)[0].sum() == 4


@pytest.mark.parametrize("size", [*SIZES, (1, 3)])
def test_equalisation(size):
    given = layers(3, *size, levels=21)
    given[2] = 7  # of one level: as it is
    ours = spatter.equalise(torch.from_numpy(given).float(), 21)
    for found, layer in zip(ours.numpy(), given, strict=True):
        lowest = (layer == layer.min()).sum()
        if lowest == layer.size:
            assert np.array_equal(found, layer)
            continue
        for level in np.unique(layer):
            share = ((layer <= level).sum() - lowest) / (layer.size - lowest)
            assert (np.abs(found[layer == level] - 255 * share) <= 0.5001).all()


@pytest.mark.parametrize("size", [*SIZES, (1, 5), (2, 2)])
@pytest.mark.parametrize("severity", range(1, 6))
def test_spatter(size, severity):
    images = pictures(4, *size)
    drawn = draws("spatter", severity, images)
    mean, deviation, sigma, threshold, strength, mud = values = parameters("spatter", severity, *size)
    expected = np.empty(images.shape)
    for n, image in enumerate(images / 255):
        noise = mean + deviation * drawn["noise"][n].double().numpy()
        liquid = ndimage.gaussian_filter(noise, sigma, mode="nearest", truncate=4)
        if mud:
            cover = ndimage.gaussian_filter((liquid > threshold).astype(float), strength, mode="nearest", truncate=4)
            cover[cover < 0.8] = 0
        else:
            cover = slow_water(np.floor(np.where(liquid < threshold, 0, liquid) * 255) % 256) * strength
        color = np.array([63, 42, 20] if mud else [175, 238, 238]) / 255
        cover = cover[..., None]
        expected[n] = np.clip(image * (1 - cover if mud else 1) + cover * color, 0, 1) * 255
    assert_close(spatter.spatter(torch.from_numpy(images), values, **drawn), (expected + 1e-4).astype(np.uint8))


def slow_water(layer):
    """Cover in [0, 1]."""
    edge = torch.from_numpy(slow_canny(layer, 50, 150))[None]
    relief = np.floor(ndimage.uniform_filter(edges.distance_to(edge, 20)[0].double().numpy(), 3, mode="mirror") + 1e-4)
    relief = spatter.equalise(torch.from_numpy(relief)[None], 21)[0].numpy()
    relief = np.clip(ndimage.correlate(relief, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], mode="mirror"), 0, 255)
    cover = layer * np.round(ndimage.uniform_filter(relief, 3, mode="mirror"))
    return cover / max(cover.max(), 1)


@pytest.mark.parametrize("severity", [1, 2, 5])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (5, 9, 3), (64, 64, 1)])
def test_batches_and_order_do_not_matter(name, severity, shape):
    images, indices = pictures(12, *shape), np.arange(7, 19)
    images[3:6], images[6:9, 1:] = 200, 255  # flat: sums that hit a level exactly
    whole = corrupt(images, name, severity, seed=4, indices=indices)
    alone = [corrupt(images[n : n + 1], name, severity, seed=4, indices=indices[n : n + 1]) for n in range(12)]
    assert np.array_equal(np.concatenate(alone), whole)
    order = np.random.default_rng(0).permutation(12)[:7]
    assert np.array_equal(corrupt(images[order], name, severity, seed=4, indices=indices[order]), whole[order])


@pytest.mark.parametrize("severity", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_gray_images_are_the_luma_of_three_equal_channels(name, severity):
    gray = pictures(3, 28, 28, 1)
    colored = corrupt(gray.repeat(3, -1), name, severity).astype(float) @ [0.299, 0.587, 0.114]
    ours = corrupt(gray, name, severity)[..., 0]
    assert np.abs(ours - colored).max() < 1 + 1e-9 and not np.array_equal(ours, gray[..., 0])


def test_warped_flat_images_keep_their_level():
    levels = np.arange(256, dtype=np.uint8)[:, None, None, None].repeat(9, 1).repeat(9, 2).repeat(3, 3)
    for severity in (1, 3, 5):
        assert np.array_equal(corrupt(levels, "elastic_transform", severity), levels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 1), (2, 2, 3), (3, 1, 1), (64, 64, 3), (113, 150, 1)])
def test_every_size(name, shape):
    images = pictures(2, *shape)
    for severity in range(1, 6):
        result = corrupt(images, name, severity)
        assert result.shape == images.shape and result.dtype == np.uint8
    assert shape[0] < 64 or not np.array_equal(result, images)
