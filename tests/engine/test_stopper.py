"""Stopping: flags, second signals, and weights that a bad loss cannot reach. Two ranks: test_distributed.py."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
import torch

from randomix.engine import stopper as module
from randomix.engine.stopper import Decision, NonFiniteGuard, Stopper, finite_probe
from randomix.errors import INTERRUPTED

NAN = torch.tensor(float("nan"))
GO = Decision(False, False)


@pytest.mark.parametrize("number", module.SIGNALS)
def test_a_signal_sets_a_flag_that_the_next_check_reports(number, capfd):
    before = signal.getsignal(number)
    with Stopper() as stopper:
        assert stopper.check(0, torch.ones(())) == GO
        signal.raise_signal(number)
        assert stopper.reason == signal.Signals(number).name
        assert stopper.check(1, torch.ones(())) == Decision(True, False)
        assert stopper.check(2) == Decision(True, False)  # until somebody leaves
    assert signal.getsignal(number) is before
    assert "stopping after this step" in capfd.readouterr().err


def test_a_signal_that_came_before_is_obeyed(monkeypatch):
    monkeypatch.setattr(module, "NOTED", [signal.SIGUSR1, signal.SIGTERM])
    with Stopper() as stopper:
        assert stopper.reason == "SIGUSR1"
        assert stopper.check(0, torch.ones(())).stop


def test_handlers_are_restored_after_an_error_too():
    before = [signal.getsignal(n) for n in module.SIGNALS]
    with pytest.raises(ZeroDivisionError), Stopper():
        _ = 1 / 0
    assert [signal.getsignal(n) for n in module.SIGNALS] == before


def test_other_reasons_can_ask_and_the_first_one_is_kept():
    with Stopper() as stopper:
        stopper.request("time limit")
        stopper.request("SIGTERM")
        assert stopper.reason == "time limit"
        assert stopper.check(0).stop


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_bad_loss_is_reported_at_its_own_step(value):
    with Stopper() as stopper:
        assert stopper.check(6, torch.ones(())) == GO
        assert stopper.check(7, torch.tensor(float(value))) == Decision(False, True, 7)


def test_outside_of_the_main_thread_there_are_no_handlers_but_checks_work():
    seen = []
    before = signal.getsignal(signal.SIGTERM)

    def work():
        with Stopper() as stopper:
            seen.append((signal.getsignal(signal.SIGTERM) is before, stopper.check(0, NAN)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(True, Decision(False, True, 0))]


def test_interval_counts_steps():
    with pytest.raises(ValueError, match="interval is 0"):
        Stopper(interval=0)


def _child(action) -> tuple[int, int]:
    """Fork a process that runs ``action(ready)``; return its id and the end of a pipe that says it is ready."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            action(lambda: os.write(writer, b"."))
        finally:
            os._exit(99)
    os.close(writer)
    assert os.read(reader, 1) == b"."
    os.close(reader)
    return pid, reader


