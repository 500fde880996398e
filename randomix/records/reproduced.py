"""The paper's tables beside ours: each cell with the printed number, our runs, their difference and Welch's tests."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from randomix.records.aggregate import (
    Group,
    Sample,
    Statistic,
    cost,
    data_digests,
    difference,
    time_measure,
)
from randomix.records.contradictions import contradictions
from randomix.records.grid import PAPER, Grid, Match, match
from randomix.records.paper import BASELINE_ROW, MEAN, OURS, TABLES, PaperColumn, PaperRow, PaperTable, Printed
from randomix.records.record import RunRecord
from randomix.records.reproduced_cells import ReproducedCell, ReproducedRow, ReproducedTable, mark
from randomix.records.tables import COST, caption

RANDOMIX_ROW = "randomix"
_PRINTED = "table1/randomix/cifar100-wrn_28_10"  # the number of weights [4,1,1,1], but by section 4.2.1 ...
_STATED = "table5/randomix-3111/top1_error"  # ... they are those of this row


def reproduce(grid: Grid, records: Iterable[RunRecord]) -> list[ReproducedTable]:
    """The paper's six tables at the grid's scale."""
    matches = match(grid, records)
    return [_table(paper, grid, matches) for paper in TABLES]


def _table(paper: PaperTable, grid: Grid, matches: Mapping[str, Match]) -> ReproducedTable:
    columns: list[list[ReproducedCell]] = []
    measure = "time"
    for column in paper.columns:
        cells = [_cell(paper, row, column, grid, matches) for row in paper.rows]
        if column.metric == COST:
            cells, measure = _costs(cells)
        elif column.key == MEAN:
            cells = _means(paper, cells, columns[0], grid)
        columns.append(cells if column.metric == COST or column.key == MEAN else _compared(paper, column, cells))
    rows = tuple(ReproducedRow(row, tuple(cells[i] for cells in columns)) for i, row in enumerate(paper.rows))
    names = {d: grid.stand_ins[d] for d in paper.datasets if d in grid.stand_ins}
    words = "; ".join(f"{', '.join(n for n in names if names[n] == t)}: {t}" for t in dict.fromkeys(names.values()))
    at = "" if grid.scale == PAPER else f" ({grid.scale} scale: {words or 'not the setting of the paper'})"
    table = ReproducedTable(paper, grid.scale, f"Table {paper.number}: {paper.title}{at}", (), rows, ())
    return replace(table, captions=tuple(_captions(table.records)), notes=tuple(_notes(table, matches, measure)))


def _cell(
    paper: PaperTable, row: PaperRow, column: PaperColumn, grid: Grid, matches: Mapping[str, Match]
) -> ReproducedCell:
    """A cell of its own; comparisons with others come later."""
    name, printed = f"{paper.slug}/{row.key}/{column.key}", paper.printed(row.key, column.key)
    found = matches.get(name) if printed.value is not None else None
    if found is None or column.metric == COST or column.key == MEAN:
        return ReproducedCell(name, printed, found, None)
    own = found.statistic(column.metric)
    return ReproducedCell(name, printed, found, own, found.statistic(column.metric, "best"), _delta(own, printed, grid))


def _delta(own: Statistic | None, printed: Printed, grid: Grid) -> float | None:
    return own.mean - printed.value if own and printed.value is not None and grid.scale == PAPER else None


def _compared(paper: PaperTable, column: PaperColumn, cells: Sequence[ReproducedCell]) -> list[ReproducedCell]:
    """With the best mean marked and the tests made, among our rows of a column.

    The rows of other authors' recipes differ in more than the method: they are compared with nothing.
    """
    sign = -1 if column.lower_is_better else 1
    ours = {
        row.key: (row.label, cell)
        for row, cell in zip(paper.rows, cells, strict=True)
        if row.part == OURS and cell.statistic
    }
    means = {key: sign * round(cell.own.mean, 9) for key, (_, cell) in ours.items()}
    base = ours[BASELINE_ROW][1].statistic if BASELINE_ROW in ours else None
    found = []
    for row, cell in zip(paper.rows, cells, strict=True):
        if row.key not in ours:
            found.append(cell)
            continue
        others = [key for key in means if key not in (row.key, RANDOMIX_ROW)]
        rival = max(others, key=means.__getitem__, default=None)
        found.append(
            replace(
                cell,
                best=len(means) > 1 and means[row.key] == max(means.values()),
                to_baseline=difference(cell.statistic, base) if row.key != BASELINE_ROW else None,
                rival=ours[rival][0] if rival else "",
                to_rival=difference(cell.statistic, ours[rival][1].statistic) if rival else None,
            )
        )
    return found


def _costs(cells: Sequence[ReproducedCell]) -> tuple[list[ReproducedCell], str]:
    """Training time of an epoch divided by the Baseline's of the same seed on the same hardware."""
    groups: dict[str, Group] = {c.id.split("/")[1]: c.match.group for c in cells if c.match and c.match.group}
    measure, seconds = time_measure(groups.values())
    base = groups.get(BASELINE_ROW)
    found = []
    for cell in cells:
        row = cell.id.split("/")[1]
        own = cost(groups[row], base, seconds) if row in groups else None
        found.append(replace(cell, statistic=own, reference=row == BASELINE_ROW and own is not None))
    return found, measure


