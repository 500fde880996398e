"""Overrides of ``trainer`` for all runs of a grid: only those that leave the runs what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from randomix.engine.schema import TrainConfig, TrainerConfig, validate
from randomix.engine.validation import names_text
from randomix.errors import ConfigError
from randomix.records.identity import config_hash

_KEYS = [field.name for field in dataclasses.fields(TrainerConfig)]


def check_more(texts: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> None:
    """Raise ConfigError unless every run can take the overrides, trainer.KEY=VALUE, and stays the same run."""
    problems, settings = [], {}
    for text in texts:
        key = text.partition("=")[0].partition(".")[2]
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException:
            problems.append(f"{text}: cannot be read; check brackets and quotes")
            continue
        if key not in _KEYS:
            problems.append(f"{text}: {key} {names_text('key', _KEYS, key)}")
        elif override.is_sweep_override():
            problems.append(f"{text}: all runs take one value")
        elif _makes_others({key: override.value()}, configs):
            problems.append(f"{text}: it makes other runs of them, which fill no cell; leave it out, or use train.py")
        else:
            settings[key] = override.value()
    changed = [_with(config, settings) for config in configs if settings]
    problems += dict.fromkeys(line for config in changed for line in validate(config, TrainConfig))
    if problems:
        raise ConfigError(*problems)


def _with(config: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, "trainer": {**config["trainer"], **settings}}


def _makes_others(settings: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the hash of any run changes with settings of ``trainer``."""
    return any(config_hash(_with(config, settings)) != config_hash(config) for config in configs)
