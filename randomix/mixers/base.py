"""Base classes of the methods, in order of how much of the network they need.

Mixer: runs the model itself. BatchMixer: can hand out its mixed batch without a model. InputMixer: mixes inputs before
the network, and only that. PairMixer: an InputMixer that blends each sample with one partner of the batch. Those that
need the network itself are in ``base_network``.
"""

from __future__ import annotations

import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Self, TypeGuard, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from randomix.devices import to_device
from randomix.masks import memory_order, restride
from randomix.rng import StepRng, as_step_rng
from randomix.types import MixedBatch, MixedForward, MixedMode

Rng = StepRng | torch.Generator | int | None
"""Where draws come from; None follows ``torch.manual_seed``. Training passes a StepRng: a function of its step."""
GRANULARITIES = ("batch", "sample")
_REMEMBERED = 1024  # classes of which all targets are kept: 4 MB


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless value is a finite number above 0."""
    if not isinstance(value, Real) or not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number > 0 and finite, got {value!r}")


def require_within(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not isinstance(value, Real) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low}, {high}], got {value!r}")


def is_integer(value: object, least: int) -> TypeGuard[int]:
    """Whether value is an integer (no bool) of at least ``least``."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def require_integer(name: str, value: object, least: int = 1) -> None:
    """Raise ValueError unless value is an integer (no bool) of at least ``least``."""
    if not is_integer(value, least):
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")


def require_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Raise ValueError that lists the choices unless value is one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_tensor(name: str, value: object) -> None:
    """Raise TypeError, with the way to convert, unless value is a tensor."""
    if not isinstance(value, Tensor):
        kind, convert = type(value), "torch.from_numpy" if isinstance(value, np.ndarray) else "torch.as_tensor"
        full = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"{name} must be a torch.Tensor, got {full}; use {convert}")


def require_flag(name: str, value: object) -> None:
    """Raise ValueError unless value is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")


def require_batch(inputs: Any, labels: Any) -> None:
    """Raise TypeError or ValueError, with the fix, unless inputs are floating (N, C, *S) with one label a sample."""
    require_tensor("inputs", inputs)
    require_tensor("labels", labels)
    if not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating point, got {inputs.dtype}; convert with .float() / 255 first")
    if inputs.ndim < 3 or labels.ndim < 1 or not 0 < inputs.shape[0] == labels.shape[0]:
        raise ValueError(
            f"inputs must be (N, C, *spatial) with one label a sample and N >= 1, got {tuple(inputs.shape)} "
            f"and {tuple(labels.shape)}"
        )
    if inputs.device != labels.device:
        raise ValueError(f"labels are on {labels.device} and inputs on {inputs.device}; move them to one device")


def dense_targets(labels: Tensor, num_classes: int | None) -> Tensor:
    """Targets (N, K) float32 from integer labels (N,) or floating dense targets (N, K).

    Raises ValueError for labels of another kind, shape or K, and for integers without ``num_classes`` or outside
    [0, K) (on a GPU these end the process with a device-side assert, as looking at them would wait for the device).
    """
    require_tensor("labels", labels)
    dense = labels.is_floating_point()
    if labels.ndim != (2 if dense else 1):
        hint = "; pass labels.squeeze(1)" if labels.shape[1:] == (1,) else "; convert with .float()" * (not dense)
        raise ValueError(
            "labels must be integers (N,) or floating dense targets (N, K), "
            f"got {labels.dtype} {tuple(labels.shape)}{hint if labels.ndim == 2 else ''}"
        )
    if dense:
        if num_classes not in (None, labels.shape[1]):
            raise ValueError(f"dense targets have {labels.shape[1]} columns but num_classes is {num_classes}")
        return labels.float()
    if num_classes is None:
        raise ValueError("integer labels need num_classes: pass it to the mixer, or pass dense targets (N, K)")
    try:  # both check the range by themselves
        if num_classes <= _REMEMBERED and type(labels) is Tensor:  # not one that only pretends to have values
            return _identity(num_classes, labels.device).index_select(0, labels.long())
        return torch.zeros(labels.shape[0], num_classes, device=labels.device).scatter_(1, labels.long()[:, None], 1)
    except (IndexError, RuntimeError):
        low, high = int(labels.min()), int(labels.max())
        if low >= 0 and high < num_classes:
            raise
        raise ValueError(
            f"labels must be in [0, {num_classes - 1}] for num_classes {num_classes}, found {low} to {high}"
        ) from None


@functools.lru_cache(maxsize=8)
def _identity(num_classes: int, device: torch.device) -> Tensor:
    """Targets (K, K) of every class: one operation makes a batch's. Remembered, never written to."""
    return torch.eye(num_classes, device=device)


