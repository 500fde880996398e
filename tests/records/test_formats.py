"""Tables as other programs read them: LaTeX compiles, CSV loads in pandas with one type a column."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from randomix.records import render, reproduced_text
from randomix.records.grid import read
from randomix.records.record import RunRecord
from randomix.records.reproduced import reproduce
from randomix.records.reproduced_cells import ReproducedTable
from randomix.records.tables import build_tables
from tests.records.fakes import fake
from tests.records.fakes_grid import grid, record, write_grid

NUMBERS = (
    "paper",
    "paper_delta",
    "mean",
    "std",
    "delta",
    "best_epoch_mean",
    "best_epoch_std",
    "to_baseline",
    "to_baseline_std",
    "p_baseline",
    "to_rival",
    "to_rival_std",
    "p_rival",
    "gpu_hours",
)
ROOT = Path(__file__).resolve().parents[2]
PREAMBLE = r"\documentclass{article}\usepackage{booktabs}\usepackage{graphicx}\begin{document}"


def link(of: RunRecord) -> str:
    return f"records/{of.path.as_posix()}"


@pytest.fixture
def tables(tmp_path: Path) -> list[ReproducedTable]:
    """Partly filled, at two scales."""
    runs = [("baseline", 4), ("mixup", 4), ("randomix", 4), ("baseline", 2), ("MC", 6), ("authors-mixup", 1)]
    records = [record(row, t, s, 10.0 + s, extra={"fgsm_error": 50.0 + s}) for row, t in runs for s in (0, 1)]
    grids = [read(write_grid(tmp_path, grid(scale)))[0] for scale in ("paper", "demo")]
    return [t for g in grids for t in reproduce(g, records)]


needs_pdflatex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")


def compile_latex(texts: Iterable[str], folder: Path) -> str:
    """The log of a document with one table a page; fails where LaTeX does."""
    whole = [PREAMBLE, *(t + r"\clearpage" for t in texts), r"\end{document}", ""]
    (folder / "all.tex").write_text("\n".join(whole))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    return log


@needs_pdflatex
def test_latex_compiles(tables: list[ReproducedTable], tmp_path: Path) -> None:
    texts = [reproduced_text.to_latex(t) for t in tables]
    odd = fake("my_mix", mixer={"label": r"[50%] & my_mix #1 {x} ~^\ $ <>|"})
    texts += [render.to_latex(t) for t in build_tables([fake(), odd, fake("mixup", seed=1, noise=None)])]
    log = compile_latex(texts, tmp_path)
    assert "Overfull" not in log and "too large" not in log and "Missing character" not in log


@needs_pdflatex
@pytest.mark.parametrize("count", [8, 16, 32, 200])
def test_latex_tables_fit_a_page_with_many_notes(tables: list[ReproducedTable], tmp_path: Path, count: int) -> None:
    """Where each row was run with a recipe of its own, the notes are many: in print they get smaller."""
    note = "digits: 200 training and 597 test samples; wrn_28_10, 40 epochs of batches of 50; seeds 0-2; some CPU"
    many = [replace(t, captions=(note,) * count, notes=(*t.notes, "100% of #1 & {2}")) for t in tables]
    log = compile_latex(map(reproduced_text.to_latex, many), tmp_path)
    assert "Overfull" not in log and "too large" not in log and f"({len(many)} pages" in log


@needs_pdflatex
def test_latex_of_the_published_tables_fits_a_page(tmp_path: Path) -> None:
    found = sorted((ROOT / "results" / "tables").rglob("*.tex"))
    assert len(found) > 12
    log = compile_latex((path.read_text() for path in found), tmp_path)
    assert "Overfull" not in log and "too large" not in log and f"({len(found)} pages" in log


def test_latex_has_equal_cells_and_balanced_braces(tables: list[ReproducedTable]) -> None:
    for table in tables:
        text = reproduced_text.to_latex(table).replace(r"\{", "").replace(r"\}", "")
        assert text.count("{") == text.count("}")
        assert not [c for c in text if not c.isascii()]
        rows = [line for line in text.splitlines() if line.startswith(tuple("{}BMCFRSP")) and line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1


def test_csv_loads_with_one_type_a_column(tables: list[ReproducedTable]) -> None:
    pandas = pytest.importorskip("pandas")
    for table in tables:
        frame = pandas.read_csv(io.StringIO(reproduced_text.to_csv(table, link)))
        assert len(frame) == sum(c.exists for c in table.cells)
        for name in frame.columns:
            kinds = {type(v) for v in frame[name].dropna()}
            assert len(kinds) <= 1, name
        assert all(frame[name].dtype == "float64" for name in NUMBERS)
        assert all(frame[name].dtype == "int64" for name in ("table", "n", "best_epoch_n"))
        assert frame["n"].sum() == sum(c.statistic.n for c in table.cells if c.statistic)
        assert frame["mean"].isna().sum() == (frame["n"] == 0).sum()
        assert (frame["paper"] == [c.printed.value for c in table.cells if c.exists]).all()


def test_csv_of_settings_loads_with_one_type_a_column() -> None:
    pandas = pytest.importorskip("pandas")
    (table,) = build_tables([fake(), fake("mixup", noise=None), fake("mixup", 1, 9.0)])
    frame = pandas.read_csv(io.StringIO(render.to_csv(table, link)))
    assert {str(frame[c].dtype) for c in frame.columns if c.endswith(("_mean", "_std", "_delta", "_p_welch"))} == {
        "float64"
    }
