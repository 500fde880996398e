"""Overrides of ``trainer`` for all runs of a grid: only those that leave the runs what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from randomix.engine.schema import TrainConfig, TrainerConfig, validate
from randomix.engine.validation import names_text
from randomix.errors import ConfigError
from randomix.records.identity import EXECUTION

_KEYS = [field.name for field in dataclasses.fields(TrainerConfig)]


def check_more(texts: Sequence[str], configs: Iterable[Mapping[str, Any]]) -> None:
    """Raise ConfigError unless every run can take the overrides, trainer.KEY=VALUE, and stays the same run."""
    problems = [problem for text in texts if (problem := _problem(text))]
    if problems:
        raise ConfigError(problems)
    settings = {text.partition("=")[0].partition(".")[2]: yaml.safe_load(text.partition("=")[2]) for text in texts}
    if settings:
        changed = ({**config, "trainer": {**config["trainer"], **settings}} for config in configs)
        problems = list(dict.fromkeys(line for config in changed for line in validate(config, TrainConfig)))
    if problems:
        raise ConfigError(problems)


def _problem(text: str) -> str | None:
    key = text.partition("=")[0].partition(".")[2]
    if key not in _KEYS:
        return f"{text}: {key} {names_text('key', _KEYS, key)}"
    if key not in EXECUTION["trainer"]:
        return f"{text}: it makes other runs of them, which fill no cell; leave it out, or use train.py"
    return None
