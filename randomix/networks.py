"""What methods and evaluations do to a network from outside: unwrap it, freeze it, tap it, take its input gradient."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from randomix.types import Tap

FP16_SCALE = 64.0  # of a summed loss: keeps small input gradients in float16's range
FP16_MEAN_SCALE = 1024.0  # of a mean loss, where weight gradients are taken too: those of a sum grow with the batch


def unwrap(model: nn.Module) -> nn.Module:
    """The network itself, without DistributedDataParallel and torch.compile around it."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def is_compiled(model: nn.Module) -> bool:
    """Whether calling ``model`` runs a compiled graph: numbers that change with each step then have to be tensors."""
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    if getattr(inner, "_compiled_call_impl", None) is not None:  # model.compile()
        return True
    forward = inner.forward  # of torch.compile(model), and of model.forward = torch.compile(model.forward)
    return hasattr(forward, "_torchdynamo_orig_callable") and not hasattr(forward, "_torchdynamo_disable")


def run_bare(model: nn.Module, inputs: Tensor, **options: Any) -> Tensor:
    """Logits of the network itself, past DistributedDataParallel and torch.compile, also past ``model.compile()``."""
    return unwrap(model)._call_impl(inputs, **options)  # __call__ would run what model.compile() left behind


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and each submodule's own mode again afterwards: frozen parts stay as they were."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


# --- Taps ------------------------------------------------------------------------------------------------------------


def num_taps(model: nn.Module) -> int:
    """How many taps a network has; ValueError for one without, with the way to get them."""
    count = getattr(unwrap(model), "num_taps", None)
    if not isinstance(count, int):
        raise ValueError(
            f"{type(unwrap(model)).__name__} has no taps: give its forward a `tap` argument and the attribute "
            "num_taps, or wrap it with randomix.networks.hooked(model, names)"
        )
    return count


_SHAPES: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, ...], list[tuple[int, ...]]]] = (
    weakref.WeakKeyDictionary()
)


def tap_shapes(model: nn.Module, inputs: Tensor) -> list[tuple[int, ...]]:
    """Shape (C, *S) of the features at each tap for inputs (N, C, *S); learnt from one sample, once a network.

    Raises ValueError for a network that does not call each of its taps once: what is mixed would not be what its
    targets say.
    """
    module = unwrap(model)
    count, known = num_taps(module), _SHAPES.setdefault(module, {})
    key = tuple(inputs.shape[1:])
    if key not in known:
        found: list[tuple[int, tuple[int, ...]]] = []

        def record(index: int, features: Tensor) -> Tensor:
            found.append((index, tuple(features.shape[1:])))
            return features

        with evaluation_mode(module), torch.no_grad(), _no_autocast_cache():
            run_bare(module, inputs[:1], tap=record)
        if sorted(index for index, _ in found) != list(range(count)):
            raise ValueError(
                f"{type(module).__name__} has num_taps {count}, but its forward calls the taps "
                f"{[index for index, _ in found]}; it must call each of 0 to {count - 1} once"
            )
        known[key] = [shape for _, shape in sorted(found)]
    return known[key]


@contextmanager
def _no_autocast_cache() -> Iterator[None]:
    """Weights that are cast to half precision inside are not kept: some versions would train on without gradients."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def zeros_like_samples(model: nn.Module, sample_shape: Sequence[int]) -> Tensor:
    """A batch (1, *sample_shape) of zeros where the network is and of its type."""
    weight = next((p for p in unwrap(model).parameters() if p.is_floating_point()), torch.empty(0))
    return torch.zeros(1, *sample_shape, device=weight.device, dtype=weight.dtype)


class Hooked(nn.Module):
    """A network without taps, given them: tap 0 is its input, tap i the output of its submodule ``names[i - 1]``.

    A submodule must return one tensor (N, C, *S) and run once in a forward pass. The taps are forward hooks, which
    torch.compile ignores without a word: calling it compiled raises RuntimeError.
    """

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        if is_compiled(model) or unwrap(model) is not model:
            raise ValueError(
                "hooked() takes the bare network: torch.compile ignores hooks, and with them the mixing; "
                "DistributedDataParallel goes around its result"
            )
        if isinstance(names, str) or not isinstance(names, Sequence):
            raise ValueError(f"names must be a list of submodules, such as ['layer1'], got {names!r}")
        parts = dict(model.named_modules())
        missing = [name for name in names if name not in parts or not name]
        if not names or missing or len(set(names)) < len(names):
            raise ValueError(
                f"names has {missing or names!r}, expected submodules of {type(model).__name__}: "
                f"{', '.join(name for name in parts if name)}"
            )
        self.network, self.names, self.num_taps = model, tuple(names), 1 + len(names)

    def compile(self, *_: Any, **__: Any) -> None:
        """Raise RuntimeError: torch.compile ignores hooks."""
        raise RuntimeError(_NOT_COMPILED)

    def forward(self, inputs: Tensor, tap: Tap | None = None) -> Tensor:
        """Logits (N, K) of inputs (N, C, *S); ``tap(index, features)`` may replace the features at each tap."""
        _refuse_compiled()
        if tap is None:
            return self.network(inputs)
        runs, graded = [0] * len(self.names), torch.is_grad_enabled()

        def replace(position: int, _module: nn.Module, _arguments: Any, output: Any) -> Tensor:
            if graded and not torch.is_grad_enabled() and _below("torch.utils.checkpoint"):
                raise RuntimeError(
                    f"the submodule {self.names[position]} runs without gradients, as below a reentrant checkpoint, "
                    "which would compute it again without its tap; tap a submodule outside of the checkpoint"
                )
            if not isinstance(output, Tensor):
                kind = type(output).__name__
                raise TypeError(f"the submodule {self.names[position]} returns {kind}, expected one tensor")
            runs[position] += 1
            return tap(1 + position, output)

        handles = [
            self.network.get_submodule(name).register_forward_hook(partial(replace, position))
            for position, name in enumerate(self.names)
        ]
        try:
            logits = self.network(tap(0, inputs))
        finally:
            for handle in handles:
                handle.remove()
        for name, count in zip(self.names, runs, strict=True):
            if count != 1:
                raise ValueError(f"the submodule {name} ran {count} times in a forward pass, expected once")
        return logits


def hooked(model: nn.Module, names: Sequence[str]) -> Hooked:
    """Give somebody else's network taps: 0 is the input, then the outputs of the submodules ``names``, in this order.

    Weights and their names below ``network.`` are those of ``model``. Raises ValueError for unknown names and for a
    compiled network, and the result raises RuntimeError when it is called compiled.
    """
    return Hooked(model, names)


_NOT_COMPILED = (
    "a hooked network cannot be compiled: torch.compile ignores hooks; run it eagerly (trainer.compile=false), "
    "or give the network a `tap` argument of its own"
)


def _below(module: str) -> bool:
    """Whether a function of a module has called, directly or not, what runs now."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and (frame := frame.f_back) is not None:
        if frame.f_globals.get("__name__") == module:
            return True
    return False


