"""Train image classifiers with mixed-sample data augmentation: python train.py --help."""

from __future__ import annotations

from typing import Any

from randomix.engine import cli


def train(config: dict[str, Any], label: str) -> int:
    """One run of a resolved configuration; returns its exit code. Imports wait until the command line is checked."""
    import datasets
    import models
    from randomix.runs.build import run_training

    return run_training(config, datasets.build, models.build, label=label)


if __name__ == "__main__":
    cli.main(train, config_name="train")  # hydra.main, with mistakes reported at once
