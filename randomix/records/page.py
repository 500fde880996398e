"""One static HTML page of all tables and figures; it needs no network and states nothing that is not in the records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from randomix.records.figures import caption, inline, is_wide
from randomix.records.grid import PAPER
from randomix.records.page_assets import SCRIPT, STYLE
from randomix.records.record import RunRecord
from randomix.records.render import EMPTY, Link, to_html
from randomix.records.reproduced_cells import ReproducedTable
from randomix.records.reproduced_html import to_html as paper_html
from randomix.records.tables import Table, commit_text, data_text, hardware_text

FILL_COMMAND = "python train.py experiment=demo\npython scripts/make_tables.py outputs/demo --out outputs/demo/report"


def to_page(
    title: str,
    tables: Sequence[Table],
    figures: Mapping[str, Mapping[str, str]],
    link: Link,
    *,
    reproduced: Sequence[ReproducedTable] = (),
    sheets: Mapping[str, str] | None = None,
    command: str = "",
) -> str:
    """The page's HTML: the paper's tables, those with stand-ins, then the tables of all other settings.

    figures: SVG text by a table's slug and figure name. sheets: data set name to the relative address of its sheet of
    mixed images. link: record to its relative address. command: what made the page, for the reader to repeat.
    """
    records = unique_records(tables, reproduced)
    if not tables and not reproduced:
        return _document(title, f"<h1>{escape(title)}</h1>", _nothing_yet())
    groups: dict[str, list[Section]] = {}
    for of in reproduced:
        headings = {c.key: c.title for c in of.columns}
        section = Section(of.slug, of.title, paper_html(of, link), figures.get(of.slug, {}), headings)
        groups.setdefault(_group_title(of.scale), []).append(section)
    for table in tables:
        headings = {c.key: c.heading for c in table.columns}
        section = Section(table.slug, table.title, to_html(table, link), figures.get(table.slug, {}), headings)
        groups.setdefault(_SETTINGS, []).append(section)
    parts = [_group(name, sections, titled=len(groups) > 1) for name, sections in groups.items()]
    parts += [_sheet(name, address) for name, address in sorted((sheets or {}).items())]
    parts += [_records(records, link)] if records else [_nothing_yet()]
    header = f"<h1>{escape(title)}</h1>\n<p>{escape(_summary(records))}</p>\n{_contents(groups)}"
    return _document(title, header, "\n".join(parts), _how(command))


@dataclass(frozen=True)
class Section:
    """One table of the page with its figures; ``headings`` are those of the columns, by key."""

    slug: str
    title: str
    html: str
    figures: Mapping[str, str]
    headings: Mapping[str, str]


_SETTINGS = "Runs by setting"


def _group_title(scale: str) -> str:
    return "The paper's tables" if scale == PAPER else f"The paper's tables at {scale} scale: with stand-ins"


def unique_records(tables: Sequence[Table], reproduced: Sequence[ReproducedTable]) -> list[RunRecord]:
    """The records behind tables, each once, in the order of the tables."""
    found = [r for t in reproduced for r in t.records] + [r for t in tables for r in t.setting.records]
    return list({r.path: r for r in found}.values())


def standalone_paper_table(table: ReproducedTable, link: Link) -> str:
    """One table of the paper as an HTML file of its own."""
    return _document(table.title, f"<h1>{escape(table.title)}</h1>", paper_html(table, link))


def standalone_table(table: Table, link: Link) -> str:
    """One table as an HTML file of its own."""
    return _document(table.title, f"<h1>{escape(table.title)}</h1>", to_html(table, link))


def _document(title: str, header: str, main: str, footer: str = "") -> str:
    """A whole document: ``header``, ``main`` and ``footer`` are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f'<a class="skip" href="#main">Skip to the tables</a>\n'
        f'<header>\n{header}\n</header>\n<main id="main">\n{main}\n</main>\n<footer>{footer}</footer>\n'
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _summary(records: Sequence[RunRecord]) -> str:
    if not records:
        return "No runs yet: an empty cell opens to the command that fills it."
    methods = len({r.mixer.label for r in records})
    runs = len({r.run for r in records})
    made = {r.dataset: [x for x in records if x.dataset == r.dataset] for r in records}
    sets = ", ".join(data_text(of) for of in made.values())
    return (
        f"{runs} run{'s' if runs > 1 else ''} of {methods} method{'s' if methods > 1 else ''} on {sets}. Each number "
        "is computed from recorded runs: open a cell to see them and their records. A cell without a run stays "
        "empty; in the paper's tables it opens to its command. Column heads sort."
    )


