"""make_tables as a user runs it, on made-up records."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import make_tables
from tests.records.fakes import text, write_run
from tests.records.fakes_grid import grid, record_text, run, settings_of, write_grid

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A sweep of two methods and two seeds."""
    for method, error in (("baseline", 10.0), ("mixup", 8.0)):
        for seed in (0, 1):
            write_run(tmp_path / "demo", method, seed, error + seed)
    return tmp_path / "demo"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_tables(*arguments: object) -> int:
    return make_tables.main([*map(str, arguments), "--sheet", "never"])


def test_everything_is_written_and_every_link_resolves(outputs: Path, capsys) -> None:
    report = outputs / "report"
    assert run_tables(outputs, "--out", report, "--title", "Fake runs") == 0
    printed = capsys.readouterr()
    assert "Mixup" in printed.out and "8.50 ± 0.71 (2) ↓2.00" in printed.out and printed.err == ""
    assert printed.out.splitlines()[-1] == f"page: {report / 'page' / 'index.html'}"
    names = list(tree(report))
    assert {Path(n).suffix for n in names if n.startswith("tables")} == {".md", ".tex", ".csv", ".html"}
    assert sum(n.endswith(".svg") for n in names) == 4 and sum(n.startswith("records") for n in names) == 4
    for file in [*report.glob("page/*.html"), *report.glob("tables/*.html"), *report.glob("tables/*.md")]:
        text = file.read_text()
        links = re.findall(r'href="(\.[^"]+)"', text) + re.findall(r"\]\(([^)]+)\)", text)
        assert len(set(links)) == 4, file
        assert all((file.parent / link).is_file() for link in links)
        assert str(outputs) not in text


def test_the_second_run_is_byte_equal(outputs: Path, capsys) -> None:
    report = outputs / "report"
    assert run_tables(outputs, "--out", report) == 0
    first = tree(report)
    assert run_tables(outputs, "--out", report) == 0
    assert tree(report) == first
    assert "warning" not in capsys.readouterr().err  # copies below the report are not read as sources


def test_committed_records_are_linked_where_they_are(outputs: Path) -> None:
    results = outputs.parent / "results"
    shutil.copytree(outputs, results / "records")
    assert run_tables(results / "records", "--out", results) == 0
    assert 'href="../records/digits/' in (results / "page" / "index.html").read_text()
    assert sorted(p.name for p in (results / "records").rglob("*.json")).count("record.json") == 4
    assert not list((results / "records").rglob("seed-0.json"))  # no copies


def test_tables_of_runs_that_are_gone_are_removed(outputs: Path, capsys) -> None:
    report = outputs.parent / "report"
    write_run(outputs, "mixup", 0, 9.0, recipe={"epochs": 9})
    assert run_tables(outputs, "--out", report) == 0
    own = report / "tables" / "notes.md"
    own.write_text("mine")
    assert len(list((report / "tables").glob("*.csv"))) == 2
    gone = next(p for p in outputs.rglob("record.json") if '"epochs": 9' in p.read_text())
    shutil.rmtree(gone.parent)
    assert run_tables(outputs, "--out", report) == 0
    assert len(list((report / "tables").glob("*.csv"))) == 1 and own.exists()
    assert "no record is behind it" in capsys.readouterr().err


