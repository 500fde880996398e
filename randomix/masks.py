"""Boxes, Fourier masks and index maps: the geometry that the mixing functions stand on.

``spatial`` is ``inputs.shape[2:]`` in 1-D, 2-D or 3-D throughout; a box is its ``d`` starts followed by its ``d`` ends,
in pixels, ends excluded: ``(top, left, bottom, right)`` in 2-D. A box or mask shared by the batch is host data where
possible (Python integers make slices), one per sample is a tensor on the inputs' device. Nothing here waits for it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from randomix.devices import is_plain, to_device

Spatial = Sequence[int]
Box = Sequence[int] | Tensor
Coordinate = Any  # an integer for a whole batch, or a tensor (N,)
"""One box for the batch (a sequence of 2 d integers or a (2 d,) tensor), or a tensor (N, 2 d): one for each sample."""

SPECTRA = ("paper", "code")


def memory_order(inputs: Tensor) -> Tensor:
    """View inputs (N, C, *S) with the channels where memory has them: (N, *S, C) for channels_last, else as given."""
    if not inputs.is_contiguous():
        channels_last = inputs.movedim(1, -1)
        if channels_last.is_contiguous():
            return channels_last
    return inputs


def take_rows(inputs: Tensor, index: Tensor) -> Tensor:
    """Samples inputs[index] of inputs (N, C, *S) in the inputs' memory format; index (M,) integers on their device."""
    # index_select copies whole contiguous samples where inputs[index] visits every element: 5 times faster on a CPU
    view = memory_order(inputs)
    rows = view.index_select(0, index)
    return rows if view is inputs else rows.movedim(-1, 1)


_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def to_write(inputs: Tensor, inplace: bool) -> Tensor:
    """Inputs to write into: themselves if ``inplace`` and if that changes nothing else, or a copy."""
    if inplace and is_plain(inputs) and 0 not in inputs.stride():  # samples of an expanded tensor share their memory
        return inputs
    return inputs.clone()


def writable(tensor: Tensor) -> np.ndarray | None:
    """The memory of a floating tensor on a CPU as integers, zero for zero; None elsewhere and under autograd.

    For writing sample by sample: a slice of an array takes a tenth of the time of a tensor's. Autograd hears of it.
    """
    if tensor.device.type != "cpu" or not is_plain(tensor):
        return None
    increment_version(tensor)
    return bits(tensor)


def bits(tensor: Tensor) -> np.ndarray:
    """The memory of a floating tensor on a CPU as integers, for reading."""
    return tensor.detach().view(_BITS[tensor.element_size()]).numpy()


