"""``status.json``: how a run stands or ended, for people and schedulers (torchrun hides the workers' exit codes)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from randomix.engine.files import write_atomic

STATES = ("running", "finished", "interrupted", "failed")


def now() -> str:
    """The time in ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Status:
    """The state of a run. ``checkpoint`` is a file name inside the run folder; ``exit_code`` is None while it runs."""

    state: str  # one of STATES
    reason: str = ""
    step: int = 0
    epoch: int = 0
    checkpoint: str | None = None
    exit_code: int | None = None
    updated: str = field(default_factory=now)  # ISO 8601, UTC

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state {self.state!r} is not one of {', '.join(STATES)}")

    def write(self, path: Path) -> None:
        """Replace ``path`` atomically. Raises StorageError."""
        write_atomic(path, json.dumps(asdict(self), indent=2) + "\n")


def read(path: Path) -> Status | None:
    """The status at ``path``; None where there is none or it cannot be understood. Unknown keys are left out."""
    try:
        content: Any = json.loads(Path(path).read_bytes())
        return Status(**{f.name: content[f.name] for f in fields(Status) if f.name in content})
    except (OSError, ValueError, TypeError):
        return None
