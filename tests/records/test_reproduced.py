"""The paper's tables beside ours: differences and tests against numbers worked out by hand, and every rendering."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest

from randomix.records import reproduced_text
from randomix.records.aggregate import welch_p
from randomix.records.grid import Grid, read
from randomix.records.page import standalone_paper_table, to_page
from randomix.records.paper import TABLES
from randomix.records.record import RunRecord
from randomix.records.reproduced import reproduce
from randomix.records.reproduced_cells import ReproducedCell, ReproducedTable, mark
from tests.records.fakes_grid import grid, record, run, write_grid

ERRORS = {
    "baseline": (20.0, 20.2, 20.4),
    "mixup": (17.0, 17.2, 17.4),
    "cutmix": (18.0, 18.4, 18.8),
    "randomix": (15.0, 15.2, 15.1),
}


def link(of: RunRecord) -> str:
    return f"../../records/{of.path.as_posix()}"


def loaded(folder: Path, scale: str = "paper") -> Grid:
    found, lines = read(write_grid(folder, grid(scale)))
    assert found is not None and not lines
    return found


def table4() -> list[RunRecord]:
    """Clean errors of four methods over three seeds, FGSM errors 40 above; Mixup's seed 2 lacks the latter."""
    return [
        record(m, 4, s, e, extra={} if (m, s) == ("mixup", 2) else {"fgsm_error": e + 40})
        for m, errors in ERRORS.items()
        for s, e in enumerate(errors)
    ]


def cell(table: ReproducedTable, row: str, column: str) -> ReproducedCell:
    (found,) = [c for c in table.cells if c.id == f"{table.paper.slug}/{row}/{column}"]
    return found


@pytest.fixture
def table(tmp_path: Path) -> ReproducedTable:
    return reproduce(loaded(tmp_path), table4())[3]


def test_ours_beside_the_paper(table: ReproducedTable) -> None:
    own = cell(table, "mixup", "top1_error")
    assert own.statistic.mean == pytest.approx(17.2) and own.statistic.std == pytest.approx(0.2)
    assert own.delta == pytest.approx(17.2 - 17.49) and own.best_epoch.mean == pytest.approx(16.2)
    assert cell(table, "fmix", "top1_error").statistic is None and cell(table, "fmix", "top1_error").delta is None
    assert [r.paper.key for r in table.rows if r.cells[0].best] == ["randomix"]
    assert table.filled == 8 and len(table.records) == 12


def test_tests_against_the_baseline_and_the_best_rival(table: ReproducedTable) -> None:
    ours, column = cell(table, "randomix", "top1_error"), table.columns[0]
    assert ours.to_baseline.mean == pytest.approx(-5.1) and ours.to_baseline.n == 3
    assert ours.to_baseline.p_welch == welch_p(ERRORS["randomix"], ERRORS["baseline"]) < 0.05
    assert ours.rival == "Mixup" and ours.to_rival.p_welch == welch_p(ERRORS["randomix"], ERRORS["mixup"])
    assert mark(ours, column) == "*†"
    mixup = cell(table, "mixup", "top1_error")
    assert mixup.rival == "CutMix"  # RandoMix is not counted
    assert mark(mixup, column) == "*†" and mark(cell(table, "cutmix", "top1_error"), column) == "*"  # worse than Mixup
    base = cell(table, "baseline", "top1_error")
    assert base.to_baseline is None and base.rival == "Mixup" and mark(base, column) == ""


def test_missing_seeds_and_commands(table: ReproducedTable) -> None:
    assert cell(table, "mixup", "fgsm_error").missing_seeds == [2]
    assert cell(table, "mixup", "top1_error").missing_seeds == []
    assert cell(table, "fmix", "top1_error").missing_seeds == [0, 1, 2]
    assert list(table.missing())[2] == "python train.py experiment=table4 mixer=cutmix seed=0,1,2"
    text = reproduced_text.to_markdown(table, link)
    assert "- `python train.py experiment=table4 mixer=fmix seed=0,1,2`: FMix, Clean error; FMix, FGSM error;" in text
    assert "Mixup, FGSM error (seed 2)" in text and "(about 1.25 GPU-hours a seed, 3 seeds)" in text


def test_both_halves_of_table_1(tmp_path: Path) -> None:
    records = [record(m, 1, s, e) for m, errors in ERRORS.items() for s, e in enumerate(errors)]
    records += [record("authors-mixup", 1, s, 5.0 + s) for s in (0, 1)]
    table = reproduce(loaded(tmp_path), records)[0]
    theirs = cell(table, "authors-mixup", "cifar10-wrn_28_10")
    assert theirs.statistic.mean == 94.5 and theirs.delta == pytest.approx(94.5 - 97.30)
    assert theirs.to_baseline is None and theirs.rival == "" and not theirs.best  # another recipe
    assert cell(table, "randomix", "cifar10-wrn_28_10").best
    assert not cell(table, "authors-cutout", "cifar10-preact_resnet18").exists
    text = reproduced_text.to_markdown(table, link)
    assert (
        text.index("Recipes of the methods' own authors") < text.index("| *The paper's recipe*") < text.index("Baseli")
    )


