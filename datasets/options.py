"""The options that image sets held in memory share, checked with the key's path in every message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from randomix.errors import ConfigError

_COMMON = ("name", "crop_padding", "flip", "verify", "train_size")


@dataclass(frozen=True)
class ImageOptions:
    """crop_padding: zero pixels on every side before the random crop; flip: mirror half of the samples.

    train_size: size of the fixed class-balanced training subset, None for all; verify: check checksums.
    """

    crop_padding: int = 0
    flip: bool = False
    verify: bool = True
    train_size: int | None = None


def parse_options(config: Mapping[str, Any], extra: tuple[str, ...] = ()) -> ImageOptions:
    """The shared options of ``config``; raises ConfigError for wrong types and for keys not in ``extra``."""
    allowed = (*_COMMON, *extra)
    problems = [f"dataset.{key} is not an option of {config['name']}; it takes {', '.join(allowed)}"
                for key in config if key not in allowed]  # fmt: skip
    options = ImageOptions(**{key: config[key] for key in _COMMON[1:] if key in config})
    problems += [f"dataset.{key} is {getattr(options, key)!r}, expected true or false"
                 for key in ("flip", "verify") if not isinstance(getattr(options, key), bool)]  # fmt: skip
    if not is_count(options.crop_padding, 0):
        problems.append(f"dataset.crop_padding is {options.crop_padding!r}, expected a number of pixels >= 0")
    if options.train_size is not None and not is_count(options.train_size, 1):
        problems.append(f"dataset.train_size is {options.train_size!r}, expected null or a number of images >= 1")
    if problems:
        raise ConfigError(problems)
    return options


def is_count(value: object, minimum: int) -> bool:
    """Whether ``value`` is an integer (no bool) of at least ``minimum``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def check_train_size(name: str, train_size: int | None, available: int) -> int:
    """The number of training images to use; raises ConfigError if more are asked for than there are."""
    if train_size is not None and train_size > available:
        raise ConfigError([f"dataset.train_size {train_size} exceeds the {available} training images of {name}"])
    return available if train_size is None else train_size


def channel_values(config: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """``mean`` or ``std`` of ``config``, one a channel, or the default where it is null; raises ConfigError."""
    values = config.get(key)
    if values is None:
        return default
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(default):
        raise ConfigError([f"dataset.{key} is {values!r}, expected null or {len(default)} numbers, one a channel"])
    low = 0 if key == "mean" else 1e-12
    if not all(type(v) in (int, float) and low <= v < math.inf for v in values):
        raise ConfigError([f"dataset.{key} is {values!r}, expected numbers "
                           f"{'of at least 0' if key == 'mean' else 'above 0'}"])  # fmt: skip
    return tuple(float(v) for v in values)
