"""Cutout and SaliencyMix on the draws recorded from their authors' code, and the saliency behind SaliencyMix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from randomix import functional
from tests.parity.golden import Difference, largest, load

MEAN = tuple(v / 255 for v in (129.3, 124.1, 112.4))
STD = tuple(v / 255 for v in (68.2, 65.4, 70.4))


def cutout() -> Iterator[Difference]:
    data = load("cutout")
    inputs = torch.from_numpy(data["x"])
    for length in (8, 16, 7):
        centers, expected = data[f"L{length}_centre_yx"], data[f"L{length}_out"]
        yield f"length {length} inputs", largest(functional.cutout(inputs, centers, length), expected)
        last = functional.cutout(inputs.to(memory_format=torch.channels_last), torch.from_numpy(centers), length)
        yield f"length {length} channels_last inputs", largest(last, expected)


def saliencymix() -> Iterator[Difference]:
    data = load("saliencymix")
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(data["y"]), 100).float()
    for case in [f"s{i}" for i in range(6)]:
        inputs = torch.from_numpy(data["x" if case < "s4" else "x_rect"])
        lam, perm = float(data[f"{case}_lam_drawn"]), torch.from_numpy(data[f"{case}_perm"])
        own, peak = float(data[f"{case}_lam_true"]), data[f"{case}_peak_rc"]
        targets = own * one_hot.double() + (1 - own) * one_hot.double()[perm]
        for form, given in (("peak", tuple(peak.tolist())), ("peaks", torch.from_numpy(peak).expand(len(inputs), 2))):
            mixed = functional.saliencymix(inputs, one_hot, perm, lam, given)
            yield f"{case} {form} inputs", largest(mixed.inputs, data[f"{case}_mixed"])
            yield f"{case} {form} lam", largest(mixed.lam, np.full(len(inputs), own))
            yield f"{case} {form} targets", largest(mixed.targets, targets)
        yield f"{case} box", largest(functional.cutmix_box(inputs.shape[2:], lam, peak), data[f"{case}_box"])


def saliency_maps() -> Iterator[Difference]:
    """Of the whole batch by torch, and of single images by NumPy."""
    data = load("saliencymix")
    inputs = torch.from_numpy(data["x"])
    images, floats = functional.to_uint8(inputs, MEAN, STD), inputs.movedim(1, -1)
    for what, find, given, expected in (
        ("uint8", functional.fine_grained_saliency, images, data["salmaps_from_uint8"]),
        ("as published", functional.published_saliency, floats, data["salmaps_from_normalised_float"]),
    ):
        yield f"{what} batch map", largest(find(given), expected)
        for i in range(len(inputs)):
            yield f"{what} {i} map", largest(find(given[i : i + 1])[0], expected[i])


def saliency_of_partners() -> Iterator[Difference]:
    """The authors' path from a batch to the peak: normalised floats of the first sample's partner."""
    data = load("saliencymix")
    for case in [f"s{i}" for i in range(6)]:
        inputs = torch.from_numpy(data["x" if case < "s4" else "x_rect"])
        partner = inputs[data[f"{case}_perm"][:1]].movedim(1, -1)
        saliency = functional.published_saliency(partner)
        yield f"{case} map", largest(saliency[0], data[f"{case}_salmap_float"])
        yield f"{case} uint8 map", largest((saliency[0] * 255).to(torch.uint8), data[f"{case}_salmap_u8"])
        yield f"{case} peak", largest(functional.saliency_peaks(saliency)[0], data[f"{case}_peak_rc"])


METHODS = {
    "cutout": cutout,
    "saliencymix": saliencymix,
    "saliencymix maps": saliency_maps,
    "saliencymix peaks": saliency_of_partners,
}
