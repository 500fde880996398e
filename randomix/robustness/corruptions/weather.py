"""Fog and snow of ImageNet-C and its relatives (D. Hendrycks, T. Dietterich, ICLR 2019), for batches of any size.

Images are (n, H, W, C) uint8; every random number is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from randomix.robustness.corruptions.blur import line_blur
from randomix.robustness.corruptions.draws import Corruption, ImageRng, to_uint8, to_unit
from randomix.robustness.corruptions.resampling import linear_matrix, luma

_FIRST_WIBBLE = 100.0


def draw_fog(rng: ImageRng, shape: tuple[int, int, int], parameters: Sequence[float]) -> dict[str, Tensor]:
    """wobble (n, P, P), uniform in [-1, 1]; P is ``map_side`` of the images."""
    side = map_side(*shape[:2])
    return {"wobble": rng.uniform("wobble", side, side, low=-1)}


def fog(images: Tensor, parameters: Sequence[float], *, wobble: Tensor) -> Tensor:
    """Add a fractal cloud to images (n, H, W, C) uint8, then darken to each image's maximum.

    parameters: amount of the cloud, decay of its details. The cloud is the first (H, W) of a height map (P, P).
    """
    amount, decay = parameters
    height, width = images.shape[1:3]
    cloud = height_map(wobble, decay)[:, :height, :width, None]
    pixels = to_unit(images, torch.float64)
    brightest = pixels.amax((1, 2, 3), keepdim=True)
    return to_uint8((pixels + amount * cloud) * brightest / (brightest + amount))


def map_side(height: int, width: int) -> int:
    """Side of the height map: the least power of two, at least 2, that covers the image."""
    return max(2, 1 << (max(height, width) - 1).bit_length())


def height_map(wobble: Tensor, decay: float) -> Tensor:
    """Diamond-square surface (n, P, P) on a torus, scaled to [0, 1]; float64.

    Midpoints get the mean of four neighbours plus wibble ** 2 times their wobble; wibble starts at 100 and is divided
    by ``decay`` at each level. Source: A. Fournier, D. Fussell, L. Carpenter, CACM 25(6), 1982.
    """
    heights, wobble = torch.zeros_like(wobble, dtype=torch.float64), wobble.double()
    step, wibble = wobble.shape[-1], _FIRST_WIBBLE
    while step >= 2:
        start = (slice(None), slice(0, None, step))
        middle = (slice(None), slice(step // 2, None, step))
        grid, center = (*start, start[1]), (*middle, middle[1])
        corners = heights[grid]
        rows = corners + corners.roll(-1, 1)
        heights[center] = (rows + rows.roll(-1, 2)) / 4 + wibble**2 * wobble[center]
        centers = heights[center]
        for place, across, along in (((*start, middle[1]), 1, 2), ((*middle, start[1]), 2, 1)):
            sums = centers + centers.roll(1, across) + (corners + corners.roll(-1, along))
            heights[place] = sums / 4 + wibble**2 * wobble[place]
        step, wibble = step // 2, wibble / decay
    heights -= heights.amin((1, 2), keepdim=True)
    return heights / heights.amax((1, 2), keepdim=True)


def draw_snow(rng: ImageRng, shape: tuple[int, int, int], parameters: Sequence[float]) -> dict[str, Tensor]:
    """noise (n, H, W), standard normal; angles (n,) of the wind in degrees, downwards."""
    return {"noise": rng.normal("noise", *shape[:2]), "angles": rng.uniform("angle", low=-135, high=-45)}


def snow(images: Tensor, parameters: Sequence[float], *, noise: Tensor, angles: Tensor) -> Tensor:
    """Whiten images (n, H, W, C) uint8, add flakes blown by the wind, and once more the flakes turned by 180 degrees.

    parameters: mean, deviation, zoom, threshold, radius, sigma, blend. Flakes are mean + deviation * noise, enlarged
    ``zoom`` times about the centre, zero below ``threshold``, blurred along a line (radius and sigma in pixels);
    ``blend`` is the weight of the image that was not whitened.
    """
    mean, deviation, zoom, threshold, radius, sigma, blend = parameters
    rows, columns = (zoom_matrix(side, zoom, noise.device) for side in noise.shape[1:])
    flakes = rows @ (mean + deviation * noise.double()) @ columns.T
    flakes = torch.where(flakes < threshold, 0.0, flakes).clamp_(0, 1)
    flakes = line_blur((flakes * 255).floor_()[..., None], int(radius), sigma, angles).floor_() / 255
    pixels = to_unit(images, torch.float64)
    pixels = blend * pixels + (1 - blend) * torch.maximum(pixels, luma(pixels) * 1.5 + 0.5)
    return to_uint8(pixels + flakes + flakes.flip(1, 2))


def zoom_matrix(side: int, zoom: float, device: torch.device) -> Tensor:
    """The (side, side) float64 matrix that enlarges the middle of a line ``zoom`` times, end points on end points."""
    source = math.ceil(side / zoom)
    enlarged = round(source * zoom)
    first = (enlarged - side) // 2
    places = torch.arange(first, first + side, dtype=torch.float64, device=device)
    places = places * ((source - 1) / max(enlarged - 1, 1))
    return linear_matrix(places + (side - source) // 2, side)


FOG, SNOW = Corruption(draw_fog, fog), Corruption(draw_snow, snow)
