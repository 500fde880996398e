"""Co-Mixup: our functions on the inputs, draws and steps recorded from the authors' code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from randomix import functional, partition
from randomix.functional import cooperative
from tests.parity.golden import Difference, largest, load

CASES = ("part20", "part8", "part20_soft", "part20_b8", "part20_noresolve")


@dataclass(frozen=True)
class Case:
    """One recorded part: its arrays by name, as tensors, and the settings that differ between cases."""

    arrays: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.arrays[name]

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self["init_idx"].shape[1:])

    @property
    def settings(self) -> dict[str, float | int]:
        """Arguments of functional.comixup, as recorded."""
        return {
            "part_size": int(self["p_m_part"]),
            "beta": float(self["p_m_beta"]),
            "gamma": float(self["p_m_gamma"]),
            "eta": float(self["p_m_eta"]),
            "tau": float(self["p_m_thres"]),
            "omega": float(self["p_m_omega"]),
            "n_iter": int(self["p_m_niter"]),
            "set_resolve": bool(self["p_set_resolve"]),
        }


def cases() -> Iterator[tuple[str, str, Case]]:
    """Name, kind of penalty and arrays of each recorded part."""
    data = load("comixup")
    for name in CASES:
        found = {key.removeprefix(f"{name}__"): value for key, value in data.items() if key.startswith(f"{name}__")}
        penalty = str(found.pop("p_m_thres_type"))
        yield name, penalty, Case({key: torch.from_numpy(np.asarray(value)) for key, value in found.items()})


def one_hot(case: Case) -> Tensor:
    return torch.nn.functional.one_hot(case["y"], 100).float()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return largest(ours, theirs) / max(1.0, float(theirs.abs().max()))


def comixup() -> Iterator[Difference]:
    """Everything but the labels, which another solver finds: costs, penalties, objectives, and the mixing by masks."""
    for name, penalty, case in cases():
        saliency, eta = case["saliency"], case.settings["eta"]
        costs = functional.comixup_costs(saliency, case.size, case["dirichlet"], eta)
        peaks = cooperative.window_peaks(saliency)
        present = torch.ones(1, len(saliency), dtype=torch.bool)
        compatibility = cooperative.comixup_compatibility(peaks[None], present, case.settings["omega"])[0]
        yield f"{name} costs", largest(functional.comixup_costs(saliency, case.size), case["cost_before_prior"])
        yield f"{name} costs with prior", largest(costs, case["cost_after_prior"])
        yield f"{name} peaks", largest(peaks, case["peak_rc"])
        yield f"{name} compatibility", largest(compatibility, case["A"])
        for what, expected in (("obj_thres_final", True), ("obj_trace", False)):
            objective = functional.comixup_objective(case["mask_onehot"], costs, thresholded=expected)
            yield f"{name} {what}", relative(objective, case[what].flatten()[-1])
        mixed = cooperative.mix_cells(case["x"], one_hot(case), case["mask_onehot"][None])
        yield f"{name} inputs", largest(mixed.inputs, case["out"])
        yield f"{name} targets", largest(mixed.targets, case["target"])
        yield from _steps(name, penalty, case, costs, compatibility)


def _steps(name: str, penalty: str, case: Case, costs: Tensor, compatibility: Tensor) -> Iterator[Difference]:
    """The price of each cell and input at every step of the authors' iteration, and the labels it led them to."""
    masks = torch.nn.functional.one_hot(case["init_idx"], len(costs)).float()
    gamma, threshold = float(case["gamma_n"]), case.settings["tau"] * masks[0, ..., 0].numel()
    extra, iterations, count = torch.zeros(len(costs), len(costs)), case.settings["n_iter"], len(costs)
    for step, theirs in enumerate(case["trace_cost_penalty"]):
        output = step % count
        if output == 0 and step == (iterations - 1) * count and case.settings["set_resolve"]:
            extra = gamma * partition.told_apart(masks.sum((1, 2))[None])[0]
        counts = masks.sum((1, 2))
        yield f"{name} step {step} counts", largest(counts[output], case["trace_label_count_before"][step])
        price = partition.diversity_penalty(
            counts.sum(0) - counts[output], compatibility, gamma, threshold, penalty, "code"
        )
        yield f"{name} step {step} prices", relative(costs.movedim(0, -1) + price + extra[output], theirs)
        masks[output] = case["trace_mask"][step]


def solutions(precedence: str) -> Iterator[tuple[str, Tensor, float, float]]:
    """Our masks (n, B, B, n) from the authors' initial labels, and the thresholded objectives: ours, theirs."""
    for name, penalty, case in cases():
        parts = {"costs": case["cost_after_prior"].flatten(1), "init": case["init_idx"].flatten(1)}
        settings, cells = case.settings, parts["costs"].shape[1]
        problem = partition.Problem(
            parts["costs"][None],
            case["A"][None],
            torch.ones(1, len(parts["costs"]), dtype=torch.bool),
            case.size,
            settings["beta"] / cells,
            settings["gamma"] / cells,
            settings["tau"] * cells,
            penalty,
            precedence,
        )
        masks = partition.solve(problem, parts["init"][None], settings["n_iter"], settings["set_resolve"], repair=True)
        masks = masks[0].unflatten(1, case.size)
        ours = functional.comixup_objective(masks, case["cost_after_prior"])
        yield name, masks, float(ours), float(case["obj_thres_final"])
