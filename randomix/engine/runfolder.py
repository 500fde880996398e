"""The files of one run, and what they say about it. Needs no torch."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from randomix import files
from randomix.engine import status
from randomix.errors import ConfigError
from randomix.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator


class RunFolder:
    """``config.yaml metrics.jsonl record.json status.json checkpoints/{last,best}.pt model.safetensors log.txt``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.yaml"
        self.metrics = root / "metrics.jsonl"
        self.record = root / "record.json"
        self.status = root / "status.json"
        self.checkpoints = root / "checkpoints"
        self.weights = root / "model.safetensors"
        self.log = root / "log.txt"
        self.evaluations = root / "evaluations"

    @classmethod
    def of_checkpoint(cls, path: str | Path) -> tuple[RunFolder, str]:
        """The run folder of ``path``, a run folder or a file in its ``checkpoints/``, and the checkpoint to read.

        Raises ConfigError if there is no checkpoint.
        """
        path = Path(path)
        folder = cls(path if path.is_dir() else path.parent.parent)
        file = folder.checkpoints / "last.pt" if path.is_dir() else path
        if not file.is_file():
            known = sorted(str(p) for p in folder.checkpoints.glob("*.pt"))
            runs = sorted(str(p.parent.parent) for p in path.rglob("checkpoints/last.pt")) if path.is_dir() else []
            hint = f"it has {', '.join(known)}" if known else "train first: python train.py"
            hint = f"below it are {len(runs)} runs: name one of them, such as {runs[0]}" if runs else hint
            raise ConfigError(f"checkpoint={path}: there is no file {file}; {hint}")
        return folder, str(file)

    def finished(self) -> bool:
        """Whether a run here came to its end and left a sound record; without one it is made again."""
        known = status.read(self.status)
        if known is None or known.state != "finished" or not self.record.is_file():
            return False
        try:
            record.read(self.record)
        except ValueError as error:
            print(f"warning: {error}; it is made again from the last checkpoint", file=sys.stderr, flush=True)
            return False
        return True

    def summary(self) -> str:
        """The headline of a finished run: ``top1 94.31 % at epoch 60``."""
        last = record.read(self.record).metrics["last"]
        return f"top1 {last['top1']:.2f} % at epoch {last['epoch']}"

    def objectives(self, names: Sequence[str]) -> tuple[str, tuple[float, ...]]:
        """The name of a finished run and the values of some errors after its last epoch.

        Raises ConfigError where it was evaluated otherwise, or where a value is not finite.
        """
        found = record.read(self.record)
        values = {name: found.metric(name) for name in names}
        missing = [name for name, value in values.items() if value is None]
        if missing:
            raise ConfigError(
                f"{self.record}: has no {', '.join(missing)}, evaluated were "
                f"{', '.join(found.config.get('evaluators', []))}; remove the folder to run it anew, or "
                "set another output_root"
            )
        return found.run, tuple(float(value) for value in values.values() if value is not None)

    def say_finished(self, config: Mapping[str, Any]) -> str:
        """What to tell who starts a finished run again, and what to do if other evaluators were meant."""
        known = record.read(self.record).config
        line = f"already finished: {self.summary()}; record: {self.record}"
        if any(known.get(key) != config[key] for key in ("evaluators", "evaluator")):
            names = ",".join(config["evaluators"])
            line += "; it was evaluated otherwise: for these evaluators run "
            line += f"python eval.py checkpoint={self.root} 'evaluators=[{names}]'"
        return line

    def require_same_data(self, config: Mapping[str, Any]) -> None:
        """Raise ConfigError if the run here was trained on files at another place that nothing has verified.

        A run's name leaves out where its data lie. Verified data are the same wherever they lie; of other files, such
        as a folder of one's own, the place is all that tells them apart before they are read.
        """
        if config["dataset"].get("verify", False) or not self.config.is_file():
            return
        before = yaml.safe_load(self.config.read_text())["dataset"]
        for key in ("root", "shards"):
            there, here = (str(settings.get(key) or "") for settings in (before, config["dataset"]))
            if there != here and Path(there).absolute() != Path(here).absolute():
                raise ConfigError(
                    f"dataset.{key}={here or 'null'}: the run in {self.root} was trained on "
                    f"{there or 'null'}; set another output_root, or dataset.{key}={there or 'null'} "
                    "if the data have only moved"
                )

    def prepare(self, resume: str) -> None:
        """Make the folder and check that it can be written, before any work.

        Raises ConfigError if ``resume`` is "never" and a run is here already, StorageError if it cannot be written.
        """
        if resume == "never" and (self.checkpoints.is_dir() or self.record.exists()):
            raise ConfigError(
                f"trainer.resume=never, but {self.root} holds a run: remove it, change output_root, or resume=auto"
            )
        files.probe_writable(self.root, "set output_root to a folder that can be written")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process from training in the same folder; the lock goes with this process."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"another process is training in {self.root}: wait for it, or change seed or output_root"
            ) from None
        try:
            yield
        finally:
            lock.release()
