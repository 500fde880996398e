"""Tables 1-6 of the paper (Liu et al., "RandoMix: A mixed sample data augmentation method with multiple mixed modes").

Numbers, arrows and differences stand as printed; ``contradictions`` computes where the paper contradicts itself. An
arrow that the copy shows as a dagger or a one (Tables 1, 2 and 4) is read in the direction that the numbers have.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass

AUTHORS, OURS = "authors", "ours"
BASELINE_ROW = "baseline"
MEAN = "mean"  # Table 6: computed over the rows with as many candidates; no run fills it


@dataclass(frozen=True)
class Printed:
    """One cell as printed: ``arrow`` is "↑", "↓" or "", ``delta`` what stands behind it, in points."""

    value: float | None = None
    arrow: str = ""
    delta: float | None = None

    @property
    def number(self) -> float:
        """The value of a cell that has one; ValueError for an empty one."""
        if self.value is None:
            raise ValueError("this cell of the paper is empty")
        return self.value


@dataclass(frozen=True)
class PaperColumn:
    """``metric``: the name in records. ``group``: the heading above several columns."""

    key: str
    heading: str
    metric: str
    group: str = ""
    lower_is_better: bool = False

    @property
    def title(self) -> str:
        """The heading with the one above it."""
        return f"{self.group}, {self.heading}" if self.group else self.heading


@dataclass(frozen=True)
class PaperRow:
    """``part``: "authors" (top of Table 1: numbers of other papers) or "ours". ``mode``: "", where none is printed."""

    key: str
    label: str
    mode: str
    cells: tuple[Printed, ...]

    @property
    def part(self) -> str:
        """Whose numbers these are."""
        return AUTHORS if self.key.startswith(f"{AUTHORS}-") else OURS

    @property
    def candidates(self) -> int:
        """How many candidates a row of Table 6 has; 0 for its Baseline."""
        return 0 if self.key == BASELINE_ROW else len(self.key)


@dataclass(frozen=True)
class PaperTable:
    """One table. ``cells`` of a row are those of ``columns``; ``datasets`` are named as in configs/dataset."""

    number: int
    title: str
    datasets: tuple[str, ...]
    caption: str
    columns: tuple[PaperColumn, ...]
    rows: tuple[PaperRow, ...]

    @property
    def slug(self) -> str:
        """``table1``: the beginning of its cells' ids."""
        return f"table{self.number}"

    def row(self, key: str) -> PaperRow:
        """The row of a key; KeyError where there is none."""
        return {r.key: r for r in self.rows}[key]

    def printed(self, row: str, column: str) -> Printed:
        """One cell as printed; KeyError where there is no such row or column."""
        return self.row(row).cells[[c.key for c in self.columns].index(column)]

    def value(self, row: str, column: str) -> float:
        """A printed number; KeyError where none is printed."""
        value = self.printed(row, column).value
        if value is None:
            raise KeyError(f"{self.slug}/{row}/{column}")
        return value

    def cell_ids(self) -> list[str]:
        """``table1/mixup/cifar10-wrn_28_10``, ...: the cells that have a number and that runs can fill."""
        return [
            f"{self.slug}/{row.key}/{column.key}"
            for row in self.rows
            for column, cell in zip(self.columns, row.cells, strict=True)
            if cell.value is not None and column.key != MEAN
        ]


def _table(
    number: int, title: str, datasets: str, caption: str, columns: tuple[PaperColumn, ...], body: str
) -> PaperTable:
    """Lines of ``key | label | mode | cell | ...``; a cell is ``96.15 ↑0.97``, ``64.43 ↓`` or ``-``."""
    rows = []
    for line in body.strip().splitlines():
        key, label, mode, *cells = (part.strip() for part in line.split("|"))
        assert len(cells) == len(columns), line
        rows.append(PaperRow(key, label, mode, tuple(map(_cell, cells))))
    return PaperTable(number, title, tuple(datasets.split()), caption, columns, tuple(rows))


def _cell(text: str) -> Printed:
    if text == "-":
        return Printed()
    found = re.fullmatch(r"(\d+\.\d\d)(?: ([↑↓])(\d\.\d\d)?)?", text)
    assert found, text
    return Printed(float(found[1]), found[2] or "", float(found[3]) if found[3] else None)


_ROBUSTNESS = (
    PaperColumn("top1_error", "Clean error (%)", "top1_error", lower_is_better=True),
    PaperColumn("fgsm_error", "FGSM error (%)", "fgsm_error", lower_is_better=True),
    PaperColumn("corruption_error", "Corruption error (%)", "corruption_error", lower_is_better=True),
    PaperColumn("occlusion_error", "Occlusion error (%)", "occlusion_error", lower_is_better=True),
)

