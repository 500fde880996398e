"""Tables as text: terminal, Markdown, LaTeX (booktabs), CSV (full precision) and HTML."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterable
from html import escape

from randomix.records.aggregate import Difference, Statistic
from randomix.records.record import RunRecord
from randomix.records.tables import Cell, Column, Row, Table

Link = Callable[[RunRecord], str]
"""From a record to its address, relative to the file that is rendered."""

EMPTY = "\N{EN DASH}"
_ESCAPES = {c: "\\" + c for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "Δ": r"$\Delta$",
    "†": r"$\dagger$",
    "\N{MINUS SIGN}": "$-$",
    EMPTY: "--",
}


def number(statistic: Statistic, digits: int) -> str:
    """The mean as text."""
    return f"{statistic.mean:.{digits}f}"


def spread(statistic: Statistic, digits: int) -> str:
    """`` ± std (n)``, or that it is one run."""
    if statistic.std is None:
        return " (1 run)"
    return f" ± {statistic.std:.{digits}f} ({statistic.n})"


def arrow(change: Difference, digits: int) -> str:
    """The difference to the Baseline: ``↓1.30``, ``↑0.20``, or ``=`` if it rounds to nothing."""
    size = f"{abs(change.mean):.{digits}f}"
    if float(size) == 0:
        return "="
    return ("↑" if change.mean > 0 else "↓") + size


def improves(change: Difference, column: Column) -> bool | None:
    """Whether the difference is for the better; None if it rounds to nothing."""
    if arrow(change, column.digits) == "=":
        return None
    return (change.mean < 0) == column.lower_is_better


def _plain(cell: Cell, column: Column, bold: Callable[[str], str] = str) -> str:
    if cell.statistic is None:
        return EMPTY
    if cell.reference:
        return f"{1:.{column.digits}f}"
    value = number(cell.statistic, column.digits)
    text = (bold(value) if cell.best else value) + spread(cell.statistic, column.digits)
    return text + (f" {arrow(cell.change, column.digits)}" if cell.change else "")


def to_terminal(table: Table) -> str:
    """Aligned columns; the best value of a column has an asterisk."""
    head = ["Method", "Mode", *(c.heading for c in table.columns)]
    parts: list[list[tuple[str, str]]] = [[(h, "") for h in head]]
    for row in table.rows:
        cells = [_plain(c, col, lambda v: f"*{v}") for c, col in zip(row.cells, table.columns, strict=True)]
        parts.append([(row.label, ""), (row.mode, ""), *(_at_sign(c) for c in cells)])
    body = parts[1:]
    left = [max(len(r[i][0]) for r in body) for i in range(len(head))]
    right = [max(len(r[i][1]) for r in body) for i in range(len(head))]
    width = [max(left[i] + right[i], len(head[i])) for i in range(len(head))]
    lines = [table.title, "  ".join(h.ljust(w) for h, w in zip(head, width, strict=True)).rstrip()]
    lines.append("-" * (sum(width) + 2 * (len(width) - 1)))
    for part in body:
        texts = [(a.rjust(left[i]) if i > 1 else a.ljust(left[i])) + b for i, (a, b) in enumerate(part)]
        lines.append("  ".join(t.ljust(w) for t, w in zip(texts, width, strict=True)).rstrip())
    wide = max(len(lines[2]), 80)
    notes = [textwrap.fill(n.replace("Bold:", "*:"), wide) for n in (table.caption, *table.notes)]
    return "\n".join([*lines, *notes]) + "\n"


def _at_sign(text: str) -> tuple[str, str]:
    """A cell before and after its mean, so that the means align."""
    value, space, rest = text.partition(" ")
    return value, space + rest


def to_markdown(table: Table, link: Link) -> str:
    """A Markdown table whose last column links the records, one number a seed."""
    head = ["Method", "Mode", *(c.heading for c in table.columns), "Records (seeds)"]
    lines = [
        f"**{markdown_escape(table.title)}**",
        "",
        markdown_row(head),
        markdown_row(["---"] * 2 + ["---:"] * len(table.columns) + ["---"]),
    ]
    for row in table.rows:
        cells = [_plain(c, col, lambda v: f"**{v}**") for c, col in zip(row.cells, table.columns, strict=True)]
        links = " ".join(f"[{_record_name(r)}]({link(r)})" for r in row.records)
        lines.append(markdown_row([markdown_escape(row.label), row.mode, *cells, links]))
    notes = [markdown_escape(table.caption), *(markdown_escape(n) for n in table.notes)]
    return "\n".join([*lines, "", "\n\n".join(notes)]) + "\n"


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def markdown_escape(text: str) -> str:
    """``text`` with Markdown's special characters made harmless."""
    for character in "\\|*_[]<>`":
        text = text.replace(character, "\\" + character)
    return text


