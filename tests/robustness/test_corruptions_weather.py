"""Fog, snow, elastic transform and spatter of odd sizes against slow, obvious forms; gray images; draws."""

import heapq
import math

import numpy as np
import pytest
import torch

from randomix.robustness.corruptions import REGISTRY, corrupt, elastic, parameters, spatter, weather
from randomix.robustness.corruptions.draws import ImageRng
from randomix.robustness.corruptions.edges import canny, distance_to

NAMES = ("fog", "snow", "elastic_transform", "spatter")
SIZES = [(8, 8), (13, 20), (20, 13), (28, 28), (50, 49)]


def pictures(count, height, width, channels=3):
    """Coarse blocks of colour with some noise."""
    rng = np.random.default_rng(height + width)
    coarse = rng.random((count, height // 4 + 1, width // 4 + 1, channels)).repeat(4, 1).repeat(4, 2)
    return (255 * (0.8 * coarse[:, :height, :width] + 0.2 * rng.random((count, height, width, channels)))).astype("u1")


def blobs(height, width, seed=0):
    """A layer of whole numbers: drops as spatter has them, 0 or above 150."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, height, width)))
    liquid = spatter.smooth(0.65 + 0.3 * noise, 1)[0].numpy()
    return np.floor(np.where(liquid < 0.6, 0, liquid) * 255) % 256


def drawn(name, severity, height, width, count=2):
    values = parameters(name, severity, height, width)
    rng = ImageRng(1, name, severity, torch.arange(count))
    return values, REGISTRY[name].draw(rng, (height, width, 3), values)


def levels(ours, theirs):
    """Both cut off: rounding may put a value on the other side of a level, rarely."""
    difference = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs))
    return difference.max() <= 1 and (difference == 0).mean() >= 0.98


@pytest.mark.parametrize("side", [2, 4, 16])
def test_height_map(side):
    wobble, decay = np.random.default_rng(side).uniform(-1, 1, (side, side)), 1.7
    heights, step, wibble = np.zeros((side, side)), side, 100.0
    while step >= 2:
        half = step // 2
        diagonal, straight = [(1, 1), (1, -1), (-1, 1), (-1, -1)], [(0, 1), (0, -1), (1, 0), (-1, 0)]
        for top, left, around in ((half, half, diagonal), (0, half, straight), (half, 0, straight)):
            for y in range(top, side, step):
                for x in range(left, side, step):
                    near = [heights[(y + dy * half) % side, (x + dx * half) % side] for dy, dx in around]
                    heights[y, x] = sum(near) / 4 + wibble**2 * wobble[y, x]
        step, wibble = half, wibble / decay
    expected = (heights - heights.min()) / (heights.max() - heights.min())
    ours = weather.height_map(torch.from_numpy(wobble)[None], decay)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_fog(size):
    images, (values, draws) = pictures(2, *size), drawn("fog", 3, *size)
    amount, decay = values
    assert draws["wobble"].shape[1] in (8, 32, 64) and draws["wobble"].shape[1] >= max(size)
    ours = weather.fog(torch.from_numpy(images), values, **draws)
    for image, result, heights in zip(images / 255, ours, weather.height_map(draws["wobble"], decay), strict=True):
        cloud = amount * heights.numpy()[: size[0], : size[1], None]
        assert levels(result, np.uint8((image + cloud) * image.max() / (image.max() + amount) * 255))


def test_fog_does_not_light_a_black_image():
    assert not corrupt(np.zeros((2, 9, 7, 3), np.uint8), "fog", 5).any()


def enlarged(line, zoom):
    """The middle of a line, ``zoom`` times as long."""
    side = len(line)
    kept = math.ceil(side / zoom)
    first = (side - kept) // 2
    places = np.linspace(0, kept - 1, round(kept * zoom))
    longer = np.interp(places, np.arange(kept), line[first : first + kept])
    return longer[(len(longer) - side) // 2 :][:side]


@pytest.mark.parametrize("severity", [2, 4, 5])
@pytest.mark.parametrize("size", SIZES[:3])
def test_snow(size, severity):
    images, (values, draws) = pictures(2, *size), drawn("snow", severity, *size)
    mean, deviation, zoom, threshold, radius, sigma, blend = values
    ours = weather.snow(torch.from_numpy(images), values, **draws)
    weights = np.exp(-(np.arange(2 * radius + 1.0) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    for image, result, noise, angle in zip(images / 255, ours, *draws.values(), strict=True):
        flakes = np.apply_along_axis(enlarged, 0, mean + deviation * noise.numpy().astype(float), zoom)
        flakes = np.apply_along_axis(enlarged, 1, flakes, zoom)
        flakes = np.floor(255 * np.clip(np.where(flakes < threshold, 0, flakes), 0, 1))
        blown, turn = np.zeros(size), math.radians(float(angle))
        for y, x in np.ndindex(size):
            for tap, weight in enumerate(weights):
                down, right = (math.ceil(tap * part - 0.5) for part in (math.sin(turn), math.cos(turn)))
                place = min(max(y + down, 0), size[0] - 1), min(max(x + right, 0), size[1] - 1)
                blown[y, x] += weight * flakes[place]
        blown = (np.floor(blown + 1e-9) / 255)[..., None]
        white = np.maximum(image, 1.5 * (image @ [0.299, 0.587, 0.114])[..., None] + 0.5)
        expected = blend * image + (1 - blend) * white + blown + np.rot90(blown, 2)
        assert levels(result, np.uint8(255 * np.clip(expected, 0, 1)))


def fold(place, side, *, twice):
    """A place beyond the ends, reflected: the end pixel is met ``twice`` or once."""
    period = 2 * side if twice else max(2 * side - 2, 1)
    place %= period
    return min(place, period - 1 - place if twice else period - place)


def read(image, y, x, *, twice):
    """Linear interpolation at (y, x)."""
    top, left = math.floor(y), math.floor(x)
    rows = [(fold(top + i, image.shape[0], twice=twice), 1 - abs(y - top - i)) for i in (0, 1)]
    columns = [(fold(left + i, image.shape[1], twice=twice), 1 - abs(x - left - i)) for i in (0, 1)]
    return sum(a * b * image[row, column] for row, a in rows for column, b in columns)


def gaussian(line, sigma):
    """Smoothed as far as 3 sigma, each value met twice at the ends."""
    reach = int(3 * sigma + 0.5)
    taps = range(-reach, reach + 1)
    weights = np.exp([-((tap / sigma) ** 2) / 2 for tap in taps])
    values = [[line[fold(place + tap, len(line), twice=True)] for tap in taps] for place in range(len(line))]
    return np.array(values) @ (weights / weights.sum())


@pytest.mark.parametrize(("size", "values"), [((8, 8), (3, 2, 1)), ((13, 20), (4, 6, 2)), ((20, 13), (9, 1, 1.5))])
def test_elastic_transform(size, values):
    (alpha, sigma, affine), images = values, pictures(2, *size)
    draws = elastic.draw(ImageRng(3, "elastic_transform", 1, torch.arange(2)), (*size, 3), values)
    ours = elastic.elastic_transform(torch.from_numpy(images), values, **draws)
    for image, result, corners, displacement in zip(images / 255, ours, *draws.values(), strict=True):
        middle, arm = np.array([size[1] // 2, size[0] // 2]), min(size) // 3
        points = middle + arm * np.array([[1, 1], [1, -1], [-1, -1]])
        moved = np.column_stack([points + affine * corners.numpy(), np.ones(3)])
        back = np.linalg.solve(moved, points)  # (x, y, 1) of the result -> (x, y) of the image
        warped = np.empty_like(image)
        for y, x in np.ndindex(size):
            from_x, from_y = np.array([x, y, 1]) @ back
            warped[y, x] = read(image, from_y, from_x, twice=False)
        right, down = (
            alpha * np.apply_along_axis(gaussian, 1, np.apply_along_axis(gaussian, 0, field, sigma), sigma)
            for field in displacement.numpy()
        )
        expected = np.empty_like(image)
        for y, x in np.ndindex(size):
            expected[y, x] = read(warped, y + down[y, x], x + right[y, x], twice=True)
        assert levels(result, np.uint8(np.clip(expected * 255 + 1e-6, 0, 255)))


def slow_canny(layer, low, high):
    height, width = layer.shape
    around = np.pad(layer, 1, mode="edge")
    kernel = np.outer([1, 2, 1], [-1, 0, 1])
    gradients = np.zeros((2, height, width))
    for y, x in np.ndindex(height, width):
        window = around[y : y + 3, x : x + 3]
        gradients[:, y, x] = (window * kernel).sum(), (window * kernel.T).sum()
    length = np.pad(np.abs(gradients).sum(0), 1)
    thin = set()
    for y, x in np.ndindex(height, width):
        gx, gy = gradients[:, y, x]
        degrees = math.degrees(math.atan2(abs(gy), abs(gx)))
        slope = -1 if gx * gy < 0 else 1
        dy, dx = (0, 1) if degrees < 22.5 else (1, 0) if degrees > 67.5 else (1, slope)
        here, before, after = (length[1 + y + k * dy, 1 + x + k * dx] for k in (0, -1, 1))
        if here > max(before, low) and (here > after or (here == after and dy * dx == 0)):
            thin.add((y, x))
    edges, todo = set(), [place for place in thin if length[place[0] + 1, place[1] + 1] > high]
    while todo:
        y, x = todo.pop()
        if (y, x) in thin - edges:
            edges.add((y, x))
            todo += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    result = np.zeros(layer.shape, bool)
    for place in edges:
        result[place] = True
    return result


@pytest.mark.parametrize("size", SIZES)
def test_canny(size):
    layers = [blobs(*size), np.random.default_rng(1).integers(0, 60, size), np.indices(size).sum(0) * 12 % 256]
    for layer in layers:
        ours = canny(torch.from_numpy(np.asarray(layer, np.float32))[None], 50, 150)[0].numpy()
        np.testing.assert_array_equal(ours, slow_canny(np.asarray(layer, float), 50, 150))


def test_weak_edges_far_from_strong_ones_are_edges():
    """A line of a weak step that ends in a strong one, longer than a few steps."""
    layer = torch.zeros(1, 6, 40)
    layer[:, 3:] = 20  # gradient 80
    layer[:, 3:, 36:] = 90
    edges = canny(layer, 50, 150)[0]
    assert edges[2:4].any(0)[:34].all()
    assert not canny(layer[:, :, :30], 50, 150).any()


def slow_distance(edges, farthest):
    """Dijkstra's shortest paths over steps to a neighbour, a diagonal neighbour and a knight's move."""
    lengths = {(0, 1): 1.0, (1, 1): 1.4, (1, 2): 2.1969}
    steps = [
        (dy, dx, lengths[min(abs(dy), abs(dx)), max(abs(dy), abs(dx))])
        for dy in range(-2, 3)
        for dx in range(-2, 3)
        if (min(abs(dy), abs(dx)), max(abs(dy), abs(dx))) in lengths
    ]
    result = np.full(edges.shape, float(farthest))
    heap = [(0.0, *place) for place in np.argwhere(edges).tolist()]
    while heap:
        distance, y, x = heapq.heappop(heap)
        if not (0 <= y < edges.shape[0] and 0 <= x < edges.shape[1]) or (distance >= result[y, x]):
            continue
        result[y, x] = distance
        for dy, dx, length in steps:
            heapq.heappush(heap, (distance + length, y + dy, x + dx))
    return result


@pytest.mark.parametrize("size", [(1, 3), *SIZES])
def test_distance(size):
    edges = np.random.default_rng(0).random((3, *size)) < np.array([0.002, 0.02, 0.2])[:, None, None]
    edges[0, -1, -1] = True
    ours = distance_to(torch.from_numpy(edges), 20).numpy()
    for part, expected in zip(ours, edges, strict=True):
        np.testing.assert_allclose(part, slow_distance(expected, 20), atol=1e-4)


def test_equalise():
    rng = np.random.default_rng(0)
    layers = np.stack([rng.integers(0, 21, (9, 7)), rng.integers(5, 8, (9, 7)), np.full((9, 7), 20)]).astype("f4")
    ours = spatter.equalise(torch.from_numpy(layers), 21).numpy()
    for layer, result in zip(layers[:2], ours, strict=False):
        others = layer[layer > layer.min()]
        for value in np.unique(layer):
            assert set(result[layer == value]) == {np.rint(255 * (others <= value).mean())}
    np.testing.assert_array_equal(ours[2], layers[2])


@pytest.mark.parametrize("size", [(13, 20), (28, 28)])
@pytest.mark.parametrize("values", [(0.65, 0.5, 1, 0.69, 0.5, 0), (0.65, 0.1, 0.7, 0.69, 0.6, 1)])
def test_spatter(size, values):
    ndimage = pytest.importorskip("scipy.ndimage")
    images, (_, draws) = pictures(2, *size), drawn("spatter", 1, *size)
    mean, deviation, sigma, threshold, strength, mud = values
    ours = spatter.spatter(torch.from_numpy(images), values, **draws)
    for image, result, noise in zip(images / 255, ours, draws["noise"].numpy().astype(float), strict=True):
        liquid = ndimage.gaussian_filter(mean + deviation * noise, sigma, mode="nearest")
        if mud:
            cover = ndimage.gaussian_filter((liquid > threshold).astype(float), strength, mode="nearest")
            cover = np.where(cover < 0.8, 0, cover)[..., None]
            expected = image * (1 - cover) + cover * np.array([63, 42, 20]) / 255
        else:
            layer = np.floor(255 * np.where(liquid < threshold, 0, liquid)) % 256
            distance = slow_distance(slow_canny(layer, 50, 150), 20)
            relief = np.floor(ndimage.uniform_filter(distance, 3, mode="mirror") + 1e-6)
            relief = spatter.equalise(torch.from_numpy(relief)[None], 21)[0].numpy()
            relief = ndimage.correlate(relief, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror")
            cover = layer * np.rint(ndimage.uniform_filter(relief.clip(0, 255), 3, mode="mirror"))
            expected = image + (strength * cover / cover.max())[..., None] * np.array([175, 238, 238]) / 255
        assert cover.max() > 0 and levels(result, np.uint8(255 * np.clip(expected, 0, 1)))


def test_no_drop_no_change():
    images = pictures(2, 8, 8)
    dry = torch.full((2, 8, 8), -9.0)
    for mud in (0, 1):
        result = spatter.spatter(torch.from_numpy(images), (0.6, 0.1, 0.7, 0.7, 0.5, mud), noise=dry)
        np.testing.assert_array_equal(result, images)


@pytest.mark.parametrize("name", NAMES)
def test_gray_images_are_the_luma_of_three_equal_channels(name):
    gray = pictures(3, 13, 20, 1)
    for severity in (2, 5):
        coloured = corrupt(gray.repeat(3, -1), name, severity)
        if name != "spatter":
            assert np.abs(coloured.astype(int) - coloured[..., :1]).max() <= 1  # rounding of the luma
        ours = corrupt(gray, name, severity)[..., 0]
        assert np.abs(ours - coloured.astype(float) @ [0.299, 0.587, 0.114]).max() < 2  # each was cut off once


@pytest.mark.parametrize("name", [*NAMES, "frost"])
def test_seed_severity_and_index_each_change_the_draws(name):
    def draws(seed=0, severity=1, index=0):
        rng = ImageRng(seed, name, severity, torch.arange(index, index + 8))
        return REGISTRY[name].draw(rng, (20, 13, 3), parameters(name, 1, 20, 13))

    first = draws()
    for other in (draws(seed=1), draws(severity=2), draws(index=8)):
        assert all(not torch.equal(first[key], other[key]) for key in first)
    assert all(torch.equal(first[key][1:], draws(index=1)[key][:-1]) for key in first)
