"""Cutout.

T. DeVries, G. W. Taylor: Improved Regularization of Convolutional Neural Networks with Cutout, arXiv 1708.04552,
section 3.2: x' = M * x with M = 0 in a square of fixed size around a uniformly drawn pixel; the label stays.
"""

from __future__ import annotations

from torch import Tensor

from randomix import functional
from randomix.mixers.base import InputMixer, require_integer, require_within, unmixed
from randomix.rng import StepRng
from randomix.types import MixedBatch, MixedMode


class Cutout(InputMixer):
    """Set a square of each sample to zero, which is the mean after normalisation; targets stay, lam = 1.

    length: of a side in pixels, >= 1; what lies outside of the sample is lost, and an odd length is one less. 16 for
    CIFAR-10 and 8 for CIFAR-100 in the paper. prob: the share of samples that lose a square, 1 in the paper.
    """

    mode = MixedMode.NONE

    def __init__(self, *, length: int = 16, prob: float = 1.0, num_classes: int | None = None) -> None:
        super().__init__(num_classes=num_classes)
        require_integer("length", length)
        require_within("prob", prob, 0, 1)
        self.length, self.prob = length, prob

    def mix(self, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        """Erase squares of inputs (N, C, *S); targets (N, K) as they are."""
        draws, count, spatial = rng.generator(self.name), len(inputs), inputs.shape[2:]
        centers = draws.integers(0, spatial, (count, len(spatial)))
        centers[draws.random(count) >= self.prob] = -self.length  # a square there is outside of the sample
        return unmixed(functional.cutout(inputs, centers, self.length, self.inplace), targets)
