"""When to leave the training loop: signals and non-finite losses, agreed on by all ranks at the same step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from randomix.engine.signals import AGAIN, NOTED, SIGNALS, restore_signals, say
from randomix.errors import INTERRUPTED


@dataclass(frozen=True)
class Decision:
    """What all ranks do at this step. ``nonfinite_step``: the first step whose loss was NaN or infinite."""

    stop: bool
    nonfinite: bool
    nonfinite_step: int | None = None


class Stopper:
    """Turns signals and non-finite losses into one decision that is the same on every rank.

    ``check`` belongs between ``backward`` and the optimizer's step. SIGTERM, SIGINT and SIGUSR1 only set a flag;
    one to one rank is enough. A second SIGTERM or SIGINT, a second or more later, ends the process at once with exit
    code 75.

    guard: watches the losses of a CUDA run without waiting for the device; without one, every step waits for its loss.
    interval: on CUDA, flags are exchanged every so many steps; on the CPU always at every step.
    """

    def __init__(self, guard: NonFiniteGuard | None = None, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f"interval is {interval}; it counts steps and is at least 1")
        self.guard, self.interval = guard, interval
        self.reason = signal.Signals(NOTED[0]).name if NOTED else ""  # what was asked of this rank; empty: nothing
        self._pid = os.getpid()
        self._asked: float | None = None  # when the first SIGINT or SIGTERM came
        self._previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def request(self, reason: str) -> None:
        """Ask all ranks to stop at their next check."""
        self.reason = self.reason or reason

    def check(self, step: int, loss: Tensor | None = None, *, watched: bool = False) -> Decision:
        """Every rank calls this with its loss (a scalar) at the same steps, and gets the same answer.

        watched: the guard has been told of the step's loss already, by the step itself.

        On the CPU, and without a guard, ``nonfinite`` is about this step. With a guard it may be a few steps late; the
        guard has made the optimizer keep its weights since ``nonfinite_step``.
        """
        bad: int | None = None
        if self.guard is not None and loss is not None and loss.device.type != "cpu":
            self.guard.observe(step, loss)
            watched = True
        if watched and self.guard is not None:
            if step % self.interval:
                return Decision(False, False)
            bad = self.guard.poll()
        elif loss is not None and not bool(torch.isfinite(loss.detach()).all()):
            bad = step
        flags = torch.tensor([bool(self.reason), -1 if bad is None else bad], dtype=torch.int64)
        if dist.is_initialized():
            dist.all_reduce(flags, dist.ReduceOp.MAX)  # a CPU tensor: gloo, also in a run with NCCL
        stop, first_bad = flags.tolist()
        return Decision(bool(stop), first_bad >= 0, first_bad if first_bad >= 0 else None)

    def close(self) -> None:
        """Give the signals back to whoever had them."""
        restore_signals(self._previous)
        self._previous = {}

    def __enter__(self) -> Stopper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked data worker: its parent ends it
            return
        name, now = signal.Signals(number).name, time.monotonic()
        if not self.reason:
            say(f"{name}: stopping after this step; SIGINT or SIGTERM again stops at once")
        self.request(name)
        if number == signal.SIGUSR1:
            return
        if self._asked is None:
            self._asked = now
        elif now - self._asked >= AGAIN:
            say(f"{name} again: stopping at once; the last checkpoint is kept")
            os._exit(INTERRUPTED)


class NonFiniteGuard:
    """Keeps a bad loss out of the weights without waiting for the device.

    From the first step whose loss is not finite on any rank, ``optimizer``'s updates do nothing: fused optimizers read
    ``found_inf`` on the device. With a GradScaler, which sets its own ``found_inf``, only the bad steps themselves are
    left out. Running statistics of normalisation layers may have seen the bad batch: save no checkpoint after it.
    """

    def __init__(self, optimizer: Optimizer, device: torch.device) -> None:
        if device.type == "cuda" and not all(group.get("fused") for group in optimizer.param_groups):
            raise ValueError("NonFiniteGuard on CUDA needs an optimizer with fused=True: others ignore found_inf")
        self._optimizer = optimizer
        self._found = torch.zeros((), device=device)
        self._step = torch.full((), -1, dtype=torch.int64, device=device)
        self._host = torch.full((), -1, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._copied: torch.cuda.Event | None = None

    def observe(self, step: int | Tensor, loss: Tensor) -> None:
        """Note on the device whether ``loss`` is finite on every rank; call it before the optimizer's step.

        step: its number, or a tensor of no dimension that holds it.
        """
        self._found.copy_(torch.maximum(self._found, (~torch.isfinite(loss.detach())).any().float()))
        if dist.is_initialized():
            dist.all_reduce(self._found, dist.ReduceOp.MAX)
        first = (self._step < 0) & (self._found > 0)
        if isinstance(step, Tensor):
            self._step.copy_(torch.where(first, step, self._step))  # masked_fill would read the tensor's value
        else:
            self._step.masked_fill_(first, step)  # where() would copy the number over
        self._optimizer.found_inf = self._found  # type: ignore[attr-defined]

    def tensors(self) -> list[Tensor]:
        """What it keeps on the device; these stay the same tensors."""
        return [self._found, self._step]

    def poll(self, wait: bool = False) -> int | None:
        """The first bad step if it is known by now, else None. ``wait=True`` is exact and waits for the device."""
        if self._step.device.type != "cuda":
            self._host.copy_(self._step)
        else:
            if wait or self._copied is None:
                self._host.copy_(self._step, non_blocking=True)
                self._copied = torch.cuda.Event()
                self._copied.record()
            if wait:
                self._copied.synchronize()
            if not self._copied.query():
                return None
            self._copied = None
        first = int(self._host)
        return first if first >= 0 else None


def finite_probe(loss: Tensor, grads: Iterable[Tensor | None]) -> Tensor:
    """A scalar that is finite only if ``loss`` and all ``grads`` are; ``Stopper.check`` takes it in place of the loss.

    Not for float16 with a GradScaler, whose gradients overflow now and then by design.
    """
    norm = torch.nn.utils.get_total_norm([grad for grad in grads if grad is not None])
    return loss.detach() + norm
