"""Co-Mixup.

J.-H. Kim, W. Choo, H. Jeong, H. O. Song: Co-Mixup: Saliency Guided Joint Mixup with Supermodular Diversity, ICLR 2021,
equation 1 and section 4:
    x'_i = sum_j M_ij * x_j,  y'_i = sum_j mean(M_ij) y_j
where the masks M of a part of the batch are found together: each output shows what is salient, in few pieces, and the
outputs differ, by a penalty on what others show of an input beyond the share tau of an output.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.devices import to_device
from randomix.functional.cooperative import MOST_BLOCKS, block_choices, check_blocks
from randomix.mixers.base import (
    is_integer,
    require_choice,
    require_flag,
    require_integer,
    require_positive,
    require_within,
)
from randomix.mixers.base_network import SaliencyMixer
from randomix.partition import PENALTIES, PRECEDENCES
from randomix.rng import StepRng
from randomix.types import MixedBatch, MixedMode


class CoMixup(SaliencyMixer):
    """Put each output together from the salient cells of about 2 or 3 inputs of its part of the batch.

    part_size: inputs mixed with one another. block_num: cells along each side of an output; None (or -1): drawn for
    each batch from the numbers from 2 to 16 that divide the image. dirichlet_alpha: of Dirichlet(alpha, .., alpha), the
    shares of the inputs that are hoped for, > 0. beta, gamma, eta, tau, omega, n_iter, set_resolve, penalty, precedence
    and repair: see ``functional.comixup``. clean_weight, num_classes: see SaliencyMixer.
    """

    mode = MixedMode.BOTH

    def __init__(
        self,
        *,
        part_size: int = 20,
        block_num: int | None = 4,
        dirichlet_alpha: float = 2.0,
        beta: float = 0.32,
        gamma: float = 1.0,
        eta: float = 0.05,
        tau: float = 0.83,
        omega: float = 0.001,
        n_iter: int = 4,
        set_resolve: bool = True,
        penalty: str = "hard",
        precedence: str = "paper",
        repair: bool = True,
        clean_weight: float = 1.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(clean_weight=clean_weight, num_classes=num_classes)
        require_integer("part_size", part_size)
        require_integer("n_iter", n_iter)
        if block_num not in (None, -1) and not (is_integer(block_num, 2) and block_num <= MOST_BLOCKS):
            raise ValueError(f"block_num must be an integer from 2 to {MOST_BLOCKS}, or None, got {block_num!r}")
        require_positive("dirichlet_alpha", dirichlet_alpha)
        for name, value in (("beta", beta), ("gamma", gamma), ("eta", eta), ("tau", tau)):
            require_within(name, value, 0, 1e3)
        require_within("omega", omega, 0, 1)
        require_flag("set_resolve", set_resolve)
        require_flag("repair", repair)
        require_choice("penalty", penalty, PENALTIES)
        require_choice("precedence", precedence, PRECEDENCES)
        self.part_size, self.block_num = int(part_size), None if block_num == -1 else block_num
        self.dirichlet_alpha = dirichlet_alpha
        self.beta, self.gamma, self.eta, self.tau, self.omega = beta, gamma, eta, tau, omega
        self.n_iter, self.set_resolve, self.repair = int(n_iter), bool(set_resolve), bool(repair)
        self.penalty, self.precedence = penalty, precedence

    def check_shape(self, sample_shape: Sequence[int]) -> None:
        """Raise ValueError unless samples (C, H, W) divide into block_num x block_num cells."""
        super().check_shape(sample_shape)
        check_blocks(tuple(sample_shape[1:]), self.block_num)

    def mix(self, inputs: Tensor, targets: Tensor, gradient: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, H, W) and dense targets (N, K); gradient (N, C, H, W): see SaliencyMixer."""
        self.check_shape(inputs.shape[1:])
        dirichlet, labels = self._draw(inputs, rng)
        return functional.comixup(
            inputs,
            targets,
            functional.gradient_norm(gradient),
            to_device(dirichlet, inputs.device),
            to_device(labels, inputs.device),
            part_size=self.part_size,
            beta=self.beta,
            gamma=self.gamma,
            eta=self.eta,
            tau=self.tau,
            omega=self.omega,
            n_iter=self.n_iter,
            set_resolve=self.set_resolve,
            penalty=self.penalty,
            precedence=self.precedence,
            repair=self.repair,
        )

    def _draw(self, inputs: Tensor, rng: StepRng) -> tuple[np.ndarray, np.ndarray]:
        """Shares (N,) float32 hoped for, and initial labels (N, B, B) int64, part by part."""
        blocks = self.block_num
        if blocks is None:  # all ranks alike: they do equal work
            choices = block_choices(tuple(inputs.shape[2:]))
            blocks = choices[int(rng.generator(self.name, shared=True).integers(len(choices)))]
        draws, count = rng.generator(self.name), len(inputs)
        sizes = [min(self.part_size, count - start) for start in range(0, count, self.part_size)]
        shares = np.concatenate([draws.dirichlet(np.full(size, self.dirichlet_alpha)) for size in sizes])
        labels = [draws.integers(0, size, (size, blocks, blocks)) for size in sizes]
        return shares.astype(np.float32), np.concatenate(labels)
