"""The base classes of methods that need the network to mix: its hidden features, or the gradient at its input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor, nn

from randomix import networks
from randomix.devices import to_device
from randomix.mixers.base import Mixer, Rng, dense_targets, named, require_batch, require_within, unmixed
from randomix.rng import StepRng, as_step_rng
from randomix.types import MixedBatch, MixedForward


@dataclass(frozen=True, eq=False)
class LayerTap:
    """A tap that changes the features at one index: ``change(features, *arguments)``; see ``types.Tap``.

    What changes with each step must be a tensor among the arguments: for a compiled network another number is another
    graph. ``change`` must be a function of a module, so that it is the same object at each step.
    """

    index: int
    change: Callable[..., Tensor]
    arguments: tuple[Tensor | float, ...]

    def __call__(self, index: int, features: Tensor) -> Tensor:
        """The features (N, C, *S) at ``index``, changed at this tap's own."""
        return self.change(features, *self.arguments) if index == self.index else features


@dataclass(frozen=True, eq=False)
class HiddenMix:
    """What a hidden mixer does to the features of one batch.

    change, arguments: see LayerTap. targets (N, K) float32 and lam (N,) as in MixedBatch.
    """

    change: Callable[..., Tensor]
    arguments: tuple[Tensor | float, ...]
    targets: Tensor
    lam: Tensor


class HiddenMixer(Mixer):
    """A method that mixes the features at a tap drawn for each batch; tap 0, the input, is mixed before the network.

    taps: the indices to draw from, each equally often. prob: the share of batches that are mixed at all. Both draws
    leave the rank out: all ranks do equal work, and a compiled network has one graph for each tap.
    """

    loss_weight = 1.0

    def __init__(self, *, taps: Sequence[int], prob: float = 1.0, num_classes: int | None = None) -> None:
        super().__init__(num_classes=num_classes)
        require_within("prob", prob, 0, 1)
        if isinstance(taps, int) or not taps or any(not isinstance(t, int | np.integer) or t < 0 for t in taps):
            raise ValueError(f"taps must be a list of tap indices >= 0, got {taps!r}")
        self.taps, self.prob = tuple(int(t) for t in taps), prob

    @abstractmethod
    def mix_inputs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """What the method does at tap 0: mix inputs (N, C, *S) and targets (N, K) with those at perm (N,)."""

    @abstractmethod
    def mix_hidden(
        self, shapes: Sequence[tuple[int, ...]], index: int, targets: Tensor, perm: Tensor, draws: np.random.Generator
    ) -> HiddenMix:
        """What it does to features of shape (N, *shapes[index]) at tap ``index``; shapes: (C, *S) at each tap."""

    @final
    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: Rng = None) -> MixedForward:
        """Run ``model`` on inputs (N, C, *S), mixing at one of its taps; labels (N,) integers or (N, K) dense."""
        require_batch(inputs, labels)
        rng = as_step_rng(rng)
        targets, shared = dense_targets(labels, self.num_classes), rng.generator(self.name, shared=True)
        index, mixes = self.taps[shared.integers(len(self.taps))], shared.random() < self.prob
        if not mixes:
            plain = unmixed(inputs, targets)
            return MixedForward(model(inputs), plain.targets, plain.lam, name=self.name)
        draws = rng.generator(self.name)
        perm = to_device(draws.permutation(len(inputs)), inputs.device)
        if index == 0:
            mixed = self.mix_inputs(inputs, targets, perm, draws)
            return self._result(model(mixed.inputs), mixed.targets, mixed.lam)
        hidden = self.mix_hidden(self._shapes(model, inputs), index, targets, perm, draws)
        tap = LayerTap(index, hidden.change, _arguments(hidden.arguments, model, inputs.device))
        return self._result(model(inputs, tap=tap), hidden.targets, hidden.lam)

    def _result(self, logits: Tensor, targets: Tensor, lam: Tensor) -> MixedForward:
        return MixedForward(logits, targets, lam, loss_weight=self.loss_weight, name=self.name)

    @final
    def check_network(self, model: nn.Module, sample_shape: Sequence[int]) -> None:
        """Raise ValueError unless ``model``, for samples (C, *S), has all taps of this method with what it needs."""
        if max(self.taps) > 0:
            self.check_taps(self._shapes(model, networks.zeros_like_samples(model, sample_shape)))

    def _shapes(self, model: nn.Module, inputs: Tensor) -> list[tuple[int, ...]]:
        """Shape (C, *S) of the features at each tap; ValueError for a tap too many: it would mix the labels alone."""
        shapes = networks.tap_shapes(model, inputs)
        if max(self.taps) >= len(shapes):
            raise ValueError(
                f"taps has {max(self.taps)}, but {type(networks.unwrap(model)).__name__} has taps 0 to "
                f"{len(shapes) - 1}; set taps to some of these"
            )
        return shapes

    def check_taps(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """Raise ValueError if features of these shapes (C, *S), one for each tap of a network, cannot be mixed."""


def _arguments(
    arguments: Sequence[Tensor | float], model: nn.Module, device: torch.device
) -> tuple[Tensor | float, ...]:
    """Numbers as tensors of no dimension if the model is compiled; uncompiled, a number is the faster."""
    if not networks.is_compiled(model):
        return tuple(arguments)
    return tuple(a if isinstance(a, Tensor) else to_device(np.array(a, np.float32), device) for a in arguments)


class SaliencyMixer(Mixer):
    """A method that mixes by what the network looks at: by the gradient of its loss at the input.

    clean_weight: 0 takes the gradient with evaluation-mode statistics and costs no weight gradients; above 0 the clean
    batch is trained on too, with the loss 2 * clean_weight / K * (mean cross-entropy) (the authors' ``clean_lam``).
    """

    spatial_dims = (2,)

    def __init__(self, *, clean_weight: float = 0.0, num_classes: int | None = None) -> None:
        super().__init__(num_classes=num_classes)
        require_within("clean_weight", clean_weight, 0, 1e6)
        self.clean_weight = clean_weight

    @property
    def reads_statistics(self) -> bool:
        """Whether what it does depends on the network's running statistics."""
        return self.clean_weight == 0

    def probe(self, inputs: Tensor, rng: StepRng) -> Tensor:
        """Where the gradient is taken, shaped like inputs (N, C, *S): at the inputs themselves."""
        return inputs

    @abstractmethod
    def mix(self, inputs: Tensor, targets: Tensor, gradient: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, *S) and dense targets (N, K); gradient (N, C, *S) float32 is taken at ``probe``.

        It is that of the summed cross-entropy; in half precision it may hold zeros and values that are not finite.
        """

    def mix_with(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: Rng = None
    ) -> tuple[MixedBatch, Tensor | None]:
        """The mixed batch and the clean loss (None for clean_weight 0); ``model`` is run on the clean batch only."""
        require_batch(inputs, labels)
        rng = as_step_rng(rng)
        targets = dense_targets(labels, self.num_classes)
        probe = self.probe(inputs, rng)
        gradient, clean = networks.input_gradient(model, probe, targets, self.clean_weight)
        return named(self.mix(inputs, targets, gradient, rng), self.name), clean

    @final
    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: Rng = None) -> MixedForward:
        """Run ``model`` on the clean inputs (N, C, *S), then on the mixed ones; labels (N,) or (N, K)."""
        mixed, clean = self.mix_with(model, inputs, labels, rng)
        return MixedForward(model(mixed.inputs), mixed.targets, mixed.lam, aux_loss=clean, name=mixed.name)
