"""Overrides of the command line, one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hydra.core.override_parser.types import Override

from randomix.engine.validation import show


def with_weights(problem: str, overrides: list[Override]) -> str:
    """Whoever set the candidates alone is told the weights that fit them."""
    match = re.fullmatch(r"mixer\.weights has \d+ entries but mixer\.candidates has (\d+)", problem)
    if match is None or any(_sets_weights(o) for o in overrides):
        return problem
    return f"{problem}; set mixer.weights={show([1] * int(match[1]))}"


def _sets_weights(override: Override) -> bool:
    value = override.value()
    return override.key_or_group == "mixer.weights" or (isinstance(value, dict) and "weights" in value)


def not_in_a_search(override: Override) -> Iterator[str]:
    """What a search for weights cannot do with an override."""
    if override.key_or_group == "mixer.weights":
        yield f"{override.input_line}: is what is searched for; leave it out, or write it into hydra.sweeper.start"
    elif sweeps(override) and override.key_or_group != "seed":
        yield f"{override.input_line}: a search takes one value of each setting; only seed may have several"


def sweeps(override: Override) -> bool:
    """Whether it gives several values."""
    return override.is_sweep_override()


def needs_m(override: Override) -> str:
    """What to tell whoever gave several values to one run."""
    key = override.get_key_element()
    text = override.get_value_string()
    return f"{key}={text}: several values need -m; for one list write '{key}=[{text}]'"


def last_of_each_key(overrides: list[Override]) -> list[Override]:
    """As Hydra's sweeper: a key given again takes the last value, at the place of the first."""
    return list({o.get_key_element(): o for o in overrides}.values())


def values(override: Override) -> list[str]:
    """The override once for each of its values."""
    if sweeps(override):
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    return [override.input_line or ""]