TABLES = (
    _table(
        1,
        "Accuracy on CIFAR-10 and CIFAR-100",
        "cifar10 cifar100",
        "Top-1 test accuracy on CIFAR-10 and CIFAR-100 with PreAct-ResNet18 and WideResNet-28-10. Top: the results of "
        "the original authors. Bottom: the results of the paper's implementation.",
        (
            PaperColumn("cifar10-preact_resnet18", "PA-RS18 (%)", "top1", "CIFAR-10"),
            PaperColumn("cifar10-wrn_28_10", "WRN28-10 (%)", "top1", "CIFAR-10"),
            PaperColumn("cifar100-preact_resnet18", "PA-RS18 (%)", "top1", "CIFAR-100"),
            PaperColumn("cifar100-wrn_28_10", "WRN28-10 (%)", "top1", "CIFAR-100"),
        ),
        """
        authors-mixup          | Mixup          | | 95.80 | 97.30 | 78.90 | 82.50
        authors-cutout         | Cutout         | | -     | 96.92 | -     | 81.59
        authors-fmix           | FMix           | | 96.14 | 96.38 | 79.85 | 82.03
        authors-resizemix      | ResizeMix      | | -     | 97.60 | -     | 84.31
        authors-saliencymix    | SaliencyMix    | | -     | 97.24 | -     | 83.44
        authors-manifold_mixup | Manifold Mixup | | 97.05 | 97.45 | 79.66 | 81.96
        authors-patchup        | PatchUp        | | 97.08 | 97.47 | 80.88 | 82.30
        authors-puzzlemix      | Puzzle Mix     | | -     | -     | -     | 84.05
        authors-comixup        | Co-Mixup       | | -     | -     | 80.13 | -
        baseline    | Baseline    | | 95.18       | 96.28       | 77.55       | 80.87
        mixup       | Mixup       | | 96.15 ↑0.97 | 97.23 ↑0.95 | 79.49 ↑1.94 | 82.61 ↑1.74
        cutmix      | CutMix      | | 96.43 ↑1.25 | 97.06 ↑0.78 | 79.73 ↑2.18 | 82.34 ↑1.47
        fmix        | FMix        | | 96.46 ↑1.28 | 97.02 ↑0.74 | 79.45 ↑1.90 | 81.78 ↑0.97
        resizemix   | ResizeMix   | | 96.69 ↑1.51 | 97.48 ↑1.20 | 80.66 ↑3.11 | 83.00 ↑2.13
        saliencymix | SaliencyMix | | 96.28 ↑1.10 | 96.87 ↑0.59 | 80.01 ↑2.46 | 81.95 ↑1.08
        puzzlemix   | Puzzle Mix  | | 96.82 ↑1.64 | 97.51 ↑1.23 | 80.68 ↑3.13 | 83.71 ↑2.84
        randomix    | RandoMix    | | 97.22 ↑2.04 | 98.02 ↑1.74 | 82.14 ↑4.59 | 84.84 ↑3.97
        """,
    ),
    _table(
        2,
        "Accuracy and cost on Tiny-ImageNet and ImageNet",
        "tiny_imagenet imagenet",
        "Top-1 and Top-5 test accuracy on Tiny-ImageNet (PreAct-ResNet18) and ImageNet (ResNet-50). Cost: training "
        "time divided by the Baseline's.",
        (
            PaperColumn("tiny_imagenet-top1", "Top-1 (%)", "top1", "Tiny-ImageNet"),
            PaperColumn("tiny_imagenet-top5", "Top-5 (%)", "top5", "Tiny-ImageNet"),
            PaperColumn("imagenet-top1", "Top-1 (%)", "top1", "ImageNet"),
            PaperColumn("imagenet-top5", "Top-5 (%)", "top5", "ImageNet"),
            PaperColumn("imagenet-cost", "Cost", "cost", "ImageNet", lower_is_better=True),
        ),
        """
        baseline    | Baseline    | | 63.43       | 83.05       | 76.37       | 93.04       | 1.00
        mixup       | Mixup       | | 64.77 ↑1.34 | 84.05 ↑1.00 | 77.42 ↑1.05 | 93.67 ↑0.63 | 1.00
        cutmix      | CutMix      | | 67.72 ↑4.29 | 86.25 ↑3.20 | 77.32 ↑0.95 | 93.79 ↑0.75 | 0.99
        fmix        | FMix        | | 66.18 ↑2.75 | 84.58 ↑1.53 | 77.27 ↑0.90 | 93.62 ↑0.58 | 1.07
        resizemix   | ResizeMix   | | 67.71 ↑4.28 | 86.65 ↑3.60 | 77.83 ↑1.46 | 93.87 ↑0.83 | 0.99
        saliencymix | SaliencyMix | | 65.90 ↑2.47 | 85.13 ↑2.08 | 77.40 ↑1.03 | 93.69 ↑0.65 | 1.01
        puzzlemix   | Puzzle Mix  | | 66.65 ↑3.22 | 85.29 ↑2.24 | 77.69 ↑1.32 | 93.94 ↑0.90 | 2.10
        randomix    | RandoMix    | | 68.94 ↑5.51 | 86.83 ↑3.78 | 77.88 ↑1.51 | 93.98 ↑0.94 | 1.01
        """,
    ),
    _table(
        3,
        "Accuracy on Google Speech Commands",
        "speech_commands",
        "Top-1 validation and test accuracy on Google Speech Commands with PreAct-ResNet18.",
        (
            PaperColumn("validation_top1", "Validation top-1 (%)", "validation_top1"),
            PaperColumn("top1", "Test top-1 (%)", "top1"),
        ),
        """
        baseline  | Baseline  | | 97.98       | 98.25
        mixup     | Mixup     | | 98.26 ↑0.28 | 98.59 ↑0.34
        cutmix    | CutMix    | | 97.93 ↓0.05 | 98.36 ↑0.11
        fmix      | FMix      | | 98.13 ↑0.15 | 98.60 ↑0.35
        resizemix | ResizeMix | | 98.14 ↑0.16 | 98.53 ↑0.28
        randomix  | RandoMix  | | 98.33 ↑0.35 | 98.77 ↑0.52
        """,
    ),
    _table(
        4,
        "Robustness on CIFAR-100",
        "cifar100",
        "Robustness on CIFAR-100 with WideResNet-28-10. Mixed mode: l is linear, m is mask.",
        _ROBUSTNESS,
        """
        baseline  | Baseline  | -   | 19.27 | 84.63   | 49.42   | 42.50
        mixup     | Mixup     | l   | 17.49 | 64.43 ↓ | 41.67 ↓ | 43.40 ↑
        cutmix    | CutMix    | m   | 17.46 | 84.70 ↑ | 52.91 ↑ | 33.44 ↓
        fmix      | FMix      | m   | 18.64 | 87.41 ↑ | 51.61 ↑ | 28.96 ↓
        resizemix | ResizeMix | m   | 17.12 | 90.04 ↑ | 50.37 ↑ | 27.29 ↓
        randomix  | RandoMix  | l+m | 15.16 | 63.78 ↓ | 42.17 ↓ | 27.72 ↓
        """,
    ),
    _table(
        5,
        "Weights and robustness on CIFAR-100",
        "cifar100",
        "Weights of [Mixup, CutMix, ResizeMix, FMix] and robustness, on CIFAR-100 with WideResNet-28-10.",
        _ROBUSTNESS,
        """
        randomix-1111 | RandoMix [1,1,1,1] | | 15.35 | 75.81 | 45.84 | 26.73
        randomix-2111 | RandoMix [2,1,1,1] | | 15.65 | 66.64 | 42.45 | 29.55
        randomix-3111 | RandoMix [3,1,1,1] | | 15.51 | 70.23 | 42.16 | 28.12
        randomix-4111 | RandoMix [4,1,1,1] | | 15.16 | 63.78 | 42.17 | 27.72
        """,
    ),
    _table(
        6,
        "Candidates and accuracy on Tiny-ImageNet",
        "tiny_imagenet",
        "Candidates and accuracy on Tiny-ImageNet with PreAct-ResNet18, all weights equal. M: Mixup, C: CutMix, "
        "R: ResizeMix, F: FMix. Mixed mode: l is linear, m is mask. Mean: over the rows with as many candidates.",
        (PaperColumn("top1", "Top-1 (%)", "top1"), PaperColumn(MEAN, "Mean (%)", "top1")),
        """
        baseline | Baseline  | -   | 63.75 | 63.75
        M        | [M]       | l   | 65.73 | 66.47
        C        | [C]       | m   | 67.17 | 66.47
        R        | [R]       | m   | 67.24 | 66.47
        F        | [F]       | m   | 65.77 | 66.47
        MC       | [M,C]     | l+m | 68.50 | 67.97
        MR       | [M,R]     | l+m | 68.89 | 67.97
        MF       | [M,F]     | l+m | 67.81 | 67.97
        CR       | [C,R]     | m   | 67.73 | 67.97
        CF       | [C,F]     | m   | 66.94 | 67.97
        MCR      | [M,C,R]   | l+m | 68.91 | 68.68
        MCF      | [M,C,F]   | l+m | 68.56 | 68.68
        MRF      | [M,R,F]   | l+m | 69.07 | 68.68
        CRF      | [C,R,F]   | m   | 68.19 | 68.68
        MCRF     | [M,C,R,F] | l+m | 68.92 | 68.92
        """,
    ),
)
TABLE = {table.number: table for table in TABLES}


def cell_ids() -> list[str]:
    """All cells of all tables that runs can fill."""
    return [cell for table in TABLES for cell in table.cell_ids()]


def recomputed(table: PaperTable, row: str, column: str) -> Printed:
    """A cell with arrow and difference computed from the numbers; without them where there is no Baseline."""
    value = table.value(row, column)
    if row == BASELINE_ROW or table.row(row).part != OURS or BASELINE_ROW not in [r.key for r in table.rows]:
        return Printed(value)
    delta = round(value - table.value(BASELINE_ROW, column), 2)
    return Printed(value, "↑" if delta > 0 else "↓" if delta < 0 else "", abs(delta))


def mean_accuracies() -> dict[int, float]:
    """Table 6's Mean column, computed: number of candidates to mean top-1 (%)."""
    rows = TABLE[6].rows
    return {
        n: statistics.fmean(TABLE[6].value(r.key, "top1") for r in rows if r.candidates == n)
        for n in sorted({r.candidates for r in rows})
    }
