"""Processes that read and decode ahead: a torch DataLoader that starts, stops and fails the way a run needs it.

Workers are forked from a fork server that has torch loaded but neither threads nor CUDA nor a process group: forking
the training process itself may hang (https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html),
and starting each worker anew takes seconds. They do not run the main script again. Signals meant for the run are
blocked in them: the training process decides, and when it dies they end at once.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from randomix.errors import ConfigError, DataError

PREFETCH = 2  # finished batches a worker may be ahead
_MOST = 16  # workers of a rank, if nobody says how many
_BLOCKED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_PRELOADED = ["torch.utils.data", "torchvision.io", "PIL.Image", "webdataset.tariterators"]
_SHARED = "/dev/shm"


def worker_count(asked: int | None) -> int:
    """``dataset.workers``: null means this rank's share of the processors, from 1 to 16."""
    if asked is not None:
        return asked
    return max(1, min(_MOST, _processors() // ranks_here()))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _note_crowd(workers: int) -> None:
    """Say, once, that there are more workers than processors: torch's own warning names no key."""
    if workers > _processors():
        print(f"note: dataset.workers={workers}: more than may run at once here ({_processors()})", file=sys.stderr)


def ranks_here() -> int:
    """Training processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def check_shared_memory(workers: int, batch_bytes: int, ranks: int = 1) -> None:
    """Raise ConfigError if shared memory cannot hold what may wait in it, ``batch_bytes`` for each batch of a rank."""
    need = ranks * (workers * PREFETCH + 2) * batch_bytes
    free = shutil.disk_usage(_SHARED).free if os.path.isdir(_SHARED) else need
    if need > free:
        of_ranks = f" of each of {ranks} ranks" if ranks > 1 else ""
        raise ConfigError(
            f"dataset.workers: {workers} workers{of_ranks} need {need >> 20} MiB of shared memory for "
            f"decoded batches, {_SHARED} has {free >> 20} MiB free; use fewer, or more memory there "
            "(docker run --shm-size)"
        )


def read_ahead(
    dataset: Dataset[Any], sampler: range | None, workers: int, pin: bool, batch_bytes: int
) -> Generator[Any, None, None]:
    """``dataset[i]`` for each i of ``sampler``, in order; or what an iterable data set yields, worker after worker.

    batch_bytes: size of one item, to see in advance whether shared memory holds what may wait there. The items' tensors
    are pinned with ``pin``. A text in place of an item becomes a DataError. Closing the generator ends the workers.
    """
    _note_crowd(workers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            pin_memory=pin,
            generator=torch.Generator(),  # it draws a seed for the workers: not from the run's generator
            **(_worker_options(workers, batch_bytes) if workers else {}),
        )
        iterator = _start(loader, workers)
    processes = list(getattr(iterator, "_workers", ()))
    # before multiprocessing waits for its children at exit, should the generator never be closed
    at_exit = util.Finalize(None, _kill, (processes,), exitpriority=100) if processes else None
    try:
        for item in _items(iterator, processes):
            if isinstance(item, str):
                raise DataError(item)
            yield item
    finally:
        if processes:
            iterator._shutdown_workers()
            at_exit()


def _worker_options(workers: int, batch_bytes: int) -> dict[str, Any]:
    check_shared_memory(workers, batch_bytes)
    start_fork_server()
    context = multiprocessing.get_context("forkserver")
    return {"prefetch_factor": PREFETCH, "multiprocessing_context": context, "worker_init_fn": _end_with_parent}


def _end_with_parent(worker: int) -> None:
    """In a worker: end when the training process does. torch watches the direct parent, here the fork server, which
    lives as long as its workers.
    """

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _start(loader: DataLoader[Any], workers: int) -> Iterator[Any]:
    if not workers:
        return iter(loader)
    with _no_main_script():
        return iter(loader)


def _items(iterator: Iterator[Any], processes: list[Any]) -> Iterator[Any]:
    """The items; a worker that was killed is a DataError of one line."""
    try:
        yield from iterator
    except (RuntimeError, OSError, EOFError) as error:  # the latter two while it was sending
        if not processes:
            raise
        wait([p.sentinel for p in processes], timeout=2.0)
        codes = [p.exitcode for p in processes if p.exitcode]
        if not codes and "DataLoader worker" not in str(error):
            raise
        how = f"by {signal.Signals(-codes[0]).name}" if codes and codes[0] < 0 else "unexpectedly"
        raise DataError(
            f"a worker that decodes images was ended {how}; if memory ran out, lower dataset.workers or "
            "recipe.batch_size"
        ) from error


def _kill(processes: list[Any]) -> None:
    """End workers that did not end by themselves: they take no other signal."""
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join()


def start_fork_server() -> None:
    """The server from which workers are forked; it and they inherit the blocked signals.

    It takes seconds to load torch, in the background: call this as soon as it is known that workers will be needed.
    """
    resource_tracker.ensure_running()  # first: it unblocks signals again
    forkserver.set_forkserver_preload(_PRELOADED)
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def _no_main_script() -> Iterator[None]:
    """Start processes that do not import the main script: they need nothing of it, and it may lack a guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _forget_fork_server() -> None:
    """After a fork: the parent's server is no child of this process, which has to start its own."""
    vars(forkserver._forkserver).update(
        dict.fromkeys(("_forkserver_address", "_forkserver_alive_fd", "_forkserver_pid"))
    )


os.register_at_fork(after_in_child=_forget_fork_server)
