"""No mixing: the "Baseline" rows of the RandoMix paper, and a candidate that leaves a share of the batches alone."""

from __future__ import annotations

from torch import Tensor

from randomix.mixers.base import InputMixer, unmixed
from randomix.rng import StepRng
from randomix.types import MixedBatch, MixedMode


class Baseline(InputMixer):
    """Inputs and targets as they are, lam = 1."""

    mode = MixedMode.NONE

    def mix(self, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        """Return inputs (N, C, *S) and targets (N, K) with lam 1."""
        return unmixed(inputs, targets)
