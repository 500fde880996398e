"""Blur: Gaussian, glass, defocus, motion and zoom. images: (n, H, W, C) uint8.

Beyond the image: the nearest pixel (Gaussian, glass, motion), or reflection without the edge, again and again where the
kernel is wider than the image (defocus).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from randomix.robustness.corruptions.draws import ImageRng, to_uint8, to_unit

Shape = tuple[int, int, int]


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian of standard deviation ``sigma`` pixels, cut off at four of them."""
    return to_uint8(gaussian_filter(to_unit(images), sigma))


def gaussian_filter(unit: Tensor, sigma: float) -> Tensor:
    """Floats (n, H, W, C) smoothed along height and width."""
    radius = int(4 * sigma + 0.5)
    if radius == 0:
        return unit
    weights = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    weights = (weights / weights.sum())[radius:].tolist()
    for axis in (1, 2):
        size = unit.shape[axis]
        wide = extended(unit, axis, radius)
        unit = wide.narrow(axis, radius, size) * weights[0]
        for offset in range(radius, 0, -1):  # from the outside, as scipy adds
            pair = wide.narrow(axis, radius - offset, size) + wide.narrow(axis, radius + offset, size)
            unit.add_(pair.mul_(weights[offset]))
    return unit


def extended(images: Tensor, axis: int, margin: int, mirror: bool = False) -> Tensor:
    """``margin`` more pixels on both ends of ``axis``: the last one repeated, or mirrored about it (c b | a b c)."""
    size = images.shape[axis]
    index = torch.arange(-margin, size + margin, device=images.device)
    if mirror:
        period = max(2 * (size - 1), 1)
        index = index.remainder_(period)
        index = torch.minimum(index, period - index)
    return images.index_select(axis, index.clamp_(0, size - 1))


