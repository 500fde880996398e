"""Reads a command line before Hydra does, and finds everything that is wrong with it at once.

Hydra itself stops at the first unknown key and checks no value; a sweep would find a mistake of its last run when the
others are done. Here every run of a sweep is composed and validated first, in about a second and without torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from randomix.engine import search
from randomix.engine.composer import COMPOSE_ERRORS, Composer, has, one_line
from randomix.engine.overrides import last_of_each_key, needs_m, not_in_a_search, sweeps, values, with_weights
from randomix.engine.schema import TrainConfig, validate
from randomix.engine.validation import names_text, show

TRAINING = {f.name for f in dataclasses.fields(TrainConfig)} | {"experiment"}  # what a run of train.py is made of
MAX_JOBS = 512  # of a sweep that are checked beforehand
_EXTRAS = {"joblib": "joblib", "parallel": "joblib"}  # launchers, and what installs them; the others need `slurm`
_STANDS_ON = {"parallel": "joblib", "slurm": "submitit_slurm"}  # launchers of ours, and the one of a package below each


@dataclass
class Plan:
    """What a command line asks for. ``jobs`` holds the overrides of each run; ``problems`` is empty if all is well."""

    problems: list[str] = field(default_factory=list)
    jobs: list[list[str]] = field(default_factory=list)
    num_jobs: int = 1
    multirun: bool = False
    launcher: str = ""  # the class of Hydra's launcher


def plan(hydra: Hydra, config_name: str, texts: list[str], schema: type, multirun: bool) -> Plan:
    """Check the overrides of one command; ``multirun`` is whether it has -m."""
    return _Reader(hydra, config_name, schema).read(texts, multirun)


def _extra(launcher: str) -> str:
    """The extra of this package that installs a launcher."""
    return _EXTRAS.get(launcher, "slurm")


class _Reader:
    """Reads one command line against the groups and files that Hydra finds."""

    def __init__(self, hydra: Hydra, config_name: str, schema: type) -> None:
        self.hydra, self.schema, self.composer = hydra, schema, Composer(hydra, config_name)
        self.fields = {f.name for f in dataclasses.fields(schema)}
        self.plan = Plan()
        self.wrong_groups: set[str] = set()

    def read(self, texts: list[str], multirun: bool) -> Plan:
        result = self.plan
        overrides = self._parsed(texts)
        absent = [line for o in overrides for line in self._launcher_problems(o)]
        if absent:
            result.problems += absent
            return result
        try:
            _, hydra = self.composer.compose(self.composer.base([o for o in overrides if not sweeps(o)]))
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
        overrides = last_of_each_key(overrides)
        openings: list[list[str]] = [[]]
        if result.multirun and hydra.sweeper.get("_target_") == search.SWEEPER:
            settings: Any = OmegaConf.to_container(hydra.sweeper, resolve=True)
            openings = self._openings(overrides, settings)
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
            config = self.composer.composed([o for o in overrides if not sweeps(o)])[0]
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
                override = self.composer.parse(text)
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

    def _launcher_problems(self, override: Override) -> list[str]:
        """Launchers of ours whose package is not installed."""
        name = str(override.value())
        below = _STANDS_ON.get(name) if override.key_or_group == "hydra/launcher" else None
        if below is None or below in self.composer.options("hydra/launcher"):
            return []
        return [f"{override.input_line}: its package is not installed; pip install 'randomix[{_extra(name)}]'"]

    def _group_problems(self, override: Override) -> list[str]:
        """Options of a group that do not exist."""
        group = override.key_or_group
        if group not in self.composer.groups or override.is_delete() or isinstance(override.value(), dict):
            return []
        if override.is_add() and group in self.composer.compose(())[1].runtime.choices:
            return [f"{override.input_line}: the group is there already; write {(override.input_line or '')[1:]}"]
        options = self.composer.options(group)
        values = list(override.sweep_iterator()) if override.is_discrete_sweep() else [override.value()]
        names = [n for v in values for n in (v if isinstance(v, list) else [v])]
        names = [n.text if isinstance(n, QuotedString) else n for n in names]
        wrong = [show(n) for n in names if str(n) not in options]
        extra = ""
        if group == "hydra/launcher" and wrong:
            extra = f"; some need a package: pip install 'randomix[{_extra(wrong[0])}]'"
        extra += f"; to leave it out write ~{group}" if "null" in wrong else ""
        return [f"{group}={n}: {names_text('option', options, n)}{extra}" for n in wrong]

    def _check_jobs(self) -> None:
        """Validate every run; a problem of some runs only says of which."""
        found: dict[str, list[int]] = {}
        known = self.composer.known()
        for i, job in enumerate(self.plan.jobs):
            for problem in self._job_problems([self.composer.parse(text) for text in job], known):
                found.setdefault(problem, []).append(i)
        for problem, where in found.items():
            first = " ".join(t for t in self.plan.jobs[where[0]] if not t.startswith("hydra"))
            some = len(where) < len(self.plan.jobs)
            of = f" (in {len(where)} of {len(self.plan.jobs)} runs, first: {first})" if some else ""
            self.plan.problems.append(problem + of)

    def _job_problems(self, overrides: list[Override], known: Mapping[str, Any]) -> Iterator[str]:
        base = self.composer.base(overrides)
        try:
            plain, later = self.composer.composed(overrides)
        except COMPOSE_ERRORS as error:
            yield one_line(error)
            return
        problems = [with_weights(p, overrides) for p in validate(plain, self.schema, known)]
        problems = [self._of_recipe(p, plain, base) for p in problems]
        yield from (p for p in problems if not _below(p, self.wrong_groups))
        reported = {p.partition(":")[0].partition("=")[0] for p in problems}
        yield from (text for key, text in later if not _below(key, reported | self.wrong_groups))

    def _of_recipe(self, problem: str, plain: Mapping[str, Any], base: tuple[str, ...]) -> str:
        """Who chose a recipe that sets a key which another section lacks did not write that key: name the recipe."""
        key, text = problem.partition(":")[::2]
        recipe, (section, dot, _) = self.composer.compose(base)[1].runtime.choices.get("recipe"), key.partition(".")
        if recipe is None or not dot or not text.startswith(" unknown key"):
            return problem
        if not has(self.composer.repository.load_config(f"recipe/{recipe}").config, key):
            return problem
        name = plain[section].get("name")
        return f"recipe={recipe}: sets {key}, which {section}={name} lacks; take another recipe, or write ~{key}"


def _below(problem: str, groups: set[str]) -> bool:
    return any(problem.startswith((f"{g}.", f"{g}:", f"{g}=")) or problem == g for g in groups)
