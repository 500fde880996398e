"""Checkpoints that survive kills, full disks and flipped bits.

A folder holds ``step-00000240.pt`` (the newest ``keep_last``), ``last.pt`` and ``best.pt``; the latter two are further
names of step files. A file gets its name only after it was written completely, synced and its checksums were read back.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from randomix.errors import USER, RunError, StorageError
from randomix.files import atomic_file, check_space, link_atomic, storage_errors

FORMAT = 1  # of the states in the files; one more whenever an older reader would misread them
REQUIRED = (
    "format",
    "step",
    "world_size",
    "precision",
    "data",
    "model",
    "optimizer",
    "scaler",
    "average",
    "history",
    "best",
    "candidates",
    "seconds",
    "meter",
    "config",
)
_STEP_FILE = re.compile(r"step-(\d{8,})\.pt")


def _warn(text: str) -> None:
    print(f"warning: {text}")


class CheckpointError(RunError):
    """A checkpoint that cannot be used: ``path`` and ``reason``."""

    exit_code = USER

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"checkpoint {path}: {reason}")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that was read and verified."""

    state: dict[str, Any]
    path: Path
    step: int


class Checkpointer:
    """Saves and finds the checkpoints of one run; only rank 0 calls ``save``.

    keep_last: how many step files stay, at least 1; -1 keeps all.
    log: receives one line, a warning, for every damaged file that is passed over or cannot be removed.
    """

    def __init__(self, folder: Path, keep_last: int = 2, log: Callable[[str], None] = _warn) -> None:
        if keep_last != -1 and keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; use 1 or more, or -1 for all")
        self.folder, self.keep_last, self.log = Path(folder), keep_last, log

    def save(self, state: Mapping[str, Any], *, step: int, is_best: bool = False) -> Path:
        """Write ``state`` as the newest checkpoint and return ``last.pt``.

        Raises StorageError when it cannot be written: what was saved before stays usable. Older step files go only
        after the new one was verified; files of other names are never touched.
        """
        state = dict(state)
        if state.get("step") != step:
            raise ValueError(f"step is {step} but state['step'] is {state.get('step')}")
        _check_content(state)
        _check_plain(state, "state")
        path = self.folder / f"step-{step:08d}.pt"
        with storage_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(path, state)
            link_atomic(path, self.folder / "last.pt")
            if is_best:
                link_atomic(path, self.folder / "best.pt")
        except StorageError as error:
            good = next((p.name for p in self._candidates()), "none")
            raise StorageError(f"{error}; last good checkpoint: {good}") from error
        self._prune(step)
        return self.folder / "last.pt"

    def require_space(self, size: int, saves: int) -> None:
        """Raise StorageError unless the folder's disk holds what ``saves`` more files of ``size`` bytes will take.

        At most the newest ``keep_last``, the best and the one being written lie there at a time.
        """
        copies = saves if self.keep_last < 0 else min(saves, self.keep_last + 2)
        have = 0 if self.keep_last < 0 else sum(path.stat().st_size for path in self._candidates())
        need = copies * size - have
        with storage_errors(self.folder / "last.pt", need):
            self.folder.mkdir(parents=True, exist_ok=True)
            check_space(self.folder, need)

    def load(self, map_location: str | torch.device = "cpu") -> Loaded | None:
        """The newest usable checkpoint, or None where there is none.

        Raises CheckpointError when there are checkpoints but none can be used: a run never silently starts again.
        """
        damaged = []
        for path in self._candidates():
            try:
                state = read(path, map_location)
            except CheckpointError as error:
                self.log(f"{error}; trying an older one")
                damaged.append(path.name)
                continue
            return Loaded(state, path, state["step"])
        if damaged:
            raise CheckpointError(
                self.folder, f"none of {', '.join(damaged)} can be used; restore one, or use another run folder"
            )
        return None

    def _candidates(self) -> Iterator[Path]:
        """The files of this folder, newest first, each file once whatever its names."""
        steps = [path for _, path in self._step_files()]
        last, best = self.folder / "last.pt", self.folder / "best.pt"
        seen = set()
        for path in [*steps[:1], last, *steps[1:], best]:  # a copied last.pt equals the newest step file
            if not path.is_file():
                continue
            file = path.stat()
            if (file.st_dev, file.st_ino) not in seen:
                seen.add((file.st_dev, file.st_ino))
                yield path

    def _step_files(self) -> list[tuple[int, Path]]:
        """(step, path) of the step files, newest first."""
        found = [(match, path) for path in self.folder.glob("step-*.pt") if (match := _STEP_FILE.fullmatch(path.name))]
        return sorted(((int(match.group(1)), path) for match, path in found), reverse=True)

    def _prune(self, step: int) -> None:
        if self.keep_last < 0:
            return
        old = [path for at, path in self._step_files() if at <= step][self.keep_last :]
        for path in old:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:  # a file that stays costs space, not the run
                self.log(f"cannot remove {path}: {error.strerror}")