def draw_glass(rng: ImageRng, shape: Shape, parameters: tuple[float, int, int]) -> dict[str, Tensor]:
    """Shifts (n, iterations, rows, columns, 2) as (dx, dy) in -delta .. delta - 1 for all pixels but the margin's."""
    _, delta, iterations = parameters
    rows, columns = (max(size - 2 * delta, 0) for size in shape[:2])
    both = rng.integers("shifts", (2 * delta) ** 2, iterations, rows, columns)
    return {"shifts": torch.stack([both // (2 * delta), both % (2 * delta)], -1) - delta}


def glass_blur(images: Tensor, parameters: tuple[float, int, int], *, shifts: Tensor) -> Tensor:
    """Blur, replace each pixel by one near it (the original's swap copies), blur again.

    Pixels are visited from the lower right to the upper left corner; shifts are in the order of the image, from the
    upper left.
    """
    sigma, delta, iterations = parameters
    count, height, width, channels = images.shape
    blurred = gaussian_blur(images, sigma)
    if shifts.numel():
        source = _glass_source(shifts[:, 0], delta, height, width)
        for iteration in range(1, iterations):  # the later copies take what the earlier ones brought
            source = source.gather(1, _glass_source(shifts[:, iteration], delta, height, width))
        first = torch.arange(count, device=images.device)[:, None] * (height * width)
        blurred = blurred.view(-1, channels).index_select(0, (source + first).view(-1)).view(images.shape)
    return gaussian_blur(blurred, sigma)


def _glass_source(shifts: Tensor, delta: int, height: int, width: int) -> Tensor:
    """(n, H * W) int64: the pixel that each ends up with after one pass over the image.

    A pixel takes what its neighbour holds at that time: what was there, or, where the neighbour was visited before
    (it lies later in the image), what that one had taken; such chains are followed by doubling.
    """
    area = height * width
    place = torch.arange(area, device=shifts.device).view(height, width)
    inner = place[delta + 1 : height - delta + 1, delta + 1 : width - delta + 1]
    target = inner + shifts[..., 1] * width + shifts[..., 0]
    source = place.expand(len(shifts), height, width).clone()
    if delta == 1:
        source[:, delta + 1 : height - delta + 1, delta + 1 : width - delta + 1] = target  # all neighbours come later
        return source.view(-1, area)
    # entries below area: what the pixel held at first (its own end); area + p: what pixel p has after its visit
    visited = torch.zeros_like(place, dtype=torch.bool)
    visited[delta + 1 : height - delta + 1, delta + 1 : width - delta + 1] = True
    later = (target > inner) & visited.view(-1)[target]
    source[:, delta + 1 : height - delta + 1, delta + 1 : width - delta + 1] = torch.where(later, target + area, target)
    links = torch.cat([place.view(1, area).expand(len(shifts), area), source.view(-1, area)], 1)
    for _ in range(math.ceil(math.log2(area))):
        links = links.gather(1, links)
    return links[:, area:]


def defocus_blur(images: Tensor, parameters: tuple[float, float]) -> Tensor:
    """A disk with a soft edge."""
    kernel = _disk(*parameters)
    margin = len(kernel) // 2
    height, width = images.shape[1:3]
    wide = extended(extended(to_unit(images), 1, margin, mirror=True), 2, margin, mirror=True)
    total = torch.zeros(images.shape, dtype=torch.float64, device=images.device)
    for row, column in zip(*(axis.tolist() for axis in kernel.nonzero()), strict=True):
        part = wide[:, row : row + height, column : column + width]
        total.add_(part * float(kernel[row, column]))  # not fused: that would depend on the place in memory
    return to_uint8(total)


@lru_cache(maxsize=32)
def _disk(radius: float, sigma: float) -> np.ndarray:
    """(S, S) float32 weights without empty edge: whole pixels, smoothed by 3 x 3 taps (5 x 5 above radius 8)."""
    half, reach = (8, 1) if radius <= 8 else (math.ceil(radius), 2)
    offsets = np.arange(-half, half + 1)
    disk = (offsets**2 + offsets[:, None] ** 2 <= radius**2).astype(np.float32)
    disk /= disk.sum()
    taps = np.exp(-0.5 / sigma**2 * np.arange(-reach, reach + 1) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (1, 0):
        wide = np.pad(disk, [(reach, reach) if a == axis else (0, 0) for a in (0, 1)], mode="reflect")
        disk = sum(tap * np.take(wide, range(i, i + len(disk)), axis) for i, tap in enumerate(taps))
    empty = min(int(np.flatnonzero(disk.any(0))[0]), half)
    return disk[empty : len(disk) - empty, empty : len(disk) - empty]


def draw_motion(rng: ImageRng, shape: Shape, parameters: object) -> dict[str, Tensor]:
    """Degrees, within 45 of the horizontal."""
    return {"degrees": rng.uniform("degrees", low=-45, high=45)}


def motion_blur(images: Tensor, parameters: tuple[int, float], *, degrees: Tensor) -> Tensor:
    """Blur along a line, as ImageMagick does: see ``line_blur``."""
    blurred = line_blur(images.float(), *parameters, degrees)
    return blurred.add_(1e-3).to(torch.uint8)  # what a sum of weights lacks to 1 must not cost a level


def line_blur(pixels: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Floats (n, H, W, C) averaged along ``2 * radius + 1`` pixels of a line that begins at each pixel.

    The weights are half a Gaussian of standard deviation ``sigma``. degrees: (n,), 0 to the right, 90 downwards.
    """
    count, height, width, channels = pixels.shape
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    angles = degrees.double().deg2rad()
    directions = torch.stack([angles.sin(), angles.cos()])[..., None]
    rows, columns = (torch.arange(size, device=pixels.device) for size in (height, width))
    first = torch.arange(count, device=pixels.device)[:, None] * (height * width)
    flat = pixels.reshape(-1, channels)
    total = torch.zeros_like(flat)
    for distance, weight in enumerate(weights.tolist()):
        if weight > 1e-7:  # the others cannot change a level
            down, right = (directions * distance - 0.5).ceil().long()
            index = ((rows + down).clamp_(0, height - 1) * width + first)[..., None]
            index = index + (columns + right).clamp_(0, width - 1)[:, None]
            total.add_(flat.index_select(0, index.view(-1)).mul_(weight))
    return total.view(pixels.shape)


def zoom_blur(images: Tensor, parameters: tuple[float, float]) -> Tensor:
    """The mean of the image and its enlargements by 1, 1 + step, ... (below ``end``), bilinear, about the centre."""
    count, height, width, channels = images.shape
    columns = to_unit(images, torch.float32).double().permute(1, 2, 0, 3).reshape(height * width, -1)
    band = max(1, 2**16 // width)  # rows at a time: the matrix of a large image would be too large
    parts = [
        _zoom_matrix(height, width, top, min(top + band, height), *parameters, images.device) @ columns
        for top in range(0, height, band)
    ]
    blurred = torch.cat(parts).view(height, width, count, channels).permute(2, 0, 1, 3)
    return to_uint8(blurred + 1e-7)  # flat parts keep their level, as in the float32 sums of the original


@lru_cache(maxsize=16)
def _zoom_matrix(
    height: int, width: int, top: int, bottom: int, end: float, step: float, device: torch.device
) -> Tensor:
    """Sparse ((bottom - top) * W, H * W): rows top .. bottom - 1 of the mean as a function of all pixels."""
    factors = np.arange(1, end, step).tolist()
    shape = ((bottom - top) * width, height * width)
    outputs = torch.arange(shape[0])
    total = _sparse(outputs, outputs + top * width, torch.ones(shape[0], dtype=torch.float64), shape)
    for factor in factors:
        rows, row_weights = (part[top:bottom, None, :, None] for part in _zoom_taps(height, factor))
        columns, column_weights = (part[None, :, None, :] for part in _zoom_taps(width, factor))
        inputs, weights = (rows * width + columns).reshape(-1), (row_weights * column_weights).reshape(-1)
        total = (total + _sparse(outputs.repeat_interleave(4), inputs, weights, shape)).coalesce()
    return (total / (len(factors) + 1)).to(device)


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=True)


def _zoom_taps(size: int, factor: float) -> tuple[Tensor, Tensor]:
    """Of each of ``size`` enlarged pixels the two pixels (size, 2) that it lies between, and their weights."""
    crop = math.ceil(size / factor)
    enlarged = round(crop * factor)
    position = (torch.arange(size, dtype=torch.float64) + (enlarged - size) // 2) * ((crop - 1) / max(enlarged - 1, 1))
    before = position.floor().clamp_(max=max(crop - 2, 0))
    share = position - before
    index = before.long() + (size - crop) // 2
    return torch.stack([index, (index + 1).clamp_(max=size - 1)], 1), torch.stack([1 - share, share], 1)
