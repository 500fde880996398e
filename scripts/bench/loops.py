"""The training loops that are compared: ours, a bare step, a peer-style loop, and one with an airbench-style loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import datasets
import models
from randomix import mixers
from randomix.engine.distributed import World
from randomix.engine.optim import resolve_precision
from randomix.engine.protocols import Batch, Data
from randomix.engine.schema import RecipeConfig, TrainConfig, TrainerConfig
from randomix.engine.stopper import Stopper
from randomix.engine.trainer import Trainer

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Setting:
    """One point of a benchmark: 3 x size x size images, a PreAct-ResNet18 of ``width``."""

    width: int = 16
    batch: int = 128
    steps: int = 16  # in one timed run
    size: int = 32
    classes: int = 10
    device: str = "cpu"
    precision: str = "auto"
    compile: bool = False
    cuda_graph: bool = False

    @property
    def torch_device(self) -> torch.device:
        """``device`` as the trainer has it: with an index, if it is a GPU."""
        return torch.device("cuda", 0) if self.device == "cuda" else torch.device(self.device)


def fake_data(setting: Setting, samples: int | None = None) -> Data:
    """CIFAR-shaped synthetic images, ``samples`` or one epoch of them: their content does not change a step's time."""
    return datasets.build(
        {
            "name": "fake_images",
            "root": None,
            "train_size": samples or setting.batch * setting.steps,
            "test_size": 10,
            "num_classes": setting.classes,
            "channels": 3,
            "height": setting.size,
            "width": setting.size,
            "crop_padding": 4,
            "flip": True,
            "verify": True,
        }
    )


def network(setting: Setting) -> nn.Module:
    """A fresh network with the same weights every time."""
    torch.manual_seed(0)
    config = {"name": "preact_resnet18", "width": setting.width}
    return models.build(config, sample_shape=(3, setting.size, setting.size), num_classes=setting.classes)


def make_trainer(
    setting: Setting,
    data: Data,
    mixer: str | dict[str, Any],
    *,
    model: nn.Module | None = None,
    world: World | None = None,
) -> Trainer:
    """Our trainer with one method; of the setting's network, or of ``model``."""
    graph = {"cuda_graph": True} if setting.cuda_graph else {}
    config = TrainConfig(
        dataset={"name": "fake_images"},
        model={"name": "preact_resnet18"},
        mixer={"name": "?"},
        recipe=RecipeConfig(name="bench", epochs=10_000, batch_size=setting.batch, lr=1e-3),
        trainer=TrainerConfig(device=setting.device, precision=setting.precision, compile=setting.compile, **graph),
        logger={},
        evaluator={},
        evaluators=[],
    )
    world = world or World(device=setting.torch_device)
    precision = resolve_precision(setting.precision, setting.torch_device)
    built = mixers.build(mixer, num_classes=setting.classes, mean=data.mean, std=data.std).allow_inplace()
    trainer = Trainer(config, data, network(setting) if model is None else model, built, world, precision)
    trainer.model.train()
    return trainer


def ours(trainer: Trainer, steps: int) -> Callable[[], None]:
    """``steps`` steps of the real loop: gather, crop, flip, mix, forward, backward, update, meters."""

    stopper = Stopper(trainer.guard)
    stopper.close()  # no signal handlers here: Ctrl-C ends a benchmark

    def run() -> None:
        start = trainer.progress.step
        for batch in trainer.loader.batches(start, start + steps):
            trainer.step(trainer.progress.step, batch, stopper)
            trainer.progress.step += 1

    return run


def bare(setting: Setting, data: Data) -> Callable[[], None]:
    """Forward, backward and update on one fixed batch: the floor of any loop with this network and precision."""
    trainer = make_trainer(setting, data, "baseline")
    (batch,) = trainer.loader.batches(0, 1)

    def run() -> None:
        for _ in range(setting.steps):
            with trainer.precision.autocast():
                logits = trainer.network(batch.inputs)
            F.cross_entropy(logits.float(), batch.labels).backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)

    return run


