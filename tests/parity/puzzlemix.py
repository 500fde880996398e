"""Puzzle Mix on the images and saliency recorded from its authors' code: costs, energies, plans and mixed images."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from randomix import functional, labelling
from randomix.transport import move_cells, spread, transport_plan
from tests.parity import golden
from tests.parity.golden import Difference, largest

CASES = (
    "cifar_b2",
    "cifar_b4",
    "cifar_b8",
    "cifar_b16",
    "cifar_b4_2labels_notransport",
    "cifar_b8_adv",
    "tiny_b4",
    "tiny_b16",
)


@functools.cache
def _archive() -> dict[str, np.ndarray]:
    return golden.load("puzzlemix")


def recorded(case: str) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors of a case, and its numbers: p_block_num as block_num and so on."""
    data = {key.removeprefix(f"{case}__"): v for key, v in _archive().items() if key.startswith(f"{case}__")}
    numbers = {key.removeprefix("p_"): v.item() for key, v in data.items() if key.startswith("p_") and v.ndim == 0}
    numbers |= {key: data[f"p_{key}"].ravel().tolist() for key in ("mean", "std")}
    tensors = {key: torch.from_numpy(v) for key, v in data.items() if v.ndim > 0}
    return tensors, numbers


def cost_arguments(data: dict[str, Tensor], numbers: dict[str, object]) -> tuple[tuple, dict[str, object]]:
    """What ``puzzlemix_costs`` and ``puzzlemix_mask`` take."""
    given = (data["saliency"], data["index"], numbers["alpha"], data["x"], numbers["block_num"])
    return given, {k: numbers[k] for k in ("n_labels", "beta", "gamma", "eta", "neigh_size", "mean", "std")}


def costs() -> Iterator[Difference]:
    """The integers that the authors hand to their graph cut."""
    for case in CASES:
        data, numbers = recorded(case)
        given, options = cost_arguments(data, numbers)
        found = functional.puzzlemix_costs(*given, **options)
        for what, ours in zip(("int_unary", "int_w_v", "int_w_h"), found, strict=True):
            yield f"{case} {what}", largest(ours, data[what])


def energies() -> Iterator[tuple[str, float, float]]:
    """For each case the largest and the mean relative excess of our energy over the least and over the authors'."""
    for case in CASES:
        data, numbers = recorded(case)
        given, options = cost_arguments(data, numbers)
        labels, _ = functional.puzzlemix_mask(*given, **options)
        ours = labelling.energy(labels, *(data[key].double() for key in ("int_unary", "int_w_v", "int_w_h")))
        for what in ("exact", "swap"):
            excess = ours / data[f"energy_{what}"] - 1
            yield f"{case} {what}", float(excess.max()), float(excess.mean())


def images() -> Iterator[Difference]:
    """From the authors' labels on: masks, plans, moved cells, mixed images and shares."""
    for case in CASES:
        data, numbers = recorded(case)
        mask = 1 - data["labels_swap"].float() / (numbers["n_labels"] - 1)
        yield f"{case} mask", largest(mask, data["mask_graphcut"])
        yield f"{case} lam", largest(mask.mean((1, 2)), data["ratio"])
        clean, perm = data["x"], data["index"]
        noised = clean
        if data["p_noise"].numel():
            noised = functional.puzzlemix_perturb(clean, data["p_noise"], numbers["mean"], numbers["std"])
        shown = [noised if numbers["adv_mask1"] else clean, (noised if numbers["adv_mask2"] else clean)[perm]]
        if numbers["transport"]:
            saliencies, masks = (data["saliency"], data["saliency"][perm]), (mask, 1 - mask)
            for i in (0, 1):
                shares = data[f"transport_sal{i + 1}"]
                plan = transport_plan(spread(masks[i] > 0, shares.shape[1:]), shares, numbers["t_eps"])
                yield f"{case} plan{i + 1}", largest(as_matrix(*plan), data[f"plan{i + 1}"])
                yield f"{case} move_cells{i + 1}", largest(move_cells(shown[i], *plan), data[f"transported{i + 1}"])
                given = (shown[i], masks[i], saliencies[i], numbers["t_eps"], numbers["t_size"])
                shown[i] = functional.puzzlemix_transport(*given)
                yield f"{case} transported{i + 1}", largest(shown[i], data[f"transported{i + 1}"])
        weight = spread(mask, clean.shape[2:])[:, None]
        yield f"{case} mixed", largest(weight * shown[0] + (1 - weight) * shown[1], data["mixed"])


def whole() -> Iterator[Difference]:
    """All in one call, where our labels are the authors': where theirs are of least energy."""
    for case in CASES:
        data, numbers = recorded(case)
        given, options = cost_arguments(data, numbers)
        same = (functional.puzzlemix_mask(*given, **options)[0] == data["labels_swap"]).all((1, 2))
        inputs, perm, targets = data["x"], data["index"], torch.eye(len(data["x"]))
        noise = data["p_noise"] if data["p_noise"].numel() else None
        mixed = functional.puzzlemix(
            inputs,
            targets,
            perm,
            numbers["alpha"],
            data["saliency"],
            numbers["block_num"],
            **options,
            transport=bool(numbers["transport"]),
            t_eps=numbers["t_eps"],
            t_size=numbers["t_size"],
            noise=noise,
            noise_on=(bool(numbers["adv_mask1"]), bool(numbers["adv_mask2"])),
        )
        yield f"{case} inputs", largest(mixed.inputs[same], data["mixed"][same])
        yield f"{case} lam", largest(mixed.lam[same], data["ratio"][same])
        expected = data["ratio"][:, None] * targets + (1 - data["ratio"][:, None]) * targets[perm]
        yield f"{case} targets", largest(mixed.targets[same], expected[same])
        yield f"{case} no such sample", float(not same.any())


def as_matrix(source: Tensor, empty: Tensor) -> np.ndarray:
    """Plans (N, P, P) as the authors keep them: row = source, column = place, from source and empty (N, R, C)."""
    count, cells = len(source), source[0].numel()
    moved = torch.zeros(count, cells, cells).scatter_(1, source.reshape(count, 1, cells), 1.0)
    return (moved * ~empty.reshape(count, 1, cells)).numpy()


def puzzlemix() -> Iterator[Difference]:
    """All of them, for the table of differences."""
    yield from costs()
    yield from images()
    yield from whole()
    yield from ((f"energy above {what}", max(excess, 0.0)) for what, excess, _ in energies())
