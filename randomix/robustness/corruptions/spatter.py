"""Spatter of ImageNet-C: drops of water, lit at their edges, or of mud, on the lens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from randomix.robustness.corruptions.blur import extended
from randomix.robustness.corruptions.draws import Corruption, ImageRng, to_uint8, to_unit
from randomix.robustness.corruptions.edges import canny, distance_to
from randomix.robustness.corruptions.resampling import in_color, smooth

WATER, MUD = (175, 238, 238), (63, 42, 20)
_FARTHEST = 20
_CANNY_THRESHOLDS = (50, 150)
_MUD_LEAST = 0.8
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))


def draw(rng: ImageRng, shape: tuple[int, int, int], parameters: Sequence[float]) -> dict[str, Tensor]:
    """noise (n, H, W), standard normal."""
    return {"noise": rng.normal("noise", *shape[:2])}


def spatter(images: Tensor, parameters: Sequence[float], *, noise: Tensor) -> Tensor:
    """Drops on images (n, H, W, C) uint8 where smoothed noise exceeds a threshold.

    parameters: mean, deviation and smoothing (pixels) of the noise, threshold, and then of water (last: 0) the opacity
    at its brightest, or of mud (last: 1) the smoothing of its outline.
    """
    mean, deviation, sigma, threshold, strength, mud = parameters
    liquid = smooth(mean + deviation * noise.double(), sigma)
    cover = mud_cover(liquid > threshold, strength) if mud else water_cover(liquid, threshold, strength)
    blend = partial(_blend, cover=cover.float()[..., None], color=MUD if mud else WATER, opaque=bool(mud))
    return to_uint8(in_color(to_unit(images, torch.float32), blend))


def _blend(pixels: Tensor, cover: Tensor, color: tuple[int, int, int], *, opaque: bool) -> Tensor:
    """Mud hides what is behind it, water adds its light to it."""
    light = cover * (torch.tensor(color, dtype=cover.dtype, device=cover.device) / 255)
    return ((pixels * (1 - cover) if opaque else pixels) + light).clamp_(0, 1)


def mud_cover(drops: Tensor, sigma: float) -> Tensor:
    """Cover (n, H, W) of drops (n, H, W) bool with smoothed outlines, 0 where it is below 0.8."""
    cover = smooth(drops, sigma)
    return torch.where(cover < _MUD_LEAST, 0.0, cover)


def water_cover(liquid: Tensor, threshold: float, opacity: float) -> Tensor:
    """Cover (n, H, W) in [0, opacity] of drops: liquid above the threshold, lit by the distance from their edges.

    The distance from the edges (Canny) is cut at 20, averaged over 3x3, equalised, embossed and averaged again.
    """
    # remainder: the original's bytes wrap around
    layer = torch.where(liquid < threshold, 0.0, liquid).mul_(255).floor_().remainder_(256).float()
    distance = distance_to(canny(layer, *_CANNY_THRESHOLDS), _FARTHEST)
    # 1e-4: sums of 1.4 and 2.1969 that make an integer may fall short of it
    relief = equalise((_sum3x3(distance) / 9 + 1e-4).floor_(), _FARTHEST + 1)
    relief = _filter3x3(relief, _EMBOSS).clamp_(0, 255)
    relief = (_sum3x3(relief) / 9).round_()
    cover = layer * relief
    return cover / cover.amax((1, 2), keepdim=True).clamp_(min=1) * opacity


def equalise(layers: Tensor, levels: int) -> Tensor:
    """Histogram equalisation of layers (n, H, W) of whole numbers below ``levels``, to 0 .. 255.

    An image's lowest level becomes 0, a level below which lies the share s of the other pixels 255 s, rounded. Images
    of one level stay as they are.
    """
    values = layers.flatten(1).long()
    counts = layers.new_zeros(len(values), levels).scatter_add_(1, values, torch.ones_like(layers).flatten(1))
    reached = counts.cumsum(1)
    total = values.shape[1]
    lowest = counts.gather(1, values.amin(1, keepdim=True))
    table = ((reached - lowest).clamp_(min=0) * 255 / (total - lowest).clamp_(min=1)).round_()
    return torch.where(lowest == total, values, table.gather(1, values)).view_as(layers)


def _sum3x3(layers: Tensor) -> Tensor:
    return _filter3x3(layers, ((1, 1, 1),) * 3)


def _filter3x3(layers: Tensor, kernel: Sequence[Sequence[int]]) -> Tensor:
    """Correlation of layers (n, H, W) with a 3x3 kernel; beyond the edge: c b | a b c."""
    height, width = layers.shape[1:]
    padded = extended(extended(layers, 1, 1, mirror=True), 2, 1, mirror=True)
    result = torch.zeros_like(layers)
    for y, row in enumerate(kernel):
        for x, weight in enumerate(row):
            if weight:
                result.add_(padded[:, y : y + height, x : x + width], alpha=weight)
    return result


SPATTER = Corruption(draw, spatter)