def _record_name(record: RunRecord) -> str:
    return str(record.seed) if record.kind == "train" else f"{record.seed} (evaluation)"


def tex_escape(text: str) -> str:
    """``text`` with LaTeX's special characters made harmless."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def to_latex(table: Table) -> str:
    """A table environment for booktabs and graphicx."""
    head = ["Method", "Mode", *(c.heading for c in table.columns)]
    lines = [
        rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}",
        r"\toprule",
        " & ".join(tex_escape(h) for h in head) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [_tex_cell(c, col) for c, col in zip(row.cells, table.columns, strict=True)]
        lines.append(" & ".join([tex_label(row.label), tex_escape(row.mode), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    return latex_float(f"{table.title}. {table.caption}", table.slug, lines, table.notes)


_FITTED = r"""
\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi
\ifdim\dimexpr\ht0+\dp0\relax>.7\textheight\sbox0{\resizebox*{!}{.7\textheight}{\usebox0}}\fi
""".strip()
_NOTED = r"""
\dimen0=\dimexpr\textheight-\ht2-\dp2-\bigskipamount\relax
\ifdim\dimen0<.1\textheight\dimen0=.1\textheight\fi
\notes\footnotesize
\ifdim\dimexpr\ht4+\dp4\relax>\dimen0\notes\scriptsize\fi
\ifdim\dimexpr\ht4+\dp4\relax>\dimen0\notes\tiny\fi
\ifdim\dimexpr\ht4+\dp4\relax>\dimen0\sbox4{\resizebox*{!}{\dimen0}{\usebox4}}\fi
\usebox2\par\medskip\usebox4
""".strip()


def latex_float(caption: str, name: str, tabular: Iterable[str], notes: Iterable[str]) -> str:
    """A table environment around a tabular, which is made smaller where it is wider than the text.

    What would be higher than the page is made smaller too: first the notes below.
    """
    return (
        "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                r"\sbox0{%",
                *tabular,
                "}%",
                _FITTED,
                r"\sbox2{\begin{minipage}{\linewidth}\centering",
                rf"\caption{{{tex_escape(caption)}}}",
                rf"\label{{tab:{name}}}",
                r"\par\medskip\usebox0",
                r"\end{minipage}}%",
                r"\def\notes#1{\sbox4{\begin{minipage}{\linewidth}#1\raggedright",
                *(rf"{tex_escape(n)}\par" for n in notes),
                r"\end{minipage}}}%",
                _NOTED,
                r"\end{table}",
            ]
        )
        + "\n"
    )


def tex_label(text: str) -> str:
    """What begins a line: a bracket there would be read as an argument of the line's end before it."""
    return "{}" * text.startswith("[") + tex_escape(text)


def _tex_cell(cell: Cell, column: Column) -> str:
    text = tex_escape(_plain(cell, column, lambda v: f"\0{v}\1"))
    return text.replace("\0", r"\textbf{").replace("\1", "}")


