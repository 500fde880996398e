"""SaliencyMix.

A. F. M. S. Uddin, M. S. Monira, W. Shin, T. Chung, S.-H. Bae: SaliencyMix: A Saliency Guided Data Augmentation Strategy
for Better Regularization, ICLR 2021, section 3:
    x' = M * x_a + (1 - M) * x_b,  y' = lam * y_a + (1 - lam) * y_b
with M = 0 in CutMix's box around the pixel at which the saliency of x_b is largest, lam ~ Beta(alpha, alpha).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.masks import take_rows
from randomix.mixers.base import PairMixer, on_device, require_choice, require_positive
from randomix.types import MixedBatch, MixedMode

SALIENCIES = ("uint8", "as_published")


class SaliencyMix(PairMixer):
    """Paste the box around the most salient pixel of one image into another; labels by the area of the clipped box.

    alpha: of Beta(alpha, alpha), > 0; 1 in the authors' commands. saliency: "uint8" shows the detector the image;
    "as_published" the normalised floats that it misreads (see ``functional.published_saliency``), behind all published
    SaliencyMix numbers. prob: 0.5 in the authors' commands for CIFAR, 1 in those for ImageNet.
    granularity: "batch" takes the box from one image, the partner of the first sample, as the authors do; "sample" a
    box of its own for each. mean, std: a number for each channel, what the inputs were normalised with; None: they are
    pixels in [0, 1]. Images of 1 or 3 channels only. num_classes: see PairMixer.
    """

    mode = MixedMode.MASK
    spatial_dims = (2,)

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        saliency: str = "uint8",
        prob: float = 1.0,
        granularity: str = "batch",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(prob=prob, granularity=granularity, num_classes=num_classes)
        require_positive("alpha", alpha)
        require_choice("saliency", saliency, SALIENCIES)
        self.alpha, self.saliency = alpha, saliency
        self.mean, self.std = (None if given is None else tuple(float(v) for v in given) for given in (mean, std))

    def check_shape(self, sample_shape: Sequence[int]) -> None:
        """Raise ValueError unless samples are (1, H, W) or (3, H, W) and mean and std have as many entries."""
        super().check_shape(sample_shape)
        channels = sample_shape[0]
        if min(sample_shape[1:]) < 2:
            raise ValueError(
                f"{self.name} mixes images of at least 2 x 2 pixels, got {tuple(sample_shape[1:])}; use another method"
            )
        if channels not in (1, 3):
            raise ValueError(f"{self.name} mixes images of 1 or 3 channels only, got {channels}; use another method")
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) != channels:
                raise ValueError(f"{name} has {len(given)} entries for images of {channels} channels")

    def mix_pairs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Paste one box into inputs (N, C, H, W), or a box of its own into each sample."""
        self.check_shape(inputs.shape[1:])
        lam = on_device(self.draw_lam(draws, self.alpha, inputs.shape[0]), inputs.device)
        if self.granularity == "sample":
            return functional.saliencymix(inputs, targets, perm, lam, self._peaks(take_rows(inputs, perm)))
        (peak,) = self._peaks(take_rows(inputs, perm[:1]))
        if peak.device.type == "cpu":  # elsewhere looking at it would wait for the device
            peak = [int(p) for p in peak]
        return functional.saliencymix(inputs, targets, perm, lam, peak, self.inplace)

    def _peaks(self, inputs: Tensor) -> Tensor:
        """Row and column (N, 2) of the most salient pixel of inputs (N, C, H, W)."""
        if self.saliency == "as_published":
            return functional.saliency_peaks(functional.published_saliency(inputs.movedim(1, -1)))
        images = functional.to_uint8(inputs, self.mean, self.std)
        return functional.saliency_peaks(functional.fine_grained_saliency(images))
