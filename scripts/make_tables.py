"""Tables, figures and a page from recorded runs: python scripts/make_tables.py outputs/demo --out outputs/demo/report.

Reads every record below the given folders, prints one table for each setting and writes below --out:
tables/*.{md,tex,csv,html}, figures/*.svg, page/index.html and, if the records lie elsewhere, records/.
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
from randomix.records import render, store  # noqa: E402
from randomix.records.page import standalone_table, to_page  # noqa: E402
from randomix.records.record import RunRecord  # noqa: E402
from randomix.records.tables import Table, build_tables  # noqa: E402

SHEET_MIXERS = ("mixup", "cutmix", "fmix", "resizemix")
_GENERATED = re.compile(r".*-[0-9a-f]{8}(-\w+)?\.(md|tex|csv|html|svg)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    out = options.out
    inside = [_is_inside(root, out) for root in options.roots]
    missing = [str(r) for r, own in zip(options.roots, inside, strict=True) if not r.exists() and not own]
    if missing:
        return _fail(f"no such folder: {', '.join(missing)}")
    skip = [] if any(inside) else [out]  # copies that an earlier call made there are not sources
    records, warnings = store.load(options.roots, skip=skip)
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    if not records and (warnings or not all(inside)):
        return _fail(f"no records of runs below {', '.join(map(str, options.roots))}: train first, for example "
                     "python train.py experiment=demo")  # fmt: skip
    known = sorted({name for r in records for name in r.metrics.get("last", {})} - {"epoch"})
    unknown = [name for name in options.metrics or () if name not in known]
    if records and unknown:
        return _fail(f"--metrics {' '.join(unknown)}: not in the records; choose from {', '.join(known)}")
    try:
        tables = build_tables(records, options.metrics)
        with storage_errors(out):
            page = _write(tables, _place(records, out), out, options)
    except StorageError as error:
        return _fail(str(error), error.exit_code)
    for table in tables:
        print(render.to_terminal(table))
    if not tables:
        print("no runs yet: the page says how to make some")
    print(f"page: {page}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make_tables.py", description=__doc__.partition("\n")[0])
    parser.add_argument("roots", nargs="+", type=Path, metavar="ROOT", help="folders (or files) with records of runs")
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="DIR", help="default: report")
    parser.add_argument("--title", default="RandoMix benchmark", help="of the page")
    parser.add_argument("--metrics", nargs="+", metavar="NAME", help="columns, for example top1_error ece; "
                        "default: all errors that were measured")  # fmt: skip
    parser.add_argument("--sheet", choices=("auto", "never"), default="auto",
                        help="draw mixed images with scripts/show_mixes.py where torch and the data are at hand "
                        "(default), or never; a sheet that is there is kept")  # fmt: skip
    return parser


def _write(tables: Sequence[Table], places: dict[Path, Path], out: Path, options: argparse.Namespace) -> Path:
    """Write all files below ``out``; returns the page's path. ``places``: where each record lies, by its store path."""

    def linked(folder: Path) -> render.Link:
        return lambda record: Path(os.path.relpath(places[record.path], folder)).as_posix()

    figures = _figures(tables)
    files: dict[Path, str] = {}
    for table in tables:
        base, link = out / "tables" / table.slug, linked(out / "tables")
        files[Path(f"{base}.md")] = render.to_markdown(table, link)
        files[Path(f"{base}.tex")] = render.to_latex(table)
        files[Path(f"{base}.csv")] = render.to_csv(table, link)
        files[Path(f"{base}.html")] = standalone_table(table, link)
        for name, svg in figures.get(table.slug, {}).items():
            files[out / "figures" / f"{table.slug}-{name}.svg"] = _standalone_figure(svg)
    sheets = _sheets(tables, out) if options.sheet == "auto" else {}
    page = out / "page" / "index.html"
    files[page] = to_page(options.title, tables, figures, linked(page.parent), sheets=sheets, command=_command(options))
    for path, text in files.items():
        write_atomic(path, text, durable=False, parents=True)  # can be made again
    _remove_stale(out, set(files))
    return page


def _place(records: Sequence[RunRecord], out: Path) -> dict[Path, Path]:
    """Where each record lies: below ``out`` already, or in a copy made in out/records."""
    places = {}
    for record in records:
        assert record.source is not None
        own = _is_inside(record.source, out)
        places[record.path] = record.source.resolve() if own else store.add(record, out / "records").resolve()
    return places


def _figures(tables: Sequence[Table]) -> dict[str, dict[str, str]]:
    if not tables:
        return {}
    from randomix.records.figures import table_figures

    try:
        return {table.slug: table_figures(table) for table in tables}
    except ImportError as error:
        print(f"no figures: {error}", file=sys.stderr)
        return {}


def _standalone_figure(svg: str) -> str:
    from randomix.records.figures import standalone

    return standalone(svg)


def _sheets(tables: Sequence[Table], out: Path) -> dict[str, str]:
    """Sheets of mixed images by data set, addressed from the page; one line on each that cannot be drawn."""
    sheets = {}
    for name in dict.fromkeys(t.setting.groups[0].dataset for t in tables):
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
    for folder in (out / "tables", out / "figures"):
        for path in sorted(folder.iterdir() if folder.is_dir() else ()):
            if path not in written and _GENERATED.fullmatch(path.name):
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
