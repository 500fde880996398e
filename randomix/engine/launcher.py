"""Start the worker processes of a run on this machine and pass on how they ended. Imports no torch."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from randomix.engine import signals, status
from randomix.engine.signals import AGAIN, NOTED, SIGNALS, restore_signals
from randomix.errors import (
    BUG,
    INTERRUPTED,
    NONFINITE,
    OK,
    OUT_OF_MEMORY,
    ConfigError,
    RunError,
    StorageError,
    is_out_of_memory,
)
from randomix.files import probe_writable

STORE = "RANDOMIX_STORE"  # the file through which the workers of one launch find each other
_AGREED = (OK, INTERRUPTED, NONFINITE)  # all ranks end so at the same step: the others are about to follow
_START_METHOD = "spawn"  # fork would copy whatever threads and CUDA state the caller has
_PATIENCE = 60.0  # seconds until SIGTERM after an agreed end


@dataclass(frozen=True)
class Failure:
    """Why a process ended: exit code, one line for the user, and the traceback of a bug (else empty)."""

    code: int
    line: str
    trace: str = ""
    at: int = 0  # time.time_ns
    mistake: bool = False  # something to put right: its line begins with "error:", as those of the command line do


def describe(error: BaseException) -> Failure:
    """What ``error`` means for the user and for the exit code."""
    now = time.time_ns()
    if isinstance(error, RunError):
        return Failure(error.exit_code, str(error), at=now, mistake=error.exit_code != INTERRUPTED)
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTED, "interrupted", at=now)
    if is_out_of_memory(error):
        first = (str(error).strip().splitlines() or ["no more memory"])[0][:200]
        hint = "trainer.micro_batch_size=auto finds how many samples fit at a time; or lower trainer.eval_batch_size"
        return Failure(OUT_OF_MEMORY, f"out of memory: {first}; {hint}", at=now)
    trace = "".join(traceback.format_exception(error))[-20000:]
    return Failure(BUG, f"{type(error).__name__}: {error}", trace, now)


def run_guarded(worker: Callable[..., Any], args: tuple[Any, ...]) -> Failure | None:
    """Call ``worker(*args)``; None if it went well, else why not. A worker may return or raise its exit code."""
    try:
        code = worker(*args)
    except SystemExit as exit_:
        code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException as error:
        return describe(error)
    return Failure(code, f"ended with exit code {code}", at=time.time_ns()) if isinstance(code, int) and code else None


def is_worker() -> bool:
    """Whether this process was started as one rank of several, by torchrun or by ``launch``."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(
    worker: Callable[..., Any],
    args: tuple[Any, ...],
    nproc: int,
    log_folder: Path,
    *,
    threads_per_process: int | None = None,
    status_file: Path | None = None,
) -> int:
    """Call ``worker(*args)`` in ``nproc`` processes and return the exit code; ``distributed.init`` makes them one job.

    worker: a module-level function; args: picklable. With ``nproc`` 1 the call happens in this process.
    log_folder: receives ``rank-N.log`` of the ranks above 0; rank 0 talks to the terminal.
    threads_per_process: intra-op CPU threads; None: cores / nproc.
    status_file: where to look up the last checkpoint, and to note an end that no worker could note itself.

    A worker's exit code is passed on. When one dies the others get SIGTERM, and SIGKILL 6 s later. SIGTERM, SIGINT and
    SIGUSR1 go on to all workers. Workers end when this process dies.
    """
    if nproc > 1 and is_worker():
        raise ConfigError(f"trainer.nproc is {nproc} inside of a worker process (torchrun starts its own): use 1")
    if nproc == 1:
        failure = run_guarded(worker, args)
        return OK if failure is None else _end(None, failure, status_file)
    probe_writable(log_folder)
    threads = threads_per_process or max(1, (os.cpu_count() or 1) // nproc)
    store_folder = tempfile.mkdtemp(prefix="randomix-")
    name = f"{worker.__module__}:{worker.__qualname__}"  # imported by the child once its environment is set
    job = _Job(multiprocessing.get_context(_START_METHOD))
    try:
        with _forwarding(job):
            for rank in range(nproc):
                environment = _environment(rank, nproc, threads, f"{store_folder}/store")
                job.start((name, args), environment, Path(log_folder) / f"rank-{rank}.log" if rank else None)
            rank, failure = job.watch()
        return OK if failure is None else _end(rank, failure, status_file)
    finally:
        job.kill()
        shutil.rmtree(store_folder, ignore_errors=True)


class _Worker:
    """One started process and what is known about its end."""

    def __init__(self, process: Any, reports: Connection) -> None:
        self.process, self.reports = process, reports
        self.failure: Failure | None = None
        self.sent: set[int] = set()  # signals from this launcher

    def send(self, number: int) -> None:
        if self.process.is_alive():
            self.sent.add(number)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def collect(self) -> None:
        """Note why the process failed, as soon as it says so or has ended."""
        with contextlib.suppress(EOFError, OSError):
            while self.failure is None and self.reports.poll():
                self.failure = self.reports.recv()
        code = None if self.process.is_alive() else self.process.exitcode
        if self.failure is not None or code in (None, 0):
            return
        if -code in self.sent or (code > 0 and self.sent):
            self.failure = Failure(INTERRUPTED, "stopped by a signal; the same command continues", at=time.time_ns())
        elif code < 0:
            name = signal.Signals(-code).name
            hint = " (out of host memory?)" if name == "SIGKILL" else ""
            self.failure = Failure(BUG, f"was killed by {name}{hint}")  # at 0: the others' errors follow from it
        else:
            self.failure = Failure(code, f"ended with exit code {code}", at=time.time_ns())


class _Job:
    """The worker processes of one launch."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.workers: list[_Worker] = []
        self.signals: list[int] = list(NOTED)  # received, not yet passed on
        self._asked = 0.0

    def start(self, call: tuple[Any, ...], environment: dict[str, str], log: Path | None) -> None:
        reports, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_enter, args=(*call, environment, log, sender))
        process.start()
        sender.close()
        self.workers.append(_Worker(process, reports))

    def watch(self) -> tuple[int, Failure | None]:
        """Wait until all have ended; return the rank and the failure that came first."""
        term_at = kill_at = float("inf")
        while alive := [w for w in self.workers if w.process.is_alive()]:
            wait([w.process.sentinel for w in alive], timeout=0.1)
            now = time.monotonic()
            if self._forward(now):
                kill_at = min(kill_at, now + signals.GRACE)
            for worker in self.workers:
                worker.collect()
            codes = [w.failure.code for w in self.workers if w.failure]
            if codes and term_at == float("inf"):
                term_at = now + (_PATIENCE if all(code in _AGREED for code in codes) else 0.0)
            elif term_at > now and any(code not in _AGREED for code in codes):
                term_at = now
            if now >= term_at and kill_at == float("inf"):
                self._send(alive, signal.SIGTERM)
                kill_at = now + signals.GRACE
            if now >= kill_at:
                self._send(alive, signal.SIGKILL)
        for worker in self.workers:
            worker.process.join()
            worker.collect()
        failed = [(w.failure.at, rank) for rank, w in enumerate(self.workers) if w.failure]
        if not failed:
            return 0, None
        rank = min(failed)[1]
        return rank, self.workers[rank].failure

    def kill(self) -> None:
        """End what is still running: nothing after ``watch``, everything after an error in this process."""
        self._send(self.workers, signal.SIGKILL)
        for worker in self.workers:
            worker.process.join()
            worker.reports.close()

    def _forward(self, now: float) -> bool:
        """Pass received signals on; True if somebody insisted on the end and the workers may be stuck."""
        insisted = False
        while self.signals:
            number = self.signals.pop(0)
            self._send(self.workers, number)
            if number != signal.SIGUSR1:
                insisted |= bool(self._asked) and now - self._asked >= AGAIN
                self._asked = self._asked or now
        return insisted

    @staticmethod
    def _send(workers: list[_Worker], number: int) -> None:
        for worker in workers:
            worker.send(number)


@contextmanager
def _forwarding(job: _Job) -> Iterator[None]:
    """Collect signals for the workers while the block runs."""

    def note(number: int, frame: FrameType | None) -> None:
        job.signals.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous: dict[int, Any] = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        restore_signals(previous)


def _environment(rank: int, nproc: int, threads: int, store: str) -> dict[str, str]:
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": nproc, "LOCAL_WORLD_SIZE": nproc, STORE: store}
    environment |= {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if "lo" in (name for _, name in socket.if_nameindex()):  # one machine: listen on the loopback device only
        environment["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {name: str(value) for name, value in environment.items()}


def _end(rank: int | None, failure: Failure, status_file: Path | None) -> int:
    """Tell the user, once, and complete the status file where the workers could not; return the exit code."""
    line = failure.line if rank is None else f"rank {rank}: {failure.line}"
    known = status.read(status_file) if status_file else None
    if failure.code not in _AGREED and known and known.checkpoint:
        line += f"; last checkpoint: {known.checkpoint}"
    print(f"{failure.trace}{'error: ' if failure.mistake else ''}{line}", file=sys.stderr, flush=True)
    if status_file and known and (known.state == "running" or (rank and failure.code not in _AGREED)):
        state = "interrupted" if failure.code == INTERRUPTED else "failed"
        with contextlib.suppress(StorageError):  # the disk may be why it failed
            status.Status(status_file).update(state, reason=line, exit_code=failure.code)
    return failure.code


def _enter(
    worker: str,
    args: tuple[Any, ...],
    environment: dict[str, str],
    log: Path | None,
    reports: Connection,
) -> None:
    """Where a worker process begins; ``worker`` is "module:function"."""
    for number in SIGNALS:
        signal.signal(number, lambda *_: os._exit(INTERRUPTED))  # until a Stopper takes over there is nothing to save
    os.environ.update(environment)
    if log is not None:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    failure = run_guarded(_call, (worker, args))
    if failure is None:
        leave(OK)
    if log is not None:
        print(f"{failure.trace}{failure.line}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        reports.send(failure)
    leave(failure.code)


def leave(code: int) -> NoReturn:
    """End a process of a group whose work is done and saved, at once.

    The interpreter's own end now and then aborts it instead ("terminate called without an active exception"): it
    cancels threads of torch.distributed that must not be cancelled. The whole job would count as failed.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _call(worker: str, args: tuple[Any, ...]) -> Any:
    module, _, function = worker.partition(":")
    return getattr(importlib.import_module(module), function)(*args)


def _end_with_parent() -> None:
    """When the launcher dies, stop like on SIGTERM, with a checkpoint; a worker that cannot is ended."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(signals.GRACE)
    os._exit(INTERRUPTED)
