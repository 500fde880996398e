"""Evaluate a trained network on clean, noisy and occluded images: python eval.py --help."""

from __future__ import annotations

from typing import Any

from randomix.engine import cli
from randomix.engine.schema import EvalConfig


def evaluate(config: dict[str, Any], label: str) -> int:
    """One evaluation of a resolved configuration; returns its exit code."""
    import datasets
    import models
    from randomix.runs.build import run_evaluation

    return run_evaluation(config, datasets.build, models.build)


if __name__ == "__main__":
    cli.main(evaluate, config_name="eval", schema=EvalConfig)
