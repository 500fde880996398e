"""Any batch, order, kind and size gives the same bytes; random corruptions have the original's law; what is refused."""

import math

import numpy as np
import pytest
import torch

from randomix.robustness.corruptions import CORRUPTIONS, REGISTRY, STANDARD, corrupt, poisson
from randomix.robustness.corruptions.draws import ImageRng
from randomix.robustness.corruptions.parameters import CIFAR, IMAGENET, TINY_IMAGENET, parameters

stats = pytest.importorskip("scipy.stats")
pytest.importorskip("PIL")
RANDOM = ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur")


def pictures(count, height=32, width=32, channels=3, seed=0):
    """Smooth colours with some detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, height // 4 + 1, width // 4 + 1, channels)).repeat(4, 1).repeat(4, 2)
    detail = rng.random((count, height, width, channels))
    return (255 * (0.8 * coarse[:, :height, :width] + 0.2 * detail)).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_batches_order_and_kind_do_not_matter(name):
    images, indices = pictures(100, 13, 11), np.arange(5, 105)
    images[::3, 2:9], images[50:60], images[60:] = 255, 128, images[60:] // 64 * 64  # flat parts: sums hit levels
    original = images.copy()
    images.flags.writeable = False  # as of a memory map
    whole = corrupt(images, name, 3, seed=7, indices=indices)
    assert isinstance(whole, np.ndarray) and whole.dtype == np.uint8 and whole.shape == images.shape
    for size, count in ((1, 30), (7, 100), (100, 100)):
        parts = [slice(start, start + size) for start in range(0, count, size)]
        parted = [corrupt(images[part], name, 3, seed=7, indices=indices[part]) for part in parts]
        assert np.array_equal(np.concatenate(parted), whole[:count])
    order = np.random.default_rng(1).permutation(100)
    assert np.array_equal(corrupt(images[order], name, 3, seed=7, indices=indices[order].tolist()), whole[order])
    channels_first = torch.from_numpy(original).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    result = corrupt(channels_first, name, 3, seed=7, indices=torch.from_numpy(indices))
    assert isinstance(result, torch.Tensor) and np.array_equal(result.numpy(), whole)
    assert np.array_equal(images, original) and np.array_equal(channels_first.numpy(), original)
    assert not np.shares_memory(whole, images)


@pytest.mark.parametrize("name", RANDOM)
def test_chunks_of_large_calls_do_not_matter(name, monkeypatch):
    images = pictures(9)
    whole = corrupt(images, name, 2)
    monkeypatch.setattr("randomix.robustness.corruptions._CHUNK_VALUES", {"cpu": 2 * 32 * 32 * 3})
    assert np.array_equal(corrupt(images, name, 2), whole)


@pytest.mark.parametrize("name", RANDOM)
def test_seed_severity_and_index_each_change_the_draws(name):
    images = pictures(1).repeat(2, 0)
    first, second = corrupt(images, name, 1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(corrupt(images, name, 1, seed=1)[0], first)
    assert np.array_equal(corrupt(images, name, 1, indices=[1, 0])[1], first)
    rng = [REGISTRY[name].draw(_rng(name, severity), (8, 8, 3), CIFAR[name][0]) for severity in (1, 2)]
    assert all(not torch.equal(rng[0][key], rng[1][key]) for key in rng[0])


def _rng(name, severity, count=64):
    return ImageRng(0, name, severity, torch.arange(count))


def test_severities_of_one_call_have_noise_of_their_own():
    gray = np.full((1, 32, 32, 3), 128, np.uint8)
    first, second = (corrupt(gray, "gaussian_noise", severity).ravel() for severity in (1, 2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def test_motion_has_all_directions_within_45_degrees_of_the_horizontal():
    degrees = REGISTRY["motion_blur"].draw(_rng("motion_blur", 1, 4000), (8, 8, 3), None)["degrees"]
    assert stats.kstest(degrees.numpy(), "uniform", (-45, 90)).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 20, 3), (2, 5, 3), (3, 2, 1), (65, 49, 3)])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_every_size(name, shape):
    images = pictures(2, *shape)
    for severity in (1, 5):
        assert corrupt(images, name, severity).shape == images.shape
    assert corrupt(images[:0], name, 1).shape == (0, *shape)


@pytest.mark.parametrize("name", [n for n in CORRUPTIONS if n != "elastic_transform"])
def test_size_of_imagenet(name):
    images = pictures(1, 113, 150)
    assert not np.array_equal(corrupt(images, name, 5), images)


def test_parameters_go_by_the_shorter_side():
    assert parameters("contrast", 2, 48, 300) == CIFAR["contrast"][1] == 0.5
    assert parameters("contrast", 2, 300, 49) == parameters("contrast", 2, 112, 112) == TINY_IMAGENET["contrast"][1]
    assert parameters("contrast", 5, 113, 113) == IMAGENET["contrast"][4] == 0.05
    assert parameters("elastic_transform", 1, 32, 40) == (0, 0, 2.56)
    assert parameters("elastic_transform", 1, 224, 224) == pytest.approx((488, 170.8, 24.4))
    for levels in (CIFAR, TINY_IMAGENET, IMAGENET):
        assert set(levels) == set(CORRUPTIONS) and all(len(entries) == 5 for entries in levels.values())
    assert len(STANDARD) == 15
    assert set(CORRUPTIONS) - set(STANDARD) == {"speckle_noise", "gaussian_blur", "spatter", "saturate"}


@pytest.mark.parametrize("photons", [500, 50, 3])
def test_the_table_holds_the_law_of_poisson(photons):
    """Each count's share of the columns, kept or as an alias, is its probability."""
    table = poisson._table(photons, torch.device("cpu")).view(256, -1).numpy()
    columns = table.shape[1]
    threshold, alias = (table >> 16) / 2**32, table & 0xFFFF
    for level in (0, 1, 100, 255):
        shares = threshold[level] + np.bincount(alias[level], 1 - threshold[level], minlength=columns)
        expected = stats.poisson.pmf(np.arange(columns), level / 255 * photons)
        assert np.abs(shares / columns - expected).max() < 1e-9
        assert stats.poisson.sf(columns - 1, level / 255 * photons) < 1e-15


