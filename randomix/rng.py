"""Counter-based randomness: every draw is a pure function of (seed, stream, step, rank).

There is no generator state to save: a resumed run, a replayed step and another device see the same draws.
All drawing happens on the host with NumPy, so that no random choice ever waits for the device.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch

from randomix.seeding import family


@dataclass(frozen=True)
class StepRng:
    """The randomness of one training step on one rank.

    seed, step, rank: non-negative integers. ``scope`` separates the draws of nested users (micro-batches, candidates).
    """

    seed: int
    step: int = 0
    rank: int = 0
    scope: int = 0

    def __post_init__(self) -> None:
        if min(self.seed, self.step, self.rank) < 0:
            raise ValueError(f"seed, step and rank must be >= 0, got {self.seed}, {self.step}, {self.rank}")

    def at(self, step: int) -> StepRng:
        """The same run at another step."""
        return replace(self, step=step)

    def child(self, name: str) -> StepRng:
        """An independent family of draws for the same step and rank."""
        return replace(self, scope=zlib.crc32(name.encode(), self.scope))

    def generator(self, stream: str, shared: bool = False) -> np.random.Generator:
        """A fresh generator for ``stream``; ``shared=True`` leaves the rank out, so that all ranks draw the same."""
        before, after = (self.seed, zlib.crc32(stream.encode()), self.scope), 0 if shared else self.rank + 1
        if max(self.seed, self.step, after) < 2**32 and not torch.compiler.is_compiling():  # it would trace NumPy
            return family(before, after).generator(self.step)
        return np.random.Generator(np.random.PCG64([*before, self.step, after]))  # what default_rng gives

    def torch_seed(self) -> int:
        """A seed for torch's own generators (dropout), different for each step and rank."""
        return int(self.generator("torch").integers(2**62))


def as_step_rng(rng: StepRng | torch.Generator | int | np.integer | None) -> StepRng:
    """A StepRng from what a caller has: one already, a seed, a CPU generator, or None for ``torch.manual_seed``'s.

    Raises TypeError for anything else, and ValueError for a generator that lives on a device: drawing from it would
    wait for the device.
    """
    if isinstance(rng, StepRng):
        return rng
    if isinstance(rng, int | np.integer):
        return StepRng(seed=int(rng))
    if rng is not None and not isinstance(rng, torch.Generator):
        raise TypeError(f"rng must be a StepRng, a seed, a torch.Generator or None, got {type(rng).__name__}")
    if rng is not None and rng.device.type != "cpu":
        raise ValueError(f"rng is a torch.Generator on {rng.device}; pass one on the CPU: torch.Generator()")
    return StepRng(seed=int(torch.randint(2**62, (), generator=rng, device="cpu")))  # also under another default device
