"""The figures of a table of the paper, from the runs in its cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from randomix.records.aggregate import Group
from randomix.records.figures import run_figures
from randomix.records.figures_drawing import Method
from randomix.records.figures_tradeoff import table5_figures, table6_figures
from randomix.records.paper import AUTHORS
from randomix.records.record import RunRecord

if TYPE_CHECKING:
    from randomix.records.reproduced_cells import ReproducedRow, ReproducedTable

Place = tuple[str, str]  # data set, network


def reproduced_figures(table: ReproducedTable) -> dict[str, str]:
    """SVG text by name: what is special to Tables 5 and 6, and ``run_figures`` of each data set and network.

    Where there are several of these their names stand behind the figure's, after a dash.
    """
    values = {
        row.paper.key: {c.key: cell.statistic for c, cell in zip(table.columns, row.cells, strict=True)}
        for row in table.rows
    }
    figures = {}
    if table.paper.number == 5:
        figures = table5_figures(values, paper=table.has_deltas)
    if table.paper.number == 6:
        figures = table6_figures({key: of["top1"] for key, of in values.items()}, paper=table.has_deltas)
    places = _methods(table)
    for place, methods in places.items():
        suffix = "-" + "-".join(place) if len(places) > 1 else ""
        figures |= {f"{name}{suffix}": svg for name, svg in run_figures(methods).items()}
    return figures


def _methods(table: ReproducedTable) -> dict[Place, list[Method]]:
    """The rows that have runs, with all of them, by data set and network in the order of the columns."""
    found: dict[Place, list[Method]] = {}
    for row in table.rows:
        for place, records in _records(row).items():
            whose = " (authors')" if row.paper.part == AUTHORS else ""
            group = Group(*place, records[0].config_hash, tuple(records))
            found.setdefault(place, []).append((row.paper.label + whose, group))
    return found


def _records(row: ReproducedRow) -> dict[Place, list[RunRecord]]:
    """Each once, by seed, those of training first."""
    unique = {s.record.path: s.record for cell in row.cells if cell.statistic for s in cell.statistic.samples}
    found: dict[Place, list[RunRecord]] = {}
    for record in sorted(unique.values(), key=lambda r: (r.seed, r.kind != "train", str(r.path))):
        found.setdefault((record.dataset, record.model), []).append(record)
    return found
