"""Where metrics go besides the run folder. metrics.jsonl is the source of truth; a tracker can fail without harm."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from randomix.errors import ConfigError


class Tracker(Protocol):
    """An external tracker of one run."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the numbers of a step."""

    def finish(self, exit_code: int) -> None:
        """Close the run."""


class WandbTracker:
    """Weights & Biases, offline unless told otherwise; a resumed run keeps its id."""

    def __init__(self, settings: Mapping[str, Any], folder: Path, run: str, config: Mapping[str, Any]) -> None:
        wandb = _import("wandb", "wandb")
        self._run = wandb.init(
            project=settings.get("project") or "randomix",
            entity=settings.get("entity"),
            group=settings.get("group"),
            mode=settings.get("mode") or "offline",
            dir=str(folder),
            id=run.replace("/", "-"),
            name=run,
            resume="allow",
            config=dict(config),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:  # noqa: D102
        self._run.log(dict(metrics), step=step)

    def finish(self, exit_code: int) -> None:  # noqa: D102
        self._run.finish(exit_code=exit_code)


class TensorBoardTracker:
    """TensorBoard event files in the run folder."""

    def __init__(self, settings: Mapping[str, Any], folder: Path, run: str, config: Mapping[str, Any]) -> None:
        _import("tensorboard", "tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, metrics: Mapping[str, float], step: int) -> None:  # noqa: D102
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, exit_code: int) -> None:  # noqa: D102
        self._writer.close()


TRACKERS: dict[str, Callable[..., Tracker]] = {"wandb": WandbTracker, "tensorboard": TensorBoardTracker}


def _import(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"logger={extra} needs the package {package}: pip install 'randomix[{extra}]'") from error


class SafeTracker:
    """A tracker whose failures cost one warning and never the run. A missing package is an error at once."""

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: Path,
        run: str,
        config: Mapping[str, Any],
        warn: Callable[[str], None],
    ) -> None:
        self._warn = warn
        self._tracker: Tracker | None = None
        name = settings.get("name", "none")
        if name != "none":
            self._attempt(lambda: setattr(self, "_tracker", TRACKERS[name](settings, folder, run, config)))

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except ConfigError:
            raise
        except Exception as error:  # whatever a tracker's network or disk does must not end a training run
            self._tracker = None
            self._warn(f"logging to the tracker stopped: {type(error).__name__}: {error}; metrics.jsonl goes on")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Send the numbers of a step, if the tracker still works."""
        if self._tracker is not None:
            tracker = self._tracker
            self._attempt(lambda: tracker.log(metrics, step))

    def finish(self, exit_code: int) -> None:
        """Close the run in the tracker."""
        if self._tracker is not None:
            tracker = self._tracker
            self._attempt(lambda: tracker.finish(exit_code))
