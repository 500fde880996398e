"""Noise: Gaussian, shot, impulse and speckle. images: (n, H, W, C) uint8; each channel has noise of its own."""

from __future__ import annotations

from torch import Tensor

from randomix.robustness.corruptions.draws import ImageRng, to_uint8, to_unit
from randomix.robustness.corruptions.poisson import poisson

Shape = tuple[int, int, int]


def draw_normal(rng: ImageRng, shape: Shape, parameters: object) -> dict[str, Tensor]:
    """A standard normal number for each value."""
    return {"normal": rng.normal("normal", *shape)}


def gaussian_noise(images: Tensor, scale: float, *, normal: Tensor) -> Tensor:
    """Add noise of standard deviation ``scale`` (of the unit range)."""
    return to_uint8(to_unit(images, normal.dtype).add_(normal * scale))


def speckle_noise(images: Tensor, scale: float, *, normal: Tensor) -> Tensor:
    """Add noise of standard deviation ``scale`` times the value."""
    unit = to_unit(images, normal.dtype)
    return to_uint8(unit + unit * (normal * scale))


def draw_photons(rng: ImageRng, shape: Shape, parameters: object) -> dict[str, Tensor]:
    """Random bits for each value: how many photons they make depends on the image."""
    return {"bits": rng.bits("photons", *shape)}


def shot_noise(images: Tensor, photons: int, *, bits: Tensor) -> Tensor:
    """Replace values by the light of Poisson-distributed photons, ``photons`` of them on average for white."""
    return photon_image(poisson(images, photons, bits), photons)


def photon_image(counts: Tensor, photons: int) -> Tensor:
    """Bytes from counts of photons."""
    return to_uint8(counts.double().div_(photons))


def draw_impulses(rng: ImageRng, shape: Shape, amount: float) -> dict[str, Tensor]:
    """Which values are replaced, and which of these by white rather than black."""
    bits = rng.bits("impulses", *shape)
    return {"flipped": (bits & 0xFFFFFFFF) < round(amount * 2**32), "salted": bits < 0}


def impulse_noise(images: Tensor, amount: float, *, flipped: Tensor, salted: Tensor) -> Tensor:
    """Replace a share ``amount`` of the values by black or white; the draws already hold the share."""
    return images.masked_fill(flipped & salted, 255).masked_fill_(flipped & ~salted, 0)
