"""Where a number comes from: commit, versions and hardware, without host names, user names or paths."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("train.py", "eval.py", "randomix", "models", "datasets", "configs", "scripts")  # what can change a result
_PACKAGES = ("randomix", "torch", "torchvision", "torchaudio", "numpy", "scipy", "scikit-learn", "hydra-core")


def collect(
    *, started: float, world_size: int = 1, device: str = "cpu", precision: str = "fp32", threads: int | None = None
) -> dict[str, Any]:
    """The provenance of a run that began at ``started`` (``time.time()``) and ends now.

    Works without git and outside a checkout: what cannot be found out is None.
    """
    commit, dirty = git_state(_ROOT)
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": versions(),
        "hardware": hardware(),
        "world_size": world_size,
        "device": device,
        "precision": precision,
        "threads": threads,
        "started": iso(started),
        "finished": iso(time.time()),
    }


def iso(seconds: float) -> str:
    """A point in time as UTC, ISO 8601, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """(commit, whether the code in ``root`` differs from it), or (None, None) if ``root`` is no checkout of its own."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root.resolve():  # an installed package may lie in somebody else's checkout
        return None, None
    commit = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", *_CODE)
    return commit, None if changes is None else bool(changes)


def _git(root: Path, *arguments: str) -> str | None:
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}  # never in the way of somebody's commit
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages a result may depend on; CUDA's if torch is loaded."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    torch = sys.modules.get("torch")
    if torch is not None and torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def hardware() -> dict[str, Any]:
    """CPU model and usable cores; GPU model and number if torch is loaded and sees one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"cpu": _cpu_model(), "cores": cores, "gpu": None, "gpu_count": 0}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
        found["gpu_count"] = torch.cuda.device_count()
    return found


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.machine())
