"""Arrays that are expensive to make, kept on disk: made by one process, checked by all, mapped instead of read.

A cache is a folder of .npy files with a manifest that names the arrays' checksums and what they were made from. It has
its name only when it is whole. A cache that is damaged or was made from other files is made anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from randomix.files import check_space, storage_errors, write_atomic

MANIFEST = "manifest.json"
FORMAT = 1


def cached_arrays(
    folder: Path, source: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]], need: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of ``make()``, from ``folder`` if they were made from an equal ``source`` before.

    folder: of this cache alone. source: plain data that identifies what goes in (checksums, sizes and times of files,
    options, a version of the code that makes it). need: bytes to expect, so that a full disk is found out first.
    The arrays are read-only maps of their files. Every file's SHA-256 is compared each time. Several processes may ask
    at once: one makes it, the others wait. Raises StorageError where nothing can be written.
    """
    source = json.loads(json.dumps({"format": FORMAT, **source}))
    if (arrays := _load(folder, source)) is not None:
        return arrays
    with storage_errors(folder, need):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if (arrays := _load(folder, source)) is not None:
                return arrays
            check_space(folder.parent, need)
            _write(folder, source, make())
    arrays = _load(folder, source)
    if arrays is None:
        raise RuntimeError(f"{folder}: written a moment ago and not the same when read back; check the disk")
    return arrays


def _load(folder: Path, source: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays if the manifest has this source and every file its checksum, else None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["source"] != source:
            return None
        for name, digest in manifest["sha256"].items():
            with (folder / f"{name}.npy").open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    return None
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in manifest["sha256"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, cut, or not ours
        return None


def _write(folder: Path, source: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed; its lock is ours now
    part.mkdir()
    digests = {}
    for name, array in arrays.items():
        with (part / f"{name}.npy").open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        with (part / f"{name}.npy").open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    write_atomic(part / MANIFEST, json.dumps({"source": source, "sha256": digests}, indent=1))
    if folder.is_symlink() or folder.is_file():  # no cache, but in its place
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
