"""Corrupted test sets made here from the clean test images, where there are no published ones; results say so.

A cell is a cache of its own, so that a generation that was cut off goes on after the finished ones. It is made on the
CPU: the same bits for every device.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.cache import cached_arrays
from datasets.integrity import array_digest
from datasets.places import data_root
from randomix.errors import ConfigError, DataError, StorageError


def require_images(name: str, shape: tuple[int, ...], dtype: Any = np.uint8) -> None:
    """ConfigError unless samples (..., C) of this shape and type can be corrupted."""
    if len(shape) != 3 or shape[-1] not in (1, 3) or dtype != np.uint8:
        raise ConfigError(
            f"evaluators has corruptions, which takes grey or colour images of 8 bits; the samples of "
            f"{name} are {np.dtype(dtype)} of shape {shape}"
        )


def cache_folder(config: Mapping[str, Any], folder: Path | None = None) -> Path:
    """Where generated sets are kept: ``dataset.cache``, beside the data set's ``folder``, or in the usual place."""
    if config.get("cache"):
        return Path(config["cache"]).expanduser()
    beside = Path(os.path.abspath(folder)).parent if folder is not None else None
    usable = beside is not None and os.access(beside, os.W_OK)
    return (beside if usable and beside is not None else data_root()) / ".randomix-cache"


@dataclass(frozen=True, eq=False)
class Generated:
    """Makes and keeps the corrupted sets of test images (N, H, W, C) uint8 of the data set ``name`` below ``cache``."""

    name: str
    images: np.ndarray
    cache: Path

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the clean images."""
        return array_digest(self.images)

    def cell(self, name: str, severity: int, seed: int) -> np.ndarray:
        """The images of one corruption and severity, a map of their file; made now, or before from the same."""
        from randomix.robustness import corruptions
        from randomix.robustness.corruptions.frost import frost_source

        folder = self.cache / f"{self.name}-c-{self.digest[:12]}-seed{seed}" / f"{name}-{severity}"
        source = {
            "set": self.name,
            "corruption": name,
            "severity": severity,
            "seed": seed,
            "generator": corruptions.VERSION,
            "clean_sha256": self.digest,
        }
        if name == "frost":
            source["frost"] = frost_source()

        def make() -> dict[str, np.ndarray]:
            if folder.exists():
                print(f"{folder}: damaged, or made by another generator; made again", file=sys.stderr, flush=True)
            try:
                return {"images": corruptions.corrupt(self.images, name, severity, seed=seed)}
            except OSError as error:  # not of the place where they are kept
                raise DataError(f"{self.name}: {name} at severity {severity} cannot be made: {error}") from error

        try:
            return cached_arrays(folder, source, make, need=self.images.nbytes)["images"]
        except StorageError as error:
            raise StorageError(
                f"{error}; generated test sets are kept beside the data set, or in the folder that the "
                "environment variable RANDOMIX_DATA names"
            ) from error
