"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere, the same lines in log.txt."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any


class Reporter:
    """Lines and progress of one run. Quiet on ranks other than 0, whose lines go to their own log alone."""

    def __init__(self, log_file: Path | None, *, label: str = "", quiet: bool = False) -> None:
        self._file = log_file.open("a", encoding="utf-8") if log_file is not None else None
        self._label = f"{label} " if label else ""
        self._quiet = quiet
        self._bar: Any = None

    def line(self, text: str) -> None:
        """One line for the terminal and for log.txt (there with the time)."""
        if self._file is not None:
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
            self._file.flush()
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(self._label + text, markup=False, highlight=False)
        else:
            print(self._label + text, flush=True)

    def warn(self, text: str) -> None:
        """A line that starts with ``warning:``."""
        self.line(f"warning: {text}")

    def start(self, description: str, total: int, done: int) -> None:
        """Show a bar of ``total`` steps where there is a terminal."""
        if self._quiet or not sys.stdout.isatty():
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), transient=True, refresh_per_second=4)
        self._bar.start()
        self._task = self._bar.add_task(f"{self._label}{description}", total=total, completed=done, note="")

    def advance(self, step: int, note: str | None = None) -> None:
        """Move the bar to ``step``."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, **({} if note is None else {"note": note}))

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.stop()
        if self._file is not None:
            self._file.close()