def _means(
    paper: PaperTable, cells: Sequence[ReproducedCell], beside: Sequence[ReproducedCell], grid: Grid
) -> list[ReproducedCell]:
    """Table 6's Mean: for each seed that all rows with as many candidates have, the mean over these rows."""
    found = []
    for row, cell in zip(paper.rows, cells, strict=True):
        group = [c for r, c in zip(paper.rows, beside, strict=True) if r.candidates == row.candidates]
        own = None
        if all(c.statistic for c in group):
            same = [c.own for c in group]
            seeds = sorted(set.intersection(*(set(s.by_seed) for s in same)))
            samples = tuple(
                Sample(seed, statistics.fmean(s.by_seed[seed] for s in same), same[0].samples[0].record)
                for seed in seeds
            )
            own = Statistic(samples) if samples else None
        found.append(replace(cell, statistic=own, delta=_delta(own, cell.printed, grid), computed=True))
    return found


def _captions(records: Sequence[RunRecord]) -> Iterator[str]:
    """What was run, one paragraph for each data set, network and length of training."""
    kinds: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        recipe = record.config["recipe"]
        key = (record.dataset, record.model, str(recipe.get("epochs")), str(recipe.get("batch_size")))
        kinds.setdefault(key, []).append(record)
    return (caption(kinds[key]) for key in sorted(kinds))


def _notes(table: ReproducedTable, matches: Mapping[str, Match], measure: str) -> Iterator[str]:
    possible = sum(c.exists for c in table.cells)
    yield (
        f"{table.filled} of {possible} cells are filled. Paper: as printed. Ours: mean ± sample standard deviation "
        "(runs) over seeds, of the last epoch; best epochs are in the CSV file."
    )
    yield (
        "Δ: ours minus the paper's."
        if table.has_deltas
        else "The paper's numbers stand for orientation only: at this scale data and training are others."
    )
    if any(c.best for c in table.cells):
        yield "Bold: our best mean of a column, whether or not the difference is larger than the spread over seeds."
    if any(mark(c, column) for row in table.rows for c, column in zip(row.cells, table.columns, strict=True)):
        rows = {row.paper.key for row in table.rows}
        yield (
            "Marks, by Welch's t-test, p < 0.05, not corrected for many comparisons: "
            + ("* differs from the Baseline, " if BASELINE_ROW in rows else "")
            + "† better than the best other method of the column"
            + (" (RandoMix not counted)." if RANDOMIX_ROW in rows else ".")
        )
    if any(c.key.endswith(COST) for c in table.columns):
        yield f"Cost: {measure} of a training epoch divided by the Baseline's of the same seed on the same hardware."
    if _PRINTED in [c.id for c in table.cells]:
        yield _other_weights(matches.get(_STATED))
    if any(c.statistic and c.missing_seeds for c in table.cells):
        yield "Some cells lack seeds of the grid: the commands for them stand with those of the empty cells."
    groups = {c.match.run.key: c.match.group for c in table.cells if c.match and c.match.group}
    lost = sorted(
        {
            r.run
            for c, column in _with_columns(table)
            if c.match and c.match.group
            for r in c.match.group.records
            if _is_null(r, column.metric)
        }
    )
    if lost:
        yield f"Not finite, hence left out: values of {', '.join(lost)}."
    arithmetic = {
        c.run.label: sorted({str(r.provenance.get("precision")) for r in c.match.group.records})
        for c in table.cells
        if c.run and c.match and c.match.group
    }
    mixed = [f"{label} ({', '.join(names)})" for label, names in sorted(arithmetic.items()) if len(names) > 1]
    if mixed:
        yield f"Runs or evaluations of different floating-point precision stand in the cells of {', '.join(mixed)}."
    if _differ(groups.values()):
        yield "Not all runs of a data set saw the same files: their checksums differ."
    yield from (f"The paper contradicts itself: {c.text}." for c in contradictions() if table.paper.number in c.tables)


def _other_weights(found: Match | None) -> str:
    own = found.statistic("top1") if found else None
    value = f"{own.mean:.2f} ± {own.std:.2f} ({own.n})" if own and own.std is not None else None
    value = value or (f"{own.mean:.2f} (1 run)" if own else "not run yet")
    return (
        "RandoMix, CIFAR-100, WRN28-10 is run with weights [4,1,1,1], whose error in Table 5 is the number printed "
        f"here. With [3,1,1,1], as section 4.2.1 states them, ours is: {value}."
    )


def _with_columns(table: ReproducedTable) -> Iterator[tuple[ReproducedCell, PaperColumn]]:
    for row in table.rows:
        yield from zip(row.cells, table.columns, strict=True)


def _is_null(record: RunRecord, metric: str) -> bool:
    values = record.metrics.get("last", {})
    return metric in values and values[metric] is None


def _differ(groups: Iterable[Group]) -> bool:
    seen: dict[str, set[str]] = {}
    for group in groups:
        for record in group.records:
            seen.setdefault(record.dataset, set()).add(str(data_digests(record)))
    return any(len(sums) > 1 for sums in seen.values())
