"""AutoAttack: four attacks without parameters, one after another on what is still right.

F. Croce, M. Hein: Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks,
ICML 2020. Run by torchattacks (3.5.1, MIT licence), an optional package.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version as version_of
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from randomix.engine.protocols import Batch, Data
from randomix.errors import ConfigError
from randomix.networks import evaluation_mode
from randomix.robustness.attacks import PixelNetwork, check_recorded, exact_float32, gradients, recorded
from randomix.robustness.measure import Measure, Outcome, counts

ABSENT = "evaluators has autoattack, which needs the package torchattacks: pip install 'randomix[attacks]'"
LEAST_CLASSES = 4  # the loss of the targeted attacks takes the four largest logits
_TARGETS = 9  # wrong classes that those attacks try, as in the paper; the package would try all


def autoattack(measure: Measure, *, eps_255: float = 8.0, version: str = "standard", seed: int = 0) -> Outcome:
    """AutoAttack within eps_255 / 255 of each pixel; autoattack_error in percent. Counts are exact.

    version: standard (APGD-CE, targeted APGD, targeted FAB, Square) or plus. Its random draws belong to a batch, unlike
    ours to a sample: another batch size or number of ranks may change a few samples. Raises ConfigError if the package
    is not installed.
    """
    if find_spec("torchattacks") is None:
        raise ConfigError(ABSENT)
    network = measure.pixel_network()

    def transform(batch: Batch) -> Tensor:
        return _attack(network, batch, eps=eps_255 / 255, version=version, seed=seed)

    result = measure(transform, cell="attacked")
    return {"autoattack_error": result.top1_error}, counts([result])


def autoattack_problems(_: Mapping[str, Any], data: Data) -> list[str]:
    """The package must be there and the data be images of enough classes."""
    if find_spec("torchattacks") is None:
        return [ABSENT]
    if len(data.input_shape) != 3:
        return [f"evaluators has autoattack, which attacks images (C, H, W); {data.name} has {data.input_shape}"]
    if data.num_classes < LEAST_CLASSES:
        return [f"evaluators has autoattack, which needs {LEAST_CLASSES} classes; {data.name} has {data.num_classes}"]
    return []


def autoattack_sources(*_: Any) -> dict[str, Any]:
    """The version of the package."""
    return {"torchattacks": version_of("torchattacks")}


def _attack(network: PixelNetwork, batch: Batch, eps: float, version: str, seed: int) -> Tensor:
    """The pixels of a batch (N, C, H, W) where an attack succeeded, else as they were."""
    import torchattacks

    check_recorded(network)
    pixels, labels = recorded(batch.inputs.contiguous()), recorded(batch.labels)
    with (
        torch.random.fork_rng([pixels.device] if pixels.is_cuda else []),  # it seeds the global generators
        evaluation_mode(network),
        _frozen(network),
        exact_float32(pixels.device.type),
        gradients(),
    ):
        classes = network(pixels[:1]).shape[1]
        attack = torchattacks.AutoAttack(
            network, eps=eps, version=version, n_classes=min(classes, _TARGETS + 1), seed=seed
        )
        attack.set_device(pixels.device)
        return attack(pixels, labels).detach()


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients of parameters inside: FAB would add to those that are there."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
