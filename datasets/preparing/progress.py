"""How far a long step is: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self


def size_words(count: float) -> str:
    """Bytes as "162.6 MiB" or "3.7 GiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


class Progress:
    """Call it with the bytes that are done; it prints on stderr. total: bytes in all, if known."""

    def __init__(self, label: str, total: int | None, *, start: int = 0, every: float = 10.0) -> None:
        self.label, self.total, self.every = label, total, every
        self._first, self._begin = start, time.monotonic()
        self._last = self._begin
        self._bar: Any = _bar() if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self._first)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int) -> None:
        """``done`` bytes are there by now, those of earlier calls included."""
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
        elif now - self._last >= self.every:
            self._last = now
            of = f" of {size_words(self.total)} ({100 * done / self.total:.0f} %)" if self.total else ""
            speed = size_words((done - self._first) / (now - self._begin))
            print(f"{self.label}: {size_words(done)}{of}, {speed}/s", file=sys.stderr, flush=True)


def _bar() -> Any:
    """A bar of rich, or None where it is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    except ImportError:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
