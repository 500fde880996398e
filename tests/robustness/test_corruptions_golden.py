"""The corruptions against the original generator's pictures: fed with its random draws, or without any."""

import numpy as np
import pytest
import torch

from randomix.robustness.corruptions import CORRUPTIONS, REGISTRY, noise
from randomix.robustness.corruptions.draws import no_draws
from randomix.robustness.corruptions.parameters import CIFAR
from tests.parity import golden

PATH = golden.folder() / "corruptions.npz"
pytestmark = pytest.mark.skipif(not PATH.is_file(), reason=f"no recorded pictures at {PATH}")
SIDE = 32


@pytest.fixture(scope="module")
def data():
    with np.load(PATH, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if not name.endswith("__float")}


def normals(rng, parameters):
    return {"normal": rng.normal(size=(SIDE, SIDE, 3))}


def impulses(rng, amount):
    shares = ([amount, 1 - amount], [0.5, 0.5])
    flipped, salted = (rng.choice([True, False], size=(SIDE, SIDE, 3), p=share) for share in shares)
    return {"flipped": flipped, "salted": salted}


def shifts(rng, parameters):
    _, delta, iterations = parameters
    inner = SIDE - 2 * delta
    visited = rng.randint(-delta, delta, size=(iterations, inner, inner, 2))  # from the lower right corner
    return {"shifts": visited[:, ::-1, ::-1].copy()}


def degrees(rng, parameters):
    return {"degrees": rng.uniform(-45, 45)}


DRAWS = {
    "gaussian_noise": normals,
    "speckle_noise": normals,
    "impulse_noise": impulses,
    "glass_blur": shifts,
    "motion_blur": degrees,
}
WITHOUT = [name for name, corruption in REGISTRY.items() if corruption.draw is no_draws]


def states(name, severity, count):
    first = 10_000 * CORRUPTIONS.index(name) + 1000 * severity
    return [np.random.RandomState(first + image) for image in range(count)]


def assert_agrees(ours, theirs):
    difference = np.abs(ours.numpy().astype(int) - theirs)
    assert difference.max() <= 1 and (difference == 0).mean() >= 0.98


def test_names_are_the_official_ones_in_their_order(data):
    assert tuple(data["names"].tolist()) == CORRUPTIONS
    assert set(data["deterministic"].tolist()) == set(WITHOUT)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", [*WITHOUT, *DRAWS])
def test_pictures_are_those_of_the_original(data, name, severity):
    parameters, clean = CIFAR[name][severity - 1], torch.from_numpy(data["clean"])
    drawn = [DRAWS[name](rng, parameters) for rng in states(name, severity, len(clean))] if name in DRAWS else [{}]
    draws = {key: torch.from_numpy(np.stack([draw[key] for draw in drawn])) for key in drawn[0]}
    assert_agrees(REGISTRY[name].apply(clean, parameters, **draws), data[name][severity - 1])


@pytest.mark.parametrize("severity", range(1, 6))
def test_shot_noise_is_that_of_the_original(data, severity):
    photons = CIFAR["shot_noise"][severity - 1]
    pairs = zip(states("shot_noise", severity, len(data["clean"])), data["clean"], strict=True)
    counts = np.stack([rng.poisson(image / 255 * photons) for rng, image in pairs])
    assert_agrees(noise.photon_image(torch.from_numpy(counts), photons), data["shot_noise"][severity - 1])
