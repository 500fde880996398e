"""Workers that need no torch, so that tests of the launcher alone are quick."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from randomix.errors import DataError


def _wait() -> None:
    """For ever, as far as a test is concerned."""
    end = time.monotonic() + 40
    while time.monotonic() < end:
        time.sleep(0.05)


def note_pid_and_wait(folder: str, deaf_rank: int) -> None:
    """Write this process's id and wait for ever; ``deaf_rank`` ignores SIGTERM."""
    if int(os.environ["RANK"]) == deaf_rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    part = Path(folder, f"pid-{os.environ['RANK']}.part")
    part.write_text(str(os.getpid()))
    part.rename(part.with_suffix(".txt"))
    _wait()


def end(how: str, rank: int) -> int:
    """Rank ``rank`` ends in the way named by ``how``, the others well."""
    if int(os.environ["RANK"]) != rank:
        return 0
    if how == "return":
        return 3
    if how == "exit":
        raise SystemExit(75)
    if how == "memory":
        raise MemoryError("Unable to allocate 9.31 GiB")
    if how == "hard exit":
        os._exit(7)
    raise DataError("datasets/x: not found")


def one_fails_others_wait(deaf_rank: int) -> None:
    """Rank 0 raises a DataError, the others wait for ever."""
    if os.environ["RANK"] == "0":
        time.sleep(0.3)
        raise DataError("datasets/x: not found")
    if int(os.environ["RANK"]) == deaf_rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _wait()


def slow_goodbye(folder: str) -> int:
    """Rank 1 leaves at once with 75, as agreed; rank 0 still writes for a while."""
    if os.environ["RANK"] == "0":
        time.sleep(0.8)
        Path(folder, "saved").touch()
    return 75


def signal_the_launcher(number: int, launcher: int) -> None:
    """Rank 0 plays the scheduler; both ranks wait for the signal to come back to them."""
    if os.environ["RANK"] == "0":
        time.sleep(0.3)
        os.kill(launcher, number)
    _wait()


def error_here_kill_there(folder: str) -> None:
    """Rank 0 notices first (a closed connection) what happened to rank 1: something kills it."""
    ready = Path(folder, "ready")
    if os.environ["RANK"] == "0":
        while not ready.exists():
            time.sleep(0.02)
        raise RuntimeError("Connection closed by peer")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ready.touch()
    time.sleep(0.8)
    os.kill(os.getpid(), signal.SIGKILL)
