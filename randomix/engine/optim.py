"""Optimiser, learning rate as a closed form of the step, numeric precision, and the weight average."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from randomix.engine.schema import RecipeConfig
from randomix.errors import ConfigError


def learning_rate(step: int, recipe: RecipeConfig, steps_per_epoch: int) -> float:
    """The learning rate of a global step: linear warm-up, then the schedule over the remaining steps.

    cosine: SGDR without restarts (Loshchilov and Hutter, 2017), updated every step; multistep: ``gamma`` at each
    milestone, given as a fraction of all epochs.
    """
    total, warmup = recipe.epochs * steps_per_epoch, round(recipe.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return recipe.lr * (step + 1) / warmup
    if recipe.schedule == "cosine":
        progress = (step - warmup) / max(total - warmup, 1)
        return recipe.min_lr + 0.5 * (recipe.lr - recipe.min_lr) * (1 + math.cos(math.pi * progress))
    if recipe.schedule == "multistep":
        passed = sum(step >= round(fraction * total) for fraction in recipe.milestones)
        return recipe.lr * recipe.gamma**passed
    return recipe.lr


def build_optimizer(model: nn.Module, recipe: RecipeConfig) -> torch.optim.SGD:
    """SGD with the fused step (one kernel, and no host synchronisation under a gradient scaler)."""
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            (weights if recipe.decay_norms or parameter.ndim > 1 else norms).append(parameter)
    groups: Any = [{"params": weights}, {"params": norms, "weight_decay": 0.0}] if norms else weights
    optimizer = torch.optim.SGD(
        groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov, fused=True
    )
    if recipe.momentum:
        # The fused step makes its buffers without values; if the scaler skips the first step (an overflow, common in
        # float16), they would stay so and reach the weights. With no dampening, zeros give the same first step.
        for parameter in weights + norms:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


@dataclass(frozen=True)
class Precision:
    """name: fp32 | tf32 | bf16 | fp16; ``dtype`` is what autocast and the loader use."""

    name: str
    dtype: torch.dtype
    device: torch.device

    def autocast(self) -> torch.autocast:
        """The context of forward passes; parameters stay float32."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler that is active for fp16 only."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def resolve_precision(name: str, device: torch.device) -> Precision:
    """``auto``: bf16 where the hardware computes it, else fp16 on GPUs (capability below 8.0: V100, T4), else fp32.

    ``torch.cuda.is_bf16_supported()`` is not asked: it counts emulation. Raises ConfigError for ``tf32`` where there is
    none.
    """
    if name == "auto":
        if device.type == "cuda":
            name = "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
        else:
            name = "bf16" if _cpu_has_bf16() else "fp32"
    if name == "tf32":
        _require_tf32(device)
    dtype = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return Precision(name, dtype, device)


def _require_tf32(device: torch.device) -> None:
    found = device.type
    if found == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major >= 8:
            return
        found = f"capability {major}.{minor}"
    raise ConfigError(f"trainer.precision=tf32: needs a GPU of capability 8.0 or above, found {found}; use fp32")


def _cpu_has_bf16() -> bool:
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private: another version may not have it
    return ask is not None and ask()


class WeightAverage:
    """An exponential moving average of a network's parameters; buffers are copied. Never waits for the device."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.decay = decay
        self._source, self._mine, self._theirs = model, _Tensors(self.module), _Tensors(model)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after a step."""
        if model is not self._source:
            self._source, self._theirs = model, _Tensors(model)
        torch._foreach_lerp_(self._mine.parameters, self._theirs.parameters, 1 - self.decay)
        if buffers := self._mine.buffers():
            torch._foreach_copy_(buffers, self._theirs.buffers())


class _Tensors:
    """A network's parameters and buffers without a walk through its modules, which takes longer than an average."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters: list[Tensor] = list(model.parameters())
        # by name, as a module may put another tensor in a buffer's place
        self._places = [(module._buffers, name) for module in model.modules() for name in module._buffers]

    def buffers(self) -> list[Tensor]:
        return [tensor for buffers, name in self._places if (tensor := buffers[name]) is not None]
