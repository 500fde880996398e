"""The options of sets of recordings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets.options import Check, is_count, number, read_options

FEATURES = ("waveform", "log_mel")

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


def _choice(*names: Any) -> Check:
    return (lambda v: type(v) in {type(n) for n in names} and v in names), f"one of {', '.join(map(str, names))}"


_FRACTION: Check = (number(0, 1), "a number from 0 to 1")
_CHECKS: dict[str, Check] = {
    "features": _choice(*FEATURES),
    "time_shift_ms": (number(0), "a number >= 0"),
    "background_prob": _FRACTION,
    "background_volume": _FRACTION,
    "version": _choice("v0.01", "v0.02"),
    "classes": _choice(12, 35),
    "silence": _choice("background", "zeros"),
    "silence_share": (number(0, 1, below=True), "a number from 0 to below 1"),
    "unknown_share": _FRACTION,
    "sample_rate": (lambda v: is_count(v, 1000), "a number of Hz >= 1000"),
    "seconds": (lambda v: number(0)(v) and v > 0, "a number > 0"),
}


def parse_audio_options(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of ``defaults`` and DEFAULTS with its value; raises ConfigError for all wrong and unknown keys."""
    return read_options(config, {**DEFAULTS, **defaults}, _CHECKS)
