"""The data sets of the benchmark. Importing this package loads neither torch nor any data set."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from randomix.errors import ConfigError, DataError

if TYPE_CHECKING:
    from randomix.engine.protocols import Data

MODULES = {  # name: the module of this package that defines build()
    "audio_folder": "audio_folder",
    "cifar10": "cifar",
    "cifar100": "cifar",
    "digits": "digits",
    "fake_images": "fake_images",
    "fashion_mnist": "fashion_mnist",
    "image_folder": "image_folder",
    "imagenet": "imagenet",
    "speech_commands": "speech_commands",
    "tiny_imagenet": "tiny_imagenet",
}


def build(config: Mapping[str, Any]) -> Data:
    """The data set ``config["name"]`` with the options of its module.

    Raises ConfigError for unknown names and options, DataError for missing, damaged or unreadable files. Nothing is
    downloaded: ``scripts/prepare_data.py`` does that, and the error for a missing set says how.
    """
    name = config.get("name")
    if name not in MODULES:
        raise ConfigError(f"dataset.name is {name!r}, expected one of {', '.join(MODULES)}")
    module = importlib.import_module(f".{MODULES[name]}", __name__)
    try:
        return module.build(config)
    except OSError as error:
        if error.filename is None:
            raise
        raise DataError(
            f"{name}: {error.filename} cannot be read ({error.strerror}); make it readable, or set "
            "dataset.root=FOLDER to another place"
        ) from error
