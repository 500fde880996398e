"""``status.json``: how a run stands or ended, for people and schedulers (torchrun hides the workers' exit codes)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from randomix.errors import INTERRUPTED, OK
from randomix.files import write_atomic

_EXIT_CODES = {"running": None, "finished": OK, "interrupted": INTERRUPTED, "failed": None}
STATES = tuple(_EXIT_CODES)


@dataclass(frozen=True)
class RunStatus:
    """How a run stands. ``checkpoint`` is a file name; ``exit_code`` is None while it runs; ``updated`` is UTC."""

    state: str  # one of STATES
    reason: str = ""
    step: int = 0
    epoch: int = 0
    checkpoint: str | None = None
    exit_code: int | None = None
    updated: str = ""

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise ValueError(f"state {self.state!r} is not one of {', '.join(STATES)}")


class Status:
    """Writes the status of one run at ``path``; what an update leaves out stays as the file has it."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def update(
        self,
        state: str,
        *,
        step: int | None = None,
        epoch: int | None = None,
        checkpoint: str | None = None,
        reason: str = "",
        exit_code: int | None = None,
    ) -> None:
        """Replace the file atomically. ``exit_code`` follows from the state unless it is "failed".

        Raises ValueError for an unknown state, StorageError for a file that cannot be written.
        """
        given: dict[str, Any] = {"step": step, "epoch": epoch, "checkpoint": checkpoint}
        changes = {name: value for name, value in given.items() if value is not None}
        code = _EXIT_CODES.get(state) if exit_code is None else exit_code
        now = datetime.now(UTC).isoformat(timespec="seconds")
        known = read(self.path) or RunStatus(state)
        new = replace(known, state=state, reason=reason, exit_code=code, updated=now, **changes)
        write_atomic(self.path, json.dumps(asdict(new), indent=2) + "\n")


def read(path: Path) -> RunStatus | None:
    """The status at ``path``; None where there is none or it cannot be understood. Unknown keys are left out."""
    try:
        content = json.loads(Path(path).read_bytes())
        known = {field.name: content[field.name] for field in fields(RunStatus) if field.name in content}
        return RunStatus(content["state"], **{name: value for name, value in known.items() if name != "state"})
    except (OSError, ValueError, TypeError, KeyError):
        return None
