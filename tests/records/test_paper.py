"""The paper's tables as data: ids, arrows and means recomputed, and where the paper contradicts itself."""

from __future__ import annotations

import dataclasses

import pytest

from randomix.records import contradictions as module
from randomix.records import paper
from randomix.records.contradictions import contradictions
from randomix.records.paper import TABLE, TABLES, Printed, cell_ids, recomputed


def test_ids_of_cells_never_change() -> None:
    """Grids and links name them; the shape is the paper's."""
    ids = cell_ids()
    assert [len(t.cell_ids()) for t in TABLES] == [56, 40, 12, 24, 16, 15] and len(set(ids)) == len(ids) == 163
    known = {
        "table1/authors-comixup/cifar100-preact_resnet18",
        "table1/randomix/cifar100-wrn_28_10",
        "table2/puzzlemix/imagenet-cost",
        "table3/fmix/validation_top1",
        "table4/resizemix/occlusion_error",
        "table5/randomix-3111/fgsm_error",
        "table6/MCRF/top1",
    }
    assert known < set(ids)
    assert "table1/authors-comixup/cifar10-wrn_28_10" not in ids and not any(i.endswith("/mean") for i in ids)


def test_numbers_as_printed() -> None:
    assert TABLE[2].printed("puzzlemix", "imagenet-top1") == Printed(77.69, "↑", 1.32)
    assert TABLE[3].printed("cutmix", "validation_top1") == Printed(97.93, "↓", 0.05)
    assert TABLE[4].printed("mixup", "occlusion_error") == Printed(43.40, "↑", None)
    assert TABLE[1].row("authors-patchup").part == "authors" and TABLE[4].row("randomix").mode == "l+m"
    with pytest.raises(KeyError):
        TABLE[1].value("authors-cutout", "cifar10-preact_resnet18")
    sums = [round(sum((c.value or 0) + (c.delta or 0) for r in t.rows for c in r.cells), 2) for t in TABLES]
    assert sums == [5028.07, 2645.87, 1182.46, 1071.59, 622.87, 2026.30]  # of all numbers of the printed tables


def test_every_arrow_but_one_follows_from_the_numbers() -> None:
    wrong, seen = [], 0
    for table in TABLES:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                if cell.arrow:
                    seen += 1
                    found = recomputed(table, row.key, column.key)
                    expected = found if cell.delta is not None else dataclasses.replace(found, delta=None)
                    wrong += [] if cell == expected else [(table.number, row.key, column.key, cell.delta, found.delta)]
    assert seen == 28 + 28 + 10 + 15
    assert wrong == [(1, "fmix", "cifar100-wrn_28_10", 0.97, 0.91)]
    assert recomputed(TABLE[1], "baseline", "cifar10-wrn_28_10") == Printed(96.28)
    assert recomputed(TABLE[5], "randomix-1111", "top1_error") == Printed(15.35)


def test_means_of_table_6() -> None:
    expected = {0: 63.75, 1: 66.4775, 2: 67.974, 3: 68.6825, 4: 68.92}
    assert paper.mean_accuracies() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("tables", "words", "gap"),
    [
        ((1,), "FMix, CIFAR-100, WRN28-10 (%): printed ↑0.97, but the numbers give ↑0.91", 0.06),
        (
            (1, 4, 5),
            "Table 1's 84.84 on CIFAR-100 is 100 - 15.16, Table 5's RandoMix [4,1,1,1]; its [3,1,1,1] gives 84.49",
            0.35,
        ),
        ((4, 5), "Table 4's RandoMix is Table 5's RandoMix [4,1,1,1]", None),
        ((1,), "with the weights it states they are 1.88 over Mixup, 2.15 over CutMix, 0.78 over Puzzle Mix", None),
        (
            (1, 4),
            "only for RandoMix; sums differ from 100: Baseline +0.14, Mixup +0.10, CutMix -0.20, FMix +0.42",
            0.42,
        ),
        ((4,), "Corruption error (%): section 4.3.1", 0.50),
        ((4,), "ResizeMix is 0.43 lower", 0.43),
        ((1,), "Cutout, Manifold Mixup, PatchUp, Co-Mixup have no row", None),
        ((2, 6), "Baseline +0.32, Mixup +0.96, CutMix -0.55, FMix -0.41, ResizeMix -0.47, RandoMix -0.02", 0.96),
        ((6,), "of the sets of 2 candidates [R,F] is missing", None),
        ((6,), "the mean of the sets of 1 is printed as 66.47, the rows give 66.4775", 0.0075),
        ((6,), "the best row is [M,R,F], 0.15 above [M,C,R,F]", 0.15),
    ],
)
def test_the_paper_contradicts_itself(tables: tuple[int, ...], words: str, gap: float | None) -> None:
    (found,) = [c for c in contradictions() if words in c.text]
    assert found.tables == tables and found.gap == (None if gap is None else pytest.approx(gap, abs=1e-9))


def test_there_are_no_other_contradictions() -> None:
    assert len(contradictions()) == 12


def test_contradictions_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Table 1's FMix value mended, its line and its share of another are gone."""
    table, column = TABLE[1], "cifar100-wrn_28_10"
    row = table.row("fmix")
    mended = dataclasses.replace(row, cells=(*row.cells[:3], Printed(81.84, "↑", 0.97)))
    whole = dataclasses.replace(table, rows=tuple(mended if r is row else r for r in table.rows))
    assert whole.value("fmix", column) == 81.84
    monkeypatch.setattr(module, "TABLES", (whole, *TABLES[1:]))
    monkeypatch.setattr(module, "TABLE", TABLE | {1: whole})
    found = [c.text for c in contradictions()]
    assert len(found) == 11 and not any("printed ↑0.97" in t for t in found) and any("FMix +0.48" in t for t in found)