def unmixed(inputs: Tensor, targets: Tensor) -> MixedBatch:
    """Inputs (N, C, *S) and targets (N, K) as they are, with lam 1."""
    return MixedBatch(inputs, targets.float(), torch.ones(len(targets), device=targets.device))


Mixed = TypeVar("Mixed", MixedBatch, MixedForward)


def named(mixed: Mixed, name: str) -> Mixed:
    """The result with its method's name filled in where the method left it empty."""
    if mixed.name:
        return mixed
    if isinstance(mixed, MixedBatch):  # a third of the time of replace()
        batch: Any = MixedBatch(mixed.inputs, mixed.targets, mixed.lam, name)
        return batch
    return replace(mixed, name=name)


def choose_rows(batches: Sequence[MixedBatch], choice: np.ndarray) -> MixedBatch:
    """Sample i of the batch choice[i], for each i; choice (N,) integers on the host."""
    if len(batches) == 1:
        return batches[0]
    count, first = len(choice), batches[0].inputs
    rows = to_device(choice * count + np.arange(count), first.device)
    views = [memory_order(b.inputs) for b in batches]  # torch.cat knows no layout in 1-D
    chosen = torch.cat(views).index_select(0, rows)
    chosen = chosen if views[0] is first else chosen.movedim(-1, 1)
    targets, lam = torch.cat([b.targets for b in batches]), torch.cat([b.lam for b in batches])
    return MixedBatch(restride(chosen, first), targets.index_select(0, rows), lam.index_select(0, rows))


def on_device(draw: Any, device: torch.device) -> Any:
    """Host arrays and tensors to ``device`` without waiting for it; numbers and tuples are kept as they are."""
    return to_device(draw, device) if isinstance(draw, np.ndarray | Tensor) else draw


class Mixer(ABC):
    """A strategy that takes (model, inputs, labels) to (logits, soft targets).

    ``num_classes`` is K for integer labels; dense targets need none. Subclasses set ``mode`` and live in a module
    of this package whose name is the method's registry name.
    """

    mode: MixedMode
    spatial_dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    inplace: bool = False  # whether it may write into the inputs that it is given: see allow_inplace

    def __init__(self, *, num_classes: int | None = None) -> None:
        if num_classes is not None and (not isinstance(num_classes, int | np.integer) or num_classes < 1):
            raise ValueError(f"num_classes must be an integer >= 1 or None, got {num_classes!r}")
        self.num_classes = num_classes

    def __repr__(self) -> str:
        """The class with the settings that are not the default ones."""
        defaults = {k: p.default for k, p in inspect.signature(type(self)).parameters.items()}
        changed = {k: getattr(self, k) for k, d in defaults.items() if getattr(self, k, d) != d}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    @property
    def name(self) -> str:
        """The registry name: the module in which the class is defined."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def reads_statistics(self) -> bool:
        """Whether what it does depends on the network's running statistics."""
        return False

    def check_shape(self, sample_shape: Sequence[int]) -> None:
        """Raise ValueError, with the fix, if it cannot mix samples (C, *S): to be called before training."""
        if len(sample_shape) - 1 not in self.spatial_dims:
            covered = " and ".join(f"{dims}-D" for dims in self.spatial_dims)
            raise ValueError(f"{self.name} mixes {covered} samples only, not {tuple(sample_shape)}; use another method")

    def check_network(self, model: nn.Module, sample_shape: Sequence[int]) -> None:  # noqa: B027
        """Raise ValueError if ``model``, for samples (C, *S), lacks what it needs: to be called before training."""

    def allow_inplace(self) -> Self:
        """Let it mix within the inputs that it is given, for loops that make each batch for one step only; itself."""
        self.inplace = True
        return self

    def __call__(self, *arguments: Any, **options: Any) -> MixedBatch:
        """Refuse: without the network there is no mixed batch (a BatchMixer makes one)."""
        raise TypeError(f"{self.name} needs the network: use forward_mixed(model, inputs, labels, rng)")

    @abstractmethod
    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: Rng = None) -> MixedForward:
        """Run ``model`` on the mixed inputs (N, C, *S); labels (N,) integers or (N, K) dense; rng: see Rng."""


