"""The finished cells of an evaluation: read back as they were, cut or damaged files, other evaluations."""

import json
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import datasets
from randomix.engine.distributed import World
from randomix.engine.evaluate import EvalResult
from randomix.engine.signals import LAST_WORDS, exit_on_signals
from randomix.errors import Interrupted, StorageError
from randomix.robustness import evaluators
from randomix.robustness.evaluators import run_evaluators
from randomix.robustness.measure import Measure
from randomix.runs import reevaluate, session
from randomix.runs.build import run_evaluation
from randomix.runs.journal import Journal, open_journal
from tests.support import fork, group_net, tiny_config, train, wait

RESULT = EvalResult(3, 5, 7, 0.1 + 0.2, ((1, 1, 0.5), (6, 2, 1 / 3)))


def test_cells_come_back_as_they_were(tmp_path):
    path = tmp_path / "evaluations" / "cells.jsonl"
    journal = Journal(path, World())
    assert not journal and journal.get("a/1") is None
    journal.put("a/1", (RESULT, []))
    journal.put("a/2", (replace(RESULT, correct1=4), [1, 2]))
    again = Journal(path, World())
    assert len(again) == 2 and again.get("a/1") == (RESULT, [])
    assert again.get("a/2") == (replace(RESULT, correct1=4), [1, 2])
    again.remove()
    assert not path.exists() and not Journal(path, World())


def test_half_a_line_is_no_cell_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "cells.jsonl"
    Journal(path, World()).put("a/1", (RESULT, []))
    path.write_bytes(path.read_bytes() + b'{"cell": "a/2", "resu')  # killed while it wrote
    journal = Journal(path, World())
    assert len(journal) == 1
    journal.put("a/2", (RESULT, [9]))
    assert Journal(path, World()).get("a/2") == (RESULT, [9])


DAMAGED = ["\0\0\0\n", "[1]\n", '{"cell": "a"}\n', '{"cell": "a", "result": {"bins": [], "x": 1}, "more": []}\n']


def test_a_count_that_is_no_number_is_damage(tmp_path, capsys):
    path = tmp_path / "cells.jsonl"
    Journal(path, World()).put("a/1", (RESULT, []))
    path.write_text(path.read_text().replace(f'"correct1": {RESULT.correct1}', '"correct1": "7"'))
    assert '"7"' in path.read_text()
    assert not Journal(path, World())
    assert "a count is '7'" in capsys.readouterr().err


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_journal_is_left_with_a_warning(tmp_path, capsys, text):
    path = tmp_path / "cells.jsonl"
    path.write_text(text)
    assert not Journal(path, World()) and not path.exists()
    assert capsys.readouterr().err.count("\n") == 1


def test_ranks_other_than_the_first_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("randomix.runs.journal.broadcast_object", lambda value: {})
    Journal(tmp_path / "cells.jsonl", World(1, 2)).put("a", (RESULT, []))
    assert not list(tmp_path.iterdir())


def described(digest):
    """A data set that says this of itself."""
    return SimpleNamespace(describe=lambda: {"sha256": digest})


def test_the_name_changes_with_all_that_the_result_depends_on(tmp_path, monkeypatch):
    monkeypatch.setattr("randomix.records.provenance.git_state", lambda root: ("this", False))
    torch.manual_seed(0)
    model = nn.Linear(2, 2)
    asked = {"names": ["a"], "settings": {"a": {"x": 1}, "b": {}}, "precision": "fp32", "data": described("1")}

    def path(**changes):
        return open_journal(tmp_path, changes.pop("model", model), **asked | changes, world=World()).path

    known = path()
    assert path() == known and path(settings={"a": {"x": 1}, "b": {"y": 2}}) == known  # b is not run
    others = [path(names=["b"]), path(settings={"a": {"x": 2}}), path(precision="bf16"), path(data=described("2"))]
    others.append(path(model=nn.Linear(2, 2)))
    for name, value in [
        ("randomix.records.provenance.git_state", lambda root: ("another", False)),
        ("torch.__version__", "another"),
        ("randomix.runs.journal.evaluator_sources", lambda *_: {"a": "other files"}),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            others.append(path())
    others.append(open_journal(tmp_path, model, **asked, world=World(device=torch.device("meta"))).path)
    assert path() == known and len({known, *others}) == 10


@pytest.mark.parametrize("kind", ["final", "eval"])
def test_both_ways_to_evaluate_say_all_that_the_name_needs(tmp_path, monkeypatch, kind):
    config, seen = tiny_config(tmp_path, evaluators=["noise"], evaluator={"noise": {"sigma": 0.1}}), []
    config["recipe"] |= {"epochs": 1}
    module = {"final": session, "eval": reevaluate}[kind]

    def spy(folder, model, **asked):
        seen.append(asked)
        return open_journal(folder, model, **asked)

    monkeypatch.setattr(module, "open_journal", spy)
    folder = train(config, group_net)
    if kind == "eval":
        trainer = {"device": "cpu", "precision": "fp32", "threads": 1}
        asked = {"checkpoint": str(folder.root), "evaluators": ["noise"], "evaluator": {"noise": {"sigma": 0.1}}}
        assert run_evaluation(asked | {"trainer": trainer}, datasets.build, group_net) == 0
    (asked,) = seen
    assert asked["names"] == ["noise"] and asked["settings"]["noise"] == {"sigma": 0.1}
    assert asked["precision"] == "fp32" and asked["data"].describe() == datasets.build(config["dataset"]).describe()


@pytest.mark.parametrize(
    ("finished", "words"),
    [
        (0, "interrupted before a part of this evaluation was finished; the same command starts it again"),
        (2, "interrupted; finished and kept: 2 parts of this evaluation; the same command continues"),
    ],
)
def test_a_signal_says_what_is_kept_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys, finished, words):
    config = tiny_config(tmp_path, evaluators=["clean"])
    config["recipe"] |= {"epochs": 1}
    folder = train(config, group_net)
    trainer = {"device": "cpu", "precision": "fp32", "threads": 1}
    asked = {"checkpoint": str(folder.root), "evaluators": ["noise"], "evaluator": {"noise": {"repeats": 4}}}
    put = Journal.put

    def stop(journal, name, cell):
        if len(journal) == finished:
            os.kill(os.getpid(), signal.SIGTERM)
        put(journal, name, cell)

    def evaluate_again():
        return run_evaluation(asked | {"trainer": trainer}, datasets.build, group_net)

    def stopped():
        exit_on_signals()
        monkeypatch.setattr(Journal, "put", stop)
        return evaluate_again()

    assert wait([fork(stopped, tmp_path / "log")]) == [75]
    assert (tmp_path / "log").read_text() == f"{words}\n"
    assert len(list(folder.evaluations.glob("*"))) == (1 if finished else 0)
    capsys.readouterr()
    assert evaluate_again() == 0
    started = capsys.readouterr().out.startswith("going on after 2 finished parts of this evaluation")
    assert started == bool(finished) and len(LAST_WORDS) == 1
    (left,) = folder.evaluations.glob("*")
    assert left.suffix == ".json"


