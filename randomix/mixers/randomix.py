"""RandoMix.

X. Liu, F. Shen, J. Zhao, C. Nie: RandoMix: A Mixed Sample Data Augmentation Method with Multiple Mixed Modes,
equations 3 and 4:
    x', y' = method(Pairs(X, RandPerm(X))),  method = RandChoices(Candidates, Weights)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor, nn

from randomix.mixers import build
from randomix.mixers.base import (
    GRANULARITIES,
    BatchMixer,
    Mixer,
    Rng,
    choose_rows,
    dense_targets,
    named,
    require_batch,
    require_choice,
    require_positive,
)
from randomix.rng import StepRng, as_step_rng
from randomix.types import MixedBatch, MixedForward, MixedMode

Candidate = str | Mapping[str, Any] | Mixer


class RandoMix(BatchMixer):
    """Draw one of several methods for each batch (or sample) and mix with it.

    candidates: methods of any kind, as registry names, mappings (``{"name": "fmix", "alpha": 0.2}``) or mixers.
    weights: relative frequencies, one for each candidate, >= 0; None is equal weights.
    alpha: of Beta(alpha, alpha), > 0, and granularity are handed to the candidates given by name or mapping that have
    such a setting and do not set it themselves; so are mean and std, what the inputs were normalised with.
    granularity: "batch" draws one method for the batch, the same on all ranks (equal work); "sample" one for each
    sample, whose partner comes from the whole batch: it runs every drawn method and needs candidates that mix inputs.
    """

    mode = MixedMode.BOTH

    def __init__(
        self,
        *,
        candidates: Sequence[Candidate] = ("mixup", "cutmix", "resizemix", "fmix"),
        weights: Sequence[float] | None = None,
        alpha: float = 1.0,
        granularity: str = "batch",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        num_classes: int | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes)
        require_positive("alpha", alpha)
        require_choice("granularity", granularity, GRANULARITIES)
        shared = {"alpha": alpha, "granularity": granularity, "mean": mean, "std": std, "num_classes": num_classes}
        self.candidates = _mixers(candidates, shared)
        self.weights = _weights(weights, len(self.candidates))
        self.alpha, self.granularity, self.mean, self.std = alpha, granularity, mean, std
        self.mode = _joint_mode([c.mode for c, w in zip(self.candidates, self.weights, strict=True) if w > 0])
        self._upper = np.cumsum(self.weights) / sum(self.weights)
        if granularity == "sample":
            self._require_input_mixers()

    @property
    def reads_statistics(self) -> bool:
        """Whether what a candidate does depends on the network's running statistics."""
        return any(c.reads_statistics for c, w in zip(self.candidates, self.weights, strict=True) if w > 0)

    def allow_inplace(self) -> RandoMix:
        """As any mixer; a choice for each sample needs the inputs as they were for every candidate."""
        if self.granularity == "batch":
            self.candidates = [copy.copy(c).allow_inplace() for c in self.candidates]  # a caller keeps its own
        return super().allow_inplace()

    def check_shape(self, sample_shape: Sequence[int]) -> None:
        """Raise ValueError if a candidate cannot mix samples (C, *S)."""
        for candidate in self.candidates:
            candidate.check_shape(sample_shape)

    def check_network(self, model: nn.Module, sample_shape: Sequence[int]) -> None:
        """Raise ValueError if ``model``, for samples (C, *S), lacks what a candidate needs of it."""
        for candidate in self.candidates:
            candidate.check_network(model, sample_shape)

    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: Rng = None) -> MixedForward:
        """Run the drawn candidate on inputs (N, C, *S); labels (N,) integers or (N, K) dense."""
        require_batch(inputs, labels)
        rng = as_step_rng(rng)
        if self.num_classes is not None:
            labels = dense_targets(labels, self.num_classes)
        if self.granularity == "batch":
            candidate = self.candidates[self._draw(rng)]
            return named(candidate.forward_mixed(model, inputs, labels, rng.child(candidate.name)), candidate.name)
        mixed = self.mix(inputs, dense_targets(labels, self.num_classes), rng)
        return MixedForward(model(mixed.inputs), mixed.targets, mixed.lam, name=self.name)

    def mix(self, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, *S) and targets (N, K) with the drawn candidate, or one drawn for each sample."""
        self._require_input_mixers()
        if self.granularity == "batch":
            return self._mix_with(self._draw(rng), inputs, targets, rng)
        draws = rng.generator("choice").random(len(inputs))
        used, choice = np.unique(np.searchsorted(self._upper, draws, side="right"), return_inverse=True)
        return choose_rows([self._mix_with(index, inputs, targets, rng) for index in used], choice)

    def _draw(self, rng: StepRng) -> int:
        """Index of the candidate for this step, the same on all ranks."""
        draw = rng.generator("choice", shared=True).random()
        return int(np.searchsorted(self._upper, draw, side="right"))  # right: a weight of 0 is never drawn

    def _mix_with(self, index: int, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        candidate: Any = self.candidates[index]  # mixes without a network: ``mix`` has seen to that
        return named(candidate.mix(inputs, targets, rng.child(candidate.name)), candidate.name)

    def _require_input_mixers(self) -> None:
        inside = [c.name for c in self.candidates if not isinstance(c, BatchMixer)]
        if inside:
            raise ValueError(
                f"candidates {', '.join(inside)} mix inside the network: use forward_mixed(model, inputs, labels, rng) "
                "and granularity 'batch'"
            )


def _mixers(candidates: Sequence[Candidate], shared: Mapping[str, Any]) -> list[Mixer]:
    if isinstance(candidates, str | Mapping) or len(candidates) == 0:
        raise ValueError(f"candidates must be a list of at least 1 mixer, got {candidates!r}")
    return [c if isinstance(c, Mixer) else build(c, **shared) for c in candidates]


def _weights(weights: Sequence[float] | None, count: int) -> list[float]:
    if weights is None:
        return [1.0] * count
    if isinstance(weights, str):
        raise ValueError(f"weights must be a list of numbers, got {weights!r}")
    if len(weights) != count:
        raise ValueError(f"weights has {len(weights)} entries but candidates has {count}")
    weights = weights.tolist() if isinstance(weights, Tensor) else list(weights)
    numbers = all(isinstance(weight, Real) and 0 <= weight < math.inf for weight in weights)
    if not numbers or sum(weights) == 0:
        raise ValueError(f"weights must be numbers >= 0 and finite with a sum > 0, got {weights}")
    return [float(weight) for weight in weights]


def _joint_mode(modes: Sequence[MixedMode]) -> MixedMode:
    """The mode of a choice between modes: what mixes not at all adds nothing."""
    distinct = set(modes) - {MixedMode.NONE}
    if len(distinct) > 1:
        return MixedMode.BOTH
    return distinct.pop() if distinct else MixedMode.NONE
