"""The mixing operations alone: ours, and plain implementations in the form the methods' authors use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.loops import Setting
from randomix import StepRng, functional, mixers
from randomix.mixers.base import BatchMixer


def _plain_mixup(inputs: Tensor) -> Tensor:
    lam = float(np.random.beta(1.0, 1.0))
    order = torch.randperm(len(inputs), device=inputs.device)
    return lam * inputs + (1 - lam) * inputs[order]


def _plain_cutmix(inputs: Tensor) -> Tensor:
    lam = float(np.random.beta(1.0, 1.0))
    order = torch.randperm(len(inputs), device=inputs.device)
    center = [int(np.random.randint(s)) for s in inputs.shape[2:]]
    top, left, bottom, right = functional.cutmix_box(tuple(inputs.shape[2:]), lam, center)
    mixed = inputs.clone()
    mixed[:, :, top:bottom, left:right] = inputs[order, :, top:bottom, left:right]
    return mixed


def _plain_resizemix(inputs: Tensor) -> Tensor:
    scale = float(np.random.uniform(0.1, 0.8))
    patch = [max(1, int(scale * side)) for side in inputs.shape[2:]]
    small = torch.nn.functional.interpolate(inputs, patch, mode="nearest")
    (height, width), (rows, columns) = inputs.shape[2:], small.shape[2:]
    order = torch.randperm(len(inputs)).tolist()
    mixed = inputs.clone()
    for sample, partner in enumerate(order):
        top = min(max(int(np.random.randint(height)) - rows // 2, 0), height - rows)
        left = min(max(int(np.random.randint(width)) - columns // 2, 0), width - columns)
        mixed[sample, :, top : top + rows, left : left + columns] = small[partner]
    return mixed


def _plain_fmix(inputs: Tensor) -> Tensor:
    lam, (height, width) = float(np.random.beta(1.0, 1.0)), inputs.shape[2:]
    noise = np.random.standard_normal((height, width // 2 + 1, 2))
    mask = functional.fmix_mask(torch.from_numpy(noise), (height, width), lam).to(inputs)
    order = torch.randperm(len(inputs), device=inputs.device)
    return mask * inputs + (1 - mask) * inputs[order]


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "mixup": _plain_mixup,
    "cutmix": _plain_cutmix,
    "resizemix": _plain_resizemix,
    "fmix": _plain_fmix,
}


def cases(setting: Setting) -> dict[str, Callable[[], None]]:
    """A copy of the batch as the reference, then every input mixer, and the plain form where there is one."""
    device = setting.torch_device
    torch.manual_seed(0)
    shape = (setting.batch, 3, setting.size, setting.size)
    inputs = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.eye(setting.classes, device=device)[torch.randint(setting.classes, (setting.batch,), device=device)]
    nchw = inputs.contiguous()

    def repeat(operation: Callable[[int], object]) -> Callable[[], None]:
        def run() -> None:
            for step in range(setting.steps):
                operation(step)

        return run

    found: dict[str, Callable[[], None]] = {"copy of the batch": repeat(lambda _: inputs.clone())}
    for name in mixers.available():
        mixer = mixers.build(name, num_classes=setting.classes)
        if isinstance(mixer, BatchMixer):
            found[name] = repeat(lambda step, m=mixer: m.mix(inputs, targets, StepRng(0, step)))
        if name in PLAIN:
            found[f"{name}, plain"] = repeat(lambda _, f=PLAIN[name]: f(nchw))
    return found
