"""Hydra's side of the search for weights: asks ``search`` what to run, has Hydra's launcher run it, reports the front.

Hydra's own Optuna sweeper (hydra-optuna-sweeper 1.3.0) is not used: it needs optuna below 3, whose storage fails with
SQLAlchemy 2, and continued from a storage it draws anew what a study has had and runs all its trials once more.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from randomix import files
from randomix.engine import search
from randomix.engine.search import Trial, Values, Weights
from randomix.errors import INTERRUPTED, ConfigError, RunError
from randomix.records import pareto


class WeightsSweeper(Sweeper):
    """Searches candidates and weights of the method of a configuration; see configs/hydra/sweeper/weights.yaml."""

    def __init__(self, params: dict[str, Any] | None = None, **settings: Any) -> None:
        self.search = search.Search(**settings)
        self.params = params or {}
        self.started = 0  # runs
        self.failures: list[RunError] = []  # of runs in other processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra once the configuration is composed."""
        self.config, self.parser = config, OverridesParser.create(config_loader=hydra_context.config_loader)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the search for the overrides of a command line; at its end raises the first failure from elsewhere."""
        config: Any = self.config
        given = self.parser.parse_overrides([f"{k}={v}" for k, v in self.params.items()] + arguments)
        last = {o.get_key_element(): o for o in given}
        swept = last.pop("seed", None)
        self.fixed = [o.input_line or "" for o in last.values()]
        self.seeds = _seeds(swept) if swept is not None else [config.seed]
        self.candidates: Sequence[Any] = cast(Any, OmegaConf.to_container(config.mixer.candidates, resolve=True))
        file = Path(config.output_root) / pareto.FILE
        trials: list[Trial] = []
        check_same_search(file, search.to_json(self.search, self.candidates, self.seeds, []))
        for trials in search.explore(self.search, len(self.candidates), self._launch):
            text = search.to_json(self.search, self.candidates, self.seeds, trials)
            files.write_atomic(file, text, parents=True)
        print(search.to_text(self.search, self.candidates, self.seeds, trials))
        print(f"all {len(trials)} trials: {file}", flush=True)
        if self.failures:
            raise self.failures[0]

    def _launch(self, batch: Sequence[Weights]) -> list[Trial]:
        """Run each trial of a batch with every seed; the values are means over the seeds."""
        jobs = [
            [*self.fixed, *search.overrides(self.candidates, weights), f"seed={seed}"]
            for weights in batch
            for seed in self.seeds
        ]
        launcher: Any = self.launcher
        outcomes = [self._outcome(r) for r in launcher.launch(jobs, initial_job_idx=self.started)]
        self.started += len(jobs)
        size = len(self.seeds)
        return [_trial(weights, outcomes[i * size : (i + 1) * size]) for i, weights in enumerate(batch)]

    def _outcome(self, returned: JobReturn) -> tuple[str, Values] | None:
        """The name of a run and its objectives; None if it failed."""
        try:
            value = returned.return_value
        except RunError as error:
            if error.exit_code == INTERRUPTED:
                raise
            self.failures.append(error)
            return None
        return None if isinstance(value, int) else value


def check_same_search(file: Path, mine: str) -> None:
    """ConfigError if ``file`` holds another search than ``mine``, both as JSON: it would be lost."""
    try:
        there = json.loads(file.read_text())
    except (OSError, ValueError):  # none, or cut
        return
    wanted = json.loads(mine)
    keys = [key for key in wanted if key not in ("trials", "batch")]
    other = [key for key in keys if not isinstance(there, dict) or there.get(key) != wanted[key]]
    if other:
        raise ConfigError(
            f"{file}: holds another search, of other {', '.join(other)}; write output_root=FOLDER for a "
            "new one, or move the file"
        )


def _trial(weights: Weights, outcomes: Sequence[tuple[str, Values] | None]) -> Trial:
    done = [o for o in outcomes if o is not None]
    means = tuple(statistics.fmean(column) for column in zip(*(values for _, values in done), strict=True))
    return Trial(weights, means if len(done) == len(outcomes) else None, tuple(run for run, _ in done))


def _seeds(override: Any) -> list[int]:
    return [int(v) for v in override.sweep_iterator()] if override.is_sweep_override() else [override.value()]


def register() -> None:
    """Make the sweeper known to Hydra, which takes plugins of the package hydra_plugins only: it gets a name there.

    A folder hydra_plugins would be found without this, but it would lie beside train.py, not in the library.
    """
    package, name, cls = search.SWEEPER.split(".")
    with contextlib.suppress(ImportError):  # there is none unless a launcher is installed
        importlib.import_module(package)
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = []  # Hydra walks through it
    setattr(sys.modules[package], name, sys.modules[__name__])
    WeightsSweeper.__module__, WeightsSweeper.__qualname__ = f"{package}.{name}", cls
    Plugins.instance().register(WeightsSweeper)
