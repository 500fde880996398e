"""The page in headless Chromium: no errors, sorting, links, phone width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scripts import make_tables
from tests.records.fakes import write_run
from tests.records.fakes_grid import grid, record_text, write_grid

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")]
# A page in a frame of its own width: a window of Chromium is never narrower than 500 pixels.
FRAME = """<!DOCTYPE html><html><head><title></title></head><body style="margin:0">
<iframe src="index.html" style="border:0;width:{width}px;height:800px"></iframe><script>
const errors = [];
window.onload = () => {{
  const frame = document.querySelector('iframe'), page = frame.contentDocument, view = frame.contentWindow, seen = {{}};
  try {{ {probe} }} catch (error) {{ errors.push(String(error)); }}
  const told = document.createElement('pre');
  told.id = 'told'; told.textContent = JSON.stringify({{...seen, errors}});
  document.body.append(told);
}};
</script></body></html>"""
SORTING = """
  const order = table => [...table.tBodies].map(b => [...b.rows].map(r => r.cells[0].textContent));
  const table = page.querySelector('#paper-table1 table'), heads = [...table.querySelectorAll('th[aria-sort]')];
  seen.orders = [order(table)];
  for (let i = 0; i < 3; i++) { heads[2].querySelector('button').click(); seen.orders.push(order(table)); }
  seen.states = heads.map(h => h.getAttribute('aria-sort'));
  heads[1].querySelector('button').focus();
  seen.focused = view.getComputedStyle(page.activeElement).cursor;
  const setting = page.querySelector('[id^=digits-] table');
  setting.querySelectorAll('button')[2].click();
  seen.setting = [setting.querySelectorAll('th[aria-sort]')[2].getAttribute('aria-sort'), order(setting)];
"""
WIDTH = """
  for (const opened of page.querySelectorAll('details')) opened.open = true;
  seen.widths = [page.documentElement.scrollWidth, view.innerWidth, page.body.scrollWidth];
  seen.captions = [...page.querySelectorAll('table')].map(t => t.caption ? t.caption.textContent.length : 0);
  seen.regions = [...page.querySelectorAll('.scroll')].map(r => [r.tabIndex, r.getAttribute('aria-label').length > 0]);
  seen.headings = [...page.querySelectorAll('h1,h2,h3')].map(h => Number(h.tagName[1]));
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both scales partly filled, and one setting outside of the grids."""
    root = tmp_path_factory.mktemp("page")
    for number, (row, table, error) in enumerate(
        (("mixup", 1, 8.0), ("cutmix", 1, 6.0), ("randomix", 1, 5.0), ("authors-fmix", 1, 7.0), ("M", 6, 30.0))
    ):
        for seed in (0, 1):
            path = root / "records" / f"{number}-{seed}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(record_text(row, table, seed, error + seed, noise=None))
    write_run(root / "records", "baseline", 0, 10.0)
    write_run(root / "records", "mixup", 0, 8.0)
    for scale in ("paper", "demo"):
        write_grid(root / "grid", grid(scale))
    assert make_tables.main([str(root / "records"), "--out", str(root), "--sheet", "never"]) == 0
    yield root


def look(report: Path, probe: str, width: int = 1200) -> dict[str, Any]:
    """What ``probe`` notes down in ``seen`` about the page."""
    frame = report / "page" / "frame.html"
    frame.write_text(FRAME.format(width=width, probe=probe))
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--enable-logging=stderr",
        "--disable-background-networking",
        "--allow-file-access-from-files",
        f"--user-data-dir={report / 'profile'}",
    ]
    command = ["chromium", *flags, "--dump-dom", frame.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if ":CONSOLE" in line] == []
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stdout[-2000:]
    seen = json.loads(unescape(told[1]))
    assert seen["errors"] == []
    return seen


def test_columns_sort_within_the_parts_of_a_table(report: Path) -> None:
    seen = look(report, SORTING)
    start, up, down, again = seen["orders"]
    part = "Recipes of the methods' own authors; the paper's numbers are theirs"
    assert start == again and start[0][:2] == [part, "Mixup"] and start[1][0] == "The paper's recipe"
    assert up[0][:2] == [part, "FMix"] and up[1][:4] == ["The paper's recipe", "Mixup", "CutMix", "RandoMix"]
    assert down[1][:4] == ["The paper's recipe", "RandoMix", "CutMix", "Mixup"]  # empty cells stay last
    assert set(seen["states"]) == {"none"} and len(seen["states"]) == 13 and seen["focused"] == "pointer"
    assert seen["setting"] == ["ascending", [["Mixup", "Baseline"]]]


@pytest.mark.parametrize("width", [390, 1200])
def test_the_body_does_not_overflow_and_tables_are_labelled(report: Path, width: int) -> None:
    seen = look(report, WIDTH, width)
    assert seen["widths"][1] == width and max(seen["widths"]) <= width
    assert len(seen["captions"]) == 14 and min(seen["captions"]) > 5  # six at each scale, a setting, the records
    assert all(region == [0, True] for region in seen["regions"])
    levels = seen["headings"]
    assert levels[0] == 1 and all(b <= a + 1 for a, b in pairwise(levels))


def test_every_link_resolves(report: Path) -> None:
    pages = [report / "page" / "index.html", *report.glob("tables/**/*.html"), *report.glob("tables/**/*.md")]
    assert len(pages) == 1 + 2 * 13
    for path in pages:
        text = path.read_text()
        links = re.findall(r'href="([^"]+)"', text) + re.findall(r"\]\(([^)]+)\)", text)
        ids = set(re.findall(r'\bid="([^"]+)"', text))
        for link in links:
            assert link[1:] in ids if link[0] == "#" else link == "data:," or (path.parent / link).is_file(), link
