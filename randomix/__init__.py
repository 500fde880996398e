"""RandoMix: mixed-sample data augmentation that draws one of several mixing methods for each batch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what __getattr__ does, for type checkers and editors
    from randomix import functional as functional
    from randomix import losses as losses
    from randomix import mixers as mixers
    from randomix.losses import soft_cross_entropy as soft_cross_entropy
    from randomix.mixers.baseline import Baseline as Baseline
    from randomix.mixers.comixup import CoMixup as CoMixup
    from randomix.mixers.cutmix import CutMix as CutMix
    from randomix.mixers.cutout import Cutout as Cutout
    from randomix.mixers.fmix import FMix as FMix
    from randomix.mixers.manifold_mixup import ManifoldMixup as ManifoldMixup
    from randomix.mixers.mixup import Mixup as Mixup
    from randomix.mixers.patchup import PatchUp as PatchUp
    from randomix.mixers.puzzlemix import PuzzleMix as PuzzleMix
    from randomix.mixers.randomix import RandoMix as RandoMix
    from randomix.mixers.resizemix import ResizeMix as ResizeMix
    from randomix.mixers.saliencymix import SaliencyMix as SaliencyMix
    from randomix.networks import hooked as hooked
    from randomix.rng import StepRng as StepRng
    from randomix.types import MixedBatch as MixedBatch
    from randomix.types import MixedForward as MixedForward
    from randomix.types import MixedMode as MixedMode

__version__ = "0.1.0"

_EXPORTS = {
    "Baseline": "randomix.mixers.baseline",
    "Cutout": "randomix.mixers.cutout",
    "Mixup": "randomix.mixers.mixup",
    "CutMix": "randomix.mixers.cutmix",
    "FMix": "randomix.mixers.fmix",
    "ResizeMix": "randomix.mixers.resizemix",
    "SaliencyMix": "randomix.mixers.saliencymix",
    "ManifoldMixup": "randomix.mixers.manifold_mixup",
    "PatchUp": "randomix.mixers.patchup",
    "PuzzleMix": "randomix.mixers.puzzlemix",
    "CoMixup": "randomix.mixers.comixup",
    "RandoMix": "randomix.mixers.randomix",
    "MixedBatch": "randomix.types",
    "MixedForward": "randomix.types",
    "MixedMode": "randomix.types",
    "StepRng": "randomix.rng",
    "hooked": "randomix.networks",
    "soft_cross_entropy": "randomix.losses",
}
_MODULES = ("functional", "losses", "mixers")
__all__ = [*_EXPORTS, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    """Import public names on first use: ``import randomix`` alone needs no torch."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