def test_an_empty_store_gives_an_honest_page(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    assert run_tables(results / "records", "--out", results) == 0
    assert "no runs yet" in capsys.readouterr().out
    page = (results / "page" / "index.html").read_text()
    assert "No runs yet" in page and "python train.py experiment=demo" in page
    assert not (results / "tables").exists()


def test_unknown_metrics_are_one_line(outputs: Path, capsys) -> None:
    assert run_tables(outputs, "--out", outputs / "report", "--metrics", "top1_error", "foo") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("make_tables.py: --metrics foo: not in the records; choose from ") and "noise_error" in line
    assert not (outputs / "report").exists()


@pytest.mark.parametrize("exists", [True, False])
def test_no_records_is_one_line(tmp_path: Path, capsys, exists: bool) -> None:
    if exists:
        (tmp_path / "outputs").mkdir()
    assert run_tables(tmp_path / "outputs", "--out", tmp_path / "report") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ("no records of runs below" if exists else "no such folder") in line and "outputs" in line
    assert not (tmp_path / "report").exists()


def test_only_damaged_records(tmp_path: Path, capsys) -> None:
    (tmp_path / "results" / "records").mkdir(parents=True)
    (tmp_path / "results" / "records" / "x.json").write_text("{")
    assert run_tables(tmp_path / "results" / "records", "--out", tmp_path / "results") == 2
    assert "x.json: damaged: not JSON" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs a place that cannot be written")
def test_an_unwritable_report_is_one_line(outputs: Path, capsys) -> None:
    (outputs.parent / "file").write_text("")
    assert run_tables(outputs, "--out", outputs.parent / "file") == 5
    assert "cannot write" in capsys.readouterr().err


def test_a_sheet_that_is_there_is_shown_and_a_failing_one_explained(outputs: Path, capsys, monkeypatch) -> None:
    report = outputs.parent / "report"
    monkeypatch.setattr(make_tables, "_draw_sheet", lambda name, path: "torch is not installed")
    assert make_tables.main([str(outputs), "--out", str(report)]) == 0
    assert capsys.readouterr().err == "no sheet of mixed images for digits: torch is not installed\n"
    (report / "figures" / "mixes-digits.png").write_bytes(b"")
    assert make_tables.main([str(outputs), "--out", str(report)]) == 0
    assert 'src="../figures/mixes-digits.png"' in (report / "page" / "index.html").read_text()


def test_no_torch_is_imported(outputs: Path) -> None:
    code = (
        "import sys; from scripts import make_tables\n"
        f"code = make_tables.main([{str(outputs)!r}, '--out', {str(outputs / 'report')!r}, '--sheet', 'never'])\n"
        "print(code, [m for m in ('torch', 'datasets', 'randomix.engine') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_from_another_folder(outputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "make_tables.py"), "demo", "--sheet", "never"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and (tmp_path / "report" / "page" / "index.html").is_file(), done.stderr


def test_the_papers_tables_come_from_the_grid_beside_the_records(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    filled = write(results / "records" / "a.json", record_text("mixup", 4, 0, 20.0))
    write_run(results / "records", "cutmix", 0, 9.0)
    write_grid(results / "grid", grid())
    write_grid(results / "grid", grid("demo", runs=[run("cutmix", 4, ["top1_error"])]))
    assert run_tables(results / "records", "--out", results) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and "Table 4: Robustness on CIFAR-100: 1 of 24 cells filled" in printed.out
    assert "table4.md; the others: python scripts/reproduce.py table=4\n" in printed.out
    names = set(tree(results / "tables"))
    assert {f"paper/table{n}.{s}" for n in range(1, 7) for s in ("md", "tex", "csv", "html")} < names
    assert not any(n.startswith("demo") for n in names)  # no record fills a cell of that scale
    (setting,) = [n for n in names if n.endswith(".csv") and "/" not in n]
    assert "Mixup" not in (results / "tables" / setting).read_text()  # what fills a cell is not told twice
    page = (results / "page" / "index.html").read_text()
    assert page.index('id="paper-table1"') < page.index('id="paper-table6"') < page.index(f'id="{setting[:-4]}"')
    assert f'href="../records/{filled.name}"' in page
    first = tree(results)
    assert run_tables(results / "records", "--out", results) == 0 and tree(results) == first


def test_a_scale_is_written_once_a_record_fills_one_of_its_cells(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    path = write(results / "records" / "a.json", record_text("mixup", 4, 0, 20.0))
    write_grid(tmp_path / "elsewhere", grid("demo"))
    assert run_tables(results / "records", "--out", results, "--grid", tmp_path / "elsewhere") == 0
    assert len(list((results / "tables" / "demo").iterdir())) == 24 and not (results / "tables" / "paper").exists()
    own = write(results / "tables" / "demo" / "notes.md", "mine")
    path.write_text(record_text("mixup", 4, 0, 20.0, recipe={"note": "another"}))
    assert run_tables(results / "records", "--out", results, "--grid", tmp_path / "elsewhere") == 0
    assert list((results / "tables" / "demo").iterdir()) == [own]
    assert run_tables(results / "records", "--out", results, "--grid", tmp_path / "none") == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"make_tables.py: --grid {tmp_path / 'none'}: no such folder"


def test_a_method_of_ones_own_keeps_its_baseline(tmp_path: Path) -> None:
    """The Baseline fills a cell of the paper's tables, the method beside it does not."""
    results = tmp_path / "results"
    for method in ("baseline", "mixup"):
        for seed in (0, 1):
            content = text(method, seed, 10.0, **settings_of("baseline", 4))
            write(results / "records" / f"{method}-{seed}.json", content)
    write_grid(results / "grid", grid("demo", runs=[run("baseline", 4, ["top1_error"])]))
    assert run_tables(results / "records", "--out", results) == 0
    (setting,) = (results / "tables").glob("digits-*.csv")
    assert {"Baseline", "Mixup"} <= {line.partition(",")[0] for line in setting.read_text().splitlines()}


def test_only_a_grid_gives_tables_of_commands(tmp_path: Path, capsys) -> None:
    results = tmp_path / "results"
    write_grid(results / "grid", grid())
    assert run_tables(results / "records", "--out", results) == 0
    assert "0 of 56 cells filled" in capsys.readouterr().out
    assert "python train.py experiment=table1 mixer=mixup" in (results / "page" / "index.html").read_text()


def test_damaged_input_is_told_line_by_line_and_the_rest_counts(tmp_path: Path, capsys) -> None:
    """A foreign record, one with a NaN, two of one run, one whose hash does not fit; a grid with a damaged run."""
    results, folder = tmp_path / "results", tmp_path / "results" / "records"
    good = record_text("mixup", 4, 0, 20.0)
    write(folder / "a.json", good)
    write(folder / "b.json", '{"accuracy": 0.9}')
    write(folder / "c.json", record_text("cutmix", 4, 0, 20.0).replace('"top1": 80.0', '"top1": NaN'))
    write(folder / "d.json", record_text("mixup", 4, 0, 30.0, provenance={"finished": "2000-01-01T00:00:00Z"}))
    write(folder / "e.json", record_text("fmix", 4, 0, 20.0).replace('"width": 16', '"width": 64'))
    content = grid()
    content["runs"][0]["config_hash"] = "?"
    write_grid(results / "grid", content)
    write(results / "grid" / "demo.json", "{")
    assert run_tables(folder, "--out", results) == 0
    lines = capsys.readouterr().err.splitlines()
    told = (
        "b.json: foreign: no record of a run",
        "c.json: damaged: holds NaN",
        "a.json (finished 2001-01-01T00:01:00Z) counts",
        "e.json: config_hash is",
        "paper.json: runs[0]: left out: config_hash",
        "demo.json: damaged: not JSON",
    )
    assert len(lines) == len(told) and all(line.startswith("warning: ") for line in lines)
    assert all(sum(text in line for line in lines) == 1 for text in told)
    rows = list(csv.DictReader((results / "tables" / "paper" / "table4.csv").open()))
    assert [(r["row"], r["mean"]) for r in rows if r["column"] == "top1_error" and r["mean"]] == [("mixup", "20.0")]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


CLICKS = """<script>
const heads = document.querySelectorAll('table.sortable')[0].tHead.rows[0].cells, seen = [];
const look = () => seen.push(heads[2].getAttribute('aria-sort') + ':' +
  [...document.querySelector('table.sortable').tBodies[0].rows].map(r => r.cells[0].textContent).join(','));
for (let i = 0; i < 3; i++) { heads[2].querySelector('button').click(); look(); }
document.title = seen.join(';');
</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_columns_sort_in_a_browser(outputs: Path, tmp_path: Path) -> None:
    report = outputs / "report"
    assert run_tables(outputs, "--out", report) == 0
    page = report / "page" / "index.html"
    page.write_text(page.read_text().replace("</body>", CLICKS))
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=90, check=True
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    assert title[1] == "ascending:Mixup,Baseline;descending:Baseline,Mixup;none:Baseline,Mixup"
