"""The cells of Tables 1 to 6 that a run of configs/experiment/table* fills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from randomix.records.paper import AUTHORS, BASELINE_ROW

ROBUSTNESS = ("top1_error", "fgsm_error", "corruption_error", "occlusion_error")
_INITIALS = {"mixup": "M", "cutmix": "C", "resizemix": "R", "fmix": "F"}  # in the order of Table 6


def cells_of(experiment: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """The ids of the cells that a run of an experiment with the configuration ``config`` fills; ValueError for others.

    A run may fill cells of other tables too: Table 4's networks are those of Table 1, Table 6 repeats rows of Table 2.
    """
    dataset, model, mixer = config["dataset"]["name"], config["model"]["name"], config["mixer"]
    table = experiment.partition("_")[0]
    if experiment.startswith(f"table1_{AUTHORS}_"):
        return (f"table1/{AUTHORS}-{mixer['name']}/{dataset}-{model}",)
    if table == "table1":
        return (f"table1/{mixer['name']}/{dataset}-{model}",)
    if table == "table2":
        columns = ("top1", "top5", "cost") if dataset == "imagenet" else ("top1", "top5")
        return (*(f"table2/{mixer['name']}/{dataset}-{column}" for column in columns), *_again(dataset, mixer))
    if table == "table3":
        return tuple(f"table3/{mixer['name']}/{column}" for column in ("validation_top1", "top1"))
    if table == "table4":
        return tuple(f"table4/{mixer['name']}/{column}" for column in ROBUSTNESS)
    if table == "table5":
        row = f"{mixer['name']}-{''.join(f'{w:g}' for w in mixer['weights'])}"
        return tuple(f"table5/{row}/{column}" for column in ROBUSTNESS)
    if table == "table6":
        return (f"table6/{candidates(mixer)}/top1",)
    raise ValueError(f"experiment {experiment} belongs to no table of the paper")


def candidates(mixer: Mapping[str, Any]) -> str:
    """The row of Table 6: ``MC`` for the candidates Mixup and CutMix, or for a method alone its letter."""
    if mixer["name"] == BASELINE_ROW:
        return BASELINE_ROW
    names = mixer.get("candidates") or [mixer["name"]]
    return "".join(letter for name, letter in _INITIALS.items() if name in names)


def _again(dataset: str, mixer: Mapping[str, Any]) -> tuple[str, ...]:
    """Table 6 repeats what Table 2 has of Baseline, of its four candidates alone and of all of them."""
    there = mixer["name"] in (BASELINE_ROW, "randomix", *_INITIALS)
    return (f"table6/{candidates(mixer)}/top1",) if dataset == "tiny_imagenet" and there else ()
