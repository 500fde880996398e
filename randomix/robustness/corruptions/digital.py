"""Brightness, saturation, contrast, pixels and JPEG. images: (n, H, W, C) uint8."""

from __future__ import annotations

import io

import torch
from torch import Tensor

from randomix.robustness.corruptions.draws import to_uint8, to_unit
from randomix.robustness.corruptions.resampling import in_color


def brightness(images: Tensor, added: float) -> Tensor:
    """Add to the value of the HSV colour."""
    if images.shape[-1] == 1:
        return to_uint8(to_unit(images).add_(added))
    hue, saturation, value = _to_hsv(to_unit(images))
    return to_uint8(_from_hsv(hue, saturation, value.add_(added).clamp_(0, 1)))


def saturate(images: Tensor, parameters: tuple[float, float]) -> Tensor:
    """Scale the saturation of the HSV colour and add to it. Gray becomes reddish where something is added."""
    factor, added = parameters

    def saturated(colors: Tensor) -> Tensor:
        hue, saturation, value = _to_hsv(colors)
        return _from_hsv(hue, saturation.mul_(factor).add_(added).clamp_(0, 1), value)

    unit = to_unit(images)
    if images.shape[-1] == 1:
        return to_uint8(in_color(unit, saturated).add_(1e-9))  # the weights of luma do not sum up to 1 exactly
    return to_uint8(saturated(unit))


def contrast(images: Tensor, factor: float) -> Tensor:
    """Draw values towards the mean of their channel."""
    area = images.shape[1] * images.shape[2]
    mean = images.sum((1, 2), keepdim=True).double().div_(255 * area)  # a sum of integers has no order
    return to_uint8(to_unit(images).sub_(mean).mul_(factor).add_(mean))


def pixelate(images: Tensor, share: float) -> Tensor:
    """Shrink with a box filter and enlarge again, width first, rounded to bytes after each axis as by PIL."""
    height, width = images.shape[1:3]
    small = _box(_box(images, 2, max(1, int(width * share))), 1, max(1, int(height * share)))
    return _box(_box(small, 2, width), 1, height)


def jpeg_compression(images: Tensor, quality: int) -> Tensor:
    """Through PIL's JPEG at ``quality``, chroma halved. The images go over the CPU."""
    import numpy as np
    from PIL import Image

    def coded(image: np.ndarray) -> np.ndarray:
        with io.BytesIO() as file:
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
            return np.asarray(Image.open(file)).reshape(image.shape)

    results = np.empty(images.shape, np.uint8)
    for result, image in zip(results, images.cpu().numpy(), strict=True):
        result[:] = coded(image)
    return torch.from_numpy(results).to(images.device)


def _to_hsv(colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in [0, 6), saturation and value (n, H, W) of colours (n, H, W, 3)."""
    red, green, blue = colors.unbind(-1)
    value, least = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    spread = value - least
    divisor = torch.where(spread > 0, spread, 1)
    # the later of equal channels decides, as in scikit-image
    hue = torch.where(red == value, (green - blue) / divisor, 0)
    hue = torch.where(green == value, (blue - red) / divisor + 2, hue)
    hue = torch.where(blue == value, (red - green) / divisor + 4, hue)
    hue = torch.where(spread > 0, (hue / 6).remainder_(1), 0)
    return hue * 6, spread / torch.where(value > 0, value, 1), value


def _from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours (n, H, W, 3)."""
    sextant = hue.floor()
    part = hue - sextant
    low = value * (1 - saturation)
    falling = value * (1 - part * saturation)
    rising = value * (1 - (1 - part) * saturation)
    sextant = sextant.long().remainder_(6)
    table = torch.stack([value, falling, low, rising], -1)
    which = torch.tensor([[0, 3, 2], [1, 0, 2], [2, 0, 3], [2, 1, 0], [3, 2, 0], [0, 2, 1]], device=hue.device)[sextant]
    return table.gather(-1, which)


def _box(images: Tensor, axis: int, size: int) -> Tensor:
    """Resize one axis of bytes to ``size`` with PIL's box filter: means of whole pixels, halves rounded up."""
    scale = images.shape[axis] / size
    spans = [_span(i, scale, images.shape[axis]) for i in range(size)]
    lengths = torch.tensor([stop - start for start, stop in spans], dtype=torch.float32)
    total = torch.zeros((), device=images.device)
    for tap in range(max(stop - start for start, stop in spans)):
        index = torch.tensor([min(start + tap, stop - 1) for start, stop in spans])
        weight = torch.where(lengths > tap, 1 / lengths, 0).view(-1, *[1] * (3 - axis))
        taken = images.index_select(axis, index.to(images.device)) * weight.to(images.device)
        total = total.add_(taken) if tap else taken
    return total.add_(0.5).to(torch.uint8)


def _span(index: int, scale: float, size: int) -> tuple[int, int]:
    """First and last + 1 of the pixels whose centres lie in the box of output pixel ``index``; PIL's order of sums."""
    width = max(scale, 1.0)
    center, half = (index + 0.5) * scale, width * 0.5
    candidates = range(max(0, int(center - half + 0.5)), min(size, int(center + half + 0.5)))
    inside = [i for i in candidates if -0.5 < (i - center + 0.5) * (1 / width) <= 0.5]
    return inside[0], inside[-1] + 1
