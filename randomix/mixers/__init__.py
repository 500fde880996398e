"""The mixing methods by name. A method is one module here, named as users select it; adding the file registers it.

Listing names imports nothing, so that configuration errors need no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from randomix.mixers.base import Mixer

_NOT_METHODS = frozenset({"base", "base_network"})


def available() -> list[str]:
    """The registry names of all methods, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in _NOT_METHODS and m.name[0] != "_")


def get(name: str) -> type[Mixer]:
    """The class of a method; ValueError names the choices for an unknown name."""
    from randomix.mixers.base import Mixer

    if name not in available():
        raise ValueError(f"unknown mixer {name!r}; choose from {', '.join(available())}")
    module = importlib.import_module(f"{__name__}.{name}")
    classes = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    found = [c for c in classes if issubclass(c, Mixer)]
    if len(found) != 1:
        raise ValueError(
            f"{module.__name__} defines {len(found)} methods, expected one; helpers have names that begin with _"
        )
    return found[0]


def build(config: str | Mapping[str, Any], *, num_classes: int | None = None, **shared: Any) -> Mixer:
    """A mixer from its name, or from a mapping with ``name`` and the arguments of its class.

    ``shared`` holds arguments that apply where the class takes them and the mapping does not set them (RandoMix
    hands its ``alpha`` to its candidates so).
    """
    import inspect

    config = {"name": config} if isinstance(config, str) else dict(config)
    if "name" not in config:
        raise ValueError(f"a mixer needs its name; choose from {', '.join(available())}")
    name = config.pop("name")
    config.pop("label", None)  # for tables, not for the class
    mixer_class = get(name)
    accepted = inspect.signature(mixer_class).parameters
    unknown = sorted(set(config) - set(accepted))
    if unknown:
        raise ValueError(f"mixer {name!r} has no setting {', '.join(unknown)}; it has {', '.join(accepted)}")
    arguments = {k: v for k, v in shared.items() if k in accepted} | config
    return mixer_class(**{"num_classes": num_classes} | arguments)
