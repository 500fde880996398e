"""PatchUp.

M. Faramarzi, M. Amini, A. Badrinaaraayanan, V. Verma, S. Chandar: PatchUp: A Feature-Space Block-Level Regularization
Technique for Convolutional Neural Networks, AAAI 2022:
    h' = (1 - M) * h_a + M * (lam * h_a + (1 - lam) * h_b),  y' = (1 - q) * y_a + q * (lam * y_a + (1 - lam) * y_b)
with blocks M of each channel that cover the share q of the features, lam ~ Beta(alpha, alpha) (soft) or lam = 0 (hard).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from randomix import functional
from randomix.devices import to_device
from randomix.mixers.base import require_choice, require_flag, require_positive, require_within
from randomix.mixers.base_network import HiddenMix, HiddenMixer
from randomix.types import MixedBatch, MixedMode

GAMMA_PER = ("layer", "first_layer")
INPUT_ALPHA = 1.0  # of the CutMix at tap 0


class PatchUp(HiddenMixer):
    """Mix blocks of the features of each sample with another's, in each channel elsewhere; at tap 0, paste one box.

    hard: exchange the blocks; soft: blend them by lam ~ Beta(alpha, alpha), alpha > 0. block_size: of a block's side,
    odd, in pixels of the features. gamma in [0, 1]: about the share of the features that is mixed where blocks do not
    overlap; default 0.75 soft, 0.5 hard. prob: default 1 soft, 0.7 hard. taps: 0, 1 and 2 are the input, the stem and
    the first stage of the networks here. gamma_per "layer": the probability of a block is computed for the size of the
    features at hand; "first_layer": for those of the first tap inside the network, at every tap (the authors' code
    computes it at its first call, and keeps it). num_classes: see HiddenMixer.
    """

    mode = MixedMode.BOTH
    loss_weight = 2.0  # the authors' three terms are twice the loss of the mixed targets: functional.patchup

    def __init__(
        self,
        *,
        hard: bool = False,
        gamma: float | None = None,
        block_size: int = 7,
        alpha: float = 2.0,
        taps: Sequence[int] = (0, 1, 2),
        gamma_per: str = "layer",
        prob: float | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(taps=taps, prob=(0.7 if hard else 1.0) if prob is None else prob, num_classes=num_classes)
        gamma = (0.5 if hard else 0.75) if gamma is None else gamma
        require_flag("hard", hard)
        require_positive("alpha", alpha)
        require_within("gamma", gamma, 0, 1)
        require_choice("gamma_per", gamma_per, GAMMA_PER)
        if not isinstance(block_size, int | np.integer) or block_size < 1 or block_size % 2 == 0:
            raise ValueError(f"block_size must be an odd integer >= 1, got {block_size!r}")
        self.hard, self.gamma, self.block_size, self.alpha = hard, gamma, int(block_size), alpha
        self.gamma_per = gamma_per
        self.mode = MixedMode.MASK if hard else MixedMode.BOTH

    def mix_inputs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Paste one box into inputs (N, C, *S): what the authors do at the input."""
        spatial = inputs.shape[2:]
        box = functional.cutmix_box(spatial, draws.beta(INPUT_ALPHA, INPUT_ALPHA), draws.integers(0, spatial))
        return functional.cutmix(inputs, targets, perm, box, self.inplace)

    def mix_hidden(
        self, shapes: Sequence[tuple[int, ...]], index: int, targets: Tensor, perm: Tensor, draws: np.random.Generator
    ) -> HiddenMix:
        """Mix blocks of the features of shape (N, *shapes[index]), drawn and grown on the host."""
        self.check_taps(shapes)
        lam = 0.0 if self.hard else draws.beta(self.alpha, self.alpha)
        sized = index if self.gamma_per == "layer" else min(tap for tap in self.taps if tap > 0)
        gamma = functional.patchup_gamma(self.gamma, shapes[sized][1:], self.block_size)
        centers = torch.from_numpy(draws.random(shapes[index], dtype=np.float32) < gamma)
        mask = functional.patchup_mask(centers, self.block_size)
        share = functional.patchup_lam(float(mask.float().mean()), lam)  # the mask is still on the host
        arguments = (perm, to_device(mask, targets.device), lam)
        return HiddenMix(functional.patchup_features, arguments, *functional.mix_targets(targets, perm, share))

    def check_taps(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raise ValueError if the features at one of the taps, of shapes (C, *S), are smaller than a block."""
        for tap in (tap for tap in self.taps if tap > 0):
            spatial = shapes[tap][1:]
            if not spatial or min(spatial) < self.block_size:
                raise ValueError(
                    f"block_size is {self.block_size}, but the features at tap {tap} have size {tuple(spatial)}; "
                    "lower block_size, or leave that tap out of taps"
                )
