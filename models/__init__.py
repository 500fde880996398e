"""The networks of the benchmark. Importing this package does not load torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from randomix.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

MODULES = {  # name: the module of this package that defines build()
    "preact_resnet18": "preact_resnet",
    "preact_resnet18_1d": "preact_resnet",
    "preact_resnet34": "preact_resnet",
    "resnet50": "resnet",
    "wrn_28_10": "wide_resnet",
}


def build(config: Mapping[str, Any], *, sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network ``config["name"]`` for samples (C, *S) and K classes: ``forward(inputs, tap=None)``, ``num_taps``.

    Raises ConfigError for unknown names and options.
    """
    name = config.get("name")
    if name not in MODULES:
        raise ConfigError(f"model.name is {name!r}, expected one of {', '.join(sorted(MODULES))}")
    module = importlib.import_module(f".{MODULES[name]}", __name__)
    return module.build(config, sample_shape=sample_shape, num_classes=num_classes)
