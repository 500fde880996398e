"""Tables, their five renderings, figures and the page."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from randomix.records import figures, page, render
from randomix.records.record import RunRecord
from randomix.records.tables import build_tables, distinguishing
from tests.records.fakes import fake


def link(record: RunRecord) -> str:
    return f"../records/{record.path}"


def runs() -> list[RunRecord]:
    """Baseline 10, 12; Mixup 9, 9 and CutMix a single run of 11."""
    found = [fake("randomix", 0, 8.0, mixer={"weights": [3, 1]}), fake("cutmix", 0, 11.0, noise=None)]
    found += [fake("mixup", s, 9.0, noise=30.0 + s) for s in (0, 1)]
    return found + [fake("baseline", s, e) for s, e in ((0, 10.0), (1, 12.0))]


@pytest.fixture(scope="module")
def table():
    (only,) = build_tables(runs())
    return only


def test_rows_and_cells(table) -> None:
    assert [r.label for r in table.rows] == ["Baseline", "Mixup", "CutMix", "RandoMix [3,1]"]
    assert [c.key for c in table.columns] == ["top1_error", "noise_error", "cost", "top1_error_best_epoch"]
    text = [[render._plain(c, col) for c, col in zip(r.cells, table.columns, strict=True)] for r in table.rows]
    assert text[0] == ["11.00 ± 1.41 (2)", "50.00 ± 0.00 (2)", "1.00", "10.00 ± 1.41 (2)"]
    assert text[1] == ["9.00 ± 0.00 (2) ↓2.00", "30.50 ± 0.71 (2) ↓19.50", "1.00 ± 0.00 (2)", "8.00 ± 0.00 (2)"]
    assert text[2] == ["11.00 (1 run) ↑1.00", render.EMPTY, "1.00 (1 run)", "10.00 (1 run)"]
    assert [[c.best for c in r.cells[:2]] for r in table.rows] == [[0, 0], [0, 1], [0, 0], [1, 0]]
    assert [s.record.seed for s in table.rows[1].cells[0].statistic.samples] == [0, 1]


def test_synthetic_data_say_so_wherever_they_are_named() -> None:
    made = {"synthetic": True, "source": "words spoken by a program"}
    (shown,) = build_tables([fake(data=made), fake("mixup", data=made)])
    assert shown.title == "digits (SYNTHETIC: words spoken by a program), preact_resnet18"
    assert shown.caption.startswith("digits (SYNTHETIC: words spoken by a program): 200 training")
    assert "on digits (SYNTHETIC: words spoken by a program)." in page.to_page("t", [shown], {}, link)


def test_caption_and_notes_come_from_the_records(table) -> None:
    assert table.caption == (
        "digits: 200 training and 597 test samples; preact_resnet18, 3 epochs of batches of 50; "
        "seeds 0-1; Fake CPU, 1 thread; torch 0.0.0-fake; commit 0000000000; 2001-01-01."
    )
    assert "Not all methods were run with the same seeds." in table.notes
    (dirty,) = build_tables([fake(provenance={"git_dirty": True})])
    assert "with uncommitted changes" in dirty.caption
    assert (
        "There is no Baseline run in this setting: no differences and no cost."
        in build_tables([fake("mixup")])[0].notes
    )


def test_a_value_that_is_not_finite_is_reported() -> None:
    (found,) = build_tables([fake(), fake("mixup", noise=float("nan"))])
    assert found.rows[1].cells[1].statistic is None
    assert any(n.startswith("Not finite, hence left out: values of digits/preact_resnet18/mixup-") for n in found.notes)


def test_equal_labels_and_settings_are_told_apart() -> None:
    variants = [fake("mixup", mixer={"alpha": a}) for a in (0.2, 1.0)]
    assert [r.label for r in build_tables(variants)[0].rows] == ["Mixup (alpha=0.2)", "Mixup (alpha=1)"]
    found = build_tables([fake(), fake(recipe={"lr": 0.3})])
    assert sorted(t.title for t in found) == [f"digits, preact_resnet18 (recipe.lr={v})" for v in ("0.1", "0.3")]
    assert len({t.slug for t in found}) == 2


def test_titles_name_only_what_tells_a_setting_from_the_others() -> None:
    many = {f"key{i}": 1 for i in range(9)}
    found = build_tables([fake(), fake(recipe=many), fake(recipe={"lr": 0.3})])
    assert sorted(t.title.partition(" (")[2] for t in found) == [
        "recipe.key0=1, recipe.key1=1, recipe.key2=1, recipe.key3=1, ...)",
        "recipe.lr=0.1)",
        "recipe.lr=0.3)",
    ]
    assert distinguishing(["a=1", "b=1", "c=1"], [["a=1", "b=2", "c=1"], ["a=2", "b=1", "c=1"]]) == ["a=1", "b=1"]


def test_chosen_columns() -> None:
    (found,) = build_tables(runs(), ["top1", "loss"])
    assert [c.heading for c in found.columns] == ["Top-1 (%)", "Test loss", "Cost (CPU time)"]
    assert [r.label for r in found.rows if r.cells[0].best] == ["RandoMix [3,1]"]  # the highest
    assert render.improves(found.rows[1].cells[0].change, found.columns[0]) is True


def test_markdown(table) -> None:
    text = render.to_markdown(table, link)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 6 and len({line.count("|") for line in lines}) == 1
    assert "| **8.00** (1 run) ↓2.00 |" in lines[-1] and "[0](../records/digits/" in lines[-1]


def test_latex_escapes_and_balances() -> None:
    escaped = r"a\_b \& 5\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} \$"
    assert render.tex_escape(r"a_b & 5% #1 {x} ~^\ $") == escaped
    (found,) = build_tables([fake(), fake("my_mix", mixer={"label": "50% & my_mix #1"})])
    text = render.to_latex(found)
    assert r"50\% \& my\_mix \#1 & m & \textbf{10.00} (1 run) =" in text
    assert re.sub(r"\\[{}]", "", text).count("{") == re.sub(r"\\[{}]", "", text).count("}")
    assert r"\toprule" in text and "↓" not in text and "±" not in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1


def test_csv_has_full_precision(table) -> None:
    rows = list(csv.DictReader(io.StringIO(render.to_csv(table, link))))
    assert float(rows[0]["top1_error_std"]) == 2**0.5 and rows[0]["top1_error_delta"] == ""
    assert rows[1]["top1_error_delta"] == "-2.0" and rows[1]["top1_error_delta_n"] == "2"
    assert rows[2]["noise_error_mean"] == "" and rows[2]["top1_error_std"] == "" and rows[2]["top1_error_n"] == "1"
    assert len(rows[1]["records"].split()) == 2


def test_terminal_aligns_the_means(table) -> None:
    lines = render.to_terminal(table).splitlines()
    rows = lines[3:7]
    assert rows[0].startswith("Baseline") and "* 8.00" not in rows[3] and "*8.00 (1 run) ↓2.00" in rows[3]
    assert len({line.index(".00") for line in rows}) == 1


class Links(HTMLParser):
    """Addresses and ids of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src", "xlink:href", "action") and value:
                self.addresses.append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_page_is_self_contained_accessible_and_escaped() -> None:
    found = build_tables([*runs(), fake("evil", mixer={"label": "<script>alert(1)</script>"})])
    drawn = {t.slug: figures.table_figures(t) for t in found}
    html = page.to_page("A <title>", found, drawn, link, sheets={"digits": "../figures/mixes-digits.png"})
    assert "<script>alert" not in html and "A &lt;title&gt;" in html
    assert re.findall(r"(?:https?:)?//[a-z]", re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)) == []
    assert "@import" not in html and "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    assert html.count('aria-sort="none"') == len(found[0].columns) + 2 + 8
    links = Links()
    links.feed(html)
    assert len(links.ids) == len(set(links.ids))
    outside = {a for a in links.addresses if not a.startswith(("#", "data:,"))}
    assert outside == {link(r) for r in found[0].setting.records} | {"../figures/mixes-digits.png"}
    assert {a[1:] for a in links.addresses if a.startswith("#")} <= set(links.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(links.ids)


def test_empty_page_says_so() -> None:
    html = page.to_page("Nothing", [], {}, link)
    assert "No runs yet" in html and "python train.py experiment=demo" in html and "<table" not in html


def test_figures_are_reproducible_svg_in_the_colours_of_the_page(table) -> None:
    first, second = figures.table_figures(table), figures.table_figures(table)
    assert first == second
    assert list(first) == ["top1_error", "noise_error", "curve_top1_error", "curve_train_loss"]
    for svg in first.values():
        ElementTree.fromstring(figures.standalone(svg))
        assert "currentColor" in svg and "#010203" not in svg and "<dc:date>" not in svg
    assert "prefers-color-scheme:dark" in figures.standalone(first["top1_error"])


def test_every_rendering_is_the_same_for_any_order_of_records() -> None:
    def everything(records: list[RunRecord]) -> list[str]:
        (one,) = build_tables(records)
        texts = [render.to_latex(one), render.to_terminal(one), page.to_page("t", [one], {}, link)]
        return [*texts, *(to(one, link) for to in (render.to_markdown, render.to_csv, page.standalone_table))]

    assert everything(runs()) == everything(runs()[::-1])
