"""The paper's tables beside ours as HTML: cells open to their runs, tests and records, or to the command they need."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from randomix.records.paper import PaperColumn
from randomix.records.render import EMPTY, Link, change_text
from randomix.records.reproduced_cells import ReproducedCell, ReproducedRow, ReproducedTable, mark
from randomix.records.reproduced_text import (
    DIGITS,
    delta_text,
    hours_text,
    paper_text,
    parts,
    spread_text,
    sub_headings,
    value_text,
)


def to_html(table: ReproducedTable, link: Link) -> str:
    """A sortable table; ``page`` has the style and script."""
    what = "".join(f'<p class="what">{escape(text)}</p>\n' for text in (table.paper.caption, *table.captions))
    notes = "".join(f"<li>{escape(n)}</li>" for n in table.notes)
    name = escape(table.title)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">\n<table class="sortable paper">\n'
        f'<caption class="unseen">{name}</caption>\n{_head(table)}\n{_bodies(table, link)}</table>\n</div>\n'
        f'{what}<ul class="notes">{notes}</ul>\n'
    )


def _head(table: ReproducedTable) -> str:
    """Two rows: the paper's columns, and below each what stands in it."""
    own = "".join(_sortable(name, ' rowspan="2"') for name in ["Method", *["Mode"] * table.has_modes])
    groups, below = [], []
    for column in table.columns:
        names = sub_headings(table, column)
        groups.append(f'<th scope="colgroup" colspan="{len(names)}" class="group">{escape(column.title)}</th>')
        below += [_sortable(name, f' class="{"first" if not i else "next"}"') for i, name in enumerate(names)]
    return f"<thead><tr>{own}{''.join(groups)}</tr>\n<tr>{''.join(below)}</tr></thead>"


def _sortable(name: str, attributes: str) -> str:
    return f'<th scope="col"{attributes} aria-sort="none"><button type="button">{escape(name)}</button></th>'


def _bodies(table: ReproducedTable, link: Link) -> str:
    """One body a part: parts are sorted each by itself."""
    width = 1 + table.has_modes + sum(len(sub_headings(table, c)) for c in table.columns)
    text = ""
    for heading, rows in parts(table):
        head = f'<tr class="part"><th scope="rowgroup" colspan="{width}"><span>{escape(heading)}</span></th></tr>\n'
        body = "\n".join(_row(row, table, link) for row in rows)
        text += f"<tbody>\n{head if heading else ''}{body}\n</tbody>\n"
    return text


def _row(row: ReproducedRow, table: ReproducedTable, link: Link) -> str:
    mode = f"<td>{escape(row.paper.mode)}</td>" if table.has_modes else ""
    cells = "".join(
        "".join(_cells(cell, column, table, link)) for cell, column in zip(row.cells, table.columns, strict=True)
    )
    return f'<tr><th scope="row">{escape(row.paper.label)}</th>{mode}{cells}</tr>'


def _cells(cell: ReproducedCell, column: PaperColumn, table: ReproducedTable, link: Link) -> Iterator[str]:
    """The printed number, ours and the difference."""
    if cell.exists:
        value, _, change = paper_text(cell).partition(" ")
        change = f' <small class="spread">{change}</small>' if change else ""
        yield f'<td class="first" data-value="{cell.printed.value!r}">{value}{change}</td>'
    else:
        yield f'<td class="first empty">{EMPTY}</td>'
    if cell.statistic is None:
        yield _empty(cell, table)
    else:
        yield _ours(cell, column, table, link)
    if len(sub_headings(table, column)) > 2:
        yield f'<td data-value="{cell.delta!r}">{delta_text(cell)}</td>' if cell.delta is not None else _NOTHING


_NOTHING = '<td class="empty"></td>'


def _empty(cell: ReproducedCell, table: ReproducedTable) -> str:
    """What fills an empty cell."""
    if not cell.exists:
        return _NOTHING
    if cell.computed or cell.run is None:
        why = "computed once its rows are filled" if cell.computed else "no run of the grid fills it"
        return f'<td class="empty"><span title="{why}">{EMPTY}</span></td>'
    what = f"Not run: {table.name(cell)}"
    hours = f"<p>It takes {escape(hours_text(cell))}.</p>" if hours_text(cell) else ""
    return (
        f'<td class="empty"><details><summary aria-label="{escape(what)}">{EMPTY}</summary>'
        f"<p>Not run yet. The command:</p><code>{escape(cell.run.command)}</code>{hours}</details></td>"
    )


def _ours(cell: ReproducedCell, column: PaperColumn, table: ReproducedTable, link: Link) -> str:
    """Our number; opened, the runs behind it and how it compares."""
    own, signs = cell.own, mark(cell, column)
    text = f"<b>{value_text(cell)}</b>" if cell.best else f"<span>{value_text(cell)}</span>"
    text += f'<small class="spread">{spread_text(cell)}</small>' + (f"<sup>{signs}</sup>" if signs else "")
    if cell.computed:
        return f'<td data-value="{own.mean!r}">{text}</td>'
    runs = "".join(
        f'<li><a href="{escape(link(s.record))}">seed {s.seed}</a>: {s.value:.{DIGITS}f}</li>' for s in own.samples
    )
    details = "".join(f"<p>{escape(line)}</p>" for line in _details(cell))
    return f'<td data-value="{own.mean!r}"><details><summary>{text}</summary><ul>{runs}</ul>{details}</details></td>'


def _details(cell: ReproducedCell) -> Iterator[str]:
    if cell.to_baseline:
        yield change_text(cell.to_baseline, DIGITS)
    if cell.to_rival:
        yield change_text(cell.to_rival, DIGITS, f"the best other method, {cell.rival}")
    if cell.run and cell.missing_seeds:
        seeds = ", ".join(map(str, cell.missing_seeds))
        yield f"Missing: seed{'s' if len(cell.missing_seeds) > 1 else ''} {seeds}. {cell.run.command}"
