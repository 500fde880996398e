"""Runs that are killed at random moments and continued end bit-equal to one that was left alone.

RANDOMIX_KILLS sets how often a run is killed (default 3 for one rank, 2 for two): ten in the release check.
"""

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

import datasets
import models
from randomix.engine import status
from randomix.engine.launcher import STORE
from randomix.engine.runfolder import RunFolder
from randomix.engine.trainer import Trainer
from randomix.records import identity, record
from randomix.runs.build import run_training
from tests.support import fork, tiny_config, train, wait, weights_digest

KILLS = int(os.environ.get("RANDOMIX_KILLS", "0"))
EPOCHS = 64 if KILLS else 16
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """What torch imports at a process's first training step is then there for all forked ones: 1.5 s less for each."""
    train(tiny_config(tmp_path_factory.mktemp("warm"), recipe={"epochs": 1}))


def config_for(root: Path) -> dict:
    """Long enough to be hit anywhere: epochs of 6 steps, a checkpoint each epoch."""
    return tiny_config(root, recipe={"epochs": EPOCHS})


def start(config: dict, ranks: int, log: Path) -> list[int]:
    """One process a rank, as torchrun or the launcher would start them."""
    store = tempfile.mkdtemp(dir=log.parent)
    pids = []
    for rank in range(ranks):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, STORE: f"{store}/s"}
        environment = {k: str(v) for k, v in names.items()} if ranks > 1 else {}
        pids.append(fork(lambda: run_training(config, datasets.build, models.build), log, environment))
    return pids


def signalled(monkeypatch, at: int, number: int) -> None:
    """From now on every process gets a signal in the middle of its training step ``at``."""

    def step(self, step, batch, stopper, original=Trainer.__dict__["step"]):
        if step == at:
            os.kill(os.getpid(), number)
        return original(self, step, batch, stopper)

    monkeypatch.setattr(Trainer, "step", step)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Weights digest and history length by number of ranks, of runs that nothing disturbed; and their seconds."""
    found = {}
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"reference{ranks}")
        began = time.monotonic()
        codes = wait(start(config_for(folder), ranks, folder / "log"))
        assert codes == [0] * ranks, (folder / "log").read_text()
        run = RunFolder(identity.run_folder(config_for(folder)))
        found[ranks] = (weights_digest(run), record.read(run.record).candidates, time.monotonic() - began)
    return found


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_at_random_moments(tmp_path, reference, ranks):
    digest, candidates, seconds = reference[ranks]
    config, moments, killed = config_for(tmp_path), random.Random(ranks), 0
    folder = RunFolder(identity.run_folder(config))
    wanted = KILLS or 4 - ranks
    for _ in range(4 * wanted):
        pids = start(config, ranks, tmp_path / "log")
        time.sleep(moments.uniform(0.1, 0.6) * seconds * (0.25 if KILLS else 0.5))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        codes = wait(pids)
        assert set(codes) <= {0, -signal.SIGKILL}, (tmp_path / "log").read_text()
        killed += -signal.SIGKILL in codes
        if killed == wanted or folder.finished():
            break
    assert killed >= (KILLS or 1)
    assert wait(start(config, ranks, tmp_path / "log")) == [0] * ranks, (tmp_path / "log").read_text()
    assert weights_digest(folder) == digest
    written = record.read(folder.record)
    assert written.candidates == candidates
    assert [m["epoch"] for m in written.history] == list(range(1, EPOCHS + 1))


def test_sigterm_to_one_rank_stops_all_at_the_same_step(tmp_path, reference):
    config = config_for(tmp_path)
    folder = RunFolder(identity.run_folder(config))
    pids = start(config, 2, tmp_path / "log")
    deadline = time.monotonic() + 30
    while not folder.metrics.is_file() or folder.metrics.read_text().count("\n") < 3:
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.005)
    os.kill(pids[1], signal.SIGTERM)
    assert wait(pids) == [75, 75], (tmp_path / "log").read_text()
    known = status.read(folder.status)
    assert known.state == "interrupted"
    assert 18 <= known.step < 6 * EPOCHS
    assert wait(start(config, 2, tmp_path / "log")) == [0, 0], (tmp_path / "log").read_text()
    assert weights_digest(folder) == reference[2][0]


def test_one_rank_continues_what_two_began(tmp_path, reference):
    config = config_for(tmp_path)
    folder = RunFolder(identity.run_folder(config))
    pids = start(config, 2, tmp_path / "log")
    while not folder.metrics.is_file() or folder.metrics.read_text().count("\n") < 2:
        time.sleep(0.005)
    os.kill(pids[0], signal.SIGUSR1)
    assert wait(pids) == [75, 75]
    run = train(config)
    assert "written by 2 rank(s), this run has 1" in run.log.read_text()
    assert record.read(run.record).candidates == reference[2][1]  # the choice of methods does not know the ranks


NETWORK_METHODS = {  # a step depends on features inside the network, or on its running statistics
    "hidden": ["mixup", "manifold_mixup", "patchup"],
    "saliency": ["puzzlemix", {"name": "comixup", "clean_weight": 0.0}],
    "saliency with a clean loss": [{"name": "puzzlemix", "clean_weight": 1.0}],
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("methods", NETWORK_METHODS.values(), ids=list(NETWORK_METHODS))
def test_methods_that_need_the_network_go_on_bit_equal(tmp_path, monkeypatch, ranks, methods):
    """Killed, then stopped by a signal, both within an epoch; the network has batch normalisation."""
    mixer = {"name": "randomix", "candidates": methods, "weights": [1] * len(methods), "alpha": 1.0}

    def run(folder: Path, number: int | None = None, at: int = 0) -> list[int]:
        config = tiny_config(folder, recipe={"epochs": 4}) | {"mixer": mixer}
        folder.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            if number is not None:
                signalled(patch, at, number)
            return wait(start(config, ranks, folder / "log"))

    def finished(folder: Path) -> tuple[str, dict]:
        run = RunFolder(identity.run_folder(tiny_config(folder, recipe={"epochs": 4}) | {"mixer": mixer}))
        return weights_digest(run), record.read(run.record).candidates

    alone, disturbed, moments = tmp_path / "alone", tmp_path / "disturbed", random.Random(ranks)
    assert run(alone) == [0] * ranks, (alone / "log").read_text()
    for _ in range(KILLS or 1):
        at = moments.randrange(7, 12)  # of the second epoch; the checkpoint is that of the first
        assert run(disturbed, signal.SIGKILL, at) == [-signal.SIGKILL] * ranks, (disturbed / "log").read_text()
    assert run(disturbed, signal.SIGTERM, 14) == [75] * ranks, (disturbed / "log").read_text()
    assert run(disturbed) == [0] * ranks, (disturbed / "log").read_text()
    assert finished(disturbed) == finished(alone)
    assert set(finished(alone)[1]) == {m if isinstance(m, str) else m["name"] for m in methods}  # all were drawn