def _refuse_compiled() -> None:
    """Raise RuntimeError below a compiled function: dynamo would trace around the hooks."""
    frame: FrameType | None = sys._getframe()  # ends dynamo's trace here: this function runs uncompiled
    while frame is not None and (frame := frame.f_back) is not None:
        if frame.f_globals.get("__name__") == "torch._dynamo.eval_frame":
            if frame.f_code.co_qualname.startswith("DisableContext"):
                return  # torch.compiler.disable, as around torch.utils.checkpoint: nothing below it is compiled
            raise RuntimeError(_NOT_COMPILED)


# --- Input gradients -------------------------------------------------------------------------------------------------


class _WithGradients(torch.autograd.Function):
    """A loss whose gradients with respect to the first ``count`` tensors are factor times the others."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, factor: float, count: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors[count:])
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = torch._foreach_mul(list(ctx.saved_tensors), grad * ctx.factor)
        return (None, None, None, *gradients, *[None] * len(gradients))


def input_gradient(
    model: nn.Module, inputs: Tensor, targets: Tensor, clean_weight: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Gradient (N, C, *S) float32 of the summed cross-entropy at inputs (N, C, *S), and the clean loss or None.

    targets (N, K). One pass through the bare network: no weight gradients, no reduction over ranks.
    clean_weight 0: with evaluation-mode statistics, which the pass leaves as they are.
    clean_weight > 0: in the network's own mode; the clean loss 2 * clean_weight / K * (mean cross-entropy) is returned
    too and carries its weight gradients, found by the same backward pass. Source: the authors' code of Puzzle Mix and
    Co-Mixup (``clean_lam``).
    """
    module, leaf = unwrap(model), inputs.detach().requires_grad_()
    half = torch.float16 in (inputs.dtype, _autocast_dtype(inputs.device.type))
    if clean_weight == 0:
        scale = FP16_SCALE if half else 1.0
        with evaluation_mode(module), torch.enable_grad():
            (gradient,) = torch.autograd.grad(_summed_loss(module, leaf, targets) * scale, leaf)
        return gradient.float() / scale, None
    scale = FP16_MEAN_SCALE / len(inputs) if half else 1.0
    weights = [p for p in module.parameters() if p.requires_grad]
    with torch.enable_grad():
        loss = _summed_loss(module, leaf, targets)
        gradient, *found = torch.autograd.grad(loss * scale, [leaf, *weights], allow_unused=True)
    factor = 2.0 * clean_weight / targets.shape[1] / len(inputs)
    used = [(p, g) for p, g in zip(weights, found, strict=True) if g is not None]
    tensors = (*(p for p, _ in used), *(g for _, g in used))
    clean = _WithGradients.apply(loss.detach() * factor, factor / scale, len(used), *tensors)
    return gradient.float() / scale, clean


def _summed_loss(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return -(targets.float() * F.log_softmax(run_bare(module, inputs).float(), dim=1)).sum()


def _autocast_dtype(device_type: str) -> torch.dtype | None:
    known = torch.amp.is_autocast_available(device_type)
    return torch.get_autocast_dtype(device_type) if known and torch.is_autocast_enabled(device_type) else None