def _contents(groups: Mapping[str, Sequence[Section]]) -> str:
    if sum(map(len, groups.values())) < 2:
        return ""
    lists = []
    for name, sections in groups.items():
        items = "".join(f'<li><a href="#{s.slug}">{escape(s.title)}</a></li>' for s in sections)
        lists.append((f"<h2>{escape(name)}</h2>\n" if len(groups) > 1 else "") + f"<ul>{items}</ul>")
    return '<nav aria-label="Tables">' + "\n".join(lists) + "</nav>"


def _group(name: str, sections: Sequence[Section], *, titled: bool) -> str:
    """Sections below a common heading, where a page has more than one group of them."""
    level = 3 if titled else 2
    heading = f'<h2 class="group">{escape(name)}</h2>\n' if titled else ""
    return heading + "\n".join(_section(s, level) for s in sections)


def _section(of: Section, level: int) -> str:
    parts = [f'<section id="{of.slug}">\n<h{level}>{escape(of.title)}</h{level}>\n{of.html}']
    drawn: dict[str, list[str]] = {"figures": [], "figures wide": []}
    for name, svg in of.figures.items():
        text = caption(name, of.headings)
        drawing = inline(svg, f"{of.slug}-{name}", escape(text))
        group = "figures wide" if is_wide(name) else "figures"
        drawn[group].append(f"<figure>{drawing}<figcaption>{escape(text)}.</figcaption></figure>")
    parts += [f'<div class="{group}">\n' + "\n".join(found) + "\n</div>" for group, found in drawn.items() if found]
    return "\n".join([*parts, "</section>"])


def _sheet(dataset: str, address: str) -> str:
    text = f"Two samples of {dataset} and each method's mix of them, with the share of each label (draws of 25 to 75 %)"
    return (
        f'<section id="mixes-{escape(dataset)}">\n<h2>What the methods do: {escape(dataset)}</h2>\n'
        f'<figure class="sheet" tabindex="0"><img src="{escape(address)}" alt="{escape(text)}">'
        f"<figcaption>{escape(text)}.</figcaption></figure>\n</section>"
    )


def _records(records: Sequence[RunRecord], link: Link) -> str:
    """All runs, one line each."""
    head = ("Record", "Method", "Seed", "Clean error (%)", "Seconds", "Commit", "Finished", "Hardware")
    folder = os.path.commonpath([r.path.parent.parent for r in records])  # what all names begin with tells nothing
    columns = "".join(f'<th scope="col" aria-sort="none"><button type="button">{name}</button></th>' for name in head)
    rows = "\n".join(_record_row(r, folder, link) for r in records)
    return (
        '<section id="records">\n<h2>Records</h2>\n'
        '<div class="scroll records" tabindex="0" role="region" aria-label="Records">\n<table class="sortable">\n'
        f'<caption class="unseen">Records</caption>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n</section>"
    )


def _record_row(record: RunRecord, folder: str, link: Link) -> str:
    def numeric(value: float | None, digits: int) -> str:
        return f'<td data-value="{value!r}">{value:.{digits}f}</td>' if value is not None else _EMPTY_CELL

    name = record.path.relative_to(folder).as_posix()
    cells = [
        f'<th scope="row"><a href="{escape(link(record))}">{escape(name)}</a></th>',
        f"<td>{escape(record.mixer.label)}</td>",
        f'<td data-value="{record.seed}">{record.seed}</td>',
        numeric(record.metric("top1_error"), 2),
        numeric(record.timing.get("seconds"), 1),
        f"<td>{escape(commit_text(record))}</td>",
        f"<td>{escape(record.finished or EMPTY)}</td>",
        f"<td>{escape(hardware_text(record))}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


_EMPTY_CELL = f'<td class="empty">{EMPTY}</td>'


def _nothing_yet() -> str:
    return (
        "<p>No runs yet: there is no record, hence no number. These two commands train the demo on a CPU and make "
        f"its page:</p>\n<pre><code>{escape(FILL_COMMAND)}</code></pre>\n"
        "<p>How records get into this folder: see README.md beside it.</p>"
    )


def _how(command: str) -> str:
    return f"<p>Made from the records alone by <code>{escape(command)}</code>.</p>" if command else ""
