"""Where an image stands out: the fine-grained centre-surround detector behind SaliencyMix, for whole batches.

S. Montabone, A. Soto: Human detection using a mobile platform and novel features derived from a visual saliency
mechanism, Image and Vision Computing 28(3), 2010, in the form that OpenCV ships as StaticSaliencyFineGrained.
Nothing here waits for the device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from randomix.devices import is_plain, to_device

REACHES = (12, 24, 48, 28, 56, 112)
"""A pixel in row r is compared with the mean of rows r - n + 1 .. r + n, and the same columns, for each reach n."""
_CORNERS_AT_ONCE = 2**18  # of boxes, over samples and reaches: more are looked up one reach at a time
Array = Any
"""A NumPy array or a tensor: the functions that take one use what both have in common."""


def fine_grained_saliency(images: Tensor) -> Tensor:
    """Saliency (N, H, W) float32 in [0, 1] of uint8 images (N, H, W, 3) in RGB or (N, H, W, 1).

    Equal to OpenCV's StaticSaliencyFineGrained of each image, in multiples of 1 / 255; from 65,794 pixels on, OpenCV's
    own float32 sums are rounded and single pixels differ. RGB images are weighted as if they were BGR, as SaliencyMix's
    authors do.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}; convert with (images * 255).round().to(uint8)")
    _check(images)
    grey = _grey(_at_hand(images))
    for _ in range(2):
        grey = _floor(_smooth(grey) + 0.5)
    return torch.as_tensor(_levels(grey, grey, whole=True) * (1 / 255))


def published_saliency(images: Tensor) -> Tensor:
    """What OpenCV makes of normalised float images (N, H, W, 3 or 1): saliency (N, H, W) float32, as published.

    SaliencyMix's authors hand the detector normalised float32 images. It takes a pixel's own value from the bytes
    0 .. W - 1 of its row of 4 W bytes, as if they were pixels, and the surroundings from the floats: the result has
    nothing to do with the image. All published SaliencyMix numbers, the authors' and OpenMixup's, were made with this.
    Rounds as OpenCV 5.0 does on x86-64 with AVX2, where W is a multiple of 8 or the images have one channel.
    """
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point, got {images.dtype}; use fine_grained_saliency for uint8")
    _check(images)
    grey = _smooth(_smooth(_at_hand(_grey_float(images.float()).contiguous())))
    own = grey.view(_library(grey).uint8)[..., : grey.shape[-1]]
    return torch.as_tensor(_levels(grey, own, whole=False) * (1 / 255))


