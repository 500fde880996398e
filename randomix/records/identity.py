"""Which run is this? Names and folders as pure functions of a run's configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# How and where a run executes and what it is called, not what it computes: changing these continues the same run.
EXECUTION = {
    "trainer": {
        "device",
        "compile",
        "cuda_graph",
        "nproc",
        "threads",
        "resume",
        "eval_every_epochs",
        "checkpoint_every_epochs",
        "keep_last",
        "eval_batch_size",
        "timeout_minutes",
    },
    "dataset": {"root", "corrupted_root", "cache", "workers", "on_bad_sample", "max_bad_share"},
    "recipe": {"name"},
    "mixer": {"label"},
    "model": {"checkpoint_stages"},
}
# Where something lies: that it is there changes the result, its address does not.
ADDRESSES = {"dataset": {"shards"}}
# A setting at the value listed here leaves no trace in the hash. One that is added later gets its neutral value here,
# so that the runs before it keep their names. Never change a line.
NEUTRAL: dict[str, dict[str, Any]] = {
    "recipe": {
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4,
        "decay_norms": True,
        "schedule": "cosine",
        "milestones": [],
        "gamma": 0.1,
        "min_lr": 0.0,
        "warmup_epochs": 0.0,
        "loss": "cross_entropy",
        "accumulate": 1,
    },
    "trainer": {"precision": "auto", "deterministic": False},
    "dataset": {"verify": True},
    "evaluator": {
        "autoattack": {"eps_255": 8.0, "version": "standard", "seed": 0},
        "corruptions": {
            "source": "official",
            "names": "all",
            "severities": [1, 2, 3, 4, 5],
            "seed": 0,
            "allow_missing": False,
        },
        "fgsm": {"eps_255": 8.0, "quantize": False},
        "fgsm_sound": {"eps": [0.0005, 0.001, 0.002, 0.005, 0.01]},
        "occlusion_sweep": {
            "blocks": [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875],
            "placements": ["clipped", "inside"],
            "n_blocks": 1,
            "fill": 0.0,
            "seed": 0,
            "repeats": 1,
        },
        "pgd": {"eps_255": 8.0, "step_255": 2.0, "steps": 10, "random_start": True, "seed": 0, "quantize": False},
        "snr_noise": {"snr_db": [20.0, 10.0, 5.0, 0.0], "seed": 0, "repeats": 1},
        "validation": {},
    },
}
_SECTIONS = ("dataset", "model", "mixer", "recipe", "trainer")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved run configuration that determines its result, without the seed and neutral settings."""
    return {
        section: {
            key: True if key in ADDRESSES.get(section, ()) else value
            for key, value in config[section].items()
            if key not in EXECUTION.get(section, ()) and value is not None
            if NEUTRAL.get(section, {}).get(key, ...) != value
        }
        for section in _SECTIONS
    }


def evaluation(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the evaluators, without those at their neutral values; None where a configuration has none.

    An evaluator that came later and has no other settings is left out.
    """
    settings = config.get("evaluator")
    if settings is None:
        return None
    found = {}
    for name, values in settings.items():
        neutral = NEUTRAL["evaluator"].get(name)
        changed = {key: value for key, value in (values or {}).items() if (neutral or {}).get(key, ...) != value}
        if changed or neutral is None:
            found[name] = changed
    return found


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that are equal for runs that differ only in seed and in how they execute."""
    text = json.dumps(identity(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_name(config: Mapping[str, Any]) -> str:
    """``dataset/model/mixer-hash/seed-N``: the folder of a run below the output root, and the stem of its record."""
    names = (config["dataset"]["name"], config["model"]["name"])
    return "/".join([*names, f"{config['mixer']['name']}-{config_hash(config)}", f"seed-{config['seed']}"])


def run_folder(config: Mapping[str, Any]) -> Path:
    """Where a run lives; the same configuration always gives the same folder."""
    return Path(config["output_root"]) / run_name(config)


def mixer_label(mixer: Mapping[str, Any]) -> str:
    """A method's name in tables: its ``label``, with weights and candidates where the method has them."""
    label = str(mixer.get("label") or mixer["name"])
    if mixer.get("weights") is not None:
        label += " [" + ",".join(f"{w:g}" for w in mixer["weights"]) + "]"
    return label
