"""Parity of the methods that mix hidden features, on the features and draws recorded from their authors' code."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from randomix import functional
from randomix.losses import soft_cross_entropy, softmax_bce
from tests.parity.golden import Difference, largest, load


def manifold_mixup() -> Iterator[Difference]:
    data = load("manifold_mixup")
    hidden, targets, logits = (torch.from_numpy(data[key]) for key in ("hidden", "onehot", "logits"))
    for case in ("a2.0", "a0.2"):
        lam, perm = float(data[f"{case}_lam"][0]), torch.from_numpy(data[f"{case}_perm"])
        mixed = functional.manifold_mixup(hidden, targets, perm, lam)
        yield f"{case} hidden", largest(mixed.inputs, data[f"{case}_hidden_out"])
        yield f"{case} targets", largest(mixed.targets, data[f"{case}_target_out"])
        if case == "a2.0":
            yield f"{case} softmax_bce", largest(softmax_bce(logits, mixed.targets), data["bce_loss"])
            yield f"{case} cross_entropy", largest(soft_cross_entropy(logits, mixed.targets), data["ce_loss_soft"])


def patchup() -> Iterator[Difference]:
    data = load("patchup")
    targets, logits = torch.from_numpy(data["onehot"]), torch.from_numpy(data["logits"])
    for case in [f"soft{i}" for i in range(4)] + [f"hard{i}" for i in range(4, 8)]:
        known = {key.removeprefix(f"{case}_"): value for key, value in data.items() if key.startswith(f"{case}_")}
        hidden, perm = torch.from_numpy(known["hidden"]), torch.from_numpy(known["perm"])
        block, lam = int(known["block"]), float(known["lam"])
        gamma = functional.patchup_gamma(float(known["gamma"]), hidden.shape[2:], block)
        yield f"{case} gamma_adj", largest(gamma, known["gamma_adj"])
        mask = functional.patchup_mask(torch.from_numpy(known["bernoulli_centres"]).bool(), block)
        yield f"{case} holes", largest(mask.float(), known["holes"])
        for layout in (torch.contiguous_format, torch.channels_last):
            mixed = functional.patchup(
                hidden.contiguous(memory_format=layout), targets, perm, mask, lam, hard=case.startswith("hard")
            )
            form = f"{case} {str(layout).removeprefix('torch.')}"
            yield f"{form} hidden", largest(mixed.hidden, known["hidden_out"])
            yield f"{form} own", largest(mixed.own, known["target_a"])
            yield f"{form} altered", largest(mixed.altered, known["target_b"])
            yield f"{form} targets", largest(mixed.targets, known["target_reweighted"])
            yield f"{form} unchanged", largest(mixed.unchanged, known["unchanged_portion"])
            loss = mixed.unchanged * softmax_bce(logits, mixed.own)
            loss += (1 - mixed.unchanged) * softmax_bce(logits, mixed.altered) + softmax_bce(logits, mixed.targets)
            yield f"{form} three-term loss", largest(loss, known["loss"])
            yield f"{form} one loss twice", largest(2 * softmax_bce(logits, mixed.targets), known["loss"])
