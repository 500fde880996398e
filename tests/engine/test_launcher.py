"""What the launcher prints about a run that failed."""

from __future__ import annotations

import atexit
import os
from pathlib import Path

import pytest

from randomix.engine.launcher import launch
from randomix.errors import DataError, Interrupted, RunError, StorageError


def fail(error: RunError) -> None:
    """A worker."""
    raise error


def succeed_and_abort_at_the_end() -> int:
    """A worker whose interpreter cannot end in peace, as torch's threads sometimes see to."""
    atexit.register(os.abort)
    return 0


def test_a_worker_that_is_done_is_not_failed_by_its_end(tmp_path: Path) -> None:
    assert launch(succeed_and_abort_at_the_end, (), 2, tmp_path) == 0


@pytest.mark.parametrize(
    ("error", "printed"),
    [
        (DataError("datasets/x: not found"), "error: rank 0: datasets/x: not found\n"),
        (Interrupted("stopped at step 3"), "rank 0: stopped at step 3\n"),
    ],
)
def test_a_mistake_is_marked_as_the_command_line_does(
    error: RunError, printed: str, tmp_path: Path, capfd, monkeypatch
) -> None:
    monkeypatch.setattr("randomix.engine.signals.GRACE", 0.5)
    assert launch(fail, (error,), 2, tmp_path) == error.exit_code
    assert capfd.readouterr().err.replace("rank 1", "rank 0") == printed


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "logs"
    with pytest.raises(StorageError) as caught:
        launch(fail, (DataError(""),), 2, folder)
    assert str(caught.value) == f"cannot write {folder}: Not a directory; choose a folder that can be written"
