"""FGSM and PGD against torchattacks and foolbox: the largest difference of an adversarial image.

Both are optional packages; what is compared is 64 random 8-bit images on a small network with batch normalisation, its
normalisation inside, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from randomix.robustness.attacks import PixelNetwork, fgsm
from tests.parity.golden import Difference, largest

PACKAGES = ("torchattacks", "foolbox")
EPS, STEP = (1 / 255, 4 / 255, 8 / 255, 16 / 255), 2 / 255
STEPS = (2, 10, 20)
Attack = Callable[[Tensor, Tensor, float, int], Tensor]
"""(pixels, labels, eps, steps) -> adversarial pixels; one step is FGSM, more are PGD without a random start."""


def missing() -> list[str]:
    """The packages that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    """A network of pixels in evaluation mode, pixels (64, 3, 12, 9) and labels (64,)."""
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.BatchNorm2d(8),
    ]
    network = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    pixels = torch.randint(0, 256, (64, 3, 12, 9)).float() / 255
    mean, std = torch.tensor([0.5, 0.4, 0.45]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(3, 1, 1)
    model = PixelNetwork(network, lambda x: (x - mean) / std)
    model(pixels)  # running statistics away from their start
    return model.eval(), pixels, torch.randint(0, 10, (64,))


def torchattacks(model: nn.Module) -> Attack:
    """Theirs; the mean of the loss, a step of the whole radius for FGSM."""
    import torchattacks as library

    def run(pixels: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
        pgd = {"alpha": STEP, "steps": steps, "random_start": False}
        attack = library.FGSM(model, eps=eps) if steps == 1 else library.PGD(model, eps=eps, **pgd)
        return attack(pixels, labels)

    return run


def foolbox(model: nn.Module) -> Attack:
    """Theirs; the sum of the loss."""
    import foolbox as library

    wrapped = library.PyTorchModel(model, bounds=(0, 1), device="cpu")

    def run(pixels: Tensor, labels: Tensor, eps: float, steps: int) -> Tensor:
        pgd = {"abs_stepsize": STEP, "steps": steps, "random_start": False}
        single = library.attacks.LinfFastGradientAttack(random_start=False)
        attack = single if steps == 1 else library.attacks.LinfPGD(**pgd)
        return attack.run(wrapped, pixels, labels, epsilon=eps)

    return run


def compare(package: str) -> Iterator[Difference]:
    """Every eps with one step and with several."""
    model, pixels, labels = problem()
    theirs = {"torchattacks": torchattacks, "foolbox": foolbox}[package](model)
    for eps in EPS:
        for steps in (1, *STEPS):
            ours = fgsm(model, pixels, labels, eps, steps, None if steps == 1 else STEP)
            name = "FGSM" if steps == 1 else f"PGD-{steps}"
            yield f"{name} {eps * 255:g}/255", largest(ours, theirs(pixels, labels, eps, steps))
