"""configs/scale/*.yaml: the same grid at small size on the data that is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from randomix.records.grid import PAPER, SCALES

__all__ = ["PAPER", "SCALES", "Scale", "load"]


@dataclass(frozen=True)
class Scale:
    """``rules``: {when: {section: names}, set: overrides}; all that fit a run of the paper are applied in their order.

    ``cpu_seconds``: measured, of one seed, by the paper's dataset/model. ``stand_ins``: words by the paper's data set.
    """

    name: str
    seeds: tuple[int, ...]
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    rules: Sequence[Mapping[str, Any]] = ()
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    first: str = ""  # a command that makes data which the scale needs
    needs: str = ""  # the folder that it makes

    def overrides(self, config: Mapping[str, Any]) -> list[str]:
        """What turns a run of the paper with the configuration ``config`` into one of this scale."""
        return [text for rule in self.rules if _fits(rule.get("when") or {}, config) for text in rule["set"]]

    def seconds(self, config: Mapping[str, Any]) -> float | None:
        """CPU-seconds of one seed of a run that has the configuration ``config`` in the paper."""
        return self.cpu_seconds.get(f"{config['dataset']['name']}/{config['model']['name']}")


def load(name: str, configs: Path) -> Scale:
    """A scale by its name; that of the paper changes nothing."""
    if name == PAPER:
        return Scale(PAPER, seeds=(0, 1, 2))
    content = yaml.safe_load((configs / "scale" / f"{name}.yaml").read_text())
    return Scale(**content | {"name": name, "seeds": tuple(content["seeds"])})


def _fits(when: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether a run's sections have one of the names asked for."""
    return all(
        config[section]["name"] in ([names] if isinstance(names, str) else names) for section, names in when.items()
    )
