"""Where data sets lie, and the one line that says how to get one that does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from randomix.errors import DataError

DEFAULT = "data"


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """``dataset.root``; without one the folder in the environment variable RANDOMIX_DATA, else ``data``."""
    return Path(root or os.environ.get("RANDOMIX_DATA") or DEFAULT).expanduser()


def find_folder(
    name: str, root: str | os.PathLike[str] | None, places: Iterable[str], complete: Callable[[Path], bool]
) -> Path:
    """The first of ``places`` (relative to ``data_root(root)``; "." is that folder itself) that is ``complete``.

    Raises DataError with the command that prepares the data set ``name`` in this root.
    """
    base = data_root(root)
    for folder in (base / place for place in places):
        if complete(folder):
            return folder
    raise DataError(
        f"{name}: not found in {base}; {prepare_command(name, root)}, or set dataset.root=FOLDER to where it is"
    )


def prepare_command(name: str, root: str | os.PathLike[str] | None = None) -> str:
    """The words that end a message about missing or damaged files: the command that mends them."""
    where = f" --root {data_root(root)}" if root or os.environ.get("RANDOMIX_DATA") else ""
    return f"run: python scripts/prepare_data.py {name}{where}"