def read(path: Path, map_location: str | torch.device = "cpu") -> dict[str, Any]:
    """The verified state in one file. Raises CheckpointError whatever is wrong with it; never runs code from it."""
    path = Path(path)
    if path.suffix == ".safetensors":
        raise CheckpointError(path, "holds weights alone, it is not a checkpoint; use checkpoints/last.pt of the run")
    try:
        with open(path, "rb") as file:
            _verify(file)
            file.seek(0)
            state = torch.load(file, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(path, "no such file") from None
    except PermissionError:
        raise CheckpointError(path, "cannot be read: permission denied; ask its owner, or copy the run") from None
    except MemoryError:
        raise
    except Exception as error:  # torch.load raises anything from EOFError to UnpicklingError
        raise CheckpointError(path, _reason(error)) from error
    try:
        _check_content(state)
    except ValueError as error:
        raise CheckpointError(path, str(error)) from None
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    need = sum(t.untyped_storage().nbytes() for t in _unique_tensors(state)) + 2**16
    with atomic_file(path, need, verify=_verify_path) as file:
        sink = _Sink(file)
        try:
            torch.save(state, cast(IO[bytes], sink))
        except Exception:
            if sink.error is not None:  # torch reports a full disk as "unexpected pos 704 vs 598"
                raise sink.error from None
            raise


class _Sink:
    """Passes writes on and remembers the operating system's error, which torch.save replaces by its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _verify_path(path: Path) -> None:
    with open(path, "rb") as file:
        try:
            _verify(file)
        except (ValueError, zipfile.BadZipFile) as error:
            raise OSError(f"read back damaged: {error}") from error


def _verify(file: BinaryIO) -> None:
    """Compare every member's checksum, which torch.load does not."""
    if os.fstat(file.fileno()).st_size == 0:
        raise ValueError("the file is empty")
    with zipfile.ZipFile(file) as archive:
        bad = archive.testzip()
    if bad is not None:
        raise ValueError(f"checksum of {bad} is wrong")


def _reason(error: Exception) -> str:
    if isinstance(error, zipfile.BadZipFile):
        return f"truncated, damaged or not a checkpoint ({error})"
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _check_content(state: Any) -> None:
    if not isinstance(state, dict):
        raise ValueError(f"holds a {type(state).__name__}, not a training state")
    missing = [key for key in REQUIRED if key not in state]
    if "format" not in missing and (type(state["format"]) is not int or state["format"] != FORMAT):
        raise ValueError(f"has format {state['format']!r:.20}, this version reads {FORMAT}: another version wrote it")
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")


def _check_plain(value: Any, where: str) -> None:
    """Refuse at save time what ``weights_only=True`` would refuse at load time."""
    if value is None or isinstance(value, Tensor) or type(value) in (str, int, float, bool):
        return
    if isinstance(value, Mapping) and isinstance(value, dict):
        for key, item in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"{where} has the key {key!r}; checkpoint keys are str or int")
            _check_plain(item, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_plain(item, f"{where}[{index}]")
    else:
        raise TypeError(
            f"{where} is a {type(value).__name__}; a checkpoint holds tensors, containers, text and numbers"
        )


def _unique_tensors(value: Any) -> Iterator[Tensor]:
    stack, seen = [value], set()
    while stack:
        item = stack.pop()
        if isinstance(item, Tensor):
            if (key := item.untyped_storage().data_ptr()) not in seen:
                seen.add(key)
                yield item
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
