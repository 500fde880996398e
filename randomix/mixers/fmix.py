"""FMix.

E. Harris, A. Marcu, M. Painter, M. Niranjan, A. Prugel-Bennett, J. Hare: FMix: Enhancing Mixed Sample Data
Augmentation, arXiv 2002.12047, section 4:
    x' = M * x_a + (1 - M) * x_b,  y' = lam * y_a + (1 - lam) * y_b,  lam ~ Beta(alpha, alpha)
with M = 1 on the lam * P largest of the P pixels of Re(F^-1(Z / |f| ** decay_power)), Z complex Gaussian noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from randomix import functional, masks
from randomix.mixers.base import PairMixer, on_device, require_choice, require_positive, require_within
from randomix.types import MixedBatch, MixedMode

LABEL_LAMS = ("drawn", "mask")


class FMix(PairMixer):
    """Mix each sample with another through a random smooth-edged binary mask.

    alpha: of Beta(alpha, alpha), > 0. decay_power: of the spectrum, > 0. max_soft: widest share of the pixels blended
    on either side of the edge, in [0, 0.5]. spectrum: "paper" is the formula above; "code" the authors' indexing,
    behind all published FMix numbers. label_lam: labels follow the "drawn" lam (paper and code) or the mean of the
    "mask". prob, granularity, num_classes: see PairMixer.
    """

    mode = MixedMode.MASK

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        decay_power: float = 3.0,
        max_soft: float = 0.0,
        spectrum: str = "paper",
        label_lam: str = "drawn",
        prob: float = 1.0,
        granularity: str = "batch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(prob=prob, granularity=granularity, num_classes=num_classes)
        require_positive("alpha", alpha)
        require_positive("decay_power", decay_power)
        require_within("max_soft", max_soft, 0, 0.5)
        require_choice("spectrum", spectrum, masks.SPECTRA)
        require_choice("label_lam", label_lam, LABEL_LAMS)
        self.alpha, self.decay_power, self.max_soft = alpha, decay_power, max_soft
        self.spectrum, self.label_lam = spectrum, label_lam

    def mix_pairs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Mix inputs (N, C, *S) through one mask, made on the host, or one for each sample, made on their device."""
        count, spatial, device = len(inputs), tuple(inputs.shape[2:]), inputs.device
        lam: Any = self.draw_lam(draws, self.alpha, count)
        round_up: Any = draws.random(self.per_draw(count)) < 0.5
        shape = masks.noise_shape(spatial, self.spectrum)
        if self.granularity == "batch":
            noise = draws.standard_normal(shape, dtype=np.float32)
        else:
            noise = draws.standard_normal((count, *shape), dtype=np.float32)
            noise, lam, round_up = (on_device(drawn, device) for drawn in (noise, lam, round_up))
        mask = functional.fmix_mask(noise, spatial, lam, self.decay_power, round_up, self.max_soft, self.spectrum)
        share = mask.float().flatten(-len(spatial)).mean(-1) if self.label_lam == "mask" else lam
        return functional.fmix(inputs, targets, perm, on_device(mask, device), on_device(share, device))
