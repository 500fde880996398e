"""Records are strict, atomic, reproducible and say nothing about the machine's folders and people."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from randomix.records import provenance, record
from tests.records.fakes import PROVENANCE, config, damaged, fake, text

ROOT = Path(__file__).resolve().parents[2]


def test_the_contract() -> None:
    content = json.loads(text("randomix", 3, 7.0, mixer={"weights": [3, 1, 1, 1]}))
    assert content["schema"] == 1 and content["kind"] == "train" and content["seed"] == 3
    assert content["run"] == f"digits/preact_resnet18/randomix-{content['config_hash']}/seed-3"
    assert content["mixer"] == {"name": "randomix", "label": "RandoMix [3,1,1,1]", "mode": "l+m"}
    assert content["metrics"]["last"] == {
        "epoch": 3,
        "top1": 93.0,
        "top1_error": 7.0,
        "top5": 99.0,
        "loss": 0.5,
        "noise_error": 50.0,
    }
    assert content["metrics"]["best"] == {"epoch": 2, "top1": 94.0, "top1_error": 6.0}
    assert content["timing"] == {
        "seconds": 13.0,
        "cpu_seconds": 11.0,
        "seconds_per_epoch": 2.0,
        "images_per_second": 100.0,
    }
    assert list(content) == sorted(content)
    assert "output_root" not in content["config"] and "root" not in content["config"]["dataset"]
    assert "/somewhere" not in text()


def test_round_trip_is_byte_equal_and_keeps_unknown_keys() -> None:
    content = json.loads(text()) | {"later": {"b": 1, "a": 2}}
    once = record.to_json(record.from_json(json.dumps(content)))
    assert record.to_json(record.from_json(once)) == once
    assert json.loads(once)["later"] == {"a": 2, "b": 1}


def test_non_finite_numbers_become_null_and_paths_lose_their_folders() -> None:
    line = record.dumps({"b": math.nan, "a": [math.inf, 1.5], "path": "/home/someone/frost.npz", "rel": "a/b"})
    assert line == '{"a": [null, 1.5], "b": null, "path": "frost.npz", "rel": "a/b"}'
    with pytest.raises(ValueError, match="cannot hold a object"):
        record.dumps(object())


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", "damaged: not JSON"),
        (text()[:300], "damaged: not JSON"),
        ("[1, 2]", "foreign"),
        ('{"top1": 1}', "foreign: no record of a run (it has no key 'schema')"),
        (text().replace('"ece"', "").replace('"top1": 90', '"top1": NaN'), "damaged: holds NaN, which is not JSON"),
        (text().replace('"noise_error": 50.0', '"noise_error": 1e999'), "metrics.last.noise_error is not finite"),
        (damaged(lambda c: c.update(schema=2)), "schema is 2, this version reads 1"),
        (damaged(lambda c: c.pop("seed")), "key 'seed' is missing"),
        (damaged(lambda c: c.update(seed="0")), "seed must be an integer, got '0'"),
        (damaged(lambda c: c.update(seed=1)), "but dataset, model and seed say"),
        (damaged(lambda c: c.update(kind="x")), "kind must be one of train, eval"),
        (damaged(lambda c: c.update(run="../../etc/seed-0")), "run must look like"),
        (damaged(lambda c: c.update(dataset="../x")), "but dataset, model and seed say"),
        (damaged(lambda c: c["config"].pop("recipe")), "key 'config.recipe' is missing"),
        (damaged(lambda c: c["mixer"].pop("mode")), "key 'mixer.mode' is missing"),
        (damaged(lambda c: c.update(metrics={})), "metrics must have last or best"),
        (
            damaged(lambda c: c["metrics"]["last"].update(top1="93")),
            "metrics.last.top1 must be a number or null, got '93'",
        ),
        (damaged(lambda c: c["metrics"]["last"].update(top1=True)), "metrics.last.top1 must be a number or null"),
        (
            damaged(lambda c: c["metrics"]["last"].update(fgsm_error=250.0)),
            "fgsm_error must be 0 to 100 percent, got 250",
        ),
        (damaged(lambda c: c["metrics"]["last"].update(top5=-5)), "metrics.last.top5 must be 0 to 100 percent, got -5"),
        (damaged(lambda c: c["history"].append(3)), "history[3] must be an object with an integer epoch"),
        (damaged(lambda c: c["timing"].update(seconds="1")), "timing.seconds must be a number"),
        (damaged(lambda c: c["provenance"].update(hardware="x")), "provenance.hardware must be an object"),
    ],
)
def test_damaged_and_foreign_files_give_one_line_with_file_and_key(tmp_path: Path, content: str, line: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:
        record.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and line in message and "\n" not in message


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="not UTF-8"):
        record.read(tmp_path / "x.json")
    with pytest.raises(ValueError, match="cannot be read"):
        record.read(tmp_path / "none.json")


def test_an_evaluation_of_the_best_weights_is_not_of_the_last() -> None:
    best = fake(kind="eval", checkpoint="best.pt", evaluators=["noise"])
    assert best.metric("noise_error") is None and best.metric("noise_error", "best") == 50.0
    last = fake(kind="eval", checkpoint="last.pt")
    assert last.metric("noise_error") == 50.0 and last.path != best.path
    assert str(last.path).startswith(f"{last.run}.eval-")


def test_provenance_names_code_and_hardware_only() -> None:
    found = provenance.collect(started=0.0, threads=2)
    assert set(found) == set(PROVENANCE) and found["started"] == "1970-01-01T00:00:00Z"
    assert found["versions"]["python"] == sys.version.split()[0] and found["hardware"]["cores"] >= 1
    words = json.dumps(found)
    assert os.uname().nodename not in words and str(ROOT) not in words
    record.dumps(found)


def test_provenance_without_git_or_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.git_state(tmp_path) == (None, None)
    assert provenance.git_state(ROOT / "tests") == (None, None)  # inside a checkout, but not its root
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(ROOT) == (None, None)
    assert provenance._cpu_model(tmp_path / "none")


def test_git_state_sees_changes(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e", *arguments],
            check=True,
            capture_output=True,
        )

    git("init")
    (tmp_path / "train.py").write_text("1")
    git("add", "train.py")
    git("commit", "-m", "x")
    commit, dirty = provenance.git_state(tmp_path)
    assert len(commit or "") == 40 and dirty is False
    (tmp_path / "notes.txt").write_text("not code")
    assert provenance.git_state(tmp_path)[1] is False
    (tmp_path / "train.py").write_text("2")
    assert provenance.git_state(tmp_path) == (commit, True)


def test_nothing_here_imports_torch_or_the_engine() -> None:
    modules = sorted(p.stem for p in (ROOT / "randomix" / "records").glob("[a-z]*.py"))
    code = f"import importlib, sys\nfor m in {modules}: importlib.import_module('randomix.records.' + m)\n"
    code += "print([m for m in ('torch', 'matplotlib', 'scipy', 'randomix.engine') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_config_hash_ignores_seed_and_execution() -> None:
    a, b = fake("mixup", 0), fake("mixup", 1, trainer={"device": "cuda"}, dataset={"root": "/elsewhere"})
    assert a.config_hash == b.config_hash != fake("mixup", recipe={"lr": 0.2}).config_hash
    assert config()["dataset"]["root"].startswith("/")