def test_a_signal_that_was_noted_ends_it_between_two_passes(tmp_path, monkeypatch):
    config = tiny_config(tmp_path, evaluators=["clean"])
    config["recipe"] |= {"epochs": 1}
    folder = train(config, group_net)
    trainer = {"device": "cpu", "precision": "fp32", "threads": 1}
    asked = {"checkpoint": str(folder.root), "evaluators": ["noise"], "evaluator": {"noise": {"repeats": 4}}}
    put, noted = Journal.put, []
    monkeypatch.setattr(reevaluate, "NOTED", noted)
    monkeypatch.setattr(Journal, "put", lambda journal, *cell: put(journal, *cell) or noted.append(signal.SIGTERM))
    with pytest.raises(Interrupted, match="finished and kept: 1 parts of this evaluation; the same command continues"):
        run_evaluation(asked | {"trainer": trainer}, datasets.build, group_net)
    monkeypatch.setattr(Journal, "put", put)
    noted.clear()
    assert run_evaluation(asked | {"trainer": trainer}, datasets.build, group_net) == 0


def test_named_passes_are_made_once_and_others_each_time(tmp_path, monkeypatch):
    calls = []

    def toy(measure: Measure):
        def at(cell):
            return measure.kept(cell, lambda: (calls.append(cell), (RESULT, [len(calls)]))[1])

        return {"x": 1.0}, {"more": [at("1")[1], at(None)[1], at("2")[1]]}

    monkeypatch.setitem(evaluators.EVALUATORS, "toy", toy)
    options = {"names": ["toy"], "settings": {}, "batch_size": 1}
    journal = Journal(tmp_path / "cells.jsonl", World())
    first = run_evaluators(nn.Identity(), None, cells=journal, **options)
    second = run_evaluators(nn.Identity(), None, cells=Journal(journal.path, World()), **options)
    assert calls == ["1", None, "2", None]
    assert first["counts"]["toy"]["more"] == [[1], [2], [3]] and second["counts"]["toy"]["more"] == [[1], [4], [3]]
    assert [json.loads(line)["cell"] for line in journal.path.read_text().splitlines()] == ["toy/1", "toy/2"]


def test_a_pause_comes_before_each_pass(monkeypatch):
    stops = iter([False, False, True])

    def pause():
        if next(stops):
            raise Interrupted("stopped")

    def toy(measure: Measure):
        for number in range(5):
            measure.kept(str(number), lambda: (RESULT, []))

    monkeypatch.setitem(evaluators.EVALUATORS, "toy", toy)
    with pytest.raises(Interrupted):
        run_evaluators(nn.Identity(), None, names=["toy"], settings={}, batch_size=1, pause=pause)
    assert next(stops, None) is None


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_evaluated(tmp_path, monkeypatch, capsys):
    config = tiny_config(tmp_path, evaluators=["clean"])
    config["recipe"] |= {"epochs": 1}
    folder = train(config, group_net)
    folder.evaluations.write_text("a file in the way")
    monkeypatch.setattr("randomix.runs.reevaluate.run_evaluators", None)  # a TypeError if it came to that
    asked = {"checkpoint": str(folder.root), "evaluators": ["noise"], "evaluator": {"noise": {"repeats": 1}}}
    trainer = {"device": "cpu", "precision": "fp32", "threads": 1}
    with pytest.raises(StorageError, match=r"cannot write .*evaluations: File exists; choose a folder"):
        run_evaluation(asked | {"trainer": trainer}, datasets.build, group_net)
