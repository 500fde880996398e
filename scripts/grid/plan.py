"""The runs of a scale: the experiments of configs/ composed, without torch, and runs that are the same put together."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from grid.cells import cells_of
from grid.cost import gpu_hours
from grid.scales import PAPER, Scale
from randomix.engine.schema import TrainConfig, validate
from randomix.engine.validation import normalise
from randomix.errors import ConfigError
from randomix.records.identity import config_hash, mixer_label
from randomix.records.measures import evaluator_of
from randomix.records.paper import cell_ids


@dataclass(frozen=True)
class Run:
    """One configuration for several seeds. ``config`` is resolved, with seed 0; ``overrides`` lack the seed."""

    config: Mapping[str, Any]
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    cells: tuple[str, ...]
    gpu_hours: float | None = None  # of one seed
    cpu_seconds: float | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Data set, network and configuration hash."""
        return self.config["dataset"]["name"], self.config["model"]["name"], config_hash(self.config)

    @property
    def label(self) -> str:
        """The method's name in tables."""
        return mixer_label(self.config["mixer"])

    @property
    def tables(self) -> set[int]:
        """The tables that have a cell of it."""
        return {_table(cell) for cell in self.cells}

    def for_tables(self, tables: Set[int]) -> Run:
        """With what these tables need: their evaluators and the cells that these fill. The hash is the same."""
        needed = {evaluator_of(_metric(cell)) for cell in self.cells if _table(cell) in tables}
        names = [name for name in self.config["evaluators"] if name in needed]
        if names == self.config["evaluators"]:
            return self
        cells = tuple(cell for cell in self.cells if evaluator_of(_metric(cell)) in needed)
        kept = [text for text in self.overrides if _key(text) != "evaluators"]
        overrides = (*kept, f"evaluators=[{','.join(names)}]")
        run = replace(self, config={**self.config, "evaluators": names}, overrides=overrides, cells=cells)
        return replace(run, gpu_hours=None if self.gpu_hours is None else gpu_hours(run.config))

    def command(self, *more: str) -> str:
        """The command line that trains it."""
        return shlex.join(["python", "train.py", *self.overrides, *more])

    def with_seed(self, seed: int) -> dict[str, Any]:
        """The configuration of one seed."""
        return {**self.config, "seed": seed}


class Experiments:
    """The experiments of configs/, their runs and configurations."""

    def __init__(self, checkout: Path) -> None:
        from hydra import version
        from hydra._internal.hydra import Hydra
        from hydra._internal.utils import create_config_search_path

        from randomix.engine.composer import Composer

        version.setbase("1.3")
        hydra = Hydra.create_main_hydra2("reproduce", create_config_search_path(str(checkout / "configs")))
        self.composer = Composer(hydra, "train")
        self.known = self.composer.known()

    def __enter__(self) -> Experiments:
        return self

    def __exit__(self, *_: object) -> None:
        from hydra.core.global_hydra import GlobalHydra

        GlobalHydra.instance().clear()

    def jobs(self, experiment: str) -> list[tuple[str, ...]]:
        """The overrides of each run of an experiment, the seed left out."""
        from randomix.engine.overrides import values

        first = f"experiment={experiment}"
        _, hydra = self.composer.compose((first,))
        lists = [values(self.composer.parse(f"{k}={v}")) for k, v in hydra.sweeper.params.items() if k != "seed"]
        return [(first, *job) for job in itertools.product(*lists)]

    def compose(self, overrides: Iterable[str]) -> dict[str, Any]:
        """The resolved configuration; ConfigError with what is wrong.

        A sweep over methods is composed once: the section ``mixer`` is the file's, unless the experiment adds to it.
        """
        composer, overrides = self.composer, [self.composer.parse(text) for text in overrides]
        parsed = [o for o in overrides if o.key_or_group != "mixer"]
        config = deepcopy(composer.compose(composer.base(parsed))[0])
        for mixer in (o.value() for o in overrides if o.key_or_group == "mixer"):
            config["mixer"] = composer.repository.load_config(f"mixer/{mixer}").config
        wrong = [line for o in parsed if not composer.is_base(o) for _, line in composer.apply(o, config)]
        plain = OmegaConf.to_container(config, resolve=True)
        problems = [*validate(plain, TrainConfig, self.known), *wrong]
        if problems:
            raise ConfigError(*[f"{' '.join(o.input_line for o in overrides)}: {problem}" for problem in problems])
        return normalise(plain)


def _table(cell: str) -> int:
    return int(cell.removeprefix("table").partition("/")[0])


def _metric(cell: str) -> str:
    return cell.rpartition("/")[2]


def experiments(checkout: Path) -> list[str]:
    """The experiments of the paper's tables, in the order of their names."""
    return sorted(path.stem for path in (checkout / "configs" / "experiment").glob("table[1-6]_*.yaml"))


def plan(checkout: Path, *scales: Scale) -> list[list[Run]]:
    """For each scale all of its runs, each once, in the order of their first cell."""
    with Experiments(checkout) as made:
        jobs = [
            (experiment, job, made.compose(job))
            for experiment in experiments(checkout)
            for job in made.jobs(experiment)
        ]
        return [_merge(_run(made, *job, scale) for job in jobs) for scale in scales]


def _merge(runs: Iterable[Run]) -> list[Run]:
    """Each run once, in the order of the first cell."""
    found: dict[tuple[str, str, str], Run] = {}
    for run in runs:
        found[run.key] = _merged(found[run.key], run) if run.key in found else run
    place = {cell: i for i, cell in enumerate(cell_ids())}
    runs = [replace(run, cells=tuple(sorted(run.cells, key=place.__getitem__))) for run in found.values()]
    return sorted(runs, key=lambda run: place[run.cells[0]])


def _run(made: Experiments, experiment: str, job: tuple[str, ...], paper: Mapping[str, Any], scale: Scale) -> Run:
    """One run of an experiment at a scale; ``paper``: its configuration there."""
    cells = cells_of(experiment, paper)
    if scale.name == PAPER:
        return Run(paper, job, scale.seeds, cells, gpu_hours=gpu_hours(paper))
    overrides = tuple({_key(text): text for text in (*job, *scale.overrides(paper))}.values())
    return Run(made.compose(overrides), overrides, scale.seeds, cells, cpu_seconds=scale.seconds(paper))


def _key(text: str) -> str:
    """What an override sets; later ones replace earlier ones."""
    return text.partition("=")[0]


def _merged(first: Run, second: Run) -> Run:
    """One run for the cells of two: as the one that evaluates more, which has to include the other's evaluators."""
    more, less = sorted((first, second), key=lambda run: len(run.config["evaluators"]), reverse=True)
    names = less.config["evaluators"]
    assert set(names) <= set(more.config["evaluators"]), (first.overrides, second.overrides)
    assert all(less.config["evaluator"][name] == more.config["evaluator"][name] for name in names), more.overrides
    return replace(more, cells=tuple(dict.fromkeys(first.cells + second.cells)))
