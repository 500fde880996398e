"""The mixing operations of other libraries, called as their documentation says, set to do what ours do.

Imported where used: a library that is not installed is left out, and ``absent`` says so.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from bench import authors
from bench.authors import NEAR_HALF

PACKAGES = {  # library: the package that has it, what installs it
    "torchvision": ("torchvision", "pip install -e '.[train]'"),
    "timm": ("timm", "pip install -e '.[bench]'"),
    "kornia": ("kornia", "pip install -e '.[bench]'"),
    "OpenCV": ("opencv-contrib-python-headless", "pip install opencv-contrib-python-headless"),
    "gco": ("gco-wrapper", "pip install -e '.[graphcut]'"),
}
AUTHORS = "authors' form"
DIFFERENCES = {
    "torchvision": "v2.MixUp, v2.CutMix. Pairs neighbours of the batch (a roll) instead of drawing partners.",
    "timm": "data.mixup.Mixup (mode batch, no smoothing), data.random_erasing.RandomErasing. Mixes in place: the batch "
    "that went in is lost. Pairs the first sample with the last (a flip) instead of drawing partners. Erases sample by "
    "sample, rectangles that lie inside.",
    "timm, copy": "the same on a copy: the batch that went in is kept, as by ours and all others.",
    "kornia": "RandomMixUpV2, RandomCutMixV2 (same_on_batch: one lam and one box, as ours), RandomErasing (a rectangle "
    "for each sample). Returns label, partner's label and lam of each sample instead of dense targets; rectangles lie "
    "inside.",
    AUTHORS: "a plain implementation of what the method's authors do, on a copy where theirs overwrite the batch. "
    "Returns both labels and lam instead of dense targets: their loss is taken twice. SaliencyMix: OpenCV's detector; "
    "Puzzle Mix: one graph cut after another (gco); RandoMix: its four candidates' forms in turn.",
}


@dataclass(frozen=True)
class Rival:
    """``run(inputs, labels)`` gives mixed inputs and what a loss needs; in_place: it overwrites its inputs."""

    run: Callable[[Tensor, Tensor], object]
    in_place: bool = False


def absent() -> dict[str, str]:
    """Libraries that are not installed, with what installs them."""
    return {name: install for name, (_, install) in PACKAGES.items() if not _has(name)}


def versions() -> dict[str, str]:
    """Versions of the libraries that are installed."""
    return {package: metadata.version(package) for name, (package, _) in PACKAGES.items() if _has(name)}


def _has(library: str) -> bool:
    if library == "OpenCV":  # other packages bring the same module without the detector
        return importlib.util.find_spec("cv2") is not None and hasattr(importlib.import_module("cv2"), "saliency")
    return importlib.util.find_spec(library) is not None


def of(method: str, shape: Sequence[int], classes: int, device: torch.device) -> dict[str, Rival]:
    """The rivals of ``method`` for samples of ``shape`` (C, *S), by name; none of those that are not installed."""
    found: dict[str, Rival] = {}
    for library, makers in MAKERS.items():
        if method in makers and _has(library) and (len(shape) == 3 or method == "mixup"):  # boxes in 1-D: nobody
            found[library] = makers[method](shape, classes, device)
    if "timm" in found:
        in_place = found["timm"].run
        found["timm, copy"] = Rival(lambda inputs, labels: in_place(inputs.clone(), labels))
    plain = authors.forms().get(method)
    if plain is not None and (method != "saliencymix" or (_has("OpenCV") and len(shape) == 3)):
        found[AUTHORS] = Rival(plain)
    return found


def _torchvision(name: str, **options: Any) -> Callable[..., Rival]:
    def make(shape: Sequence[int], classes: int, device: torch.device) -> Rival:
        from torchvision.transforms import v2

        return Rival(_as_images(getattr(v2, name)(num_classes=classes, **options), shape))

    return make


def _timm_mixup(**options: Any) -> Callable[..., Rival]:
    def make(shape: Sequence[int], classes: int, device: torch.device) -> Rival:
        from timm.data.mixup import Mixup

        return Rival(Mixup(mode="batch", label_smoothing=0.0, num_classes=classes, **options), in_place=True)

    return make


def _timm_erasing(shape: Sequence[int], classes: int, device: torch.device) -> Rival:
    from timm.data.random_erasing import RandomErasing

    erase = RandomErasing(probability=1.0, min_area=0.25, max_area=0.25, min_aspect=1.0, device=str(device))
    return Rival(lambda inputs, labels: (erase(inputs), labels), in_place=True)


def _kornia(name: str, **options: Any) -> Callable[..., Rival]:
    def make(shape: Sequence[int], classes: int, device: torch.device) -> Rival:
        import kornia.augmentation

        mix = getattr(kornia.augmentation, name)(p=1.0, data_keys=["input", "class"], same_on_batch=True, **options)
        return Rival(_as_images(mix, shape))

    return make


def _kornia_erasing(shape: Sequence[int], classes: int, device: torch.device) -> Rival:
    import kornia.augmentation

    erase = kornia.augmentation.RandomErasing(scale=(0.25, 0.25), ratio=(1.0, 1.0), p=1.0)
    return Rival(lambda inputs, labels: (erase(inputs), labels))


def _as_images(mix: Callable[..., Any], shape: Sequence[int]) -> Callable[[Tensor, Tensor], Any]:
    """``mix`` for samples of ``shape``; those in 1-D as images of one row."""
    return mix if len(shape) == 3 else lambda inputs, labels: mix(inputs.unsqueeze(2), labels)


MAKERS: dict[str, dict[str, Callable[..., Rival]]] = {
    "torchvision": {"mixup": _torchvision("MixUp"), "cutmix": _torchvision("CutMix", alpha=NEAR_HALF)},
    "timm": {
        "mixup": _timm_mixup(mixup_alpha=1.0),
        "cutmix": _timm_mixup(mixup_alpha=0.0, cutmix_alpha=NEAR_HALF),
        "cutout": _timm_erasing,
    },
    "kornia": {
        "mixup": _kornia("RandomMixUpV2"),
        "cutmix": _kornia("RandomCutMixV2", beta=NEAR_HALF, use_correct_lambda=True),
        "cutout": _kornia_erasing,
    },
}
