"""The options of sets of recordings, checked with the key's path in every message."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from datasets.options import is_count
from randomix.errors import ConfigError

FEATURES = ("waveform", "log_mel")
Check = tuple[Callable[[Any], bool], str]

DEFAULTS: dict[str, Any] = {  # of both sets
    "root": None,
    "cache": None,
    "features": "waveform",
    "time_shift_ms": 100.0,
    "background_prob": 0.8,
    "background_volume": 0.1,
    "on_bad_sample": "error",
    "max_bad_share": 0.001,
}


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _number(low: float, high: float = math.inf, below: bool = False) -> Callable[[Any], bool]:
    """Whether a value is a number from ``low`` to ``high``, which is excluded if ``below``."""
    return lambda v: type(v) in (int, float) and low <= v <= high and math.isfinite(v) and not (below and v == high)


def _choice(*names: Any) -> Check:
    return (lambda v: type(v) in {type(n) for n in names} and v in names), f"one of {', '.join(map(str, names))}"


_FRACTION: Check = (_number(0, 1), "a number from 0 to 1")
_CHECKS: dict[str, Check] = {
    "root": (_text, "null or a folder"),
    "cache": (_text, "null or a folder"),
    "features": _choice(*FEATURES),
    "time_shift_ms": (_number(0), "a number >= 0"),
    "background_prob": _FRACTION,
    "background_volume": _FRACTION,
    "on_bad_sample": _choice("error", "skip"),
    "max_bad_share": _FRACTION,
    "version": _choice("v0.01", "v0.02"),
    "classes": _choice(12, 35),
    "silence": _choice("background", "zeros"),
    "silence_share": (_number(0, 1, below=True), "a number from 0 to below 1"),
    "unknown_share": _FRACTION,
    "verify": (lambda v: isinstance(v, bool), "true or false"),
    "train_folder": (_text, "the name of a folder"),
    "test_folder": (_text, "the name of a folder"),
    "sample_rate": (lambda v: is_count(v, 1000), "a number of Hz >= 1000"),
    "seconds": (lambda v: _number(0)(v) and v > 0, "a number > 0"),
}


def parse_audio_options(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of ``defaults`` and DEFAULTS with its value; raises ConfigError for all wrong and unknown keys."""
    known = {**DEFAULTS, **defaults}
    problems = [f"dataset.{key} is not an option of {config['name']}; it takes {', '.join(('name', *known))}"
                for key in config if key != "name" and key not in known]  # fmt: skip
    options = {key: default if config.get(key) is None else config[key] for key, default in known.items()}
    for key, value in options.items():
        valid, expected = _CHECKS[key]
        if value is not None and not valid(value):
            problems.append(f"dataset.{key} is {value!r}, expected {expected}")
    if problems:
        raise ConfigError(problems)
    return options
