"""Manifold Mixup.

V. Verma, A. Lamb, C. Beckham, A. Najafi, I. Mitliagkas, D. Lopez-Paz, Y. Bengio: Manifold Mixup: Better Representations
by Interpolating Hidden States, ICML 2019, section 2:
    g_k(x)' = lam * g_k(x_a) + (1 - lam) * g_k(x_b),  y' = lam * y_a + (1 - lam) * y_b,  lam ~ Beta(alpha, alpha)
with the layer k drawn for each batch; k = 0 is the input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.mixers.base import require_positive
from randomix.mixers.base_network import HiddenMix, HiddenMixer
from randomix.types import MixedBatch, MixedMode


class ManifoldMixup(HiddenMixer):
    """Blend the features of each sample linearly with another's, at the input or at a tap inside the network.

    alpha: of Beta(alpha, alpha), > 0; 2 on CIFAR, 0.2 on Tiny-ImageNet. taps: 0, 2 and 3 are the input and the outputs
    of the first two stages of the networks here. prob, num_classes: see HiddenMixer.
    """

    mode = MixedMode.LINEAR

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        taps: Sequence[int] = (0, 2, 3),
        prob: float = 1.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(taps=taps, prob=prob, num_classes=num_classes)
        require_positive("alpha", alpha)
        self.alpha = alpha

    def mix_inputs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Blend inputs (N, C, *S) and targets (N, K) by one lam."""
        return functional.mixup(inputs, targets, perm, draws.beta(self.alpha, self.alpha))

    def mix_hidden(
        self, shapes: Sequence[tuple[int, ...]], index: int, targets: Tensor, perm: Tensor, draws: np.random.Generator
    ) -> HiddenMix:
        """Blend the features at any tap, and targets (N, K), by one lam."""
        lam = draws.beta(self.alpha, self.alpha)
        return HiddenMix(functional.blend_partners, (perm, lam), *functional.mix_targets(targets, perm, lam))
