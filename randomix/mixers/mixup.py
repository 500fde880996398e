"""Mixup.

H. Zhang, M. Cisse, Y. N. Dauphin, D. Lopez-Paz: mixup: Beyond Empirical Risk Minimization, ICLR 2018, section 2:
    x' = lam * x_a + (1 - lam) * x_b,  y' = lam * y_a + (1 - lam) * y_b,  lam ~ Beta(alpha, alpha)
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.mixers.base import PairMixer, on_device, require_positive
from randomix.types import MixedBatch, MixedMode


class Mixup(PairMixer):
    """Blend each sample linearly with another.

    alpha: of Beta(alpha, alpha), > 0. prob, granularity, num_classes: see PairMixer.
    """

    mode = MixedMode.LINEAR

    def __init__(
        self, *, alpha: float = 1.0, prob: float = 1.0, granularity: str = "batch", num_classes: int | None = None
    ) -> None:
        super().__init__(prob=prob, granularity=granularity, num_classes=num_classes)
        require_positive("alpha", alpha)
        self.alpha = alpha

    def mix_pairs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Blend inputs (N, C, *S) and targets (N, K) by one lam, or one for each sample."""
        lam = self.draw_lam(draws, self.alpha, inputs.shape[0])
        return functional.mixup(inputs, targets, perm, on_device(lam, inputs.device))
