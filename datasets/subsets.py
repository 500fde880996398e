"""Fixed subsets: which samples belong to a split depends on the labels and sizes alone, never on a run's seed."""

from __future__ import annotations

import zlib

import numpy as np


def class_ranks(labels: np.ndarray, salt: str) -> np.ndarray:
    """Each sample's place (N,) within its own class, in a fixed shuffled order named by ``salt``.

    The order comes from Philox's raw output, which NumPy keeps the same in every version.
    """
    order = np.argsort(np.random.Philox(key=zlib.crc32(salt.encode())).random_raw(len(labels)), kind="stable")
    ranks = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        ranks[members] = np.arange(len(members))
    return ranks


def balanced_subset(labels: np.ndarray, size: int, salt: str) -> np.ndarray:
    """``size`` ascending indices with equally many of each class, to within one while every class has samples.

    Subsets are nested: that of a smaller size is part of that of a larger one.
    """
    return np.sort(np.lexsort((labels, class_ranks(labels, salt)))[:size])


def proportional_subset(labels: np.ndarray, size: int, salt: str) -> np.ndarray:
    """``size`` ascending indices in which every class keeps its share, to within one sample."""
    counts = np.bincount(labels)
    quantiles = (class_ranks(labels, salt) + 0.5) / counts[labels]
    return np.sort(np.argsort(quantiles, kind="stable")[:size])
