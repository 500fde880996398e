"""The networks at the paper's sizes, with the FLOPs that they should have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import models

PUZZLEMIX = {"stem_norm": False, "shortcut": "raw"}


@dataclass(frozen=True)
class Case:
    """A network at a size of the paper; forward and step (forward + backward): expected GFLOP a sample."""

    label: str
    model: dict[str, Any]
    sample_shape: tuple[int, ...]
    num_classes: int
    batch: int
    forward: float
    step: float

    def build(self) -> nn.Module:
        """The network, with weights that are the same every time."""
        torch.manual_seed(0)
        return models.build(self.model, sample_shape=self.sample_shape, num_classes=self.num_classes)


def case(
    label: str, name: str, shape: tuple[int, ...], classes: int, batch: int, forward: float, step: float, **options: Any
) -> Case:
    """A case; ``options`` of the network beside its name."""
    return Case(label, {"name": name, **options}, shape, classes, batch, forward, step)


CASES = (
    case("PreAct-ResNet18, 32 x 32", "preact_resnet18", (3, 32, 32), 10, 32, 1.111, 3.329),
    case("PreAct-ResNet18, 64 x 64, stem stride 1", "preact_resnet18", (3, 64, 64), 200, 8, 4.444, 13.316),
    case(
        "PreAct-ResNet18, 64 x 64, Puzzle Mix's",
        "preact_resnet18",
        (3, 64, 64),
        200,
        32,
        1.111,
        3.330,
        stem_stride=2,
        **PUZZLEMIX,
    ),
    case("WRN-28-10, 32 x 32", "wrn_28_10", (3, 32, 32), 10, 4, 10.487, 31.459),
    case("ResNet-50, 224 x 224", "resnet50", (3, 224, 224), 1000, 4, 8.178, 24.299),
    case("ResNet-50, 160 x 160", "resnet50", (3, 160, 160), 1000, 8, 4.175, 12.404),
    case(
        "1-D PreAct-ResNet18, 16,000, kernel 3 stride 1",
        "preact_resnet18_1d",
        (1, 16000),
        12,
        4,
        21.764,
        65.286,
        stem_kernel=3,
        stem_stride=1,
    ),
    case(
        "1-D PreAct-ResNet18, 16,000, kernel 9 stride 4",
        "preact_resnet18_1d",
        (1, 16000),
        12,
        8,
        5.444,
        16.328,
        stem_kernel=9,
        stem_stride=4,
    ),
    case("1-D PreAct-ResNet18, 16,000, kernel 79 stride 16", "preact_resnet18_1d", (1, 16000), 12, 32, 1.370, 4.100),
    case("PreAct-ResNet18 width 16, 32 x 32", "preact_resnet18", (3, 32, 32), 10, 32, 0.070, 0.209, width=16),
)
