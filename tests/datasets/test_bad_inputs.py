"""Each of the forty bad inputs ends in one line; nothing of it is run, and nothing is written outside its folder."""

import contextlib
import os
import re
from pathlib import Path

import pytest

from tests.datasets.bad_inputs import CASES, line

DOC = (Path(__file__).parents[2] / "docs" / "refused_data.md").read_text()


def documented(what: str) -> str:
    """What docs/refused_data.md says about a case."""
    found = re.search(rf"^\| \S.*? \| {re.escape(what)} \| (.*) \|$", DOC, re.MULTILINE)
    assert found, f"{what}: run: python tests/datasets/bad_inputs.py > docs/refused_data.md"
    return found[1].replace("\\|", "|")


@pytest.mark.parametrize("what", CASES)
def test_one_line_and_no_trace(tmp_path, monkeypatch, what):
    monkeypatch.delenv("RANDOMIX_DATA", raising=False)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = line(CASES[what][1], tmp_path / "root")
    assert "\n" not in text
    assert text == documented(what)
    assert {p.name for p in tmp_path.iterdir()} <= {"root", "elsewhere"} and not list(elsewhere.iterdir())
    with contextlib.suppress(FileNotFoundError):
        os.lstat("/tmp/outside")
        pytest.fail("/tmp/outside was written")


def test_there_are_forty():
    assert len(CASES) >= 40 and f"{len(CASES)} inputs" in DOC