def _ended(pid: int, seconds: float) -> int | None:
    """The exit code of a child, None if it still runs after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(code)
        time.sleep(0.01)
    return None


@pytest.mark.parametrize(("first", "second"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM"), ("SIGTERM", "SIGINT")])
def test_a_second_signal_ends_at_once_but_not_the_same_one_delivered_twice(monkeypatch, first, second):
    monkeypatch.setattr(module, "AGAIN", 0.3)

    def stuck(ready):
        with Stopper():
            ready()
            time.sleep(30)
            time.sleep(30)

    pid, _ = _child(stuck)
    os.kill(pid, getattr(signal, first))
    os.kill(pid, getattr(signal, second))  # a scheduler and the launcher, at the same time
    assert _ended(pid, 0.5) is None
    os.kill(pid, getattr(signal, second))
    assert _ended(pid, 2) == INTERRUPTED


def test_sigusr1_never_counts_as_the_first_or_second(monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.0)

    def stuck(ready):
        with Stopper():
            ready()
            time.sleep(30)

    pid, _ = _child(stuck)
    for name in ("SIGUSR1", "SIGUSR1", "SIGTERM", "SIGUSR1"):
        os.kill(pid, getattr(signal, name))
        time.sleep(0.05)
    assert _ended(pid, 0.2) is None
    os.kill(pid, signal.SIGKILL)
    assert _ended(pid, 2) == -signal.SIGKILL


def test_a_forked_data_worker_ignores_what_its_parent_handles(monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.0)
    with Stopper() as stopper:

        def data_worker(ready):
            ready()
            end = time.monotonic() + 30
            while time.monotonic() < end and not stopper.reason:
                time.sleep(0.01)

        pid, _ = _child(data_worker)
        for _ in range(3):
            os.kill(pid, signal.SIGTERM)
            time.sleep(0.05)
        assert _ended(pid, 0.2) is None
        os.kill(pid, signal.SIGKILL)
        assert _ended(pid, 2) == -signal.SIGKILL
        assert not stopper.reason


# -- the guard of the device -------------------------------------------------------------------------------------

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def _problem(device: str) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2).to(device)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1, fused=True)


def _step(model, optimizer, guard, step: int, factor: float) -> None:
    device = next(model.parameters()).device
    loss = model(torch.ones(4, 3, device=device)).square().mean() * factor
    loss.backward()
    guard.observe(step, loss)
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("device", DEVICES)
def test_weights_and_momentum_stay_from_the_first_bad_step_on(device):
    model, optimizer = _problem(device)
    guard = NonFiniteGuard(optimizer, torch.device(device))
    for step in range(3):
        _step(model, optimizer, guard, step, 1.0)
    assert guard.poll(wait=True) is None
    good = [p.detach().clone() for p in model.parameters()]
    momentum = [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    for step, factor in ((3, float("nan")), (4, 1.0), (5, float("inf"))):
        _step(model, optimizer, guard, step, factor)
    assert all(torch.equal(a, b) for a, b in zip(good, model.parameters(), strict=True))
    after = [s["momentum_buffer"] for s in optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(momentum, after, strict=True))
    assert guard.poll(wait=True) == 3


def test_good_losses_pass_the_guard_unchanged():
    (model, optimizer), (plain, reference) = _problem("cpu"), _problem("cpu")
    guard = NonFiniteGuard(optimizer, torch.device("cpu"))
    for step in range(3):
        _step(model, optimizer, guard, step, 1.0)
        plain(torch.ones(4, 3)).square().mean().backward()
        reference.step()
        reference.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_no_step_waits_and_the_bad_one_is_found():
    model, optimizer = _problem("cuda")
    inputs = torch.ones(4, 3, device="cuda")
    with Stopper(NonFiniteGuard(optimizer, torch.device("cuda"))) as stopper:
        decisions = []
        for step in range(40):
            loss = model(inputs).square().mean() * (float("nan") if step == 5 else 1.0)
            loss.backward()
            with _NoSync():
                decisions.append(stopper.check(step, loss))
                optimizer.step()
            optimizer.zero_grad()
            if step == 20:
                torch.cuda.synchronize()
    assert decisions[:5] == [GO] * 5
    assert decisions[-1] == Decision(False, True, 5)


class _NoSync:
    def __enter__(self):
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_):
        torch.cuda.set_sync_debug_mode("default")


def test_an_optimizer_that_would_not_obey_is_refused_on_a_gpu():
    optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="fused=True"):
        NonFiniteGuard(optimizer, torch.device("cuda"))


def test_the_probe_sees_the_loss_and_every_gradient():
    loss, fine = torch.tensor(2.0), [torch.ones(3), None, torch.zeros(2, 2)]
    assert finite_probe(loss, fine).isfinite()
    assert finite_probe(loss, []).isfinite()
    assert not finite_probe(NAN, fine).isfinite()
    for bad in (float("nan"), float("inf")):
        assert not finite_probe(loss, [*fine, torch.tensor([0.0, bad])]).isfinite()