def to_csv(table: Table, link: Link) -> str:
    """One line a method, numbers in full precision; ``*_delta`` is the difference to the Baseline."""
    fields = ("mean", "std", "n", "delta", "delta_std", "delta_n", "p_welch")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{c.key}_{f}" for c in table.columns for f in (fields if c.compared else fields[:3])]
    writer.writerow(["method", "mixer", "mode", "config_hash", "seeds", *names, "records"])
    for row in table.rows:
        first = row.group.first
        values = [v for c, col in zip(row.cells, table.columns, strict=True) for v in _csv_values(c, col)]
        seeds = " ".join(map(str, row.group.seeds))
        links = " ".join(link(r) for r in row.records)
        writer.writerow([row.label, first.mixer.name, row.mode, row.group.config_hash, seeds, *values, links])
    return out.getvalue()


def _csv_values(cell: Cell, column: Column) -> list[str]:
    s, d = cell.statistic, cell.change
    values = [s.mean, s.std, s.n] if s else [None] * 3
    if column.compared:
        values += [d.mean, d.std, d.n if d.paired else 0, d.p_welch] if d else [None] * 4
    return ["" if v is None else repr(v) for v in values]


def to_html(table: Table, link: Link) -> str:
    """A sortable table; each cell opens to its runs, each run links its record. ``page`` has the style and script."""
    head = ["Method", "Mode", *(c.heading for c in table.columns)]
    columns = "".join(f'<th scope="col" aria-sort="none"><button type="button">{escape(h)}</button></th>' for h in head)
    rows = "\n".join(_html_row(row, table, link) for row in table.rows)
    notes = "".join(f"<li>{escape(n)}</li>" for n in table.notes)
    name = escape(table.title)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">\n'
        f'<table class="sortable" aria-describedby="{table.slug}-what">\n'
        f'<caption class="unseen">{name}</caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n"
        f'</table>\n</div>\n<p class="what" id="{table.slug}-what">{escape(table.caption)}</p>\n'
        f'<ul class="notes">{notes}</ul>\n'
    )


def _html_row(row: Row, table: Table, link: Link) -> str:
    cells = "".join(_html_cell(c, col, link) for c, col in zip(row.cells, table.columns, strict=True))
    return f'<tr><th scope="row">{escape(row.label)}</th><td>{escape(row.mode)}</td>{cells}</tr>'


def _html_cell(cell: Cell, column: Column, link: Link) -> str:
    s, digits = cell.statistic, column.digits
    if s is None:
        return f'<td class="empty">{EMPTY}</td>'
    value = f"{1:.{digits}f}" if cell.reference else number(s, digits)
    text = f"<b>{value}</b>" if cell.best else f"<span>{value}</span>"
    if not cell.reference:
        text += f'<small class="spread">{spread(s, digits)}</small>'
    if cell.change:
        good = improves(cell.change, column)
        kind = "same" if good is None else "good" if good else "bad"
        text += f'<small class="{kind}"> {arrow(cell.change, digits)}</small>'
    runs = "".join(
        f'<li><a href="{escape(link(r.record))}">seed {r.seed}</a>: {r.value:.{digits}f}</li>' for r in s.samples
    )
    detail = f"<p>{escape(change_text(cell.change, digits))}</p>" if cell.change else ""
    return f'<td data-value="{s.mean!r}"><details><summary>{text}</summary><ul>{runs}</ul>{detail}</details></td>'


def change_text(change: Difference, digits: int, other: str = "the Baseline") -> str:
    """The comparison with another method in words."""
    text = f"{change.mean:+.{digits}f}".replace("-", "\N{MINUS SIGN}")
    if change.std is not None:
        text += f" ± {change.std:.{digits}f}"
    runs = f"{change.n} common seed{'s' if change.n > 1 else ''}"
    text += f" to {other} over {runs}" if change.paired else f" to {other} between the means: no common seed"
    if change.p_welch is not None:
        text += f"; Welch's t-test p {'< 0.001' if change.p_welch < 0.001 else f'= {change.p_welch:.3f}'}"
    return text
