"""Runs commands on this machine, some at a time, each on GPUs of its own; a signal stops them all, to go on later."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grid.tasks import Task
from randomix.errors import INTERRUPTED

PATIENCE = 120.0  # seconds that a run gets to write its checkpoint
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class _Child:
    process: subprocess.Popen[bytes]
    task: Task
    gpus: list[str]
    log: Path
    started: float
    asked: bool = False  # to stop at a checkpoint


def visible_gpus() -> list[str]:
    """The GPUs of this machine by CUDA_VISIBLE_DEVICES or nvidia-smi; without torch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip() not in ("", "-1")]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
    return [str(i) for i in range(len(lines))] if done.returncode == 0 else []


class Pool:
    """Up to ``jobs`` commands at a time. ``say`` prints a line; logs are written below ``logs``."""

    def __init__(self, jobs: int, gpus: Sequence[str], logs: Path, checkout: Path, say: Callable[[str], None]) -> None:
        self.jobs, self.free, self.logs, self.checkout, self.say = jobs, list(gpus), logs, checkout, say
        self.has_gpus = bool(gpus)
        self.children: list[_Child] = []
        self.failed: list[tuple[Task, int]] = []
        self.signals = 0
        self.ends = float("inf")  # when patience does

    def run(self, tasks: Sequence[Task]) -> int:
        """Run all; returns 0, the exit code of the first that failed, or 75 after a signal."""
        self.logs.mkdir(parents=True, exist_ok=True)
        previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        waiting, total = list(tasks), len(tasks)
        try:
            while (waiting and not self.signals) or self.children:
                while not self.signals and (task := self._next(waiting)):
                    waiting.remove(task)
                    self._start(task, f"[{total - len(waiting)}/{total}]")
                time.sleep(0.1)
                self._pass_on()
                self._collect()
        except BaseException:  # an error of our own
            self.signals = max(self.signals, 1)
            while any(child.process.poll() is None for child in self.children):
                self._pass_on()
                time.sleep(0.1)
            raise
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self.signals:
            return INTERRUPTED
        return self.failed[0][1] if self.failed else 0

    def _next(self, waiting: Sequence[Task]) -> Task | None:
        """The first command for which there is room; on GPUs a large one is not overtaken for ever."""
        if len(self.children) >= self.jobs or not waiting:
            return None
        return waiting[0] if not self.has_gpus or waiting[0].gpus <= len(self.free) else None

    def _start(self, task: Task, number: str) -> None:
        gpus = [self.free.pop(0) for _ in range(task.gpus)] if self.has_gpus else []
        env = dict(os.environ) | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
        log = self.logs / f"{task.title.replace('/', '-').replace(': ', '-').replace(', ', '+')}.log"
        where = f" on GPU {', '.join(gpus)}" if gpus else ""
        self.say(f"{number} {task.title}{where}")
        with log.open("ab") as out:
            process = subprocess.Popen(
                [sys.executable, *task.arguments],
                cwd=self.checkout,
                env=env,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.children.append(_Child(process, task, gpus, log, time.monotonic()))

    def _collect(self) -> None:
        """Take note of what has ended."""
        for child in [c for c in self.children if c.process.poll() is not None]:
            self.children.remove(child)
            self.free += child.gpus
            code = child.process.returncode
            if code and not (self.signals and code == INTERRUPTED):
                self.failed.append((child.task, code if code > 0 else 128 - code))
                self.say(f"failed: {child.task.title}: exit code {code}: {_last_line(child.log)} (log: {child.log})")
            elif not code:
                self.say(f"done: {child.task.title} in {time.monotonic() - child.started:.0f} s")

    def _note(self, _number: int, _frame: object) -> None:
        """Only counts: a signal may come while a command is being started."""
        self.signals += 1

    def _pass_on(self) -> None:
        """The first signal asks the runs to stop at a checkpoint; a second one, or the end of patience, ends them."""
        if self.signals:
            self.ends = min(self.ends, time.monotonic() + PATIENCE)
        for child in self.children if self.signals else ():
            if self.signals > 1 or time.monotonic() > self.ends:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.process.pid, signal.SIGKILL)  # its workers, too
            elif not child.asked:
                child.asked = True
                child.process.send_signal(signal.SIGTERM)


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["no output"])[-1 if not errors else 0][:300]