@pytest.mark.parametrize("photons", [500, 60, 5])
def test_counts_are_poisson_distributed(photons):
    images = torch.tensor([3, 120, 255], dtype=torch.uint8)[:, None].expand(3, 200_000)
    bits = _rng("shot_noise", 1, 3).bits("photons", 200_000)
    for counts, level in zip(poisson.poisson(images, photons, bits).numpy(), (3, 120, 255), strict=True):
        rate = level / 255 * photons
        assert abs(counts.mean() - rate) < 5 * math.sqrt(rate / 2e5) and abs(counts.var() / rate - 1) < 0.05
        expected = 2e5 * stats.poisson.pmf(np.arange(1100), rate)
        common = expected > 20
        observed = np.bincount(counts, minlength=1100)
        observed = np.append(observed[common], observed[~common].sum())
        expected = np.append(expected[common], expected[~common].sum())
        assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-4
    assert not poisson.poisson(torch.zeros_like(images), photons, bits).any()


def numpy_draws(name, rng, values, images):
    """Draws as the original's, from NumPy's generator."""
    shape = images.shape
    if name in ("gaussian_noise", "speckle_noise"):
        return {"normal": torch.from_numpy(rng.normal(size=shape))}
    if name == "impulse_noise":
        return {
            key: torch.from_numpy(rng.random(shape) < share) for key, share in (("flipped", values), ("salted", 0.5))
        }
    if name == "motion_blur":
        return {"degrees": torch.from_numpy(rng.uniform(-45, 45, shape[0]))}
    _, delta, iterations = values
    inner = [size - 2 * delta for size in shape[1:3]]
    return {"shifts": torch.from_numpy(rng.integers(-delta, delta, (shape[0], iterations, *inner, 2)))}


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", RANDOM)
def test_our_draws_have_the_law_of_the_original(name, severity):
    """64 results of one image with each kind of draws: means of the pixels, and distances from the clean image."""
    images = torch.from_numpy(pictures(1, seed=5)).repeat(64, 1, 1, 1)
    values, rng = parameters(name, severity, 32, 32), np.random.default_rng(3)
    ours = corrupt(images, name, severity, seed=2).numpy().astype(float)
    if name == "shot_noise":
        theirs = np.floor(np.clip(rng.poisson(images / 255 * values) / values, 0, 1) * 255)
    else:
        theirs = REGISTRY[name].apply(images, values, **numpy_draws(name, rng, values, images)).numpy().astype(float)
    spread = np.sqrt((ours.var(0) + theirs.var(0)) / 64)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) <= 4 * spread + 1).mean() >= 0.99
    distances = [np.abs(results - images.numpy()).mean((1, 2, 3)) for results in (ours, theirs)]
    assert stats.ks_2samp(*distances).pvalue > 1e-3 / 18


def test_what_does_not_fit_is_refused():
    images = pictures(2)
    cases = [
        ((images, "fogg", 1), "unknown corruption 'fogg', expected one of gaussian_noise, shot_noise"),
        ((images, "fog", 0), "severity is 0, expected a whole number from 1 to 5"),
        ((images, "fog", 2.0), "severity is 2.0, expected a whole number from 1 to 5"),
        ((images, "fog", 2, -1), "seed is -1, expected a whole number from 0"),
        ((images, "fog", 2, 1.5), "seed is 1.5, expected a whole number from 0"),
        ((images, "fog", True), "severity is True, expected a whole number from 1 to 5"),
        ((images, "fog", 1, 0, [3, -2]), "indices has -2, expected numbers >= 0"),
        ((images, "fog", 2.5), "severity is 2.5, expected a whole number from 1 to 5"),
        ((images.astype(np.float32), "fog", 1), "images are float32, expected uint8"),
        ((torch.zeros(2, 8, 8, 3), "fog", 1), "images are torch.float32, expected uint8"),
        (([[0]], "fog", 1), "images are list, expected uint8"),
        ((images[0], "fog", 1), r"images have shape \(32, 32, 3\), expected \(N, H, W, C\)"),
        ((images.transpose(0, 3, 1, 2), "fog", 1), r"images have shape \(2, 3, 32, 32\)"),
        ((images, "fog", 1, 0, [1]), r"indices are torch.int64 of shape \(1,\), expected 2 integers"),
        ((images, "fog", 1, 0, [0.5, 1.5]), r"indices are torch.float64 of shape \(2,\), expected 2 integers"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            corrupt(*arguments)
