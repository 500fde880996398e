"""Parity with the authors' released code: run our functions on the recorded draws, return the largest differences.

The vectors are read from $RANDOMIX_GOLDEN, or from ``shared/golden`` next to the repository; they are not part of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from randomix import functional, masks
from randomix.losses import soft_cross_entropy, softmax_bce

ROOT = Path(__file__).resolve().parents[2]
Difference = tuple[str, float]
"""What was compared, and the largest absolute difference in it."""


def folder() -> Path:
    """Where the golden vectors lie, existing or not."""
    return Path(os.environ.get("RANDOMIX_GOLDEN", ROOT.parent / "shared" / "golden"))


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(folder() / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def largest(ours: object, theirs: object) -> float:
    """Largest absolute difference in float64; infinite where the shapes differ."""
    a, b = (np.asarray(v.double() if isinstance(v, Tensor) else v, dtype=np.float64) for v in (ours, theirs))
    return float(np.abs(a - b).max()) if a.shape == b.shape else np.inf


def _batch(data: dict[str, np.ndarray], inputs: str) -> tuple[Tensor, Tensor]:
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(data["y"]), 100).float()
    return torch.from_numpy(data[inputs]), one_hot


def _expected_targets(targets: Tensor, perm: Tensor, lam: float) -> np.ndarray:
    return lam * targets.double().numpy() + (1 - lam) * targets.double().numpy()[perm.numpy()]


def mixup() -> Iterator[Difference]:
    data = load("mixup")
    inputs, targets = _batch(data, "x")
    for case in ("alpha1.0", "alpha0.2"):
        lam, perm = float(data[f"{case}_lam"]), torch.from_numpy(data[f"{case}_perm"])
        mixed = functional.mixup(inputs, targets, perm, lam)
        yield f"{case} inputs", largest(mixed.inputs, data[f"{case}_mixed"])
        yield f"{case} targets", largest(mixed.targets, _expected_targets(targets, perm, lam))
        yield f"{case} lam", largest(mixed.lam, data[f"{case}_w_a"])
        loss = soft_cross_entropy(torch.from_numpy(data["logits"]), mixed.targets)
        yield f"{case} loss", largest(loss, data[f"{case}_loss"])


def cutmix() -> Iterator[Difference]:
    data = load("cutmix")
    for case in [f"c{i}" for i in range(6)] + [f"rect{i}" for i in range(3)]:
        inputs, targets = _batch(data, "x" if case.startswith("c") else "x_rect")
        box, perm = tuple(data[f"{case}_box"].tolist()), torch.from_numpy(data[f"{case}_perm"])
        for form, given in (("box", box), ("boxes", torch.tensor(box).expand(len(inputs), 4))):
            mixed = functional.cutmix(inputs, targets, perm, given)
            yield f"{case} {form} inputs", largest(mixed.inputs, data[f"{case}_mixed"])
            yield f"{case} {form} lam", largest(mixed.lam, np.full(len(inputs), data[f"{case}_lam_true"]))
            expected = _expected_targets(targets, perm, float(data[f"{case}_lam_true"]))
            yield f"{case} {form} targets", largest(mixed.targets, expected)


def cutmix_boxes() -> Iterator[Difference]:
    for height, width, lam, row, column, *box in load("cutmix")["box_table"].tolist():
        spatial, center = (int(height), int(width)), (int(row), int(column))
        yield f"{spatial} lam {lam:.4f}", largest(functional.cutmix_box(spatial, lam, center), box)
        many = functional.cutmix_box(spatial, np.array([lam, lam]), np.array([center, center]))
        yield f"{spatial} lam {lam:.4f} per sample", largest(many, [box, box])


FMIX_CASES = ("m32", "m64", "m224", "m28", "rect", "odd", "m32_soft", "m32_d15", "d1_16000", "d1_32", "m32x32_ref")


def fmix() -> Iterator[Difference]:
    data = load("fmix")
    for case in FMIX_CASES:
        *shape, _, decay_power, max_soft = data[f"{case}_params"].tolist()
        spatial = tuple(int(size) for size in shape)
        for draw in (f"{case}_{i}" for i in range(100) if f"{case}_{i}_mask" in data):
            noise = torch.from_numpy(data[f"{draw}_noise"][0])
            image = masks.low_frequency(noise, spatial, decay_power, "code").numpy()
            image = (image - image.min()) / (image - image.min()).max()
            yield f"{draw} image", largest(image, data[f"{draw}_grey"].reshape(spatial))
            lam, up = float(data[f"{draw}_lam"]), bool(data[f"{draw}_coin"] > 0.5)
            mask = functional.fmix_mask(noise, spatial, lam, decay_power, up, max_soft, spectrum="code")
            yield f"{draw} mask", largest(mask.float(), data[f"{draw}_mask"].reshape(spatial))
    inputs, targets = _batch(data, "x")
    lam, perm = float(data["apply_lam"]), torch.from_numpy(data["apply_index"])
    noise, up = torch.from_numpy(data["apply_noise"][0]), bool(data["apply_coin"] > 0.5)
    mixed = functional.fmix(
        inputs, targets, perm, functional.fmix_mask(noise, (32, 32), lam, round_up=up, spectrum="code"), lam
    )
    yield "apply inputs", largest(mixed.inputs, data["apply_mixed"])
    yield "apply targets", largest(mixed.targets, _expected_targets(targets, perm, lam))


def resizemix() -> Iterator[Difference]:
    data = load("resizemix_original")
    for i in range(8):
        inputs, targets = _batch(data, "x" if i < 5 else "x_rect" if i < 7 else "x64")
        scale, perm = float(data[f"r{i}_tau"]), torch.from_numpy(data[f"r{i}_perm"])
        boxes = torch.from_numpy(data[f"r{i}_box_r1_c1_r2_c2"])
        lam = float(data[f"r{i}_lam"])
        for form, given in (("scale", scale), ("scales", torch.full((len(inputs),), scale, dtype=torch.float64))):
            mixed = functional.resizemix(inputs, targets, perm, given, boxes)
            yield f"r{i} {form} inputs", largest(mixed.inputs, data[f"r{i}_mixed"])
            yield f"r{i} {form} lam", largest(mixed.lam, np.full(len(inputs), lam))
            yield f"r{i} {form} targets", largest(mixed.targets, _expected_targets(targets, perm, lam))


def losses() -> Iterator[Difference]:
    data = {key: torch.from_numpy(value) for key, value in load("manifold_mixup").items()}
    logits, targets = data["logits"], data["a2.0_target_out"]
    yield "softmax_bce", largest(softmax_bce(logits, targets), data["bce_loss"])
    yield "soft_cross_entropy", largest(soft_cross_entropy(logits, targets), data["ce_loss_soft"])


METHODS: dict[str, Callable[[], Iterator[Difference]]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "cutmix box_table": cutmix_boxes,
    "fmix": fmix,
    "resizemix": resizemix,
    "losses": losses,
}
