"""What the pages in docs/ say is so: measured numbers are those of the record, links lead somewhere."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUIRKS = (ROOT / "docs/reference_quirks.md").read_text()
MEASURED = json.loads((ROOT / "results/quirks.json").read_text())["measures"]
QUOTED = re.findall(r"(-?\d+\.\d+)\s\(`(\w+)\.(\w+)`\)", QUIRKS)


@pytest.mark.parametrize(("number", "method", "key"), QUOTED, ids=[f"{m}.{k}" for _, m, k in QUOTED])
def test_measured_numbers_are_those_of_the_record(number, method, key):
    digits = len(number.partition(".")[2])
    assert f"{MEASURED[method][key] + 0.0:.{digits}f}" == number


def test_every_quoted_key_has_a_number():
    assert len(QUOTED) == len(re.findall(r"\(`(?!functional)\w+\.\w+`\)", QUIRKS)) > 25
    assert {method for _, method, _ in QUOTED} == set(MEASURED)


def test_a_small_measurement_has_the_same_keys(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from scripts import measure_quirks

    assert measure_quirks.main(["--draws", "20", "--out", str(tmp_path / "q.json")]) == 0
    small = json.loads((tmp_path / "q.json").read_text())["measures"]
    assert {m: set(v) for m, v in small.items()} == {m: set(v) for m, v in MEASURED.items()}
    assert measure_quirks.main(["--draws", "3"]) == 2


def test_the_tables_of_the_methods_are_those_of_the_records():
    from scripts import methods_table

    page = (ROOT / "docs/methods.md").read_text()
    assert methods_table.fill(page) == page
    for method in methods_table.COMPARED:
        assert f"| `{method}` |" in page


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / page).read_text()):
        assert target.startswith("https://") or (ROOT / "docs" / target).exists(), target


def test_settings_that_the_pages_name_exist():
    """Options in backticks such as `spectrum: paper` are arguments of some method, or keys of the recipe."""
    from randomix.engine.validation import mixer_arguments
    from randomix.mixers import available

    known = set().union(*(mixer_arguments(name) or set() for name in available()))
    named = set(re.findall(r"`(\w+): [\w.]+`", QUIRKS))
    assert named
    assert named <= known
