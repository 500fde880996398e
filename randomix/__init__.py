"""RandoMix: mixed-sample data augmentation that draws one of several mixing methods for each batch."""

from __future__ import annotations

import importlib
from typing import Any

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
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    """Import public names on first use: ``import randomix`` alone needs no torch."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
