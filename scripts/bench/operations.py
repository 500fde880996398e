"""The mixing operations alone: ours as the mixers run them, and the form that the methods' authors use."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from bench import authors
from bench.loops import Setting
from randomix import StepRng, functional, mixers
from randomix.devices import to_device
from randomix.mixers.base import BatchMixer
from randomix.mixers.base_network import HiddenMixer, SaliencyMixer

Operation = Callable[[int], object]
TORCHVISION = {"mixup": "MixUp", "cutmix": "CutMix"}
FEATURES = 64  # channels of the hidden features: those of the network's first stage at full width


def cases(setting: Setting) -> dict[str, Callable[[], None]]:
    """A copy of the batch as the reference, then every method, and its authors' form where there is one."""
    device = setting.torch_device
    torch.manual_seed(0)
    shape = (setting.batch, 3, setting.size, setting.size)
    inputs = torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)
    targets = torch.eye(setting.classes, device=device)[torch.randint(setting.classes, (setting.batch,), device=device)]
    nchw, labels = inputs.contiguous(), targets.argmax(1)
    found: dict[str, Operation] = {"copy of the batch": lambda _: inputs.clone()}
    for name in mixers.available():
        mixer = mixers.build(name, num_classes=setting.classes)
        if isinstance(mixer, BatchMixer):
            found[name] = lambda step, m=mixer: m.mix(inputs, targets, StepRng(0, step))
        elif isinstance(mixer, SaliencyMixer):
            found |= _salient(mixer, inputs, targets)
        elif isinstance(mixer, HiddenMixer):
            found |= _hidden(mixer, setting, targets)
        if name in authors.INPUTS:
            found[f"{name}, authors' form"] = lambda _, f=authors.INPUTS[name]: f(nchw)
        if name in TORCHVISION:
            theirs = getattr(v2, TORCHVISION[name])(num_classes=setting.classes)
            found[f"{name}, torchvision"] = lambda _, f=theirs: f(nchw, labels)
    return {name: _repeat(operation, setting.steps) for name, operation in found.items()}


def _repeat(operation: Operation, steps: int) -> Callable[[], None]:
    def run() -> None:
        for step in range(steps):
            operation(step)

    return run


def _hidden(mixer: HiddenMixer, setting: Setting, targets: Tensor) -> dict[str, Operation]:
    """On features (N, 64, H, W) of the first stage, everything but the network included."""
    shape = (setting.batch, FEATURES, setting.size, setting.size)
    hidden = torch.randn(shape, device=setting.torch_device).contiguous(memory_format=torch.channels_last)
    nchw, size = hidden.contiguous(), shape[1:]

    def run(step: int) -> Tensor:
        draws = StepRng(0, step).generator(mixer.name)
        perm = to_device(draws.permutation(setting.batch), hidden.device)
        mix = mixer.mix_hidden([size, size, size, size], 1, targets, perm, draws)
        return mix.change(hidden, *mix.arguments)

    what = f"{mixer.name} of {FEATURES} channels"
    return {what: run, f"{what}, authors' form": lambda _: authors.HIDDEN[mixer.name](nchw)}


def _salient(mixer: SaliencyMixer, inputs: Tensor, targets: Tensor) -> dict[str, Operation]:
    """Given a gradient that is concentrated as those of networks are; the pass that finds it is not part of it."""
    rng = np.random.default_rng(0)
    count, _, height, width = inputs.shape
    centers = rng.uniform(0.2, 0.8, (count, 2)) * (height, width)
    rows, columns = np.ogrid[:height, :width]
    distance = (rows - centers[:, :1, None]) ** 2 + (columns - centers[:, 1:, None]) ** 2
    blobs = np.exp(-distance / (2 * (height / 6) ** 2)) + 0.05
    noise = rng.standard_normal((count, inputs.shape[1], height, width))
    gradient = torch.from_numpy((noise * blobs[:, None]).astype(np.float32)).to(inputs.device)
    block_nums = getattr(mixer, "block_nums", None)
    if block_nums is None and hasattr(mixer, "block_nums"):
        block_nums = [n for n in (2, 4, 8, 16) if height % n == width % n == 0]
    if block_nums is None:
        return {mixer.name: lambda step: mixer.mix(inputs, targets, gradient, StepRng(0, step))}
    fixed = {n: mixers.build({"name": mixer.name, "block_nums": [n]}, num_classes=targets.shape[1]) for n in block_nums}
    found = {
        f"{mixer.name}, {n} x {n} blocks": lambda step, m=m: m.mix(inputs, targets, gradient, StepRng(0, step))
        for n, m in fixed.items()
    }
    if mixer.name in authors.SALIENT and _can_cut(inputs):
        saliency, nchw = functional.gradient_norm(gradient), inputs.contiguous()
        form = authors.SALIENT[mixer.name]
        found |= {
            f"{mixer.name}, {n} x {n} blocks, authors' form": lambda _, n=n: form(nchw, saliency, n) for n in block_nums
        }
    return found


def _can_cut(inputs: Tensor) -> bool:
    """Whether the graph cuts that some authors use are installed, and the samples where they work: on the CPU."""
    return inputs.device.type == "cpu" and importlib.util.find_spec("gco") is not None
