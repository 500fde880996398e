"""What weather, elastic, spatter and frost share: lines resampled and smoothed as matrices, gray images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """ITU-R 601 luma (n, H, W, 1) of float images (n, H, W, C), C 1 or 3."""
    if images.shape[-1] == 1:
        return images
    return (images @ torch.tensor(_LUMA, dtype=images.dtype, device=images.device))[..., None]


def in_color(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """``change`` of images (n, H, W, C); gray ones (C = 1) are changed as three equal channels, the result is luma."""
    if images.shape[-1] == 3:
        return change(images)
    return luma(change(images.expand(*images.shape[:-1], 3)))


def linear_matrix(places: Tensor, side: int) -> Tensor:
    """The (len(places), side) matrix that reads a line at ``places`` by linear interpolation; ends are repeated."""
    places = places.clamp(0, side - 1)
    pixels = torch.arange(side, dtype=places.dtype, device=places.device)
    return (1 - (places[:, None] - pixels).abs()).clamp_(min=0)


def gaussian_matrix(side: int, sigma: float, truncate: float, *, mirror: bool, device: torch.device) -> Tensor:
    """The (side, side) float64 matrix that smooths a line by a Gaussian of ``sigma`` pixels, cut off at ``truncate``.

    Beyond its ends the line is mirrored (c b a | a b c), else its end values are repeated. sigma 0 changes nothing.
    """
    reach = int(truncate * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=device)
    weights = torch.exp(offsets.double() ** 2 / (-2 * max(sigma, 1e-9) ** 2))
    places = torch.arange(side, device=device)[:, None] + offsets
    if mirror:
        places = places.remainder(2 * side)
        places = torch.minimum(places, 2 * side - 1 - places)
    matrix = torch.zeros(side, side, dtype=torch.float64, device=device)
    return matrix.scatter_add_(1, places.clamp_(0, side - 1), (weights / weights.sum()).expand(side, -1))


def smooth(layers: Tensor, sigma: float, truncate: float = 4.0, *, mirror: bool = False) -> Tensor:
    """Layers (n, H, W) smoothed by a Gaussian along both axes (see ``gaussian_matrix``); float64."""
    device, sides = layers.device, layers.shape[1:]
    rows, columns = (gaussian_matrix(side, sigma, truncate, mirror=mirror, device=device) for side in sides)
    return rows @ layers.double() @ columns.T
