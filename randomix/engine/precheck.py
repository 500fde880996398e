"""Reads a command line before Hydra does, and finds everything that is wrong with it at once.

Hydra itself stops at the first unknown key and checks no value; a sweep would find a mistake of its last run when the
others are done. Here every run of a sweep is composed and validated first, in about a second and without torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.hydra import Hydra  # behind hydra.compose: it keeps what a sweep needs between composings
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from randomix.engine import search
from randomix.engine.overrides import last_of_each_key, needs_m, not_in_a_search, sweeps, values, with_weights
from randomix.engine.schema import TrainConfig, validate
from randomix.engine.validation import names_text, nearest, show

COMPOSE_ERRORS = (HydraException, OmegaConfBaseException, YAMLError, ValueError)
TRAINING = {f.name for f in dataclasses.fields(TrainConfig)} | {"experiment"}  # what a run of train.py is made of
MAX_JOBS = 512  # of a sweep that are checked beforehand
_EXTRAS = {"joblib": "joblib", "parallel": "joblib"}  # launchers, and what installs them; the others need `slurm`


@dataclass
class Plan:
    """What a command line asks for. ``jobs`` holds the overrides of each run; ``problems`` is empty if all is well."""

    problems: list[str] = field(default_factory=list)
    jobs: list[list[str]] = field(default_factory=list)
    num_jobs: int = 1
    multirun: bool = False
    launcher: str = ""  # the class of Hydra's launcher


def one_line(error: BaseException) -> str:
    """An error of Hydra or OmegaConf on one line, with its cause and without its links."""
    texts = [str(e) for e in (error, error.__cause__) if e is not None and str(e)]
    lines = [line.strip().rstrip(".") for text in texts for line in text.splitlines()]
    skip = ("See http", "full_key:", "object_type=", "^", "Set the environment", "Search path", "provider=")
    kept = [line for line in lines if line and not line.startswith(skip)]
    return ": ".join(dict.fromkeys(kept)) or type(error).__name__


def plan(hydra: Hydra, config_name: str, texts: list[str], schema: type, multirun: bool) -> Plan:
    """Check the overrides of one command; ``multirun`` is whether it has -m."""
    return _Reader(hydra, config_name, schema).read(texts, multirun)


class _Reader:
    """Reads one command line against the groups and files that Hydra finds."""

    def __init__(self, hydra: Hydra, config_name: str, schema: type) -> None:
        self.hydra, self.config_name, self.schema = hydra, config_name, schema
        self.repository = hydra.config_loader.repository
        self.groups = set(self._groups_below(""))
        self.fields = {f.name for f in dataclasses.fields(schema)}
        self.parser = OverridesParser.create(config_loader=hydra.config_loader)
        self.parse = functools.cache(self.parser.parse_override)
        self.bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}
        self.plan = Plan()
        self.wrong_groups: set[str] = set()

    def read(self, texts: list[str], multirun: bool) -> Plan:
        result = self.plan
        overrides = self._parsed(texts)
        try:
            _, hydra = self._compose(tuple(o.input_line for o in overrides if self._is_base(o) and not sweeps(o)))
        except COMPOSE_ERRORS as error:
            result.problems.append(one_line(error))
            return result
        result.multirun = multirun or hydra.mode == RunMode.MULTIRUN
        result.launcher = str(hydra.launcher.get("_target_"))
        if not result.multirun:
            result.problems += [needs_m(o) for o in overrides if sweeps(o)]
        elif str(hydra.sweeper.get("_target_")).endswith((".BasicSweeper", search.SWEEPER)):
            params = hydra.sweeper.get("params") or {}
            overrides = self._parsed([f"{k}={v}" for k, v in params.items()]) + overrides
        overrides, openings = last_of_each_key(overrides), [[]]
        if result.multirun and hydra.sweeper.get("_target_") == search.SWEEPER:
            openings = self._openings(overrides, OmegaConf.to_container(hydra.sweeper, resolve=True))
        lists = [values(o) for o in overrides]
        if not result.multirun:
            lists = [texts[:1] for texts in lists]
        result.num_jobs *= math.prod(len(texts) for texts in lists)
        jobs = itertools.islice(itertools.product(*lists), MAX_JOBS)
        result.jobs = [[*job, *more] for job in jobs for more in openings]
        self._check_jobs()
        return result

    def _openings(self, overrides: list[Override], settings: Mapping[str, Any]) -> list[list[str]]:
        """What the first runs of a search add to the overrides; what is wrong with the search goes to the problems."""
        found, config = [text for o in overrides for text in not_in_a_search(o)], {}
        with contextlib.suppress(*COMPOSE_ERRORS):  # of which the runs will tell
            config = self._composed([o for o in overrides if not sweeps(o)])[0]
            found += search.problems(settings, config)
        self.plan.problems += found
        if found:
            return [["mixer.weights=null"] if "weights" in config.get("mixer", ()) else []]  # the file's need not fit
        self.plan.num_jobs = settings["trials"]
        candidates = config["mixer"]["candidates"]
        return [search.overrides(candidates, w) for w in settings["start"] or [[1] * len(candidates)]]

    def _parsed(self, texts: list[str]) -> list[Override]:
        """The overrides that can be used; what is wrong with the others goes to the problems."""
        found = []
        for text in texts:
            if "=" not in text and not text.startswith("~"):
                self.plan.problems.append(self._no_value(text))
                continue
            try:
                override = self.parse(text)
                override.config_loader = self.hydra.config_loader
                wrong = self._foreign(override) or self._group_problems(override)
            except HydraException:
                key = text.partition("=")[0]
                self.plan.problems.append(f"{text}: cannot be read; check brackets and quotes: '{key}=[a,b]'")
                continue
            if sweeps(override) and override.is_hydra_override():
                wrong = [f"{text}: Hydra's own settings take one value; write {text.replace('=', '=[', 1)}] for a list"]
            if override.is_interval_sweep():
                wrong = [f"{text}: an interval has no list of values; use range(...) or a,b,c"]
            if wrong:
                self.plan.problems += wrong
                self.wrong_groups.add(override.key_or_group)
            else:
                found.append(override)
        return found

    def _no_value(self, text: str) -> str:
        """An argument without ``=``: for eval.py most likely the folder of the run."""
        if "checkpoint" not in self.fields or text in self.fields:
            return f"{text}: no value; write {text}=VALUE"
        self.wrong_groups.add("checkpoint")  # that it is missing need not be said as well
        return f"{text}: no value; write checkpoint={text}"

    def _foreign(self, override: Override) -> list[str]:
        """Settings of a run that an evaluation takes from its checkpoint."""
        if self.schema is TrainConfig:
            return []
        group = override.key_or_group
        top = group.partition(".")[0].partition("/")[0]
        if group == "dataset" and not isinstance(override.value(), dict):  # its root may be set, not which it is
            top = override.input_line or group
        elif top not in TRAINING - self.fields:
            return []
        return [f"{top} belongs to training; eval.py takes it from the checkpoint"]

    def _is_base(self, override: Override) -> bool:
        in_group = override.key_or_group in self.groups and not isinstance(override.value(), dict)
        return override.is_hydra_override() or in_group

    def _group_problems(self, override: Override) -> list[str]:
        """Options of a group that do not exist."""
        group = override.key_or_group
        if group not in self.groups or override.is_delete() or isinstance(override.value(), dict):
            return []
        if override.is_add() and group in self._compose(())[1].runtime.choices:
            return [f"{override.input_line}: the group is there already; write {(override.input_line or '')[1:]}"]
        options = self._options(group)
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
        names = [n for v in values for n in (v if isinstance(v, list) else [v])]
        names = [n.text if isinstance(n, QuotedString) else n for n in names]
        wrong = [show(n) for n in names if str(n) not in options]
        extra = ""
        if group == "hydra/launcher" and wrong:
            extra = f"; some need a package: pip install 'randomix[{_EXTRAS.get(wrong[0], 'slurm')}]'"
        extra += f"; to leave it out write ~{group}" if "null" in wrong else ""
        return [f"{group}={n}: {names_text('option', options, n)}{extra}" for n in wrong]

    def _compose(self, base: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        """The configuration with some groups chosen, before single keys are set, and Hydra's own part of it."""
        if base not in self.bases:
            config = self.hydra.compose_config(self.config_name, list(base), RunMode.RUN, from_shell=False)
            with open_dict(config):
                self.bases[base] = config, config.pop("hydra")
        return self.bases[base]

    def _groups_below(self, parent: str) -> Iterator[str]:
        for name in self.repository.get_group_options(parent, ObjectType.GROUP):
            group = f"{parent}/{name}" if parent else name
            if self._options(group):
                yield group
            yield from self._groups_below(group)

    def _options(self, group: str) -> list[str]:
        return self.repository.get_group_options(group, ObjectType.CONFIG)

    def _check_jobs(self) -> None:
        """Validate every run; a problem of some runs only says of which."""
        found: dict[str, list[int]] = {}
        known = self._known()
        for i, job in enumerate(self.plan.jobs):
            for problem in self._job_problems([self.parse(text) for text in job], known):
                found.setdefault(problem, []).append(i)
        for problem, where in found.items():
            first = " ".join(t for t in self.plan.jobs[where[0]] if not t.startswith("hydra"))
            some = len(where) < len(self.plan.jobs)
            of = f" (in {len(where)} of {len(self.plan.jobs)} runs, first: {first})" if some else ""
            self.plan.problems.append(problem + of)

    def _job_problems(self, overrides: list[Override], known: Mapping[str, Any]) -> Iterator[str]:
        base = self._base(overrides)
        try:
            plain, later = self._composed(overrides)
        except COMPOSE_ERRORS as error:
            yield one_line(error)
            return
        problems = [with_weights(p, overrides) for p in validate(plain, self.schema, known)]
        problems = [self._of_recipe(p, plain, base) for p in problems]
        yield from (p for p in problems if not _below(p, self.wrong_groups))
        reported = {p.partition(":")[0].partition("=")[0] for p in problems}
        yield from (text for key, text in later if not _below(key, reported | self.wrong_groups))

    def _base(self, overrides: list[Override]) -> tuple[str, ...]:
        return tuple(o.input_line or "" for o in overrides if self._is_base(o))

    def _composed(self, overrides: list[Override]) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """The configuration with ``overrides``, and for what Hydra will refuse (key, problem)."""
        config = deepcopy(self._compose(self._base(overrides))[0])
        later = [line for o in overrides if not self._is_base(o) for line in self._apply(o, config)]
        return OmegaConf.to_container(config, resolve=True), later

    def _of_recipe(self, problem: str, plain: Mapping[str, Any], base: tuple[str, ...]) -> str:
        """Who chose a recipe that sets a key which another section lacks did not write that key: name the recipe."""
        key, text = problem.partition(":")[::2]
        recipe, (section, dot, _) = self._compose(base)[1].runtime.choices.get("recipe"), key.partition(".")
        if recipe is None or not dot or not text.startswith(" unknown key"):
            return problem
        if not _has(self.repository.load_config(f"recipe/{recipe}").config, key):
            return problem
        name = plain[section].get("name")
        return f"recipe={recipe}: sets {key}, which {section}={name} lacks; take another recipe, or write ~{key}"

    def _apply(self, override: Override, config: DictConfig) -> Iterator[tuple[str, str]]:
        """Carry an override out on ``config``; yields (key, problem) for what Hydra will refuse."""
        key, value = override.key_or_group, override.value()
        try:
            there = _has(config, key)
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

    def _known(self) -> dict[str, dict[str, frozenset[str]]]:
        """The keys that each name of a group takes: those of its files. Methods are read from their source instead."""
        groups = [g for g in ("dataset", "model", "logger", "evaluator") if g in self.groups]
        return {group: self._known_of(group) for group in groups}

    def _known_of(self, group: str) -> dict[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for option in self._options(group):
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


def _below(problem: str, groups: set[str]) -> bool:
    return any(problem.startswith((f"{g}.", f"{g}:", f"{g}=")) or problem == g for g in groups)


def _has(config: DictConfig, key: str) -> bool:
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
