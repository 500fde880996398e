"""The paper's tables beside ours as text: Markdown, LaTeX (booktabs, graphicx) and CSV (one line a cell)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import groupby

from randomix.records.paper import AUTHORS, PaperColumn
from randomix.records.render import (
    EMPTY,
    Link,
    latex_float,
    markdown_escape,
    markdown_row,
    number,
    spread,
    tex_escape,
    tex_label,
)
from randomix.records.reproduced_cells import ReproducedCell, ReproducedRow, ReproducedTable, mark
from randomix.records.tables import COST

DIGITS = 2
PARTS = {AUTHORS: "Recipes of the methods' own authors; the paper's numbers are theirs", "ours": "The paper's recipe"}


def parts(table: ReproducedTable) -> list[tuple[str, list[ReproducedRow]]]:
    """The rows in parts with their headings; a table of one part has no heading."""
    found = [(PARTS[part], list(rows)) for part, rows in groupby(table.rows, key=lambda r: r.paper.part)]
    return found if len(found) > 1 else [("", found[0][1])]


def value_text(cell: ReproducedCell) -> str:
    """Our mean."""
    return f"{1:.{DIGITS}f}" if cell.reference else number(cell.own, DIGITS)


def spread_text(cell: ReproducedCell) -> str:
    """`` ± std (n)`` or `` (1 run)``; nothing beside a number that is 1 by definition."""
    return "" if cell.reference else spread(cell.own, DIGITS)


def delta_text(cell: ReproducedCell) -> str:
    """Ours minus the paper's, with its sign."""
    return "" if cell.delta is None else f"{cell.delta:+.{DIGITS}f}".replace("-", "\N{MINUS SIGN}")


def paper_text(cell: ReproducedCell) -> str:
    """The printed number, with its arrow and difference."""
    if not cell.exists:
        return EMPTY
    printed = cell.printed
    change = f" {printed.arrow}" + ("" if printed.delta is None else f"{printed.delta:.{DIGITS}f}")
    return f"{printed.value:.{DIGITS}f}" + (change if printed.arrow else "")


def hours_text(cell: ReproducedCell) -> str:
    """The estimated cost of the cell's run."""
    hours = cell.run.gpu_hours if cell.run else None
    seeds = len(cell.run.seeds) if cell.run else 0
    return "" if hours is None else f"about {hours:.3g} GPU-hours a seed, {seeds} seed{'s' if seeds > 1 else ''}"


def sub_headings(table: ReproducedTable, column: PaperColumn) -> tuple[str, ...]:
    """What stands under a column's heading: the difference only where it means something."""
    return ("Paper", "Ours", "Δ") if table.has_deltas and column.metric != COST else ("Paper", "Ours")


def to_markdown(table: ReproducedTable, link: Link) -> str:
    """A Markdown table; each number of ours links its records, seed by seed, and a list names what is missing."""
    head, align = ["Method", *(["Mode"] if table.has_modes else [])], []
    for column in table.columns:
        first, *others = sub_headings(table, column)
        head += [f"{column.title}: {first.lower()}", *(o.replace("Ours", "ours") for o in others)]
    align = ["---"] * (1 + table.has_modes) + ["---:"] * (len(head) - 1 - table.has_modes)
    lines = [
        f"**{markdown_escape(table.title)}**",
        "",
        markdown_escape(table.paper.caption),
        "",
        markdown_row(head),
        markdown_row(align),
    ]
    for heading, rows in parts(table):
        if heading:
            lines.append(markdown_row([f"*{heading}*", *[""] * (len(head) - 1)]))
        lines += [markdown_row(_markdown_cells(row, table, link)) for row in rows]
    notes = [markdown_escape(n) for n in (*table.captions, *table.notes)]
    return "\n".join([*lines, "", "\n\n".join(notes), *_markdown_missing(table)]) + "\n"


def _markdown_cells(row: ReproducedRow, table: ReproducedTable, link: Link) -> Iterator[str]:
    yield markdown_escape(row.paper.label)
    if table.has_modes:
        yield row.paper.mode
    for cell, column in zip(row.cells, table.columns, strict=True):
        yield paper_text(cell)
        if cell.statistic is None:
            yield EMPTY
        else:
            value = f"**{value_text(cell)}**" if cell.best else value_text(cell)
            links = "" if cell.computed else " ".join(f"[{s.seed}]({link(s.record)})" for s in cell.statistic.samples)
            signs = mark(cell, column).replace("*", r"\*")
            yield value + spread_text(cell) + signs + (f" <sup>{links}</sup>" if links else "")
        if len(sub_headings(table, column)) > 2:
            yield delta_text(cell)


def _markdown_missing(table: ReproducedTable) -> list[str]:
    missing = table.missing()
    if not missing:
        return []
    lines = ["", "<details><summary>Empty cells, missing seeds, and the commands for them</summary>", ""]
    for command, cells in missing.items():
        hours = f" ({hours_text(cells[0])})" if hours_text(cells[0]) else ""
        lines.append(f"- `{command}`: {'; '.join(markdown_escape(_lacking(c, table)) for c in cells)}{hours}")
    return [*lines, "", "</details>"]


