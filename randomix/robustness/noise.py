"""Gaussian noise that depends only on (seed, data set index): on pixels, and on sound at a given level."""

from __future__ import annotations

import torch
from torch import Tensor

from randomix.robustness.counter import hash64, normals


def add_gaussian_noise(
    inputs: Tensor, indices: Tensor, sigma: float, seed: int = 0, bounds: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Pixels (N, C, *S) in [0, 1] plus noise of standard deviation ``sigma`` (of the unit range), clamped to [0, 1].

    indices: (N,) int64 into the data set. A sample's noise is the same in every batch, on every rank and in every
    memory format, and on another device up to the rounding of log and cos. bounds: the range of inputs that are no
    pixels, such as (-1, 1) for sound. The input is not modified.
    Raises ValueError for a negative sigma.
    """
    if sigma < 0:
        raise ValueError(f"sigma is {sigma}, expected a standard deviation >= 0")
    return torch.add(inputs, _normals(inputs, indices, seed).to(inputs.dtype), alpha=sigma).clamp_(*bounds)


def add_noise_at_snr(
    inputs: Tensor, indices: Tensor, snr_db: float, seed: int = 0, bounds: tuple[float, float] = (-1.0, 1.0)
) -> Tensor:
    """Sound (N, C, L) plus white Gaussian noise ``snr_db`` decibels below each clip's own power, clamped to ``bounds``.

    Powers are means over the whole clip, the noise's that of its own draw, so that each clip has this ratio exactly
    before clamping. A clip of zeros has no power and stays. indices: as those of ``add_gaussian_noise``.
    """
    noise = _normals(inputs, indices, seed)
    gain = (_power(inputs) / _power(noise)).sqrt().mul_(10 ** (-snr_db / 20)).to(inputs.dtype)
    return torch.addcmul(inputs, noise.to(inputs.dtype), gain.view(-1, *[1] * (inputs.ndim - 1))).clamp_(*bounds)


def _power(signals: Tensor) -> Tensor:
    """Mean square (N,) in float64."""
    return signals.double().square_().flatten(1).mean(1)


def _normals(inputs: Tensor, indices: Tensor, seed: int) -> Tensor:
    """Standard normal float32 numbers of the inputs' shape."""
    size = inputs[0].numel() if len(inputs) else 0
    pairs = torch.arange((size + 1) // 2, device=inputs.device)
    return normals(hash64(seed, indices[:, None], pairs)).flatten(1)[:, :size].view(inputs.shape)