def saliency_peaks(saliency: Tensor) -> Tensor:
    """Row and column (N, 2) int64 of the largest entry of each saliency (N, H, W), the first in raster order."""
    count, _, width = saliency.shape
    place = _at_hand(saliency).reshape(count, -1).argmax(axis=1)
    return torch.as_tensor(_library(place).stack([place // width, place % width], axis=1))


def to_uint8(inputs: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Tensor:
    """uint8 images (N, H, W, C) of inputs (N, C, H, W) that were normalised as (pixels in [0, 1] - mean) / std.

    mean, std: one number a channel; None: inputs are pixels in [0, 1]. Rounded and limited to 0 .. 255.
    """
    channels, values = inputs.shape[1], inputs.float()
    scale = _per_channel((1.0,) * channels if std is None else tuple(std), channels, inputs.device)
    shift = _per_channel((0.0,) * channels if mean is None else tuple(mean), channels, inputs.device)
    pixels = torch.addcmul(shift, values, scale).round_().clamp_(0, 255)
    return pixels.to(torch.uint8).movedim(1, -1)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"images must be (N, H, W, 3) or (N, H, W, 1), got {tuple(images.shape)}")
    if min(images.shape[1:3]) < 2:
        raise ValueError(f"images must have at least 2 x 2 pixels, got {images.shape[1]} x {images.shape[2]}")


@functools.lru_cache(maxsize=32)
def _per_channel(values: tuple[float, ...], channels: int, device: torch.device) -> Tensor:
    """(C, 1, 1) float32, times 255: from units of [0, 1] to those of uint8. Remembered, never written to."""
    if len(values) != channels:
        raise ValueError(f"mean and std have {len(values)} entries for inputs of {channels} channels")
    return to_device(np.array(values, dtype=np.float32)[:, None, None] * 255, device)


# --- What NumPy and torch name differently ---------------------------------------------------------------------------


def _at_hand(images: Tensor) -> Array:
    """A single image on a CPU as an array: some 40 small operations, of which NumPy's cost a third of torch's."""
    own = images.detach()
    return own.numpy() if len(own) == 1 and own.device.type == "cpu" and is_plain(own) else images


def _library(array: Array) -> Any:
    return torch if isinstance(array, Tensor) else np


def _floor(array: Array) -> Array:
    return array.floor_() if isinstance(array, Tensor) else np.floor(array, out=array)


def _constant(array: np.ndarray, device: torch.device | None) -> Array:
    return array if device is None else to_device(array, device)


def _device(array: Array) -> torch.device | None:
    return array.device if isinstance(array, Tensor) else None


def _look_up(rows: Array, columns: Array) -> Array:
    """(N, *M) the entries ``columns`` (*M) of each of rows (N, L)."""
    if not isinstance(rows, Tensor):
        return rows.take(columns, axis=1)
    return rows.index_select(1, columns.reshape(-1)).view(len(rows), *columns.shape)


# --- Grey images, smoothed -------------------------------------------------------------------------------------------
# Integers are kept in float32, which holds all that occur here exactly, so that every device agrees on them.


def _grey(images: Array) -> Array:
    """(N, H, W) float32 integers from uint8 images: 0.114, 0.587 and 0.299 of the channels in 15 bits, rounded."""
    weights = _fixed_point(images.shape[-1], _device(images))
    if isinstance(images, Tensor):  # no product of matrices, which a GPU may round
        return _floor((images * weights).sum(-1) + 0.5)
    return _floor(images @ weights + 0.5)  # an eighth of the time or less


@functools.lru_cache(maxsize=8)
def _fixed_point(channels: int, device: torch.device | None) -> Array:
    """The weights. Remembered, never written to; NumPy's if the device is None, as all constants here."""
    weights = np.array([3735, 19235, 9798] if channels == 3 else [32768], dtype=np.float32)
    return _constant(weights / 32768, device)


def _grey_float(images: Tensor) -> Tensor:
    """(N, H, W) float32 from float32 images: the same weights, with the roundings of fused multiply-adds."""
    if images.shape[-1] == 1:
        return images[..., 0]
    first, second, third = images.unbind(-1)
    weights = np.array([0.114, 0.587, 0.299], dtype=np.float32).tolist()
    total = (second.double() * weights[1]).float()
    total = (first.double() * weights[0] + total).float()
    return (third.double() * weights[2] + total).float()


def _smooth(grey: Array) -> Array:
    """Weights 1/4 1/2 1/4 along rows, then along columns, of (N, H, W) mirrored about its border pixels."""
    join = _library(grey).concatenate
    padded = join([grey[:, 1:2], grey, grey[:, -2:-1]], axis=1)
    padded = join([padded[..., 1:2], padded, padded[..., -2:-1]], axis=2)
    # the outer two first, as OpenCV rounds; the powers of two change no rounding
    rows = padded[..., :-2] + padded[..., 2:]
    rows += 2 * padded[..., 1:-1]
    columns = rows[:, :-2] + rows[:, 2:]
    columns += 2 * rows[:, 1:-1]
    columns *= 1 / 16
    return columns


# --- Centre against surroundings -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def _boxes(height: int, width: int, device: torch.device | None) -> tuple[Array, Array, Array]:
    """Corners (4, S, H W) in a flat integral image, their pixels but one (S, H W), how often a reach counts (S, 1).

    Reaches of at least the longer side all see the whole image: they are one. Remembered, never written to.
    """
    reaches = [min(n, max(height, width)) for n in REACHES]
    distinct = sorted(set(reaches))
    corners, sizes = [], []
    for n in distinct:
        (top, bottom), (left, right) = (
            (np.maximum(place - n + 1, 0), np.minimum(place + n + 1, size))
            for place, size in ((np.arange(height)[:, None], height), (np.arange(width), width))
        )
        order = ((bottom, right), (top, left), (top, right), (bottom, left))  # the last two are subtracted
        corners.append([(row * (width + 1) + column).ravel() for row, column in order])
        sizes.append(((bottom - top) * (right - left)).ravel() - 1)
    weights = np.array([[reaches.count(n)] for n in distinct], dtype=np.float32)
    places = np.stack(corners, axis=1).astype(np.intp if device is None else np.int32)
    return _constant(places, device), _constant(np.stack(sizes).astype(np.float32), device), _constant(weights, device)


def _integral(grey: Array, whole: bool) -> Array:
    """Sums (N, H + 1, W + 1) float32 of grey (N, H, W) above and left of each corner.

    Of whole numbers up to 255 they are taken as integers, in which the order of summing makes no difference.
    """
    library, kind = _library(grey), grey.dtype
    if whole:
        kind = library.int32 if math.prod(grey.shape[1:]) * 255 < 2**31 else library.int64
    sums = _running(library.concatenate([grey[:, :1] * 0, grey], axis=1), 1, kind)
    sums = _running(library.concatenate([sums[..., :1] * 0, sums], axis=2), 2, kind)
    return sums.to(grey.dtype) if isinstance(sums, Tensor) else sums.astype(grey.dtype, copy=False)


def _running(values: Array, axis: int, kind: Any) -> Array:
    """Running sums of values (N, H, W) along an axis, as numbers of this kind."""
    away = isinstance(values, Tensor) and values.device.type != "cpu"
    if away and kind.is_floating_point and torch.are_deterministic_algorithms_enabled():
        return _doubled(values, axis)  # torch's own raises on CUDA
    return values.cumsum(axis, dtype=kind)


def _doubled(values: Tensor, axis: int) -> Tensor:
    """Running sums in float64, of twice as many values each time, rounded to float32 as torch's on a CPU are."""
    sums, reach = values.double(), 1
    while reach < values.shape[axis]:
        kept, longer = sums.narrow(axis, 0, reach), sums.shape[axis] - reach
        sums = torch.cat([kept, sums.narrow(axis, reach, longer) + sums.narrow(axis, 0, longer)], axis)
        reach *= 2
    return sums.to(values.dtype)


def _levels(grey: Array, own: Array, whole: bool) -> Array:
    """Levels 0 .. 255 (N, H, W) in float32: how far ``own`` values lie above and below the mean of grey around them.

    grey: (N, H, W) float32, whole: of integers. own: the same, or uint8. Differences are truncated to 8 bits and
    summed over the reaches; the sums above and below are each scaled to 255, added, and cut to 8 bits again.
    """
    library, (count, height, width) = _library(grey), grey.shape
    corners, sizes, weights = _boxes(height, width, _device(grey))
    integral, flat = _integral(grey, whole).reshape(count, -1), own.reshape(count, 1, -1)
    totals: Any = None
    step = len(weights) if count * math.prod(corners.shape) <= _CORNERS_AT_ONCE else 1
    for first in range(0, len(weights), step):
        part = slice(first, first + step)
        at = _look_up(integral, corners[:, part])
        sums = (at[:, :2] - at[:, 2:]).sum(axis=1)
        sums -= flat
        sums /= sizes[part]
        difference = flat - sums
        both = _floor(library.stack([difference, -difference], axis=1).clip(0, None))
        both = (both if own is grey else _cut(both)) * weights[part]
        totals = both.sum(axis=2) if totals is None else totals + both.sum(axis=2)
    largest = library.amax(totals, axis=2, keepdims=True).clip(1, None)
    return _cut(_floor(totals * 255 / largest).sum(axis=1)).reshape(grey.shape)


def _cut(array: Array) -> Array:
    """The lowest 8 bits of non-negative integers in float32."""
    return array - 256 * _floor(array * (1 / 256))
