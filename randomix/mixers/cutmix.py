"""CutMix.

S. Yun, D. Han, S. J. Oh, S. Chun, J. Choe, Y. Yoo: CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features, ICCV 2019, equations 1 and 2:
    x' = M * x_a + (1 - M) * x_b,  y' = lam * y_a + (1 - lam) * y_b
with M = 0 in a box of sides W sqrt(1 - lam), H sqrt(1 - lam) around a uniform centre, lam ~ Beta(alpha, alpha).
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.mixers.base import PairMixer, on_device, require_positive
from randomix.types import MixedBatch, MixedMode


class CutMix(PairMixer):
    """Paste a box of one sample into another; the labels follow the area of the clipped box, not the draw.

    alpha: of Beta(alpha, alpha), > 0; 1 is the paper's uniform law. prob: 1 in the authors' ImageNet command, 0.5 in
    the one for CIFAR. granularity, num_classes: see PairMixer.
    """

    mode = MixedMode.MASK

    def __init__(
        self, *, alpha: float = 1.0, prob: float = 1.0, granularity: str = "batch", num_classes: int | None = None
    ) -> None:
        super().__init__(prob=prob, granularity=granularity, num_classes=num_classes)
        require_positive("alpha", alpha)
        self.alpha = alpha

    def mix_pairs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Paste one box into inputs (N, C, *S), or a box of its own into each sample."""
        lam = self.draw_lam(draws, self.alpha, inputs.shape[0])
        box = functional.cutmix_box(inputs.shape[2:], lam, self.draw_centers(draws, inputs))
        return functional.cutmix(inputs, targets, perm, on_device(box, inputs.device), self.inplace)
