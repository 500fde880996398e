"""Made-up records for tests: the values are no measurements and are chosen to be easy to add up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from randomix.records import record
from randomix.records.identity import run_name

LABELS = {
    "baseline": ("Baseline", "-"),
    "mixup": ("Mixup", "l"),
    "cutmix": ("CutMix", "m"),
    "randomix": ("RandoMix", "l+m"),
}
PROVENANCE = {
    "git_commit": "00000000000000000000000000000000000000aa",
    "git_dirty": False,
    "versions": {"python": "3.11.0", "torch": "0.0.0-fake"},
    "hardware": {"cpu": "Fake CPU", "cores": 2, "gpu": None, "gpu_count": 0},
    "world_size": 1,
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "started": "2001-01-01T00:00:00Z",
    "finished": "2001-01-01T00:01:00Z",
}


def config(method: str = "baseline", seed: int = 0, /, **changes: Any) -> dict[str, Any]:
    """A resolved configuration; ``changes`` are ``section={key: value}``."""
    whole: dict[str, Any] = {
        "dataset": {"name": "digits", "root": "/somewhere/data", "train_size": 200},
        "model": {"name": "preact_resnet18", "width": 16},
        "mixer": {"name": method, "label": LABELS.get(method, (method.title(), "m"))[0]},
        "recipe": {"name": "fake", "epochs": 3, "batch_size": 50, "lr": 0.1},
        "trainer": {"device": "auto", "precision": "fp32"},
        "logger": {},
        "evaluator": {"noise": {"sigma": 0.2}},
        "evaluators": ["clean", "noise"],
        "seed": seed,
        "output_root": "/somewhere/outputs",
    }
    for section, values in changes.items():
        whole[section] = {**whole[section], **values} if isinstance(values, dict) else values
    return whole


def text(
    method: str = "baseline",
    seed: int = 0,
    error: float = 10.0,
    /,
    *,
    noise: float | None = 50.0,
    cpu: float = 1.0,
    provenance: dict[str, Any] | None = None,
    kind: str = "train",
    data: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """The JSON text of a record whose last clean error is ``error`` and best one 1 less."""
    history = [
        {
            "epoch": e,
            "lr": 0.1,
            "train_loss": 3.0 - e / 2,
            "soft_top1": 50.0,
            "seconds": 9.0 if e == 1 else 2 * cpu,
            "cpu_seconds": 9.0 if e == 1 else cpu,
            "images_per_second": 100.0,
            "top1": 100 - error - 3 + e,
            "top1_error": error + 3 - e,
            "top5": 99.0,
            "test_loss": 0.5,
        }
        for e in (1, 2, 3)
    ]
    metrics = {} if noise is None else {"noise_error": noise}
    best = {"epoch": 2, "top1": 101 - error, "top1_error": error - 1}
    parts: dict[str, Any] = {"history": history, "best": best} if kind == "train" else {"history": [], "best": {}}
    return record.build_record(
        config(method, seed, **changes),
        kind=kind,
        evaluated={"metrics": metrics, "counts": {"clean": {"total": 597}}},
        candidates={method: 12},
        mode=LABELS.get(method, ("", "m"))[1],
        provenance=PROVENANCE | (provenance or {}),
        data={"sha256": "fake", "train_samples": 200, "test_samples": 597} | (data or {}),
        **parts,
    )


def fake(*args: Any, **options: Any) -> record.RunRecord:
    """The record itself; arguments as for ``text``."""
    return record.from_json(text(*args, **options))


def write_run(root: Path, *args: Any, **options: Any) -> Path:
    """A run's folder below ``root`` as the trainer leaves it; returns the path of its record."""
    content = text(*args, **options)
    folder = root / run_name(json.loads(content)["config"] | {"output_root": ""})
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(content)
    (folder / "status.json").write_text('{"state": "finished"}')
    (folder / "config.yaml").write_text("seed: 0\n")
    return folder / "record.json"


def damaged(change: Any) -> str:
    """A record's text after ``change(content)``."""
    content = copy.deepcopy(json.loads(text()))
    change(content)
    return json.dumps(content)
