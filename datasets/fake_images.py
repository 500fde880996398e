"""Synthetic images that can be learnt: a fixed smooth pattern a class, blended with noise. For tests and benchmarks.

Sample i of a split is a function of (split, i, shape, classes) alone, whatever the split's size.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from datasets.integrity import array_digest
from datasets.options import is_count, parse_options
from datasets.resident import ArrayData
from randomix.errors import ConfigError

_SIZES = {"train_size": 1000, "test_size": 200, "num_classes": 10, "channels": 3, "height": 32, "width": 32}
_CELLS = 4  # a pattern is a grid of 4 x 4 random colours


def build(config: Mapping[str, Any]) -> ArrayData:
    """Fake images with options train_size, test_size, num_classes, channels, height, width, crop_padding, flip."""
    sizes = {key: default if config.get(key) is None else config[key] for key, default in _SIZES.items()}
    problems = [
        f"dataset.{key} is {value!r}, expected a number >= 1" for key, value in sizes.items() if not is_count(value, 1)
    ]
    if problems:
        raise ConfigError(*problems)
    options = parse_options(config, extra=("root", *_SIZES))
    shape = (sizes["height"], sizes["width"], sizes["channels"])
    patterns = _patterns(sizes["num_classes"], shape)
    train_images, train_labels = _split("train", sizes["train_size"], patterns)
    test_images, test_labels = _split("test", sizes["test_size"], patterns)
    digest = array_digest(train_images, train_labels, test_images, test_labels)
    return ArrayData(
        name="fake_images",
        class_names=tuple(f"class {index}" for index in range(sizes["num_classes"])),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        mean=(0.5,) * sizes["channels"],
        std=(0.5,) * sizes["channels"],
        crop_padding=options.crop_padding,
        flip=options.flip,
        source={"source": "generated: class patterns with noise", "sha256": digest, "synthetic": True},
    )


def _patterns(num_classes: int, shape: tuple[int, int, int]) -> np.ndarray:
    """One pattern (K, H, W, C) uint8 a class: 4 x 4 colours, enlarged without interpolation."""
    height, width, channels = shape
    cells = _bytes("patterns", num_classes * _CELLS * _CELLS * channels)
    cells = cells.reshape(num_classes, _CELLS, _CELLS, channels)
    rows, columns = np.arange(height) * _CELLS // height, np.arange(width) * _CELLS // width
    return cells[:, rows[:, None], columns]


def _split(name: str, size: int, patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, H, W, C) uint8, half pattern and half noise, and labels (N,) that count through the classes."""
    labels = np.arange(size) % len(patterns)
    noise = _bytes(name, size * patterns[0].size).reshape(size, *patterns.shape[1:])
    return patterns[labels] // 2 + noise // 2, labels


def _bytes(stream: str, count: int) -> np.ndarray:
    """Uniform bytes of a counter-based generator: a shorter draw is a prefix of a longer one."""
    words = np.random.Philox(key=zlib.crc32(f"fake_images.{stream}".encode())).random_raw(-(-count // 8))
    return words.astype("<u8").view(np.uint8)[:count]