def restride(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor with the strides of ``like``, of its shape, where they differ only along axes of size 1.

    Strides of such axes do not affect the layout, but torch.compile guards on them and would recompile.
    """
    ours, theirs = tensor.stride(), like.stride()
    if ours == theirs or any(a != b and n > 1 for a, b, n in zip(ours, theirs, tensor.shape, strict=True)):
        return tensor
    return tensor.as_strided(tensor.shape, theirs)


# --- Boxes -----------------------------------------------------------------------------------------------------------


def as_number(value: float | np.ndarray | Tensor) -> float | Tensor:
    """A tensor for a tensor or an array with one value for each sample, else a float."""
    if isinstance(value, float):
        return value
    return torch.as_tensor(value) if isinstance(value, Tensor) or np.ndim(value) > 0 else float(value)


def per_axis(center: Sequence[int] | np.ndarray | Tensor) -> Sequence[Coordinate]:
    """The d coordinates of a center (d,) or (N, d): Python integers where it is one sequence of them, else tensors."""
    if isinstance(center, list) and isinstance(center[0], int):
        return center
    if isinstance(center, Tensor) or np.ndim(center) > 1:
        return torch.as_tensor(center).unbind(-1)
    return [int(c) for c in center]


def join(coordinates: Sequence[Coordinate]) -> tuple[int, ...] | Tensor:
    """One box from its coordinates: a tuple of integers, or a tensor with the coordinates in its last axis."""
    if all(isinstance(c, int) for c in coordinates):
        return tuple(coordinates)
    return torch.stack(torch.broadcast_tensors(*coordinates), dim=-1)


def clip(value: Coordinate, highest: Coordinate) -> Coordinate:
    """The value limited to 0 .. highest."""
    if isinstance(highest, Tensor):
        return torch.minimum(value.clamp(min=0), highest)
    return value.clamp(0, highest) if isinstance(value, Tensor) else min(max(value, 0), highest)


def cut_sizes(spatial: Spatial, lam: float | Tensor) -> list[Coordinate]:
    """For each axis the side of a box that covers the share 1 - lam, an integer or (N,) for lam (N,), truncated."""
    share, dims = 1.0 - lam, len(spatial)
    if dims == 2:  # the authors' operation, bit for bit
        return _truncate(spatial, torch.sqrt(share) if isinstance(share, Tensor) else math.sqrt(share))
    side = share ** (1.0 / dims)
    return _truncate(spatial, side)


def patch_sizes(spatial: Spatial, scale: float | Tensor) -> list[Coordinate]:
    """For each axis the side of inputs resized by scale, an integer or (N,) for scale (N,), truncated."""
    return _truncate(spatial, scale)


def _truncate(spatial: Spatial, share: float | Tensor) -> list[Coordinate]:
    return [(size * share).long() if isinstance(share, Tensor) else int(size * share) for size in spatial]


def box_slices(box: Sequence[int]) -> tuple[slice, ...]:
    """Index of a box of Python integers into the spatial axes."""
    dims = len(box) // 2
    return tuple(map(slice, box[:dims], box[dims:]))


def box_share(box: Box, spatial: Spatial) -> float | Tensor:
    """Share of the pixels that lie in the box: a float for Python integers, else (N,) float32 on the boxes' device."""
    dims, pixels = len(spatial), math.prod(spatial)
    if isinstance(box, Tensor):
        return (box[..., dims:] - box[..., :dims]).prod(-1).float() / pixels
    return math.prod(hi - lo for lo, hi in zip(box[:dims], box[dims:], strict=True)) / pixels


def along(values: Tensor, axis: int, dims: int) -> Tensor:
    """Values (N, S_axis) as (N, 1, .., S_axis, .., 1), to broadcast over ``dims`` spatial axes."""
    return values.view(len(values), *(-1 if i == axis else 1 for i in range(dims)))


def inside_boxes(boxes: Tensor, spatial: Spatial, device: torch.device) -> Tensor:
    """True inside each box: (N, *spatial) bool on ``device`` for boxes (N, 2 d) there or on the host."""
    dims, hits = len(spatial), []
    for axis, size in enumerate(spatial):
        position = torch.arange(size, device=boxes.device)
        hits.append((position >= boxes[:, axis, None]) & (position < boxes[:, dims + axis, None]))
    hits = to_device(torch.cat(hits, dim=1), device).split(tuple(spatial), dim=1)  # one copy; what it implies, there
    return functools.reduce(torch.bitwise_and, (along(hit, axis, dims) for axis, hit in enumerate(hits)))


# --- Nearest-neighbour resizing --------------------------------------------------------------------------------------


def nearest_source(position: Tensor, scale: Tensor, size: int) -> Tensor:
    """Source (N, M) of positions (N or 1, M) in samples of ``size`` pixels resized by scale (N,).

    min(floor(i * float32(1 / scale)), S - 1), as ``F.interpolate(scale_factor=scale)`` has it: it follows the given
    factor, not the ratio of the two sizes, which differs in 95 % of ResizeMix's draws.
    """
    return (position.float() * scale.reciprocal().float()[:, None]).floor().long().clamp(0, size - 1)


def patch_sources(spatial: Spatial, sizes: Spatial, scale: float) -> list[np.ndarray]:
    """For each axis the source (side,) of each pixel of patches of these sizes, by the rule of nearest_source."""
    step = np.float32(1.0 / scale)
    positions = (np.arange(side, dtype=np.float32) for side in sizes)
    return [np.minimum((at * step).astype(np.int64), size - 1) for at, size in zip(positions, spatial, strict=True)]


def flat_index(indices: Sequence[Tensor], spatial: Spatial) -> Tensor:
    """Positions in the flattened spatial axes (N, prod of lengths) from one index (N, length) for each axis."""
    dims = len(spatial)
    flat = along(indices[0], 0, dims)
    for axis in range(1, dims):
        flat = flat * spatial[axis] + along(indices[axis], axis, dims)
    return flat.flatten(1)


# --- Fourier masks ---------------------------------------------------------------------------------------------------


def noise_shape(spatial: Spatial, spectrum: str = "paper") -> tuple[int, ...]:
    """Shape of the smallest Gaussian noise that ``fmix_mask`` takes for one mask."""
    check_spectrum(spatial, spectrum)
    if spectrum == "paper":
        return (*spatial[:-1], spatial[-1] // 2 + 1, 2)
    if len(spatial) == 1:
        return (2, 2)
    return (2, spatial[1] // 2 + 1 + spatial[1] % 2, 2)


def check_spectrum(spatial: Spatial, spectrum: str) -> None:
    """Raise ValueError for an unknown spectrum and for inputs on which the authors' code is not defined."""
    if spectrum not in SPECTRA:
        raise ValueError(f"spectrum must be one of {', '.join(SPECTRA)}, got {spectrum!r}")
    if spectrum == "code" and (len(spatial) > 2 or spatial[0] < 2):
        raise ValueError(
            f"spectrum 'code' covers 1-D and 2-D inputs of at least 2 rows, got {tuple(spatial)}; use spectrum 'paper'"
        )


def low_frequency(noise: Tensor, spatial: Spatial, decay_power: float, spectrum: str) -> Tensor:
    """Smooth random values ([N,] *spatial), up to a positive scale, from noise as ``fmix_mask`` takes it."""
    check_spectrum(spatial, spectrum)
    image = _paper_image if spectrum == "paper" else _code_image
    return image(noise, tuple(spatial), float(decay_power))


@functools.lru_cache(maxsize=32)
def _amplitude(
    counts: tuple[int, ...], spatial: tuple[int, ...], decay_power: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """1 / max(|f|, 1 / longest side) ** decay_power at the first ``counts`` frequencies of each axis.

    f in cycles a pixel. Remembered, never written to: it takes as long as the rest of a mask and no step changes it.
    """
    axes = [
        torch.fft.fftfreq(size, dtype=dtype, device=device)[:count] for size, count in zip(spatial, counts, strict=True)
    ]
    radius = torch.stack(torch.meshgrid(*axes, indexing="ij")).square().sum(0).sqrt()
    return radius.clamp(min=1.0 / max(spatial)) ** -decay_power


def _inverse(spectrum: Tensor, spatial: Spatial) -> Tensor:
    """Real image of a half spectrum: complex transforms of the leading axes, then the real one of the last."""
    # not irfftn: what it makes of a half spectrum that no real image has differs between backends
    for axis in range(-len(spatial), -1):
        spectrum = torch.fft.ifft(spectrum, n=spatial[axis], dim=axis)
    return torch.fft.irfft(spectrum, n=spatial[-1], dim=-1)


def _paper_image(noise: Tensor, spatial: tuple[int, ...], decay_power: float) -> Tensor:
    counts = (*spatial[:-1], spatial[-1] // 2 + 1)
    noise = noise[..., : counts[-1], :].contiguous()
    amplitude = _amplitude(counts, spatial, decay_power, noise.dtype, noise.device)
    return _inverse(torch.view_as_complex(noise) * amplitude, spatial)


def _code_image(noise: Tensor, spatial: tuple[int, ...], decay_power: float) -> Tensor:
    """The authors' indexing: rows 0 and 1 of the noise are its real and imaginary part, its last axis a frequency."""
    dims = len(spatial)
    counts = (2,) if dims == 1 else (2, noise.shape[-2])
    amplitude = _amplitude(counts, spatial, decay_power, noise.dtype, noise.device)[..., None]
    real, imaginary = (noise.narrow(-1 - dims, 0, 2) * amplitude).unbind(-1 - dims)
    return _inverse(torch.complex(real, imaginary), spatial)


def binarise(values: Tensor, lam: float | Tensor, round_up: bool | Tensor = False, max_soft: float = 0.0) -> Tensor:
    """Mark the largest lam * P of values ([N,] P): bool, or float32 with a linear edge if max_soft > 0.

    lam and round_up: a number and a bool for all rows, or tensors (N,). The edge is as wide as the share
    min(max_soft, lam, 1 - lam) of the P pixels on either side of the threshold.
    """
    pixels = values.shape[-1]
    count: Any
    edge: Any
    if isinstance(lam, Tensor):
        area, soft = lam * pixels, torch.minimum(lam, 1.0 - lam).clamp(max=max_soft)
        up = round_up if isinstance(round_up, Tensor) else torch.full_like(area, round_up, dtype=torch.bool)
        count = torch.where(up, area.ceil(), area.floor())[..., None]
        edge = (pixels * soft).floor().clamp(min=1)[..., None]
    else:
        count = math.ceil(lam * pixels) if round_up else math.floor(lam * pixels)
        if max_soft == 0:
            largest = values.topk(count, dim=-1, sorted=False).indices
            return torch.zeros_like(values, dtype=torch.bool).scatter_(-1, largest, True)
        edge = max(1, int(pixels * min(max_soft, lam, 1.0 - lam)))
    order = values.argsort(dim=-1, descending=True)
    rank = torch.arange(pixels, dtype=torch.float32, device=values.device)
    level = ((count + edge - 1 - rank) / (2 * edge - 1)).clamp(0, 1).expand_as(values)
    mask = torch.empty_like(values, dtype=torch.float32).scatter_(-1, order, level.float())
    return mask if max_soft > 0 else mask > 0
