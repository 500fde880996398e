"""The two base classes of every method: Mixer, and InputMixer for methods that mix inputs before the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from randomix.rng import StepRng, as_step_rng
from randomix.types import MixedBatch, MixedForward, MixedMode


def dense_targets(labels: Tensor, num_classes: int | None) -> Tensor:
    """Targets (N, K) float32 from integer labels (N,) or dense targets (N, K).

    Raises ValueError for integer labels without ``num_classes`` and for labels of another shape.
    """
    if labels.ndim == 2:
        return labels.float()
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(f"labels must be integers (N,) or dense targets (N, K), got {labels.dtype} {tuple(labels.shape)}")
    if num_classes is None:
        raise ValueError("integer labels need num_classes: pass it to the mixer, or pass dense targets (N, K)")
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes).float()


class Mixer(ABC):
    """A strategy that takes (model, inputs, labels) to (logits, soft targets).

    ``num_classes`` is K for integer labels; dense targets need none. Subclasses set ``mode`` and live in a module
    of this package whose name is the method's registry name.
    """

    mode: ClassVar[MixedMode]

    def __init__(self, *, num_classes: int | None = None) -> None:
        self.num_classes = num_classes

    @property
    def name(self) -> str:
        """The registry name: the module in which the class is defined."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: StepRng) -> MixedForward:
        """Run ``model`` on the mixed inputs (N, C, *S); labels (N,) integers or (N, K) dense."""


class InputMixer(Mixer):
    """A method that mixes inputs and targets before the network sees them: it implements only ``mix``."""

    @abstractmethod
    def mix(self, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, *S) and dense targets (N, K); neither is modified."""

    @final
    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: StepRng) -> MixedForward:
        mixed = self.mix(inputs, dense_targets(labels, self.num_classes), rng)
        return MixedForward(model(mixed.inputs), mixed.targets, mixed.lam, name=mixed.name or self.name)

    def __call__(
        self, inputs: Tensor, labels: Tensor, rng: StepRng | torch.Generator | int | None = None
    ) -> MixedBatch:
        """Mix a batch in a loop of one's own; ``rng=None`` follows ``torch.manual_seed``.

        inputs: (N, C, *S) of any floating dtype on any device; labels: (N,) integers or (N, K) dense targets.
        """
        if not inputs.is_floating_point():
            raise ValueError(f"inputs must be floating point, got {inputs.dtype}; convert with .float() / 255 first")
        if inputs.ndim < 3 or len(inputs) != len(labels):
            raise ValueError(f"inputs must be (N, C, *spatial) with one label a sample, got {tuple(inputs.shape)} "
                             f"and {tuple(labels.shape)}")
        return self.mix(inputs, dense_targets(labels, self.num_classes), as_step_rng(rng))