def test_the_note_on_weights(tmp_path: Path) -> None:
    def note(records: Sequence[RunRecord]) -> str:
        (found,) = [n for n in reproduce(loaded(tmp_path), records)[0].notes if "[3,1,1,1], as section" in n]
        return found

    assert note([]).endswith("ours is: not run yet.")
    assert note([record("randomix-3111", 5, 0, 15.5)]).endswith("ours is: 84.50 (1 run).")
    assert note([record("randomix-3111", 5, s, 15.5 + s) for s in (0, 2)]).endswith("ours is: 83.50 ± 1.41 (2).")


def test_cost_is_relative_to_the_baseline_of_the_same_jobs(tmp_path: Path) -> None:
    records = [record(m, 2, s, 10.0, cpu=c * (1 + s)) for m, c in (("baseline", 1.0), ("fmix", 1.5)) for s in (0, 1)]
    records.append(record("mixup", 2, 0, 10.0, cpu=9.0, provenance={"hardware": {"cpu": "Other"}}))
    table = reproduce(loaded(tmp_path), records)[1]
    assert cell(table, "fmix", "imagenet-cost").statistic.values == [1.5, 1.5]
    assert cell(table, "mixup", "imagenet-cost").statistic is None
    base = cell(table, "baseline", "imagenet-cost")
    assert base.reference and reproduced_text.value_text(base) == "1.00" and reproduced_text.spread_text(base) == ""
    assert "Cost: CPU time of a training epoch" in " ".join(table.notes)


def test_means_of_table_6(tmp_path: Path) -> None:
    """Over the seeds that all rows with as many candidates have."""
    values = {"M": (34.0, 33.0), "C": (33.0, 32.0), "R": (32.0, 31.0), "F": (35.0,)}
    records = [record(row, 6, s, e) for row, errors in values.items() for s, e in enumerate(errors)]
    table = reproduce(loaded(tmp_path), records)[5]
    assert {r: cell(table, r, "mean").statistic.values for r in "MCRF"} == {key: [66.5] for key in "MCRF"}
    assert cell(table, "M", "mean").delta == pytest.approx(66.5 - 66.47)
    assert cell(table, "MC", "mean").statistic is None and cell(table, "MC", "mean").run is None
    assert cell(table, "F", "top1").missing_seeds == [1, 2]


def test_at_another_scale_no_difference_to_the_paper_is_formed(tmp_path: Path) -> None:
    tables = reproduce(loaded(tmp_path, "demo"), table4())
    assert tables[3].title == "Table 4: Robustness on CIFAR-100 (demo scale: cifar100: Fake digits)"
    assert tables[0].title.endswith("(demo scale: cifar10, cifar100: Fake digits)")
    assert all(c.delta is None for t in tables for c in t.cells) and tables[3].filled == 8
    assert any("for orientation only" in n for n in tables[3].notes)
    assert "Δ" not in reproduced_text.to_markdown(tables[3], link) and tables[3].slug == "demo-table4"


def test_csv_is_one_line_a_cell_in_full_precision(table: ReproducedTable) -> None:
    rows = list(csv.DictReader(io.StringIO(reproduced_text.to_csv(table, link))))
    assert len(rows) == 24
    (ours,) = [r for r in rows if r["row"] == "mixup" and r["column"] == "top1_error"]
    assert float(ours["delta"]) == cell(table, "mixup", "top1_error").delta and ours["n"] == "3"
    assert ours["rival"] == "CutMix" and ours["seeds"] == "0 1 2" and len(ours["records"].split()) == 3
    (empty,) = [r for r in rows if r["row"] == "fmix" and r["column"] == "top1_error"]
    assert (
        empty["n"] == "0" and empty["mean"] == "" and empty["command"].startswith("python train.py") and empty["paper"]
    )


def test_a_value_that_is_not_finite_is_reported(tmp_path: Path) -> None:
    broken = record("mixup", 4, 0, 20.0, extra={"fgsm_error": None})
    table = reproduce(loaded(tmp_path), [broken, record("cutmix", 4, 0, 20.0)])[3]
    assert cell(table, "mixup", "fgsm_error").statistic is None
    assert f"Not finite, hence left out: values of {broken.run}." in table.notes


def test_other_files_of_the_same_data_are_reported(tmp_path: Path) -> None:
    table = reproduce(loaded(tmp_path), [record("mixup", 4), record("cutmix", 4, data={"sha256": "other"})])[3]
    assert "Not all runs of a data set saw the same files: their checksums differ." in table.notes


