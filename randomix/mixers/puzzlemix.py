"""Puzzle Mix.

J.-H. Kim, W. Choo, H. O. Song: Puzzle Mix: Exploiting Saliency and Local Statistics for Optimal Mixup, ICML 2020,
equations 1-4:
    x' = (1 - z) * P0 x_a + z * P1 x_b,  y' = (1 - mean(z)) y_a + mean(z) y_b
where the mask z on a grid of blocks keeps what is salient, changes where the images are alike, and leans to lam ~
Beta(alpha, alpha); the transports P move salient cells to where z lets them be seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from randomix import functional
from randomix.devices import to_device
from randomix.mixers.base import is_integer, require_flag, require_integer, require_positive, require_within
from randomix.mixers.base_network import SaliencyMixer
from randomix.rng import StepRng
from randomix.types import MixedBatch, MixedMode

BLOCK_NUMS = (2, 4, 8, 16)
MOST_CELLS = 64  # along a side, of those that move: a finer grid takes seconds and gigabytes
CELL, MOST_PIXELS = 4, 32  # the authors' cells on images of 32 pixels; on larger ones they move whole blocks


class PuzzleMix(SaliencyMixer):
    """Give each block to the sample that is salient there, and move salient cells into the blocks of their sample.

    alpha: of Beta(alpha, alpha), > 0. block_nums: blocks along each side, one of these for each batch, the same on all
    ranks; None: those of 2, 4, 8 and 16 that divide the images. n_labels, beta, gamma, eta, neigh_size: see
    ``functional.puzzlemix_mask``; transport, t_eps, t_size: see ``functional.puzzlemix_transport``;
    t_size None: 4 in images of up to 32 pixels a side, else whole blocks, as in the authors' commands.
    adv_prob: the chance of either side, own and partner, to be mixed with adversarial noise of up to adv_eps / 255.
    mean, std: a number for each channel, what the inputs were normalised with; None: they are pixels in [0, 1].
    clean_weight, num_classes: see SaliencyMixer.
    """

    mode = MixedMode.BOTH

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        block_nums: Sequence[int] | None = None,
        n_labels: int = 3,
        beta: float = 1.2,
        gamma: float = 0.5,
        eta: float = 0.2,
        neigh_size: int = 4,
        transport: bool = True,
        t_eps: float = 0.8,
        t_size: int | None = None,
        clean_weight: float = 0.0,
        adv_prob: float = 0.0,
        adv_eps: float = 10.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(clean_weight=clean_weight, num_classes=num_classes)
        require_positive("alpha", alpha)
        require_positive("t_eps", t_eps)
        require_flag("transport", transport)
        for name, value, high in (
            ("beta", beta, 1e3),
            ("gamma", gamma, 1),
            ("eta", eta, 1e3),
            ("adv_prob", adv_prob, 1),
        ):
            require_within(name, value, 0, high)
        require_within("adv_eps", adv_eps, 0, 255)
        require_integer("n_labels", n_labels, 2)
        require_integer("neigh_size", neigh_size, 1)
        if t_size not in (None, -1):
            require_integer("t_size", t_size, 1)
        if block_nums is not None and (len(block_nums) == 0 or not all(is_integer(b, 1) for b in block_nums)):
            raise ValueError(f"block_nums must be a list of integers >= 1 or None, got {block_nums!r}")
        self.alpha, self.beta, self.gamma, self.eta = alpha, beta, gamma, eta
        self.block_nums = None if block_nums is None else tuple(int(b) for b in block_nums)
        self.n_labels, self.neigh_size, self.t_size = int(n_labels), int(neigh_size), t_size
        self.transport, self.t_eps, self.adv_prob, self.adv_eps = bool(transport), t_eps, adv_prob, adv_eps
        self.mean, self.std = (None if given is None else tuple(float(v) for v in given) for given in (mean, std))
        self.mode = MixedMode.MASK if n_labels == 2 else MixedMode.BOTH  # with 3, a block may show half of each

    def check_shape(self, sample_shape: Sequence[int]) -> None:
        """Raise ValueError unless samples are (C, H, W) with sides that block_nums divide and C as mean and std say."""
        super().check_shape(sample_shape)
        channels, spatial = sample_shape[0], tuple(sample_shape[1:])
        self._choices(spatial)
        if self.transport and self._cell(spatial) > 0 and max(spatial) > MOST_CELLS * self._cell(spatial):
            raise ValueError(
                f"t_size {self.t_size} makes more than {MOST_CELLS} cells a side of images of size {spatial}; "
                "use t_size -1 (whole blocks), as the authors do there"
            )
        for name, given in (("mean", self.mean), ("std", self.std)):
            if given is not None and len(given) != channels:
                raise ValueError(f"{name} has {len(given)} entries for images of {channels} channels")

    def probe(self, inputs: Tensor, rng: StepRng) -> Tensor:
        """Inputs (N, C, H, W), with random noise of up to adv_eps / 255 in the share of batches that adv_prob says."""
        noise, _, _ = self._noise(inputs, rng)
        return inputs if noise is None else functional.puzzlemix_perturb(inputs, noise, self.mean, self.std)

    def mix(self, inputs: Tensor, targets: Tensor, gradient: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, H, W) and dense targets (N, K); gradient (N, C, H, W): see SaliencyMixer."""
        self.check_shape(inputs.shape[1:])
        draws, choices = rng.generator(self.name), self._choices(tuple(inputs.shape[2:]))
        perm = to_device(draws.permutation(len(inputs)), inputs.device)
        noise, noise_on, strength = self._noise(inputs, rng)
        if noise is not None:
            limit = self.adv_eps / 255
            # where half precision lost the gradient, its sign is 0
            noise = (noise + gradient.sign() * (limit + 2 / 255)).clamp(-limit, limit) * strength
        return functional.puzzlemix(
            inputs,
            targets,
            perm,
            draws.beta(self.alpha, self.alpha),
            functional.gradient_norm(gradient),
            choices[int(rng.generator(self.name, shared=True).integers(len(choices)))],
            n_labels=self.n_labels,
            beta=self.beta,
            gamma=self.gamma,
            eta=self.eta,
            neigh_size=self.neigh_size,
            mean=self.mean,
            std=self.std,
            transport=self.transport,
            t_eps=self.t_eps,
            t_size=self._cell(tuple(inputs.shape[2:])),
            noise=noise,
            noise_on=noise_on,
        )

    def _cell(self, spatial: tuple[int, ...]) -> int:
        """Side of the cells that move in images of size (H, W): a grid of 112 x 112 cells would take seconds."""
        if self.t_size is not None:
            return self.t_size
        return CELL if max(spatial) <= MOST_PIXELS else -1

    def _choices(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The numbers of blocks to draw from for images of size (H, W)."""
        fits = tuple(b for b in self.block_nums or BLOCK_NUMS if all(size % b == 0 for size in spatial))
        if not fits or (self.block_nums is not None and len(fits) < len(self.block_nums)):
            wrong = [b for b in self.block_nums or BLOCK_NUMS if b not in fits]
            raise ValueError(
                f"block_nums {wrong} do not divide images of size {spatial}; "
                "set block_nums to divisors of both sides, or resize the images"
            )
        return fits

    def _noise(self, inputs: Tensor, rng: StepRng) -> tuple[Tensor | None, tuple[bool, bool], float]:
        """Uniform noise (N, C, H, W) in [-adv_eps, adv_eps] / 255 or None, on which sides, and the share that is used.

        Asked for twice a step, before and after the gradient: each time the same.
        """
        draws = rng.generator(f"{self.name}.noise")
        own, partner, strength = draws.random(3).tolist()
        noise_on = (own < self.adv_prob, partner < self.adv_prob)
        if not any(noise_on):
            return None, noise_on, strength
        uniform = draws.random(tuple(inputs.shape), dtype=np.float32)
        return to_device(uniform, inputs.device).sub_(0.5).mul_(2 * self.adv_eps / 255), noise_on, strength
