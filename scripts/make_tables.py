"""Tables, figures and a page from recorded runs: python scripts/make_tables.py outputs/demo --out outputs/demo/report.

Reads every record below the given folders, prints one table for each setting and writes below --out:
tables/*.{md,tex,csv,html}, figures/*.svg, page/index.html and, if the records lie elsewhere, records/. With grids
(--grid, or grid/*.json below --out) the paper's Tables 1-6 come first, in tables/{paper,demo}/: the records that fill
their cells are not tabulated a second time by setting.
The same records give the same bytes. Exit codes: 0 done, 2 no records or a wrong argument, 5 a file cannot be written.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from randomix.errors import USER, StorageError  # noqa: E402
from randomix.files import storage_errors, write_atomic  # noqa: E402
from randomix.records import grid as grids  # noqa: E402
from randomix.records import render, reproduced_text, store  # noqa: E402
from randomix.records.aggregate import settings  # noqa: E402
from randomix.records.page import standalone_paper_table, standalone_table, to_page, unique_records  # noqa: E402
from randomix.records.record import RunRecord  # noqa: E402
from randomix.records.reproduced import reproduce  # noqa: E402
from randomix.records.reproduced_cells import ReproducedTable  # noqa: E402
from randomix.records.tables import Table, build_tables  # noqa: E402

SHEET_MIXERS = ("mixup", "cutmix", "fmix", "resizemix")
_GENERATED = re.compile(r".*-[0-9a-f]{8}(-\w+)?\.(md|tex|csv|html|svg)|(paper|demo|smoke)-table\d-[\w-]+\.svg")
_OF_PAPER = re.compile(r"table\d\.(md|tex|csv|html)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    out = options.out
    inside = [_is_inside(root, out) for root in options.roots]
    missing = [str(r) for r, own in zip(options.roots, inside, strict=True) if not r.exists() and not own]
    if missing:
        return _fail(f"no such folder: {', '.join(missing)}")
    folder = options.grid or out / "grid"
    if options.grid and not folder.is_dir():
        return _fail(f"--grid {folder}: no such folder")
    skip = [folder] if any(inside) else [out, folder]  # copies that an earlier call made there are not sources
    records, warnings = store.load(options.roots, skip=skip)
    reproduced = _reproduced(folder, records, warnings)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not records and (warnings or not all(inside)):
        return _fail(
            f"no records of runs below {', '.join(map(str, options.roots))}: train first, for example "
            "python train.py experiment=demo"
        )
    known = sorted({name for r in records for name in r.metrics.get("last", {})} - {"epoch"})
    unknown = [name for name in options.metrics or () if name not in known]
    if records and unknown:
        return _fail(f"--metrics {' '.join(unknown)}: not in the records; choose from {', '.join(known)}")
    try:
        tables = build_tables(_beyond(records, reproduced), options.metrics)
        with storage_errors(out):
            page = _write(reproduced, tables, _place(records, out), out, options)
    except StorageError as error:
        return _fail(str(error), error.exit_code)
    for table in tables:
        print(render.to_terminal(table))
    for table in reproduced:
        possible, at = sum(c.exists for c in table.cells), "" if table.scale == grids.PAPER else f" scale={table.scale}"
        rest = f"; the others: python scripts/reproduce.py table={table.paper.number}{at}"
        print(
            f"{table.title}: {table.filled} of {possible} cells filled, see {_paper_base(table, out)}.md"
            f"{rest if table.filled < possible else ''}"
        )
    if not records:
        print("no runs yet: the page says how to make some")
    print(f"page: {page}")
    return 0


def _reproduced(folder: Path, records: Sequence[RunRecord], warnings: list[str]) -> list[ReproducedTable]:
    """The paper's tables at each scale that has a grid and, but for the paper's own scale, at least one number."""
    found = []
    for scale in grids.SCALES:
        path = folder / f"{scale}.json"
        if not path.is_file():
            continue
        grid, lines = grids.read(path)
        warnings += lines
        if grid is not None and grid.scale != scale:
            warnings.append(f"{path}: left out: its scale is {grid.scale}, its name says {scale}")
        elif grid is not None:
            tables = reproduce(grid, records)
            found += tables if scale == grids.PAPER or any(t.filled for t in tables) else []
    return found


def _beyond(records: Sequence[RunRecord], reproduced: Sequence[ReproducedTable]) -> list[RunRecord]:
    """The records of all settings of which the paper's tables do not show every run."""
    used = {r.path for r in unique_records((), reproduced)}
    return [r for s in settings(records) if any(r.path not in used for r in s.records) for r in s.records]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_tables.py", description=__doc__.partition("\n")[0])
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="folders (or files) with records of runs")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    parser.add_argument("--title", default="RandoMix benchmark", help="of the page")
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="NAME",
        help="columns, for example top1_error ece; default: all errors that were measured",
    )
    parser.add_argument(
        "--grid",
        type=Path,
        metavar="DIR",
        help="folder with grids of the paper's tables, "
        "SCALE.json, by scripts/reproduce.py; default: grid below --out, if there is one",
    )
    parser.add_argument(
        "--sheet",
        choices=("auto", "never"),
        default="auto",
        help="draw mixed images with scripts/show_mixes.py where torch and the data are at hand "
        "(default), or never; a sheet that is there is kept",
    )
    return parser


