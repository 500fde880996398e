"""Published corrupted test sets, made by hand: small ones of toy data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from tests.datasets.cifar_files import toy, write_python

NAMES = ("fog", "snow")


def clean_cifar(root: Path, name: str = "cifar10", test: int = 20) -> dict:
    """A toy CIFAR below ``root`` and the settings that read it."""
    write_python(root, name, toy(name, train=16, test=test))
    return {"name": name, "root": str(root), "verify": False}


def corrupted_cifar(folder: Path, images: np.ndarray, labels: np.ndarray, names=NAMES) -> dict[str, np.ndarray]:
    """NAME.npy and labels.npy of five severities: more and more noise; returns the arrays."""
    folder.mkdir(parents=True)
    rng, arrays = np.random.default_rng(1), {"labels": np.tile(labels, 5)}
    for name in names:
        parts = [images // 2 + rng.integers(0, 20 * severity, images.shape, dtype=np.uint8) for severity in range(1, 6)]
        arrays[name] = np.concatenate(parts)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return arrays


def corrupted_trees(folder: Path, clean: Path, names=NAMES, group: str = "") -> None:
    """NAME/SEVERITY/CLASS/*.JPEG, copies of the clean class folders."""
    for name in names:
        for severity in range(1, 6):
            shutil.copytree(clean, folder / group / name / str(severity))
