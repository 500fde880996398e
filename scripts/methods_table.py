"""The tables of docs/methods.md from records: python scripts/methods_table.py [--write].

Reads results/parity.json (python tests/parity/report.py results/parity.json) and results/benchmarks (python
scripts/benchmark.py step). Without --write it prints the page's tables; with it the page is updated.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "methods.md"
PARITY, BENCHMARKS = ROOT / "results" / "parity.json", ROOT / "results" / "benchmarks"
STEPS = {"width 16": "step-cpu-w16", "width 64": "step-cpu-w64", "GPU": "step-cuda-w64"}
COMPARED = {  # method: the comparisons of the parity report that are about it
    "baseline": (),
    "cutout": ("cutout",),
    "mixup": ("mixup",),
    "cutmix": ("cutmix", "cutmix box_table"),
    "fmix": ("fmix",),
    "resizemix": ("resizemix",),
    "saliencymix": ("saliencymix", "saliencymix maps", "saliencymix peaks"),
    "manifold_mixup": ("manifold_mixup",),
    "patchup": ("patchup",),
    "puzzlemix": ("puzzlemix costs", "puzzlemix"),
    "comixup": ("comixup",),
    "randomix": (),
}


def methods_table() -> str:
    """One row a method: agreement with the authors' outputs, and the cost of a training step."""
    differences = json.loads(PARITY.read_text())["differences"]
    steps = {name: _rows(BENCHMARKS / f"{file}.json") for name, file in STEPS.items()}
    lines = [
        "| `mixer=` | compared numbers | largest difference | " + " | ".join(f"cost, {n}" for n in STEPS) + " |",
        "|---|---:|---:|" + "---:|" * len(STEPS),
    ]
    for method, parts in COMPARED.items():
        found = [differences[part] for part in parts]
        checks = str(sum(f["checks"] for f in found)) if found else "-"
        largest = f"{max(f['largest'] for f in found):.1e}" if found else "-"
        costs = [_cost(rows, method, name) for name, rows in steps.items()]
        lines.append("| " + " | ".join([f"`{method}`", checks, largest, *costs]) + " |")
    return "\n".join(lines) + "\n"


def energies_table() -> str:
    """Puzzle Mix's energies against the authors' graph cut and the exact minimum."""
    rows = json.loads(PARITY.read_text())["puzzlemix_energy"]
    cases = list(dict.fromkeys(name.rpartition(" ")[0] for name in rows))
    lines = [
        "| recorded case | above the exact minimum, worst | against the authors' cut, worst | against it, mean |",
        "|---|---:|---:|---:|",
    ]
    for case in cases:
        exact, swap = rows[f"{case} exact"], rows[f"{case} swap"]
        cells = [f"{v:+.2%}" if v else "0" for v in (exact["largest"], swap["largest"], swap["mean"])]
        lines.append("| " + " | ".join([f"`{case}`", *cells]) + " |")
    return "\n".join(lines) + "\n"


def objectives_table() -> str:
    """Co-Mixup's thresholded objective against that of the authors' solutions."""
    rows = json.loads(PARITY.read_text())["comixup_objective"]
    cases = list(dict.fromkeys(name.partition(",")[0] for name in rows))
    lines = [
        "| recorded case | the authors' solution | ours, `precedence: paper` | ours, `precedence: code` |",
        "|---|---:|---:|---:|",
    ]
    for case in cases:
        paper, code = (rows[f"{case}, precedence {p}"] for p in ("paper", "code"))
        cells = [f"{v:.2f}" for v in (code["authors"], paper["ours"], code["ours"])]
        lines.append("| " + " | ".join([f"`{case}`", *cells]) + " |")
    return "\n".join(lines) + "\n"


TABLES = {"methods": methods_table, "energies": energies_table, "objectives": objectives_table}


def _rows(file: Path) -> dict[str, Any] | None:
    return json.loads(file.read_text())["rows"] if file.is_file() else None


def _cost(rows: dict[str, Any] | None, method: str, name: str) -> str:
    """Time / Baseline's in the same round, median and quartiles: of the processor, on a GPU of the wall clock."""
    if rows is None:
        return "no GPU" if name == "GPU" else ""
    if method not in rows:
        return ""
    low, middle, high = rows[method]["wall" if name == "GPU" else "cpu"]["time_ratio"]
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def fill(page: str) -> str:
    """The page with its tables made anew, between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``."""
    for name, table in TABLES.items():
        pattern = rf"(<!-- {name}: begin -->\n).*?(<!-- {name}: end -->)"
        page, count = re.subn(pattern, lambda m, t=table: m[1] + t() + m[2], page, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"{PAGE}: expected one block {name}, found {count}")
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or write them into the page; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="update docs/methods.md")
    if parser.parse_args(arguments).write:
        PAGE.write_text(fill(PAGE.read_text()))
    else:
        print("\n".join(table() for table in TABLES.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
