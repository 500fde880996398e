"""The evaluator of corrupted test sets against plain numpy; ranks and batch sizes; a killed evaluation goes on."""

import json
import os
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import datasets
from datasets.resident import ArrayData
from randomix.engine import distributed
from randomix.engine.distributed import World
from randomix.engine.launcher import STORE
from randomix.engine.runfolder import RunFolder
from randomix.errors import DataError, Interrupted
from randomix.records import identity, record
from randomix.robustness.corrupted import mean_errors
from randomix.robustness.corruptions import CORRUPTIONS, STANDARD, VERSION
from randomix.robustness.corruptions.frost import frost_source
from randomix.robustness.evaluators import evaluator_sources, run_evaluators
from randomix.runs.build import run_evaluation, run_training
from randomix.runs.journal import Journal
from tests.datasets.corrupted_files import NAMES, clean_cifar, corrupted_cifar
from tests.support import fork, group_net, tiny_config, train, wait

SETTINGS = {"corruptions": {"names": list(NAMES)}}


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    monkeypatch.setenv("RANDOMIX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("randomix.records.provenance.git_state", lambda root: ("commit", False))  # may move meanwhile


@pytest.fixture
def cifar(tmp_path):
    """The settings of a toy CIFAR-10, its clean arrays and those of its CIFAR-10-C."""
    config = clean_cifar(tmp_path, test=203)
    data = datasets.build(config)
    return config, data, corrupted_cifar(tmp_path / "CIFAR-10-C", data.test_images, data.test_labels)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def evaluated(data, model, batch_size=100, world=None, **settings):
    found = run_evaluators(
        model,
        data.eval_set(torch.device("cpu")),
        names=["corruptions"],
        settings={"corruptions": SETTINGS["corruptions"] | settings},
        batch_size=batch_size,
        world=world,
        data=data,
    )
    return found["metrics"], found["counts"]["corruptions"]


def plain_matrix(data, arrays, model):
    """Correct ones by corruption and severity, in numpy, one severity after the other."""
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    mean, std = np.array(data.mean), np.array(data.std)
    matrix = {}
    for name in NAMES:
        correct = []
        for severity in range(5):
            rows = slice(severity * 203, (severity + 1) * 203)
            pixels = (arrays[name][rows].astype(np.float64) / 255 - mean) / std
            logits = pixels.transpose(0, 3, 1, 2).reshape(203, -1) @ weight.T + bias
            correct.append(int((logits.argmax(1) == arrays["labels"][rows]).sum()))
        matrix[name] = correct
    return matrix


def test_counts_are_those_of_plain_numpy_for_any_batch_size(cifar):
    _, data, arrays = cifar
    model = network()
    wanted = plain_matrix(data, arrays, model)
    assert len({tuple(row) for row in wanted.values()}) == 2
    for batch_size in (1, 7, 100):
        metrics, counts = evaluated(data, model, batch_size)
        assert set(counts.pop("files")) == {"labels.npy", *(f"{name}.npy" for name in NAMES)}
        assert counts == {"total": 203, "source": "official", "severities": [1, 2, 3, 4, 5], "matrix": wanted}
    errors = {f"corruption_{n}_error": 100 * np.mean([(203 - c) / 203 for c in row]) for n, row in wanted.items()}
    assert metrics == pytest.approx(errors, abs=1e-12)  # no mean of 15 from 2
    _, some = evaluated(data, model, severities=[5, 2])
    assert some["matrix"] == {name: [row[4], row[1]] for name, row in wanted.items()}


def test_a_record_tells_other_test_sets_from_these(tmp_path, cifar, monkeypatch):
    _, data, arrays = cifar
    settings = {"corruptions": {"names": ["fog", "frost"], "source": "generated", "seed": 4}}

    def sources(settings=SETTINGS):
        return evaluator_sources(["clean", "corruptions"], settings, data)

    known, made = sources(), sources(settings)
    assert sources() == known
    assert made == {"corruptions": {"generator": VERSION, "seed": 4, "frost": frost_source()}}
    monkeypatch.setattr("randomix.robustness.corrupted.VERSION", "another")
    monkeypatch.setattr("randomix.robustness.corrupted.frost_source", lambda: "others")
    assert sources(settings) == {"corruptions": {"generator": "another", "seed": 4, "frost": "others"}}
    assert "frost" not in sources({"corruptions": settings["corruptions"] | {"names": ["fog"]}})["corruptions"]
    fog = arrays["fog"].copy()
    fog[0] ^= 1  # as another download, of the same size
    path = tmp_path / "CIFAR-10-C" / "fog.npy"
    path.unlink()
    np.save(path, fog)
    other = sources()["corruptions"]["files"]
    assert {name for name, digest in known["corruptions"]["files"].items() if other[name] != digest} == {"fog.npy"}


def test_cells_of_different_sizes_have_no_mean(cifar, monkeypatch):
    _, data, _ = cifar
    original = ArrayData.corrupted_set

    def fewer(self, device, name, severity, **options):
        found = self if (name, severity) != ("snow", 3) else replace(self, published=Fewer())
        return original(found, device, name, severity, **options)

    class Fewer:
        def cell(self, name, severity):
            return data.test_images[:9], data.test_labels[:9]

    monkeypatch.setattr(ArrayData, "corrupted_set", fewer)
    with pytest.raises(DataError, match="the corrupted test sets have 9, 203 images, expected as many in each"):
        evaluated(data, network())


def test_means_are_given_where_they_are_complete():
    matrix = {name: [100 - i, 90, 80, 70, 60 - i] for i, name in enumerate(CORRUPTIONS)}
    by_hand = {name: sum(100 - c for c in row) / 5 for name, row in matrix.items()}
    found = mean_errors(matrix, 100)
    assert found["corruption_error"] == pytest.approx(sum(by_hand[n] for n in STANDARD) / 15)
    assert found["corruption_error_19"] == pytest.approx(sum(by_hand.values()) / 19)
    assert len(found) == 21
    standard = mean_errors({name: matrix[name] for name in STANDARD}, 100)
    assert "corruption_error" in standard and "corruption_error_19" not in standard
    assert "corruption_error" not in mean_errors({name: matrix[name] for name in CORRUPTIONS[1:]}, 100)


def on_ranks(ranks, call, folder):
    """``call()`` in forked processes that find each other; their exit codes."""
    store, pids = tempfile.mkdtemp(dir=folder), []
    for rank in range(ranks):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, STORE: f"{store}/s"}
        environment = {k: str(v) for k, v in names.items()} if ranks > 1 else {}
        pids.append(fork(call, folder / "log", environment))
    return wait(pids)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_same_integers_on_several_ranks(tmp_path, cifar, ranks):
    _, data, arrays = cifar
    model = network()

    def work() -> int:
        with distributed.init("cpu", 1.0) as world:
            _, counts = evaluated(data, model, 7, world)
            (tmp_path / f"rank-{world.rank}.json").write_text(json.dumps(counts))
        return 0

    assert on_ranks(ranks, work, tmp_path) == [0] * ranks, (tmp_path / "log").read_text()
    for rank in range(ranks):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert found["matrix"] == plain_matrix(data, arrays, model)


