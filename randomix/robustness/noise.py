"""Gaussian pixel noise that depends only on (seed, data set index)."""

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
    size = inputs[0].numel() if len(inputs) else 0
    pairs = torch.arange((size + 1) // 2, device=inputs.device)
    noise = normals(hash64(seed, indices[:, None], pairs)).flatten(1)[:, :size].view(inputs.shape)
    return torch.add(inputs, noise.to(inputs.dtype), alpha=sigma).clamp_(*bounds)
