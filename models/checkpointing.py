"""Activation checkpointing: a block's inner features are computed again in the backward pass instead of being kept.

T. Chen, B. Xu, C. Zhang, C. Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def run_stage(stage: nn.Sequential, features: Tensor, *, recompute: bool, draws: bool = False) -> Tensor:
    """``stage(features)``; recompute: of each block only the input is kept, and the rest computed again when needed.

    Loss, gradients and running statistics are those of the plain call. draws: whether a block draws from torch's
    generators (dropout), so that the second pass has to draw the same.
    """
    if not recompute or not torch.is_grad_enabled():
        return stage(features)
    for block in stage:
        # a compiled graph takes the statistics in once by itself, and knows no contexts
        again = {} if torch.compiler.is_compiling() else {"context_fn": partial(_contexts, block)}
        features = checkpoint(block, features, use_reentrant=False, preserve_rng_state=draws, **again)
    return features


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _SecondPass(block)


class _SecondPass:
    """The modes that a block's parts had in the first pass, and running statistics as they are; can be entered again.

    A momentum of 0 leaves the statistics, and autograd finds the same tensors to keep as in the first pass.
    """

    def __init__(self, block: nn.Module) -> None:
        self.modes = [(part, part.training) for part in block.modules()]
        self.norms = [part for part, _ in self.modes if isinstance(part, _BatchNorm)]

    def __enter__(self) -> None:
        self.later = [part.training for part, _ in self.modes]
        self.kept = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for part, training in self.modes:
            part.training = training
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_: object) -> None:
        for (part, _), training in zip(self.modes, self.later, strict=True):
            part.training = training
        for norm, (momentum, batches) in zip(self.norms, self.kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches
