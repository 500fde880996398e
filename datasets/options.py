"""The options of data sets: reading them, and what each that several sets have may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from randomix.errors import ConfigError

Check = tuple[Callable[[Any], bool], str]  # the test of a value, and what it asks for in words


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
    """The options that images in memory share; raises ConfigError for wrong values and for keys not in ``extra``."""
    defaults = asdict(ImageOptions())
    options = {key: config.get(key, default) for key, default in defaults.items()}
    _check(config, options, defaults, _SHARED, extra)
    return ImageOptions(**options)


def read_options(config: Mapping[str, Any], defaults: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """Every option of ``defaults`` with its value; null means the default.

    checks: of the options that _SHARED lacks. Raises ConfigError for all wrong and unknown keys, each with its path.
    """
    options = {key: default if config.get(key) is None else config[key] for key, default in defaults.items()}
    _check(config, options, defaults, {**_SHARED, **checks})
    return options


def _check(
    config: Mapping[str, Any],
    options: Mapping[str, Any],
    defaults: Mapping[str, Any],
    checks: Mapping[str, Check],
    extra: tuple[str, ...] = (),
) -> None:
    """Raise ConfigError for unknown keys of ``config`` and wrong ``options``; null passes if it is the default."""
    allowed = ("name", *defaults, *extra)
    problems = [
        f"dataset.{key} is not an option of {config['name']}; it takes {', '.join(allowed)}"
        for key in config
        if key not in allowed
    ]
    for key, default in defaults.items():
        test, words = checks[key]
        if not (options[key] is None and default is None) and not test(options[key]):
            problems.append(f"dataset.{key} is {options[key]!r}, expected {words}")
    if problems:
        raise ConfigError(*problems)


def is_count(value: object, minimum: int) -> bool:
    """Whether ``value`` is an integer (no bool) of at least ``minimum``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def is_flag(value: object) -> bool:
    """Whether ``value`` is true or false."""
    return isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether ``value`` is a text, not blank."""
    return isinstance(value, str) and bool(value.strip())


def number(low: float, high: float = math.inf, below: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a finite number from ``low`` to ``high``, which is excluded if ``below``."""
    return lambda v: type(v) in (int, float) and low <= v <= high and math.isfinite(v) and not (below and v == high)


_SHARED: dict[str, Check] = {
    "root": (is_text, "null or a folder"),
    "cache": (is_text, "null or a folder"),
    "corrupted_root": (is_text, "null or a folder"),
    "train_folder": (is_text, "the name of a folder"),
    "test_folder": (is_text, "the name of a folder"),
    "train_size": (lambda v: is_count(v, 1), "null or a number of images >= 1"),
    "crop_padding": (lambda v: is_count(v, 0), "a number of pixels >= 0"),
    "flip": (is_flag, "true or false"),
    "verify": (is_flag, "true or false"),
    "on_bad_sample": (lambda v: v in ("error", "skip"), "error or skip"),
    "max_bad_share": (number(0, 1), "a number from 0 to 1"),
}


def check_train_size(name: str, train_size: int | None, available: int) -> int:
    """The number of training images to use; raises ConfigError if more are asked for than there are."""
    if train_size is not None and train_size > available:
        raise ConfigError(f"dataset.train_size {train_size} exceeds the {available} training images of {name}")
    return available if train_size is None else train_size


def channel_values(config: Mapping[str, Any], key: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """``mean`` or ``std`` of ``config``, one a channel, or the default where it is null; raises ConfigError."""
    values = config.get(key)
    if values is None:
        return default
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(default):
        raise ConfigError(f"dataset.{key} is {values!r}, expected null or {len(default)} numbers, one a channel")
    low = 0 if key == "mean" else 1e-12
    if not all(type(v) in (int, float) and low <= v < math.inf for v in values):
        raise ConfigError(
            f"dataset.{key} is {values!r}, expected numbers {'of at least 0' if key == 'mean' else 'above 0'}"
        )
    return tuple(float(v) for v in values)