def _write(
    reproduced: Sequence[ReproducedTable],
    tables: Sequence[Table],
    places: dict[Path, Path],
    out: Path,
    options: argparse.Namespace,
) -> Path:
    """Write all files below ``out``; returns the page's path. ``places``: where each record lies, by its store path."""

    def linked(folder: Path) -> render.Link:
        return lambda record: Path(os.path.relpath(places[record.path], folder)).as_posix()

    figures = _figures(reproduced, tables)
    files: dict[Path, str] = {}
    for table in reproduced:
        base = _paper_base(table, out)
        link = linked(base.parent)
        files[Path(f"{base}.md")] = reproduced_text.to_markdown(table, link)
        files[Path(f"{base}.tex")] = reproduced_text.to_latex(table)
        files[Path(f"{base}.csv")] = reproduced_text.to_csv(table, link)
        files[Path(f"{base}.html")] = standalone_paper_table(table, link)
    for table in tables:
        base, link = out / "tables" / table.slug, linked(out / "tables")
        files[Path(f"{base}.md")] = render.to_markdown(table, link)
        files[Path(f"{base}.tex")] = render.to_latex(table)
        files[Path(f"{base}.csv")] = render.to_csv(table, link)
        files[Path(f"{base}.html")] = standalone_table(table, link)
    for slug, drawn in figures.items():
        for name, svg in drawn.items():
            files[out / "figures" / f"{slug}-{name}.svg"] = _standalone_figure(svg)
    sheets = _sheets(unique_records(tables, reproduced), out) if options.sheet == "auto" else {}
    page = out / "page" / "index.html"
    files[page] = to_page(
        options.title,
        tables,
        figures,
        linked(page.parent),
        reproduced=reproduced,
        sheets=sheets,
        command=_command(options),
    )
    for path, text in files.items():
        write_atomic(path, text, durable=False, parents=True)  # can be made again
    _remove_stale(out, set(files))
    return page


def _paper_base(table: ReproducedTable, out: Path) -> Path:
    """``out/tables/paper/table1``: where its files lie, without their suffix."""
    return out / "tables" / table.scale / table.paper.slug


def _place(records: Sequence[RunRecord], out: Path) -> dict[Path, Path]:
    """Where each record lies: below ``out`` already, or in a copy made in out/records."""
    places = {}
    for record in records:
        assert record.source is not None
        own = _is_inside(record.source, out)
        places[record.path] = record.source.resolve() if own else store.add(record, out / "records").resolve()
    return places


def _figures(reproduced: Sequence[ReproducedTable], tables: Sequence[Table]) -> dict[str, dict[str, str]]:
    """SVG text by a table's slug and figure name; none, and a line about it, without Matplotlib."""
    if not tables and not any(t.filled for t in reproduced):
        return {}
    from randomix.records.figures import table_figures
    from randomix.records.figures_paper import reproduced_figures

    try:
        return {t.slug: reproduced_figures(t) for t in reproduced} | {t.slug: table_figures(t) for t in tables}
    except ImportError as error:
        print(f"no figures: {error}", file=sys.stderr)
        return {}


def _standalone_figure(svg: str) -> str:
    from randomix.records.figures import standalone

    return standalone(svg)


def _sheets(records: Sequence[RunRecord], out: Path) -> dict[str, str]:
    """Sheets of mixed images by data set, addressed from the page; one line on each that cannot be drawn."""
    sheets = {}
    for name in dict.fromkeys(r.dataset for r in records):
        path = out / "figures" / f"mixes-{name}.png"
        reason = None if path.is_file() else _draw_sheet(name, path)
        if reason is None:
            sheets[name] = f"../figures/{path.name}"
        else:
            print(f"no sheet of mixed images for {name}: {reason}", file=sys.stderr)
    return sheets


def _draw_sheet(name: str, path: Path) -> str | None:
    """Draw in a process of its own, so that making tables loads no torch; returns why not, or None."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    script = [sys.executable, str(CHECKOUT / "scripts" / "show_mixes.py")]
    wanted = ["--dataset", name, "--samples", "4", "--mixers", *SHEET_MIXERS, "--out", str(path)]
    try:
        done = subprocess.run([*script, *wanted], capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    lines = done.stderr.strip().splitlines() or [f"show_mixes.py ended with {done.returncode}"]
    return None if done.returncode == 0 else lines[-1]


def _remove_stale(out: Path, written: set[Path]) -> None:
    """Remove tables and figures of settings that the records no longer have."""
    folders = {out / "tables": _GENERATED, out / "figures": _GENERATED}
    folders |= {out / "tables" / scale: _OF_PAPER for scale in grids.SCALES}
    for folder, names in folders.items():
        for path in sorted(folder.iterdir() if folder.is_dir() else ()):
            if path not in written and names.fullmatch(path.name):
                path.unlink()
                print(f"removed {path}: no record is behind it", file=sys.stderr)


def _command(options: argparse.Namespace) -> str:
    """The command that was given, without folders of this machine."""
    roots = " ".join(p.name if p.is_absolute() else p.as_posix() for p in options.roots)
    out = options.out.name if options.out.is_absolute() else options.out.as_posix()
    return f"python scripts/make_tables.py {roots} --out {out}"


def _is_inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _fail(message: str, code: int = USER) -> int:
    print(f"make_tables.py: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