class _PilImages(torch.utils.data.Dataset):
    """Images as PIL objects with the transforms that the mixing repositories use."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: int) -> None:
        from torchvision import transforms as T

        self.images, self.labels = images, labels
        steps = [T.RandomCrop(size, padding=4), T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
        self.transform = T.Compose(steps)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def peer(setting: Setting) -> Callable[[], None]:
    """A loop in the style of the mixing repositories: float32 NCHW, PIL in workers, Mixup, ``.item()`` each step."""
    rng = np.random.default_rng(0)
    count = setting.batch * setting.steps
    images = rng.integers(0, 256, (count, setting.size, setting.size, 3), dtype=np.uint8)
    data = _PilImages(images, rng.integers(0, setting.classes, count), setting.size)
    workers = 2 if setting.device == "cpu" else min(8, os.cpu_count() or 1)  # a GPU waits for two
    loader = torch.utils.data.DataLoader(
        data, setting.batch, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
    )
    model = network(setting).to(setting.torch_device).train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9, weight_decay=5e-4)

    def run() -> None:
        total = correct = 0.0
        for inputs, labels in loader:
            inputs, labels = inputs.to(setting.torch_device), labels.to(setting.torch_device)
            lam, order = np.random.beta(1.0, 1.0), torch.randperm(len(inputs), device=inputs.device)
            logits = model(lam * inputs + (1 - lam) * inputs[order])
            loss = lam * F.cross_entropy(logits, labels) + (1 - lam) * F.cross_entropy(logits, labels[order])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            correct += (logits.argmax(1) == labels).sum().item()

    return run


class MaskedCropLoader:
    """An airbench-style resident loader: the whole epoch is cropped by boolean masks and flipped, then sliced.

    It stands for the fastest public loaders of CIFAR; it implements TrainLoader for one rank.
    """

    def __init__(self, images: Tensor, labels: Tensor, setting: Setting, dtype: torch.dtype) -> None:
        self.labels, self.setting = labels, setting
        scale = lambda values: torch.tensor(values, device=images.device).view(1, 3, 1, 1)  # noqa: E731
        floats = (images.permute(0, 3, 1, 2).float() / 255 - scale(MEAN)) / scale(STD)
        floats = F.pad(floats.to(dtype), (4,) * 4, "reflect")
        self.padded = floats.contiguous(memory_format=torch.channels_last)
        self.steps_per_epoch = len(images) // setting.batch

    def _epoch(self) -> Tensor:
        count, size = len(self.padded), self.setting.size
        shifts = torch.randint(-4, 5, (count, 2), device=self.padded.device)
        shape = (count, 3, size, self.padded.shape[-1])
        rows = torch.empty(shape, dtype=self.padded.dtype, device=self.padded.device)
        for shift in range(-4, 5):
            chosen = shifts[:, 0] == shift
            rows[chosen] = self.padded[chosen, :, 4 + shift : 4 + shift + size, :]
        shape = (count, 3, size, size)
        crops = torch.empty(shape, dtype=rows.dtype, device=rows.device, memory_format=torch.channels_last)
        for shift in range(-4, 5):
            chosen = shifts[:, 1] == shift
            crops[chosen] = rows[chosen, :, :, 4 + shift : 4 + shift + size]
        flips = torch.rand(count, 1, 1, 1, device=crops.device) < 0.5
        return torch.where(flips, crops.flip(-1), crops)

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of steps start .. stop - 1; an epoch is made when its first batch is asked for."""
        crops = order = None
        for step in range(start, stop):
            position = step % self.steps_per_epoch
            if crops is None or position == 0:
                crops = self._epoch()
                order = torch.randperm(len(crops), device=crops.device)
            chosen = order[position * self.setting.batch : (position + 1) * self.setting.batch]
            yield Batch(crops[chosen], self.labels[chosen], chosen)


def airbench_style(setting: Setting, data: Data, mixer: str) -> Callable[[], None]:
    """Our step and mixing fed by MaskedCropLoader instead of our loader; eager, whatever ``setting`` says."""
    trainer = make_trainer(replace(setting, compile=False, cuda_graph=False), data, mixer)
    rng = np.random.default_rng(0)
    count = setting.batch * setting.steps
    images = torch.from_numpy(rng.integers(0, 256, (count, setting.size, setting.size, 3), dtype=np.uint8))
    labels = torch.from_numpy(rng.integers(0, setting.classes, count))
    device = setting.torch_device
    trainer.loader = MaskedCropLoader(images.to(device), labels.to(device), setting, trainer.precision.dtype)
    return ours(trainer, setting.steps)
