"""Whose processor time counts; how long a rank waits, and which records of kernels that is taken from."""

from __future__ import annotations

import multiprocessing
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def waiting(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from bench import waiting

    return waiting


def _compute(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def _compute_and_stay(seconds: float, done) -> None:
    _compute(seconds)
    done.set()
    time.sleep(60)


def test_the_time_of_children_counts_while_they_live_and_when_they_have_ended(waiting) -> None:
    from bench.measure import cpu_seconds

    code = "import time\nwhile time.process_time() < 0.3: pass"
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert 0.25 < cpu_seconds() - before < 0.6
    context = multiprocessing.get_context("fork")
    done, before = context.Event(), cpu_seconds()
    child = context.Process(target=_compute_and_stay, args=(0.3, done))
    child.start()
    assert done.wait(60)
    assert 0.25 < cpu_seconds() - before < 0.6  # it lives
    child.terminate()
    child.join()
    assert 0.25 < cpu_seconds() - before < 0.6  # once, not twice


def test_a_sleeping_thread_waits_and_a_computing_one_does_not(waiting) -> None:
    if not waiting.SCHEDULED.exists():
        pytest.skip("this system does not count when a thread was ready")

    def compute() -> None:
        end = time.thread_time() + 0.1
        while time.thread_time() < end:
            pass

    def both() -> None:
        begun = time.perf_counter()
        compute()
        time.sleep(time.perf_counter() - begun)

    device = torch.device("cpu")
    assert waiting.share(lambda: time.sleep(0.2), device) > 0.75
    assert waiting.share(compute, device) < 0.25  # on a busy machine too
    assert waiting.share(both, device) == pytest.approx(0.5, abs=0.2)


def test_a_system_that_does_not_count_gives_none(waiting, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(waiting, "SCHEDULED", tmp_path / "nowhere")
    assert waiting.share(lambda: None, torch.device("cpu")) is None


def test_only_what_no_kernel_covers_is_waiting(waiting) -> None:
    assert waiting.uncovered([(0, 10)], []) == 10
    assert waiting.uncovered([(0, 10), (5, 12)], [(2, 3), (11, 20)]) == 10
    rng = random.Random(0)
    for _ in range(50):
        spans = [[(begin, begin + rng.randrange(9)) for begin in rng.choices(range(60), k=8)] for _ in range(2)]
        covered = [{t for begin, end in of for t in range(begin, end)} for of in spans]
        assert waiting.uncovered(*spans) == len(covered[0] - covered[1])
