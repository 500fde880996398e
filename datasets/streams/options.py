"""The options of sets of image files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets.options import Check, is_count, is_text, read_options
from randomix.errors import ConfigError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

DEFAULTS: dict[str, Any] = {  # of both sets; the crops are those of torchvision's training reference
    "root": None,
    "train_size": None,
    "image_size": 224,
    "resize": None,
    "scale": (0.08, 1.0),
    "ratio": (0.75, 1.3333),
    "flip": True,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "workers": None,
    "on_bad_sample": "error",
    "max_bad_share": 0.001,
}


def _numbers(count: int, test: Callable[[Sequence[float]], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list of ``count`` finite numbers that pass a test."""
    return lambda v: (
        isinstance(v, Sequence)
        and not isinstance(v, str)
        and len(v) == count
        and all(type(x) in (int, float) and math.isfinite(x) for x in v)
        and test(v)
    )


_CHECKS: dict[str, Check] = {
    "shards": (is_text, "null, a folder or the beginning of a URL"),
    "storage": (lambda v: v in ("resident", "stream"), "resident or stream"),
    "image_size": (lambda v: is_count(v, 1), "a number of pixels >= 1"),
    "resize": (lambda v: is_count(v, 1), "null or a number of pixels >= 1"),
    "scale": (_numbers(2, lambda v: 0 < v[0] <= v[1] <= 1), "[low, high] with 0 < low <= high <= 1"),
    "ratio": (_numbers(2, lambda v: 0 < v[0] <= v[1]), "[low, high] with 0 < low <= high"),
    "mean": (_numbers(3, lambda v: min(v) >= 0), "three numbers of at least 0"),
    "std": (_numbers(3, lambda v: min(v) > 0), "three numbers above 0"),
    "workers": (lambda v: is_count(v, 0), "null or a number of processes >= 0"),
    "shuffle_buffer": (lambda v: is_count(v, 1), "a number of images >= 1"),
}


def parse_image_options(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of ``defaults`` and DEFAULTS with its value; null means the default.

    A ``resize`` of null becomes 8/7 of ``image_size`` (256 for 224). Raises ConfigError for all wrong and unknown keys.
    """
    options = read_options(config, {**DEFAULTS, **defaults}, _CHECKS)
    if options["resize"] is None:
        options["resize"] = round(options["image_size"] * 8 / 7)
    if options["resize"] < options["image_size"]:
        raise ConfigError(
            f"dataset.resize is {options['resize']}, less than dataset.image_size "
            f"{options['image_size']}, which is cut out of it; use null or more"
        )
    return options