def _lacking(cell: ReproducedCell, table: ReproducedTable) -> str:
    """A cell's name, with the seeds that it lacks where it has others."""
    seeds = f" (seed {', '.join(map(str, cell.missing_seeds))})" if cell.statistic else ""
    return table.name(cell) + seeds


def to_latex(table: ReproducedTable) -> str:
    """A table environment for booktabs and graphicx; commands that fill empty cells stand in comments."""
    spans = [len(sub_headings(table, c)) for c in table.columns]
    first = 1 + table.has_modes
    over = [rf"\multicolumn{{{n}}}{{c}}{{{tex_escape(c.title)}}}" for n, c in zip(spans, table.columns, strict=True)]
    tabular = [rf"\begin{{tabular}}{{{'l' * first}{'r' * sum(spans)}}}", r"\toprule"]
    tabular.append(" & ".join([""] * first + over) + r" \\")
    starts = [first + 1 + sum(spans[:i]) for i in range(len(spans))]
    tabular.append("".join(rf"\cmidrule(lr){{{s}-{s + n - 1}}}" for s, n in zip(starts, spans, strict=True)))
    heads = [h for c in table.columns for h in sub_headings(table, c)]
    tabular.append(" & ".join(map(tex_escape, ["Method", *["Mode"] * table.has_modes, *heads])) + r" \\")
    for heading, rows in parts(table):
        tabular.append(r"\midrule")
        if heading:
            tabular.append(rf"\multicolumn{{{first + sum(spans)}}}{{l}}{{\emph{{{tex_escape(heading)}}}}} \\")
        tabular += [" & ".join(_tex_cells(row, table)) + r" \\" for row in rows]
    tabular += [r"\bottomrule", r"\end{tabular}"]
    text = latex_float(
        f"The paper's {table.title}. {table.paper.caption}", table.slug, tabular, (*table.captions, *table.notes)
    )
    comments = [f"% {_lacking(c, table)}: {command}\n" for command, cells in table.missing().items() for c in cells]
    return text + "".join(comments)


def _tex_cells(row: ReproducedRow, table: ReproducedTable) -> Iterator[str]:
    yield tex_label(row.paper.label)
    if table.has_modes:
        yield tex_escape(row.paper.mode)
    for cell, column in zip(row.cells, table.columns, strict=True):
        yield tex_escape(paper_text(cell))
        if cell.statistic is None:
            yield tex_escape(EMPTY)
        else:
            value = rf"\textbf{{{value_text(cell)}}}" if cell.best else value_text(cell)
            signs = mark(cell, column).replace("†", r"\dagger").replace("*", r"{*}")
            yield value + tex_escape(spread_text(cell)) + (f"$^{{{signs}}}$" if signs else "")
        if len(sub_headings(table, column)) > 2:
            yield tex_escape(delta_text(cell))


_FIELDS = (
    "table",
    "scale",
    "part",
    "row",
    "method",
    "mode",
    "column",
    "metric",
    "paper",
    "paper_delta",
    "mean",
    "std",
    "n",
    "delta",
    "best_epoch_mean",
    "best_epoch_std",
    "best_epoch_n",
    "to_baseline",
    "to_baseline_std",
    "p_baseline",
    "rival",
    "to_rival",
    "to_rival_std",
    "p_rival",
    "dataset",
    "model",
    "config_hash",
    "seeds",
    "gpu_hours",
    "command",
    "records",
)


def to_csv(table: ReproducedTable, link: Link) -> str:
    """One line a cell of the paper, numbers in full precision; ``n`` is 0 and the numbers are empty where none ran."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_FIELDS)
    for row in table.rows:
        for cell, column in zip(row.cells, table.columns, strict=True):
            if cell.exists:
                fixed = [
                    table.paper.number,
                    table.scale,
                    row.paper.part,
                    row.paper.key,
                    row.paper.label,
                    row.paper.mode,
                    column.key,
                    column.metric,
                ]
                writer.writerow([*fixed, *map(_csv_text, _csv_values(cell)), *_csv_run(cell, link)])
    return out.getvalue()


def _csv_values(cell: ReproducedCell) -> list[float | int | str | None]:
    own, best, base, rival = cell.statistic, cell.best_epoch, cell.to_baseline, cell.to_rival
    sign = -1 if cell.printed.arrow == "↓" else 1
    printed = None if cell.printed.delta is None else sign * cell.printed.delta
    return [
        cell.printed.value,
        printed,
        *((own.mean, own.std, own.n) if own else (None, None, 0)),
        cell.delta,
        *((best.mean, best.std, best.n) if best else (None, None, 0)),
        *((base.mean, base.std, base.p_welch) if base else [None] * 3),
        cell.rival,
        *((rival.mean, rival.std, rival.p_welch) if rival else [None] * 3),
    ]


def _csv_run(cell: ReproducedCell, link: Link) -> list[str]:
    if cell.run is None:
        return [""] * 7
    samples = cell.statistic.samples if cell.statistic else ()
    seeds, links = " ".join(str(s.seed) for s in samples), " ".join(link(s.record) for s in samples)
    run = cell.run
    return [run.dataset, run.model, run.config_hash, seeds, _csv_text(run.gpu_hours), run.command, links]


def _csv_text(value: float | int | str | None) -> str:
    return value if isinstance(value, str) else "" if value is None else repr(value)
