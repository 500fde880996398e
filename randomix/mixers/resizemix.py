"""ResizeMix.

J. Qin, J. Fang, Q. Zhang, W. Liu, X. Wang, X. Wang: ResizeMix: Mixing Data with Preserved Object Information and True
Labels, arXiv 2012.11101, equations 1-3:
    P = resize(x_b, tau),  x' = paste(P, x_a, region),  lam = 1 - |region| / (W H),  tau ~ U(0.1, 0.8)
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.mixers.base import PairMixer, on_device
from randomix.types import MixedBatch, MixedMode


class ResizeMix(PairMixer):
    """Paste the whole of one sample, made smaller, into another at a random place.

    scale: smallest and largest side of the patch, as shares of the side of the sample. As in the authors' code each
    sample has a place of its own, with one scale for the batch; granularity "sample" draws a scale for each as well.
    prob, num_classes: see PairMixer.
    """

    mode = MixedMode.MASK

    def __init__(
        self,
        *,
        scale: tuple[float, float] = (0.1, 0.8),
        prob: float = 1.0,
        granularity: str = "batch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(prob=prob, granularity=granularity, num_classes=num_classes)
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must be (smallest, largest) with 0 < smallest <= largest <= 1, got {tuple(scale)}")
        self.scale = (float(scale[0]), float(scale[1]))

    def mix_pairs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Paste a whole, smaller sample into each of inputs (N, C, *S)."""
        count, spatial = len(inputs), inputs.shape[2:]
        scale = draws.uniform(*self.scale, self.per_draw(count))
        if self.granularity == "sample":
            scale = scale.astype(np.float32)
        boxes = functional.resizemix_boxes(spatial, scale, draws.integers(0, spatial, (count, len(spatial))))
        return functional.resizemix(inputs, targets, perm, on_device(scale, inputs.device), boxes, self.inplace)
