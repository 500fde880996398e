"""Adversarial attacks: pixels moved within an l-infinity ball so that the loss of the true label rises.

I. Goodfellow, J. Shlens, C. Szegedy: Explaining and Harnessing Adversarial Examples, ICLR 2015 (FGSM: one step).
A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu: Towards Deep Learning Models Resistant to Adversarial Attacks,
ICLR 2018 (PGD: several steps from a random start).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from randomix.networks import evaluation_mode, run_bare, unwrap
from randomix.robustness.counter import hash64, unit_interval


class Attacked(NamedTuple):
    """inputs: the moved pixels (N, C, *S). zeros: (N,) int64, how many entries of the first gradient move nothing.

    Those are 0 or not finite. A sample that has no others looks robust and was not attacked.
    """

    inputs: Tensor
    zeros: Tensor


class PixelNetwork(nn.Module):
    """A network with its normalisation inside: it takes pixels (N, C, *S) in [0, 1]."""

    def __init__(self, network: nn.Module, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.normalise = unwrap(network), normalise

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (N, K)."""
        return run_bare(self.network, self.normalise(pixels))


def fgsm(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    eps: float,
    steps: int = 1,
    step_size: float | None = None,
    random_start: bool = False,
    *,
    indices: Tensor | None = None,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Pixels (N, C, *S) in [0, 1], each moved by at most ``eps`` so that the loss of labels (N,) rises.

    model: takes pixels, its normalisation inside (``PixelNetwork``). eps, step_size: in units of [0, 1]; None: one step
    is eps. With one step this is FGSM, with more, and usually a random start, PGD. indices: (N,) int64 into the data
    set, 0 .. N - 1 if not given; with ``seed`` they alone decide the random start, in every batch and on every rank.
    bounds: what inputs may be if they are no pixels, such as (-1, 1) for sound. The other options and what is done to
    the network are those of ``attack``. Raises ValueError for numbers out of range.
    """
    _check_range(inputs, bounds)
    found = attack(
        model, inputs, labels, eps, steps, step_size, random_start, indices=indices, seed=seed, bounds=bounds
    )
    return found.inputs


def attack(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    eps: float,
    steps: int = 1,
    step_size: float | None = None,
    random_start: bool = False,
    *,
    indices: Tensor | None = None,
    seed: int = 0,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Attacked:
    """``fgsm`` with what its gradients were like, without a look at the range of the inputs.

    The bare network runs in evaluation mode and in float32, without autocast and TF32: in half precision small
    gradients vanish and the attack looks weaker. Modes are restored; gradients of parameters, those that were there
    too, are left alone. Each sample is attacked on its own: batches change nothing but roundings. Works below
    ``torch.no_grad`` and ``torch.inference_mode``; a network that was made in inference mode is a ValueError.
    """
    step = eps if step_size is None else step_size
    _check(eps, steps, step)
    _check_inputs(inputs, labels, indices, bounds)
    network = unwrap(model)
    check_recorded(network)
    origin, labels = recorded(inputs.detach()), recorded(labels)
    zeros = torch.zeros(len(labels), dtype=torch.int64, device=origin.device)
    with evaluation_mode(network), exact_float32(inputs.device.type), gradients():
        moved = _project(origin + _start(origin, eps, indices, seed), origin, eps, bounds) if random_start else origin
        for number in range(steps):
            leaf = moved.detach().requires_grad_()
            logits = run_bare(network, leaf).float()
            loss = F.cross_entropy(logits, labels, reduction="sum")  # a mean would shrink with the batch
            (gradient,) = torch.autograd.grad(loss, leaf)
            useless = (gradient == 0) | ~gradient.isfinite()
            zeros = zeros if number else useless.flatten(1).sum(1)  # those at the beginning count
            moved = _project(moved + step * gradient.sign().masked_fill_(useless, 0), origin, eps, bounds)
    return Attacked(moved, zeros)


def _project(moved: Tensor, origin: Tensor, eps: float, bounds: tuple[float, float]) -> Tensor:
    """``moved`` into the ball around ``origin``; clamps the difference, as others do: equal to the last bit."""
    return torch.clamp(origin + (moved - origin).clamp_(-eps, eps), *bounds)


def _start(pixels: Tensor, eps: float, indices: Tensor | None, seed: int) -> Tensor:
    """Uniform in (-eps, eps] for each entry of pixels (N, C, *S): a function of (seed, index, entry) alone."""
    indices = torch.arange(len(pixels), device=pixels.device) if indices is None else indices
    entries = torch.arange(pixels.shape[1:].numel(), device=pixels.device)
    return unit_interval(hash64(seed, indices[:, None], entries)).mul_(2 * eps).sub_(eps).view(pixels.shape)


def _check(eps: float, steps: int, step_size: float) -> None:
    if not 0 <= eps <= 1:
        raise ValueError(f"eps is {eps}, expected 0 to 1, in units of [0, 1] pixels: write 8 / 255 for 8")
    if not 0 <= step_size <= 1:
        raise ValueError(f"step_size is {step_size}, expected 0 to 1, in units of [0, 1] pixels")
    if steps < 1:
        raise ValueError(f"steps is {steps}, expected a number >= 1")


def _check_inputs(inputs: Tensor, labels: Tensor, indices: Tensor | None, bounds: tuple[float, float]) -> None:
    if not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating pixels in [0, 1], got {inputs.dtype}; convert with .float() / 255")
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds is ({low}, {high}), expected the least and the largest value, such as (0, 1)")
    if not len(inputs) == len(labels) == len(inputs if indices is None else indices):
        raise ValueError(
            f"inputs has {len(inputs)} samples, labels has {len(labels)}"
            + ("" if indices is None else f" and indices has {len(indices)}")
        )


def _check_range(inputs: Tensor, bounds: tuple[float, float]) -> None:
    """Looks at the inputs, and so waits for their device: normalised ones would be moved by far more than eps."""
    low, high = bounds
    if (
        inputs.is_floating_point()
        and low < high
        and len(inputs)
        and not bool(((inputs >= low - 1e-6) & (inputs <= high + 1e-6)).all())
    ):
        kind = "pixels " if bounds == (0, 1) else ""
        raise ValueError(
            f"inputs must be {kind}in [{low:g}, {high:g}], found {float(inputs.min()):g} to {float(inputs.max()):g}; "
            "normalise inside the model: PixelNetwork(network, normalise)"
        )


def check_recorded(network: nn.Module) -> None:
    """ValueError for weights or buffers made in inference mode: nothing can be differentiated through them."""
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_inference():
            raise ValueError(
                f"an attack needs gradients, but {name} of the network was made inside torch.inference_mode(); "
                "make or load the network outside of it, or use torch.no_grad()"
            )


def recorded(tensor: Tensor) -> Tensor:
    """A tensor that autograd accepts: itself, or the copy of one made in inference mode."""
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def gradients() -> Iterator[None]:
    """Autograd records inside, also below ``torch.no_grad`` and ``torch.inference_mode``."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def exact_float32(device_type: str) -> Iterator[None]:
    """No autocast and no TF32 inside; what was set before again afterwards."""
    convolutions: Any = torch.backends.cudnn
    products, setting, off = torch.backends.cuda.matmul, "allow_tf32", cast(Any, False)
    if hasattr(products, "fp32_precision"):  # newer versions refuse to mix the two ways to say it
        convolutions, setting, off = convolutions.conv, "fp32_precision", "ieee"
    before = getattr(convolutions, setting), getattr(products, setting)
    setattr(convolutions, setting, off)
    setattr(products, setting, off)
    try:
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        setattr(convolutions, setting, before[0])
        setattr(products, setting, before[1])
