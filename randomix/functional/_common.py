"""What the mixing functions share: argument checks, blending, and the result in the inputs' memory format."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from randomix import masks
from randomix.devices import to_device
from randomix.types import MixedBatch


def check(inputs: Tensor, targets: Tensor, perm: Tensor, name: str = "inputs") -> None:
    """Raise ValueError unless inputs are floating (N, C, *S) with N targets and N partners."""
    if inputs.ndim < 3 or not inputs.is_floating_point():
        raise ValueError(f"{name} must be floating (N, C, *spatial), got {inputs.dtype} {tuple(inputs.shape)}")
    check_targets(targets)
    counts = inputs.shape[0], targets.shape[0], perm.shape[0]  # len() of a tensor takes four times as long
    if not counts[0] == counts[1] == counts[2]:
        raise ValueError(f"{name} has {counts[0]} samples, targets has {counts[1]} and perm has {counts[2]}")


def check_targets(targets: Tensor) -> None:
    """Raise ValueError, with the way to convert, unless targets are floating (N, K)."""
    if targets.ndim != 2 or not targets.is_floating_point():
        raise ValueError(
            f"targets must be floating (N, K), got {targets.dtype} {tuple(targets.shape)}; "
            "use torch.nn.functional.one_hot(labels, K).float()"
        )


def check_share(name: str, value: float | np.ndarray | Tensor) -> None:
    """Raise ValueError unless numbers on the host are in [0, 1]; to look at a tensor might wait for its device."""
    if isinstance(value, float):
        inside = 0 <= value <= 1
    else:
        inside = isinstance(value, Tensor) or bool(np.all((np.asarray(value) >= 0) & (np.asarray(value) <= 1)))
    if not inside:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def blend(partner: Tensor, inputs: Tensor, weight: float | Tensor) -> Tensor:
    """weight * inputs + (1 - weight) * partner; a weight tensor must broadcast with the inputs."""
    if not isinstance(weight, Tensor):
        return torch.lerp(partner, inputs, weight)
    if weight.dtype == torch.bool or weight.dtype == inputs.dtype:
        # exact for a mask and finite values: lerp is either end itself at weight 0 and 1; 5 times torch.where's speed
        return torch.lerp(partner, inputs, weight.to(inputs.dtype))
    wide = torch.promote_types(weight.dtype, inputs.dtype)  # a weight rounded to half would not be the label's
    return torch.lerp(partner.to(wide), inputs.to(wide), weight.to(wide)).to(inputs.dtype)


def blend_masked(partner: Tensor, inputs: Tensor, mask: Tensor) -> Tensor:
    """mask * inputs + (1 - mask) * partner, a tensor of one's own, for a mask (*S) or (N, *S)."""
    mask = mask if mask.ndim == inputs.ndim - 1 else mask[None]
    weight, on_cpu = mask[:, None], inputs.device.type == "cpu"
    if mask.dtype == torch.bool and not on_cpu:
        return torch.where(weight, inputs, partner)
    if on_cpu and masks.memory_order(inputs) is not inputs:
        # a mask that broadcasts over channels that are innermost costs a CPU 6 to 18 times as much as a written one
        weight = mask[..., None].expand(*mask.shape, inputs.shape[1]).contiguous().movedim(-1, 1)
    return blend_onto(partner, inputs, weight)


def pair_batch(mixed: Tensor, inputs: Tensor, targets: Tensor, perm: Tensor, lam: float | Tensor) -> MixedBatch:
    """The result for mixed inputs: in the inputs' strides; targets blended by lam and lam (N,), both float32."""
    return MixedBatch(masks.restride(mixed, inputs), *mix_targets(targets, perm, lam))


def mix_targets(targets: Tensor, perm: Tensor, lam: float | Tensor) -> tuple[Tensor, Tensor]:
    """Targets (N, K) float32, lam * y + (1 - lam) * y[perm], and lam as (N,) float32; lam is a number or (N,)."""
    check_share("lam", lam)
    targets, count = targets.float(), targets.shape[0]
    partner = targets.index_select(0, perm)
    if not isinstance(lam, Tensor):
        own = torch.full((count,), lam, dtype=torch.float32, device="cpu")  # also under another default device
        return partner.lerp_(targets, lam), to_device(own, targets.device)
    shares = lam.to(torch.float32).reshape(-1).expand(count).contiguous()
    return partner.lerp_(targets, shares[:, None]), shares


def blend_onto(partner: Tensor, inputs: Tensor, weight: float | Tensor) -> Tensor:
    """As ``blend``, but written into partner, a tensor of one's own, where the types allow it.

    Half the time of a new tensor on a CPU, where most of it is spent on fresh memory.
    """
    if isinstance(weight, Tensor) and weight.dtype not in (torch.bool, partner.dtype):
        return blend(partner, inputs, weight)
    return partner.lerp_(inputs, weight.to(partner.dtype) if isinstance(weight, Tensor) else weight)


def blend_partners(inputs: Tensor, perm: Tensor, weight: float | Tensor) -> Tensor:
    """weight * inputs + (1 - weight) * inputs[perm] for inputs (N, C, *S), in their memory format.

    weight: a number, or a tensor without axes or (N, 1, .., 1), one entry for each sample.
    """
    view = masks.memory_order(inputs)
    mixed = blend_onto(view.index_select(0, perm), view, weight)
    return mixed if view is inputs else mixed.movedim(-1, 1)


def gradient_norm(gradient: Tensor) -> Tensor:
    """Saliency (N, *S) float32 of gradients (N, C, *S): the root of the channels' mean square.

    A sample whose saliency is zero everywhere or not finite somewhere (half precision under- or overflows) gets 1
    everywhere: nothing is known about it. Source: Kim et al., Puzzle Mix (ICML 2020), section 3.1; the mean over
    channels is the authors' code.
    """
    gradient = gradient.float()
    axes = tuple(range(1, gradient.ndim))
    largest = gradient.abs().amax(axes, keepdim=True)
    known = (largest > 0) & (largest < torch.inf)  # False for NaN, too
    scale = torch.where(known, largest, 1.0)  # squares of very small or large gradients leave the range of float32
    norm = (gradient / scale).square().mean(1).sqrt()
    return torch.where(known[:, 0], norm * scale[:, 0], 1.0)