class BatchMixer(Mixer):
    """A method that can hand out its mixed batch, for a loop of one's own."""

    @abstractmethod
    def mix(self, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, *S) and dense targets (N, K); neither is modified, but inputs may be if ``inplace``."""

    def __call__(self, inputs: Tensor, labels: Tensor, rng: Rng = None) -> MixedBatch:
        """Mix a batch in a loop of one's own; ``rng=None`` follows ``torch.manual_seed``.

        inputs: (N, C, *S) of any floating dtype on any device; labels: (N,) integers or (N, K) dense targets.
        """
        require_batch(inputs, labels)
        return named(self.mix(inputs, dense_targets(labels, self.num_classes), as_step_rng(rng)), self.name)


class InputMixer(BatchMixer):
    """A method that mixes inputs and targets before the network sees them: it implements only ``mix``."""

    @final
    def forward_mixed(self, model: nn.Module, inputs: Tensor, labels: Tensor, rng: Rng = None) -> MixedForward:
        """Run ``model`` on the mixed inputs (N, C, *S); labels (N,) integers or (N, K) dense."""
        require_batch(inputs, labels)
        mixed = self.mix(inputs, dense_targets(labels, self.num_classes), as_step_rng(rng))
        return MixedForward(model(mixed.inputs), mixed.targets, mixed.lam, name=mixed.name or self.name)


class PairMixer(InputMixer):
    """A method that blends each sample with its partner x[perm]: it implements only ``mix_pairs``.

    prob: the share of batches (or samples) that are mixed at all; the others keep inputs, targets and lam 1.
    granularity: "batch" draws coin, lam and geometry once for the batch, "sample" for each sample. All draws of a call
    come from one generator on the host.
    """

    def __init__(self, *, prob: float = 1.0, granularity: str = "batch", num_classes: int | None = None) -> None:
        super().__init__(num_classes=num_classes)
        require_within("prob", prob, 0, 1)
        require_choice("granularity", granularity, GRANULARITIES)
        self.prob, self.granularity = prob, granularity

    @abstractmethod
    def mix_pairs(self, inputs: Tensor, targets: Tensor, perm: Tensor, draws: np.random.Generator) -> MixedBatch:
        """Mix inputs (N, C, *S) and targets (N, K) with those at perm (N,); draws is all the randomness there is."""

    def mix(self, inputs: Tensor, targets: Tensor, rng: StepRng) -> MixedBatch:
        """Mix inputs (N, C, *S) and dense targets (N, K) with a random partner each."""
        draws, count = rng.generator(self.name), inputs.shape[0]
        perm = to_device(draws.permutation(count), inputs.device)
        if self.granularity == "batch":
            mixes_all = draws.random() < self.prob
            return self.mix_pairs(inputs, targets, perm, draws) if mixes_all else unmixed(inputs, targets)
        mixes = draws.random(count) < self.prob
        if not mixes.any():
            return unmixed(inputs, targets)
        mixed = self.mix_pairs(inputs, targets, perm, draws)
        return mixed if mixes.all() else choose_rows([unmixed(inputs, targets), mixed], mixes.astype(np.int64))

    def per_draw(self, count: int) -> int | None:
        """The ``size`` to hand to a NumPy generator: None for one draw a batch, N for one a sample."""
        return None if self.granularity == "batch" else count

    def draw_lam(self, draws: np.random.Generator, alpha: float, count: int) -> float | np.ndarray:
        """Own share lam ~ Beta(alpha, alpha): a float for the batch, or (N,) float32."""
        lam = draws.beta(alpha, alpha, self.per_draw(count))
        return lam if self.granularity == "batch" else lam.astype(np.float32)

    def draw_centers(self, draws: np.random.Generator, inputs: Tensor) -> list[int] | np.ndarray:
        """A pixel drawn uniformly: d integers for the batch, or (N, d)."""
        spatial = inputs.shape[2:]
        if self.granularity == "batch":
            return [int(draws.integers(0, size)) for size in spatial]  # in half the time of (d,), and the same numbers
        return draws.integers(0, spatial, (len(inputs), len(spatial)))