def test_contradictions_stand_under_the_tables_they_concern(tmp_path: Path) -> None:
    tables = reproduce(loaded(tmp_path), [])
    assert [sum("contradicts itself" in n for n in t.notes) for t in tables] == [5, 1, 0, 5, 2, 4]


class Outline(HTMLParser):
    """Tables with their captions, heads and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.scopes: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag == "th":
            self.scopes.append(dict(attributes).get("scope"))


def test_html_is_labelled_and_escaped(tmp_path: Path) -> None:
    found = grid(runs=[run("mixup", 4, ["top1_error"]) | {"command": "python x <b> & y"}])
    tables = reproduce(read(write_grid(tmp_path, found))[0], [])
    page = to_page("t", [], {}, link, reproduced=tables)
    outline = Outline(page)
    assert outline.counts["table"] == outline.counts["caption"] == 6 and None not in outline.scopes
    assert "python x &lt;b&gt; &amp; y" in page and "<code>python x <b>" not in page
    assert 'class="skip" href="#main"' in page and 'aria-label="Not run: Mixup, Clean error"' in page
    assert Outline(standalone_paper_table(tables[0], link)).counts["h1"] == 1


def test_every_rendering_is_the_same_for_any_order_of_records(tmp_path: Path) -> None:
    def everything(records: list[RunRecord]) -> list[str]:
        tables = reproduce(loaded(tmp_path), records)
        texts = [to(t, link) for t in tables for to in (reproduced_text.to_markdown, reproduced_text.to_csv)]
        return [*texts, *map(reproduced_text.to_latex, tables), to_page("t", [], {}, link, reproduced=tables)]

    assert everything(table4()) == everything(table4()[::-1])


def compared(values: dict[str, dict[int, float]], tmp_path: Path) -> ReproducedTable:
    records = [record(row, 4, seed, error) for row, errors in values.items() for seed, error in errors.items()]
    return reproduce(loaded(tmp_path), records)[3]


@pytest.mark.parametrize(("third", "marked"), [(21.3, True), (21.6, False)])
def test_only_p_below_a_twentieth_is_marked(tmp_path: Path, third: float, marked: bool) -> None:
    base = {0: 20.0, 1: 20.5, 2: third}
    own = {0: 18.8, 1: 19.4, 2: 19.2}
    found = cell(compared({"baseline": base, "mixup": own}, tmp_path), "mixup", "top1_error")
    p = welch_p(list(own.values()), list(base.values()))
    assert abs(p - 0.05) < 0.04 and (p < 0.05) == marked  # near the threshold, on either side of it
    assert mark(found, TABLES[3].columns[0]) == ("*†" if marked else "")  # the Baseline is the only other method


def test_a_mark_never_contradicts_the_means_or_the_common_seeds(tmp_path: Path) -> None:
    """Better on average over all seeds, worse on the one that both have: no mark."""
    mixup = {0: 21.0, 1: 30.0, 2: 30.2, 3: 30.1, 4: 30.3, 5: 30.2, 6: 30.1, 7: 30.0}
    ours = {0: 22.0, 11: 22.1, 12: 21.9, 13: 22.0}
    found = cell(compared({"mixup": mixup, "randomix": ours}, tmp_path), "randomix", "top1_error")
    assert found.to_rival.mean == 1.0 and found.to_rival.between_means < 0 and found.to_rival.p_welch < 0.05
    assert mark(found, TABLES[3].columns[0]) == ""


@pytest.mark.parametrize("key", ["sha256", "md5", "sha256_of_names_and_sizes", "shards"])
def test_other_files_are_noticed_whatever_the_set_calls_its_digest(tmp_path: Path, key: str) -> None:
    def notes(*digests: object) -> str:
        records = [record("mixup", 4, seed, data={key: digest}) for seed, digest in enumerate(digests)]
        return " ".join(reproduce(loaded(tmp_path), records)[3].notes)

    assert "checksums differ" in notes({"a": "12"}, {"a": "34"}) and "checksums differ" not in notes("12", "12")


@pytest.mark.parametrize("kind", ["train", "eval"])  # of another seed; or a later evaluation of the same run
def test_other_arithmetic_is_named(tmp_path: Path, kind: str) -> None:
    def notes(*precisions: str) -> str:
        records = [
            record("mixup", 4, s * (kind == "train"), provenance={"precision": p}, kind=kind if s else "train")
            for s, p in enumerate(precisions)
        ]
        return " ".join(reproduce(loaded(tmp_path), records)[3].notes)

    assert "different floating-point precision stand in the cells of mixup (bf16, fp32)." in notes("bf16", "fp32")
    assert "floating-point" not in notes("bf16", "bf16")
