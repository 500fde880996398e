"""Composes configurations quickly, to be looked at: what runs share is composed once, single keys are set on a copy.

Hydra composes a run in a tenth of a second or more; a sweep or a table has hundreds of runs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hydra._internal.hydra import Hydra  # behind hydra.compose: it keeps what a sweep needs between composings
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from randomix.engine.validation import nearest, show

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)


def one_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf on one line, with its cause and without its links."""
    texts = [str(e) for e in (error, error.__cause__) if e is not None and str(e)]
    lines = [line.strip().rstrip(".") for text in texts for line in text.splitlines()]
    skip = ("See http", "full_key:", "object_type=", "^", "Set the environment", "Search path", "provider=")
    kept = [line for line in lines if line and not line.startswith(skip)]
    return ": ".join(dict.fromkeys(kept)) or type(error).__name__


class Composer:
    """The groups and files that Hydra finds, and configurations made of them.

    parse: an override from its text. groups: those with options, with their full names.
    """

    def __init__(self, hydra: Hydra, config_name: str) -> None:
        self.hydra, self.config_name = hydra, config_name
        loader: Any = hydra.config_loader  # only its implementation has a repository
        self.repository = loader.repository
        self.groups = set(self._groups_below(""))
        self.parser = OverridesParser.create(config_loader=hydra.config_loader)
        self.parse = functools.cache(self.parser.parse_override)
        self._bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def is_base(self, override: Override) -> bool:
        """Whether it chooses an option of a group, or sets something of Hydra's own: ``compose`` takes those."""
        in_group = override.key_or_group in self.groups and not isinstance(override.value(), dict)
        return override.is_hydra_override() or in_group

    def base(self, overrides: list[Override]) -> tuple[str, ...]:
        """The texts of those that ``compose`` takes."""
        return tuple(o.input_line or "" for o in overrides if self.is_base(o))

    def composed(self, overrides: list[Override]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """The configuration with ``overrides``, and for what Hydra will refuse (key, problem)."""
        config = deepcopy(self.compose(self.base(overrides))[0])
        later = [line for o in overrides if not self.is_base(o) for line in self.apply(o, config)]
        plain: Any = OmegaConf.to_container(config, resolve=True)
        return plain, later

    def compose(self, base: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        """The configuration with some groups chosen, before single keys are set, and Hydra's own part of it."""
        if base not in self._bases:
            config = self.hydra.compose_config(self.config_name, list(base), RunMode.RUN, from_shell=False)
            with open_dict(config):
                self._bases[base] = config, config.pop("hydra")
        return self._bases[base]

    def _groups_below(self, parent: str) -> Iterator[str]:
        for name in self.repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if self.options(group):
                yield group
            yield from self._groups_below(group)

    def options(self, group: str) -> list[str]:
        """The names of a group's files."""
        return self.repository.get_group_options(group, ObjectType.CONFIG)

    def apply(self, override: Override, config: DictConfig) -> Iterator[tuple[str, str]]:
        """Carry an override out on ``config``; yields (key, problem) for what Hydra will refuse."""
        key, value = override.key_or_group, override.value()
        try:
            there = has(config, key)
            if override.package is not None:
                yield key, f"{override.input_line}: there is no group {key}"
            elif override.is_delete():
                if not there:
                    near = nearest(key, _paths(config))
                    yield key, f"~{key}: no such key" + (f"; did you mean ~{near}?" if near else "")
                else:
                    parent = OmegaConf.select(config, key.rpartition(".")[0]) if "." in key else config
                    with open_dict(config):
                        del parent[key.rpartition(".")[2]]
            else:
                plain = not (override.is_add() or override.is_force_add())
                if override.is_add() and there and not isinstance(value, dict | list):
                    yield key, f"+{key}={show(value)}: the key is there already; write {key}={show(value)}"
                if plain and not there:
                    yield key, f"{key}={show(value)}: not in this configuration; add it with +{key}={show(value)}"
                OmegaConf.update(config, key, value, merge=True, force_add=True)
        except (OmegaConfBaseException, AttributeError, TypeError) as error:
            yield key, f"{override.input_line}: {one_line(error)}"

    def known(self) -> dict[str, dict[str, frozenset[str]]]:
        """The keys that each name of a group takes: those of its files. Methods are read from their source instead."""
        groups = [g for g in ("dataset", "model", "logger", "evaluator") if g in self.groups]
        return {group: self._known_of(group) for group in groups}

    def _known_of(self, group: str) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for option in self.options(group):
            keys, name = self._file_keys(group, option)
            found[name] = found.get(name, frozenset()) | keys
        return found

    def _file_keys(self, group: str, option: str) -> tuple[frozenset[str], str]:
        """The keys of a file with those of the files it starts from, and the name that it sets."""
        loaded = self.repository.load_config(f"{group}/{option}")
        content, keys, name = dict(loaded.config), frozenset[str](), option
        for default in loaded.defaults_list or []:
            parent = getattr(default, "path", None)
            if parent and parent != "_self_":
                inherited, name = self._file_keys(group, parent)
                keys |= inherited
        return keys | {str(k) for k in content}, str(content.get("name", name))


def has(config: DictConfig, key: str) -> bool:
    """Whether a dotted key is there, with whatever value."""
    above, _, last = key.rpartition(".")
    parent = OmegaConf.select(config, above, throw_on_missing=False) if above else config
    if isinstance(parent, ListConfig):
        return last.isdigit() and int(last) < len(parent)
    return isinstance(parent, DictConfig) and last in list(parent.keys())


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items_ex(resolve=False):
        yield f"{prefix}{key}"
        if isinstance(value, DictConfig):
            yield from _paths(value, f"{prefix}{key}.")
