"""The data sets of the benchmark. Importing this package loads neither torch nor any data set."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from randomix.errors import ConfigError

if TYPE_CHECKING:
    from randomix.engine.protocols import Data

NAMES = ("digits", "fake_images", "fashion_mnist")  # each the module of this package that defines build()


def build(config: Mapping[str, Any]) -> Data:
    """The data set ``config["name"]`` with the options of that module.

    Raises ConfigError for unknown names and options, DataError for missing or damaged files.
    """
    name = config.get("name")
    if name not in NAMES:
        raise ConfigError([f"dataset.name is {name!r}, expected one of {', '.join(NAMES)}"])
    return importlib.import_module(f".{name}", __name__).build(config)
