"""The options of the networks, checked with the key's path in every message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from randomix.errors import ConfigError

FORMS = {1: "(C, L)", 2: "(C, H, W)"}
USUAL = {1: "preact_resnet18_1d", 2: "preact_resnet18"}  # the network to name instead, by spatial dimensions
Check = tuple[Callable[[Any], bool], str]  # the test of a value, and what it asks for in words


def parse_options(config: Mapping[str, Any], checks: Mapping[str, Check]) -> dict[str, Any]:
    """The options of ``config`` without its name; raises ConfigError, naming every wrong key."""
    options = {key: value for key, value in config.items() if key != "name"}
    problems = []
    for key, value in options.items():
        if key not in checks:
            problems.append(f"model.{key} is not an option of {config['name']}; it takes {', '.join(checks)}")
        elif not checks[key][0](value):
            problems.append(f"model.{key} is {value!r}, expected {checks[key][1]}")
    if problems:
        raise ConfigError(*problems)
    return options


def check_dims(config: Mapping[str, Any], sample_shape: Sequence[int], dims: Sequence[int]) -> None:
    """Raise ConfigError unless samples (C, *S) have one of the numbers of spatial dimensions ``dims``."""
    found = len(sample_shape) - 1
    if found not in dims:
        forms = " or ".join(FORMS[d] for d in dims)
        instead = f"; use model={USUAL[found]}" if found in USUAL else ""
        raise ConfigError(
            f"model.name is {config['name']}, which takes samples {forms}, but those of the data set "
            f"are {tuple(sample_shape)}{instead}"
        )


def is_count(value: object) -> bool:
    """Whether a value is an integer (no bool) of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def is_share(value: object) -> bool:
    """Whether a value is a number from 0 to below 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def is_counts(value: object) -> bool:
    """Whether a value is a list of integers of at least 1, not empty."""
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0 and all(map(is_count, value))


def is_stages(value: object) -> bool:
    """Whether a value is a list of integers from 0 on, each once, or empty."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return len(set(value)) == len(value) and all(type(stage) is int and stage >= 0 for stage in value)


def stages_below(count: int, stages: Sequence[int]) -> None:
    """Raise ConfigError if ``model.checkpoint_stages`` names a stage that a network of ``count`` lacks."""
    if max(stages, default=0) >= count:
        raise ConfigError(f"model.checkpoint_stages is {list(stages)}, expected stages from 0 to {count - 1}")


COUNT: Check = is_count, "a number >= 1"
SHARE: Check = is_share, "a number from 0 to below 1"
STAGES: Check = is_stages, "a list of stages such as [0, 1], each once"
FLAG: Check = (lambda value: isinstance(value, bool)), "true or false"


def one_of(*names: str) -> Check:
    """One of some names."""
    return (lambda value: value in names), f"one of {', '.join(names)}"
