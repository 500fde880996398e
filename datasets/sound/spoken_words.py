"""The mark of speech that was synthesised by ``scripts/make_spoken_words.py``: who reads such a folder must say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from randomix.errors import DataError

MARKER = "SYNTHETIC.json"
SOURCE = "spoken words synthesised by espeak-ng (not Google Speech Commands)"


def read_marker(folder: Path) -> dict[str, Any] | None:
    """``source`` and ``generator`` of synthetic speech, None if the folder has no MARKER; raises DataError."""
    path = folder / MARKER
    if not path.exists():
        return None
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        return {"source": str(marker["source"]), "generator": dict(marker["generator"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected the mark of synthetic speech (source, generator), found {error!r}; make the "
            "folder again: python scripts/make_spoken_words.py FOLDER"
        ) from error
