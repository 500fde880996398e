"""A table of the paper beside ours, as data: cells, rows, and which of them stand out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from randomix.records.aggregate import Difference, Statistic
from randomix.records.grid import PAPER, GridRun, Match
from randomix.records.paper import OURS, PaperColumn, PaperRow, PaperTable, Printed
from randomix.records.record import RunRecord

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class ReproducedCell:
    """``statistic`` is None where no run counts; ``delta`` is ours minus the paper's, at scale paper only.

    ``to_baseline`` and ``to_rival`` compare with the Baseline and the best other method of the column.
    """

    id: str
    printed: Printed
    match: Match | None
    statistic: Statistic | None
    best_epoch: Statistic | None = None
    delta: float | None = None
    best: bool = False
    to_baseline: Difference | None = None
    rival: str = ""
    to_rival: Difference | None = None
    reference: bool = False  # the Baseline's cost: 1 by definition
    computed: bool = False  # from other cells of the column beside it

    @property
    def own(self) -> Statistic:
        """The statistic of a cell that has one; ValueError for an empty one."""
        if self.statistic is None:
            raise ValueError(f"{self.id} has no runs")
        return self.statistic

    @property
    def run(self) -> GridRun | None:
        """What fills the cell; None where the grid has nothing for it."""
        return self.match.run if self.match else None

    @property
    def exists(self) -> bool:
        """Whether the paper has such a cell."""
        return self.printed.value is not None

    @property
    def missing_seeds(self) -> list[int]:
        """Seeds of the grid without a value."""
        have = self.statistic.by_seed if self.statistic else {}
        return [seed for seed in self.run.seeds if seed not in have] if self.run else []


@dataclass(frozen=True)
class ReproducedRow:
    """One row of the paper with its cells."""

    paper: PaperRow
    cells: tuple[ReproducedCell, ...]


@dataclass(frozen=True)
class ReproducedTable:
    """One table of the paper at one scale. ``captions`` say what was run, ``notes`` what a reader must know."""

    paper: PaperTable
    scale: str
    title: str
    captions: tuple[str, ...]
    rows: tuple[ReproducedRow, ...]
    notes: tuple[str, ...]

    @property
    def slug(self) -> str:
        """``paper-table1``."""
        return f"{self.scale}-{self.paper.slug}"

    @property
    def columns(self) -> tuple[PaperColumn, ...]:
        """The paper's columns."""
        return self.paper.columns

    @property
    def has_modes(self) -> bool:
        """Whether the table prints mixed modes."""
        return any(r.paper.mode for r in self.rows)

    @property
    def has_deltas(self) -> bool:
        """Whether ours minus the paper's means something."""
        return self.scale == PAPER

    @property
    def cells(self) -> list[ReproducedCell]:
        """All cells, row by row."""
        return [c for row in self.rows for c in row.cells]

    @property
    def filled(self) -> int:
        """How many cells have a number of ours."""
        return sum(c.statistic is not None for c in self.cells)

    @property
    def records(self) -> list[RunRecord]:
        """The records behind the numbers, each once, in a fixed order."""
        found = {s.record.path: s.record for c in self.cells if c.statistic for s in c.statistic.samples}
        return [found[path] for path in sorted(found)]

    def missing(self) -> dict[str, list[ReproducedCell]]:
        """Cells that lack a seed by the command that fills them."""
        found: dict[str, list[ReproducedCell]] = {}
        for cell in self.cells:
            if cell.run and cell.missing_seeds:
                found.setdefault(cell.run.command, []).append(cell)
        return found

    def name(self, cell: ReproducedCell) -> str:
        """A cell in words: ``Mixup, CIFAR-10, PA-RS18``."""
        _, row, column = cell.id.split("/")
        heading = next(c.title for c in self.columns if c.key == column).removesuffix(" (%)")
        whose = " (authors' recipe)" if self.paper.row(row).part != OURS else ""
        return f"{self.paper.row(row).label}{whose}, {heading}"


def mark(cell: ReproducedCell, column: PaperColumn) -> str:
    """``*`` where a cell differs from the Baseline, ``†`` where it is better than the best other method.

    The means that Welch's test compares decide which is better. Where common seeds say the opposite nothing is marked.
    """
    base, rival = cell.to_baseline, cell.to_rival
    text = "*" if _significant(base) else ""
    if _significant(rival):
        text += "†" if (rival.between_means < 0) == column.lower_is_better else ""
    return text


def _significant(change: Difference | None) -> TypeGuard[Difference]:
    if change is None or change.p_welch is None or change.p_welch >= SIGNIFICANT:
        return False
    return change.mean * change.between_means > 0
