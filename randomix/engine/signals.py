"""The signals that end a command early: SIGTERM, SIGINT, and SIGUSR1 of schedulers. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from randomix.errors import INTERRUPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
AGAIN = 1.0  # seconds until a second signal counts: a terminal, or a launcher that passes it on, may send one twice
GRACE = 6.0  # seconds between a signal that is to be obeyed and SIGKILL
NOTED: list[int] = []  # signals that came while nothing could be done: the next Stopper obeys them
LAST_WORDS: list[Callable[[], str]] = [lambda: "interrupted before the first step; the same command starts it"]


def heeded() -> list[int]:
    """Those that end this process; what nohup and the like made it ignore stays ignored."""
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def say(line: str) -> None:
    """Write to standard error from a signal handler, where print could meet a half-done print."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())


def exit_on_signals() -> dict[int, Any]:
    """End this process at once, with code 75, on each of ``SIGNALS``.

    For work without a Stopper: there is nothing to save, and an exception in the middle of an import may
    be swallowed. ``LAST_WORDS`` are said. Returns the handlers there were, for ``restore_signals``.
    """
    pid = os.getpid()

    def leave(number: int, frame: FrameType | None) -> None:
        if os.getpid() == pid:  # a forked data worker ends without a word
            say(LAST_WORDS[-1]())
        os._exit(INTERRUPTED)

    return {number: signal.signal(number, leave) for number in heeded()}


def restore_signals(previous: dict[int, Any]) -> None:
    """Give the signals back to the handlers that ``exit_on_signals`` replaced."""
    for number, handler in previous.items():
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
