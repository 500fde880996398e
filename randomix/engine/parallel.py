"""Signals of a sweep whose runs go on side by side (hydra/launcher=parallel): each gets to its checkpoint first.

joblib alone kills its workers on Ctrl-C, and leaves them to themselves on SIGTERM. Imports no torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from randomix.engine.signals import AGAIN, GRACE, LAST_WORDS, NOTED, heeded, restore_signals, say
from randomix.errors import INTERRUPTED


@contextmanager
def passing_on() -> Iterator[list[int]]:
    """Pass signals on to joblib's workers while the block runs. Yields those that came."""
    came, done = list[int](), threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if not came:
            say(f"{signal.Signals(number).name}: waiting for the runs to stop; again to stop at once")
        came.append(number)

    previous = {number: signal.signal(number, note) for number in heeded()}
    thread = threading.Thread(target=_pass_on, args=(came, done), daemon=True)
    thread.start()
    try:
        yield came
    finally:
        done.set()
        thread.join()
        restore_signals(previous)


def _pass_on(came: list[int], done: threading.Event) -> None:
    known, told, first, kill_at = 0, set[int](), float("inf"), float("inf")
    while not done.wait(0.05):
        for number in came[known:]:
            known, told, now = known + 1, set(), time.monotonic()
            if number != signal.SIGUSR1:
                first = min(first, now)
                kill_at = min(kill_at, now + GRACE) if now - first >= AGAIN else kill_at
        if came:  # at each turn: joblib may replace a worker
            told |= _send(came[-1], told)
        if time.monotonic() >= kill_at:
            _send(signal.SIGKILL, set())


def _send(number: int, told: set[int]) -> set[int]:
    """Signal all workers that were not told yet; returns which they are."""
    new = {process.pid for process in multiprocessing.active_children() if process.pid is not None} - told
    for pid in new:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return new


class Worker:
    """A process of joblib, from its first job on: a signal ends the job at hand at its first step, and starts no other.

    Nothing is raised: Python would swallow an exception in the middle of an import.
    """

    _this: Worker | None = None

    @classmethod
    def here(cls) -> Worker:
        """The worker that this process is."""
        if cls._this is None or cls._this._pid != os.getpid():
            cls._this = cls()
        return cls._this

    def __init__(self) -> None:
        self.stopped = False  # a signal came to this process, or to the run that it had
        self._pid, self._first, self._busy = os.getpid(), float("inf"), False
        for number in heeded():
            signal.signal(number, self._handle)
        for stream in (sys.stdout, sys.stderr):  # the workers share them: a line and its end must be one write
            stream.reconfigure(line_buffering=True, write_through=False)  # type: ignore[union-attr]
        threading.Thread(target=self._end_with, args=(os.getppid(),), daemon=True).start()

    def run(self, job: Callable[[], tuple[int, str, Any]]) -> tuple[int, str, Any]:
        """What ``job`` returns: exit code, reason, anything. After a signal it is not started."""
        if self.stopped:
            return INTERRUPTED, "not started after a signal", None
        self._busy = True
        try:
            result = job()
        finally:
            self._busy = False
        self.stopped = self.stopped or result[0] == INTERRUPTED
        return result

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked data worker: its parent ends it
            return
        self.stopped = True
        NOTED.append(number)
        if number != signal.SIGUSR1:
            now = time.monotonic()
            self._first = min(self._first, now)
            if now - self._first >= AGAIN:
                say(LAST_WORDS[-1]())
                os._exit(INTERRUPTED)

    def _end_with(self, launcher: int) -> None:
        """A launcher that was killed cannot tell: stop like on SIGTERM, with a checkpoint, and leave."""
        while os.getppid() == launcher:
            time.sleep(0.5)
        os.kill(self._pid, signal.SIGTERM)
        while self._busy:
            time.sleep(0.1)
        os._exit(INTERRUPTED)
