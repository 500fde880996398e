"""compare_commits.py: both commits are really run, on their own code; what they give is set side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def compare(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import compare_commits

    return compare_commits


def _git(folder: Path, *arguments: str) -> None:
    name = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *name, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a library whose loss differs."""
    folder = tmp_path / "repository"
    folder.mkdir()
    _git(folder, "init", "-q")
    for value in (1, 2):
        (folder / "library.py").write_text(f"VALUE = {value}\n")
        _git(folder, "add", "library.py")
        _git(folder, "commit", "-q", "-m", str(value))
    return folder


def test_each_commit_runs_its_own_code(compare, repository: Path, monkeypatch, tmp_path: Path, capsys) -> None:
    (repository / "scripts" / "bench").mkdir(parents=True)
    runner = repository / "scripts" / "bench" / "at_commit.py"  # this one runs on both, as the real one does
    runner.write_text(
        "import json, sys; sys.path[:1] = [sys.argv[1]]; import library\n"
        "case, names = json.loads(sys.argv[2])\n"
        "timed = {'cpu_ms': 6.0 / library.VALUE, 'faults': 1.0, 'peak_mib': 2.0}\n"
        "print(json.dumps({n: timed if case == 'mixing' else [library.VALUE * (n == 'b')] for n in names}))\n"
    )
    monkeypatch.setattr(compare, "ROOT", repository)
    monkeypatch.setattr(compare, "TIMED", {"mixing 8": ("mixing", ["x"])})
    monkeypatch.setattr(compare, "CURVES", {"curve a": ("curve", ["a"]), "curve b": ("curve", ["b"])})
    commits = ["HEAD~1", "HEAD"]
    found = {name: compare._commit(name, repository) for name in commits}
    monkeypatch.setattr(compare, "_commit", lambda name, folder=None: found.get(name, name))
    assert compare.main([*commits, "--rounds", "2", "--out", str(tmp_path), "--name", "two"]) == 0
    content = json.loads((tmp_path / "two.json").read_text())
    assert content["rows"]["x"]["before"]["cpu_ms"][1] == 6.0
    assert content["rows"]["x"]["after"]["cpu_ms"][1] == 3.0
    assert content["rows"]["x"]["speedup"] == [2.0, 2.0, 2.0]
    assert content["curves_equal"] == {"a": True, "b": False}
    assert "NOT identical: b." in capsys.readouterr().out


def test_what_is_no_commit_is_said_in_a_line(compare, capsys) -> None:
    assert compare.main(["no-such-commit"]) == 2
    assert capsys.readouterr().err == "compare_commits.py: no-such-commit: no such commit here\n"


def test_the_runner_knows_every_case(compare) -> None:
    from bench import at_commit

    assert {name for name, _ in [*compare.TIMED.values(), *compare.CURVES.values()]} == set(at_commit.CASES)
    command = [sys.executable, str(SCRIPTS / "bench" / "at_commit.py"), str(SCRIPTS.parent)]
    done = subprocess.run([*command, json.dumps(["curve", ["mixup", 2]])], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["curve mixup"]) == 2