def config_for(root: Path, dataset: dict) -> dict:
    settings = {"clean": {}, **SETTINGS}
    config = tiny_config(root, evaluator=settings, evaluators=["clean", "corruptions"], recipe={"epochs": 1})
    return config | {"dataset": dataset}


def evaluation_of(run: Path) -> dict:
    trainer = {"device": "cpu", "precision": "fp32", "threads": 1, "eval_batch_size": 16}
    return {"checkpoint": str(run), "evaluators": ["corruptions"], "evaluator": SETTINGS, "trainer": trainer}


def dies_after(monkeypatch, cells: int, number: int) -> None:
    """From now on every process gets a signal once it has kept so many cells."""

    def put(self, name, cell, original=Journal.__dict__["put"]):
        original(self, name, cell)
        if len(self) == cells:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Journal, "put", put)


def measured(path: Path) -> tuple:
    """What a record says that does not depend on when it was made."""
    found = record.read(path)
    return found.metrics["last"], found.counts, found.config_hash


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_final_evaluation_goes_on(tmp_path, cifar, monkeypatch, ranks):
    alone, disturbed = (config_for(tmp_path / name, cifar[0]) for name in ("alone", "disturbed"))
    folder = RunFolder(identity.run_folder(disturbed))
    log = tmp_path / "log"

    def run(config):
        return on_ranks(ranks, lambda: run_training(config, datasets.build, group_net), tmp_path)

    assert run(alone) == [0] * ranks, log.read_text()
    with monkeypatch.context() as patch:
        dies_after(patch, 4, signal.SIGKILL)
        assert run(disturbed) == [-signal.SIGKILL] * ranks
    (journal,) = folder.evaluations.iterdir()
    assert len(Journal(journal, World())) == 4 and not folder.record.exists()
    with monkeypatch.context() as patch:
        dies_after(patch, 7, signal.SIGTERM)
        assert run(disturbed) == [75] * ranks, log.read_text()
    assert len(Journal(journal, World())) == 7
    assert run(disturbed) == [0] * ranks, log.read_text()
    assert "going on after 7 finished parts" in folder.log.read_text()
    assert measured(folder.record) == measured(RunFolder(identity.run_folder(alone)).record)
    assert not list(folder.evaluations.iterdir())


def test_a_killed_eval_goes_on_with_what_it_has(tmp_path, cifar, monkeypatch):
    config = config_for(tmp_path / "out", cifar[0]) | {"evaluators": ["clean"]}
    folder, asked = train(config, group_net), evaluation_of(identity.run_folder(config))

    def run():
        return wait([fork(lambda: run_evaluation(asked, datasets.build, group_net), tmp_path / "log")])

    assert run() == [0], (tmp_path / "log").read_text()
    (path,) = folder.evaluations.glob("*.json")
    whole = measured(path)
    path.unlink()
    with monkeypatch.context() as patch:
        dies_after(patch, 6, signal.SIGKILL)
        assert run() == [-signal.SIGKILL]
    made, original = [], ArrayData.corrupted_set
    monkeypatch.setattr(ArrayData, "corrupted_set", lambda *a, **k: made.append(a[2:]) or original(*a, **k))
    assert run_evaluation(asked, datasets.build, group_net) == 0
    assert made == [("snow", s) for s in (2, 3, 4, 5)]
    assert measured(path) == whole and not list(folder.evaluations.glob("cells-*"))


def test_a_stop_between_two_cells(cifar):
    _, data, _ = cifar
    asked = iter([False] * 7 + [True])

    def pause():
        if next(asked):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        run_evaluators(network(), None, names=["corruptions"], settings=SETTINGS, batch_size=50, data=data, pause=pause)


def test_default_settings_leave_no_trace(tmp_path):
    config = tiny_config(tmp_path)
    before = identity.evaluation(config), identity.config_hash(config)
    defaults = {"source": "official", "names": "all", "severities": [1, 2, 3, 4, 5], "seed": 0, "allow_missing": False}
    config["evaluator"] = config["evaluator"] | {"corruptions": defaults}
    config["dataset"] = config["dataset"] | {"corrupted_root": "/elsewhere"}
    assert (identity.evaluation(config), identity.config_hash(config)) == before
    config["evaluator"]["corruptions"] = defaults | {"source": "generated"}
    assert identity.evaluation(config) == before[0] | {"corruptions": {"source": "generated"}}
