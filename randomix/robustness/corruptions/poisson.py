"""Poisson numbers from counters: Walker's alias method, one table look-up a number, whatever the rate.

A. J. Walker, ACM TOMS 3 (1977), with the order of columns that keeps a single remainder open at a time. The law is
exact up to 2**-32 of a column, 2**-42 in all.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_THRESHOLD_BITS, _ALIAS_BITS = 32, 16


def poisson(images: Tensor, photons: int, bits: Tensor) -> Tensor:
    """int64 counts with the means ``photons * images / 255`` (uint8, any shape), from 64 random bits each."""
    table = _table(photons, images.device)
    width = (table.numel() // 256).bit_length() - 1
    column = (bits >> (64 - width)) & ((1 << width) - 1)
    entry = table.take((images.long() << width) | column)
    keep = (bits & ((1 << _THRESHOLD_BITS) - 1)) < (entry >> _ALIAS_BITS)
    return torch.where(keep, column, entry & ((1 << _ALIAS_BITS) - 1))


@lru_cache(maxsize=16)
def _table(photons: int, device: torch.device) -> Tensor:
    """int64 (256 * columns): for the mean of each byte and each column, its threshold above its alias."""
    rates = np.arange(256) / 255 * photons
    columns = 1 << math.ceil(math.log2(photons + 12 * math.sqrt(photons) + 24))  # beyond: less than 2**-60
    counts = np.arange(columns)
    logs = counts * np.log(np.maximum(rates, 1e-300))[:, None] - rates[:, None]
    probabilities = np.exp(logs - np.array([math.lgamma(k + 1) for k in counts]))
    probabilities /= probabilities.sum(1, keepdims=True)
    threshold, alias = _alias(probabilities * columns)
    packed = np.rint(threshold * 2.0**_THRESHOLD_BITS).astype(np.int64) << _ALIAS_BITS | alias
    return torch.from_numpy(packed.ravel()).to(device)


def _alias(shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds in [0, 1] and aliases of rows (R, K) whose mean is 1.

    Columns that lack something are filled from the largest left; one that gave too much is the next to be filled.
    """
    rows, (count, columns) = np.arange(len(shares)), shares.shape
    order = shares.argsort(1)
    left = shares.copy()
    threshold, alias = np.ones_like(shares), np.tile(np.arange(columns), (count, 1))
    low, high = np.zeros(count, int), np.full(count, columns - 1)
    column = order[rows, low]
    for _ in range(columns - 1):
        giver = order[rows, high]
        threshold[rows, column], alias[rows, column] = left[rows, column].clip(0, 1), giver
        left[rows, giver] -= 1 - left[rows, column]
        spent = left[rows, giver] < 1
        low, high = np.where(spent, low, low + 1), np.where(spent, high - 1, high)
        column = np.where(spent, giver, order[rows, np.minimum(low, columns - 1)])
    return threshold, alias
