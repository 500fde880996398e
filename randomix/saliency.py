"""Where an image stands out: the fine-grained centre-surround detector behind SaliencyMix, for whole batches.

S. Montabone, A. Soto: Human detection using a mobile platform and novel features derived from a visual saliency
mechanism, Image and Vision Computing 28(3), 2010, in the form that OpenCV ships as StaticSaliencyFineGrained.
Nothing here waits for the device.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

REACHES = (12, 24, 48, 28, 56, 112)
"""A pixel at row r is compared with the mean of rows r - n + 1 .. r + n and the same columns, for each reach n."""
_CORNERS_AT_ONCE = 2**18  # of boxes, over samples and reaches: more are looked up one reach at a time


def fine_grained_saliency(images: Tensor) -> Tensor:
    """Saliency (N, H, W) float32 in [0, 1] of uint8 images (N, H, W, 3) in RGB or (N, H, W, 1).

    Equal to OpenCV's StaticSaliencyFineGrained of each image, in multiples of 1 / 255; from 65,794 pixels on, OpenCV's
    own float32 sums are rounded and single pixels differ. RGB images are weighted as if they were BGR, as SaliencyMix's
    authors do.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype}; convert with (images * 255).round().to(uint8)")
    _check(images)
    grey = _smooth(_smooth(_grey(images)))
    return _levels(grey, grey).mul_(1 / 255)


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
    grey = _smooth_float(_smooth_float(_grey_float(images.float())))
    own = grey.contiguous().view(torch.uint8)[..., : grey.shape[-1]]
    return _levels(grey, own.float()).mul_(1 / 255)


def saliency_peaks(saliency: Tensor) -> Tensor:
    """Row and column (N, 2) int64 of the largest entry of each saliency (N, H, W), the first in raster order."""
    place = saliency.flatten(1).argmax(1)
    width = saliency.shape[-1]
    return torch.stack([place // width, place % width], dim=1)


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
    """(C, 1, 1) float32, times 255: what takes units of [0, 1] to those of uint8. Remembered, never written to."""
    if len(values) != channels:
        raise ValueError(f"mean and std have {len(values)} entries for inputs of {channels} channels")
    return torch.tensor(values, device=device).mul_(255).view(-1, 1, 1)


# --- Grey images, smoothed twice -------------------------------------------------------------------------------------
# Integers are kept in float32, which holds all that occur here exactly, so that every device agrees on them.


def _grey(images: Tensor) -> Tensor:
    """(N, H, W) float32 integers: 0.114, 0.587 and 0.299 of the channels in 15 bit fixed point, rounded."""
    if images.shape[-1] == 1:
        return images[..., 0].float()
    return (images * _fixed_point(images.device)).sum(-1).add_(1 << 14).mul_(2.0**-15).floor_()


@functools.lru_cache(maxsize=8)
def _fixed_point(device: torch.device) -> Tensor:
    return torch.tensor([3735.0, 19235.0, 9798.0], device=device)


def _smooth(grey: Tensor) -> Tensor:
    """Weights 1 2 1 along both axes, divided by 16 and rounded."""
    return F.avg_pool2d(F.avg_pool2d(_mirrored(grey), 2, 1), 2, 1).add_(0.5).floor_()  # 1 2 1 is 1 1 twice


def _mirrored(grey: Tensor) -> Tensor:
    """One pixel more on every side of (N, H, W): the mirror image about the border pixels."""
    return F.pad(grey, (1, 1, 1, 1), mode="reflect")


def _grey_float(images: Tensor) -> Tensor:
    """(N, H, W) float32: the same weights, with the roundings of fused multiply-adds."""
    if images.shape[-1] == 1:
        return images[..., 0]
    first, second, third = images.unbind(-1)
    weights = torch.tensor([0.114, 0.587, 0.299]).double().tolist()  # as float32 has them
    total = (second.double() * weights[1]).float()
    total = (first.double() * weights[0] + total).float()
    return (third.double() * weights[2] + total).float()


def _smooth_float(grey: Tensor) -> Tensor:
    """Weights 1/4 1/2 1/4 along rows, then along columns; the outer two are added first."""
    padded = _mirrored(grey)
    rows = (padded[..., :-2] + padded[..., 2:]) * 0.25 + padded[..., 1:-1] * 0.5
    return (rows[:, :-2] + rows[:, 2:]) * 0.25 + rows[:, 1:-1] * 0.5


# --- Centre against surroundings -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=32)
def _boxes(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Corners (4, S, H W) in a flat integral image, their pixels but one (S, H W), how often a reach counts (S, 1).

    Reaches of at least the longer side all see the whole image: they are one. Remembered, never written to.
    """
    reaches = [min(n, max(height, width)) for n in REACHES]
    corners, sizes, distinct = [], [], sorted(set(reaches))
    for n in distinct:
        (top, bottom), (left, right) = (
            ((p - n + 1).clamp(min=0), (p + n + 1).clamp(max=size))
            for p, size in ((torch.arange(height)[:, None], height), (torch.arange(width), width))
        )
        order = ((bottom, right), (top, left), (top, right), (bottom, left))  # the last two are subtracted
        corners.append(torch.stack([(row * (width + 1) + column).flatten() for row, column in order]))
        sizes.append(((bottom - top) * (right - left)).flatten() - 1)
    weights = torch.tensor([[float(reaches.count(n))] for n in distinct])
    sizes_but_one = torch.stack(sizes).clamp(min=1).float()
    return torch.stack(corners, dim=1).int().to(device), sizes_but_one.to(device), weights.to(device)


def _levels(grey: Tensor, own: Tensor) -> Tensor:
    """Levels 0 .. 255 (N, H, W), float32: how far ``own`` values lie above and below the mean of grey around them.

    grey, own: (N, H, W) float32. Differences are truncated to 8 bits and summed over the reaches; the sums above and
    below are each scaled to 255, added, and cut to 8 bits again.
    """
    count, height, width = grey.shape
    corners, sizes, weights = _boxes(height, width, grey.device)
    integral = F.pad(grey, (1, 0, 1, 0)).cumsum(1).cumsum(2).flatten(1)
    flat, totals = own.flatten(1)[:, None], None
    step = len(weights) if count * corners.numel() <= _CORNERS_AT_ONCE else 1
    for first in range(0, len(weights), step):
        part = slice(first, first + step)
        at = integral.index_select(1, corners[:, part].reshape(-1)).view(count, 4, -1, height * width)
        sums = (at[:, :2] - at[:, 2:]).sum(1)
        difference = torch.addcdiv(flat, sums.sub_(flat), sizes[part], value=-1).trunc_()
        over = difference.clamp(min=0)
        both = torch.stack([over if own is grey else over.remainder(256), over - difference], dim=1)
        both = both.mul_(weights[part]).sum(2)
        totals = both if totals is None else totals.add_(both)
    largest = totals.amax(2, keepdim=True).clamp_(min=1)
    return totals.mul_(255).div_(largest).floor_().sum(1).remainder_(256).view(grey.shape)
