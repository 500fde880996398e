"""Comparison tables: methods by metrics, each cell with the runs behind it. ``render`` turns them into text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from randomix.records.aggregate import (
    Difference,
    Group,
    Setting,
    Statistic,
    cost,
    data_digests,
    difference,
    differences,
    settings,
    time_measure,
)
from randomix.records.identity import evaluation
from randomix.records.record import RunRecord

COST = "cost"


@dataclass(frozen=True)
class Column:
    """One quantity. ``compared`` columns mark the best value and show the difference to the Baseline."""

    metric: str
    heading: str
    checkpoint: str = "last"
    digits: int = 2
    lower_is_better: bool = True
    compared: bool = True

    @property
    def key(self) -> str:
        """A name that is unique in a table and fit for a CSV header."""
        return self.metric if self.checkpoint == "last" else f"{self.metric}_{self.checkpoint}_epoch"


_HEADINGS = {
    "top1_error": "Clean error (%)",
    "fgsm_error": "FGSM error (%)",
    "pgd_error": "PGD error (%)",
    "corruption_error": "Corruption error (%)",
    "noise_error": "Noise error (%)",
    "occlusion_error": "Occlusion error (%)",
    "top1": "Top-1 (%)",
    "top5": "Top-5 (%)",
    "loss": "Test loss",
    "ece": "Calibration error (%)",
}
_NOT_ERRORS = ("top5_error", "clean_error")  # the same as top1_error, or of no use with ten classes
_HIGHER_IS_BETTER = ("top1", "top5")


@dataclass(frozen=True)
class Cell:
    """A statistic and how it compares; ``statistic`` is None where nothing was run."""

    statistic: Statistic | None
    best: bool = False
    change: Difference | None = None
    reference: bool = False  # the Baseline's cost: 1 by definition


@dataclass(frozen=True)
class Row:
    """One method."""

    label: str
    mode: str
    group: Group
    cells: tuple[Cell, ...]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        """The runs behind the row, by seed."""
        return self.group.records


@dataclass(frozen=True)
class Table:
    """What one setting's runs say. ``caption`` states what was run, ``notes`` what a reader must know."""

    slug: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    setting: Setting


def column(metric: str, checkpoint: str = "last") -> Column:
    """The column of a metric by its name in records."""
    heading = _HEADINGS.get(metric) or metric.replace("_", " ").capitalize() + (" (%)" if "error" in metric else "")
    if checkpoint == "best":
        heading = heading.replace(" (%)", ", best epoch (%)")
    lower = metric not in _HIGHER_IS_BETTER
    return Column(
        metric,
        heading,
        checkpoint,
        digits=3 if metric == "loss" else 2,
        lower_is_better=lower,
        compared=checkpoint == "last",
    )


def build_tables(records: Iterable[RunRecord], metrics: Sequence[str] | None = None) -> list[Table]:
    """One table for each setting; ``metrics`` chooses the columns, by default all errors that were measured."""
    found = settings(records)
    extra = _setting_differences(found)
    return [_table(s, tuple(metrics) if metrics else None, extra[s.key]) for s in found]


def _table(setting: Setting, metrics: Sequence[str] | None, extra: Sequence[str]) -> Table:
    measure, seconds = time_measure(setting.groups)
    columns = [column(m) for m in (metrics or _measured_errors(setting.records))]
    costs = [cost(g, setting.baseline, seconds) for g in setting.groups]
    if any(costs):
        columns.append(Column(COST, f"Cost ({measure})", compared=False))
    if metrics is None and any(r.metric("top1_error", "best") is not None for r in setting.records):
        columns.append(column("top1_error", "best"))
    by_column = [_cells(setting, c, costs) for c in columns]
    rows = tuple(
        Row(label, g.first.mixer.mode, g, tuple(cells[i] for cells in by_column))
        for i, (g, label) in enumerate(zip(setting.groups, labels(setting.groups), strict=True))
    )
    first = setting.groups[0].first
    slug = re.sub(r"[^A-Za-z0-9_]+", "-", f"{first.dataset}-{first.model}") + f"-{setting.key}"
    title = f"{data_text(setting.records)}, {first.model}" + (f" ({', '.join(extra)})" if extra else "")
    notes = tuple(_notes(setting, columns, rows, measure))
    return Table(slug, title, caption(setting.records), tuple(columns), rows, notes, setting)


def _cells(setting: Setting, of: Column, costs: Sequence[Statistic | None]) -> list[Cell]:
    """One column's cells, from top to bottom."""
    is_cost = of.metric == COST
    values = list(costs) if is_cost else [g.metric(of.metric, of.checkpoint) for g in setting.groups]
    base = setting.baseline
    baseline = values[setting.groups.index(base)] if base is not None else None
    means = [round(v.mean, 9) for v in values if v is not None]
    best = (min(means) if of.lower_is_better else max(means)) if of.compared and len(means) > 1 else None
    return [
        Cell(
            v,
            best=v is not None and round(v.mean, 9) == best,
            change=difference(v, baseline) if of.compared and g is not base else None,
            reference=is_cost and g is base,
        )
        for g, v in zip(setting.groups, values, strict=True)
    ]


def labels(groups: Sequence[Group]) -> list[str]:
    """Names of methods; those that would be equal get the settings in which they differ."""
    plain = [g.first.mixer.label for g in groups]
    counts, result = Counter(plain), list(plain)
    for label in (k for k, n in counts.items() if n > 1):
        same = [i for i, text in enumerate(plain) if text == label]
        for i, differing in zip(same, differences([groups[i].first.config["mixer"] for i in same]), strict=True):
            result[i] = f"{label} ({', '.join(differing) or groups[i].config_hash})"
    return result


def caption(records: Sequence[RunRecord]) -> str:
    """What was run, where and when, in one paragraph: from the records alone."""
    first = records[0]
    recipe = first.config["recipe"]
    sizes = (
        f"{_one_of(_size(r, 'train') for r in records)} training and {_one_of(_size(r, 'test') for r in records)} test"
    )
    seeds = sorted({r.seed for r in records})
    epochs = f"{recipe.get('epochs', '?')} epochs of batches of {recipe.get('batch_size', '?')}"
    dates = sorted({r.finished[:10] for r in records if r.finished})
    when = "" if not dates else dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    parts = [
        f"{data_text(records)}: {sizes} samples",
        f"{first.model}, {epochs}",
        f"seed{'s' if len(seeds) > 1 else ''} {_ranges(seeds)}",
        _one_of(hardware_text(r) for r in records),
        "torch " + _one_of(str((r.provenance.get("versions") or {}).get("torch", "unknown")) for r in records),
        "commit " + _one_of(commit_text(r) for r in records),
    ]
    return "; ".join(parts) + (f"; {when}" if when else "") + "."


def data_text(records: Sequence[RunRecord]) -> str:
    """The data set's name; what is synthetic is said to be so wherever its name stands."""
    made = {str(r.data.get("source", "of unknown origin")) for r in records if r.data.get("synthetic")}
    return records[0].dataset + (f" (SYNTHETIC: {'; '.join(sorted(made))})" if made else "")


def commit_text(record: RunRecord) -> str:
    """The commit's first ten digits, and whether the code had changed since."""
    commit = record.provenance.get("git_commit")
    if not commit:
        return "unknown"
    return str(commit)[:10] + (" with uncommitted changes" if record.provenance.get("git_dirty") else "")


def hardware_text(record: RunRecord) -> str:
    """What the run computed on: the GPUs, or the CPU."""
    seen, device = record.provenance.get("hardware") or {}, record.provenance.get("device")
    ranks = record.provenance.get("world_size") or 1
    if device == "cuda" and seen.get("gpu"):
        return f"{ranks} x {seen['gpu']}, {record.provenance.get('precision', '')}".rstrip(", ")
    threads = record.provenance.get("threads")
    used = f"{threads} thread{'s' if threads != 1 else ''}" if threads else f"{seen.get('cores', '?')} cores"
    return f"{seen.get('cpu') or 'CPU unknown'}, {used}" + (f", {ranks} processes" if ranks > 1 else "")


def _measured_errors(records: Sequence[RunRecord]) -> list[str]:
    """Names of the errors that some run has, known ones in the order of the paper's Table 4."""
    seen = {k for r in records for k, v in r.metrics.get("last", {}).items() if k.endswith("_error") and v is not None}
    known = [k for k in _HEADINGS if k in seen]
    return known + sorted(seen - set(known) - set(_NOT_ERRORS))


def _notes(setting: Setting, columns: Sequence[Column], rows: Sequence[Row], measure: str) -> Iterable[str]:
    cells = [(c, row) for row in rows for c in row.cells]
    if any(c.best for c, _ in cells):
        yield "Bold: the best mean of a column, whether or not the difference is larger than the spread over seeds."
    if any(c.change for c, _ in cells):
        unpaired = any(c.change and not c.change.paired for c, _ in cells)
        yield (
            "Arrows: difference to the Baseline over the seeds both have"
            + ("; where there is no common seed, between the means." if unpaired else ".")
        )
    if setting.baseline is None:
        baselines = sum(g.first.mixer.name == "baseline" for g in setting.groups)
        reason = "more than one Baseline configuration" if baselines else "no Baseline run"
        yield f"There is {reason} in this setting: no differences and no cost."
    if any(c.metric == COST for c in columns):
        yield f"Cost: {measure} of a training epoch divided by the Baseline's of the same seed on the same hardware."
    if any(c.checkpoint == "best" for c in columns):
        yield "Best epoch: chosen on the test samples, hence optimistic; the other columns are of the last epoch."
    if len({tuple(row.group.seeds) for row in rows}) > 1:
        yield "Not all methods were run with the same seeds."
    lost = sorted({r.run for r in setting.records for c in columns if _is_null(r, c)})
    if lost:
        yield f"Not finite, hence left out: values of {', '.join(lost)}."
    if len({str(data_digests(r)) for r in setting.records}) > 1:
        yield "The runs did not all see the same data files: their checksums differ."


def _is_null(record: RunRecord, of: Column) -> bool:
    values = record.metrics.get(of.checkpoint, {})
    return of.metric in values and values[of.metric] is None


def _setting_differences(found: Sequence[Setting]) -> dict[str, list[str]]:
    """For settings that share data set and network, what tells them apart."""
    result: dict[str, list[str]] = {s.key: [] for s in found}
    pairs = {(s.groups[0].dataset, s.groups[0].model) for s in found}
    for pair in pairs:
        same = [s for s in found if (s.groups[0].dataset, s.groups[0].model) == pair]
        configs = [
            {k: v for k, v in s.groups[0].first.config.items() if k in ("dataset", "model", "recipe", "trainer")}
            | {"evaluator": evaluation(s.groups[0].first.config) or {}}
            for s in same
        ]
        texts = [
            [t for t in found if not t.startswith("trainer.") or t.startswith("trainer.prec")]
            for found in differences(configs)
        ]
        for index, setting in enumerate(same):
            result[setting.key] = distinguishing(texts[index], texts[:index] + texts[index + 1 :])
    return result


def distinguishing(own: Sequence[str], others: Sequence[Sequence[str]], at_most: int = 4) -> list[str]:
    """The few of ``own`` that tell it from each of ``others``, then those that no other has; "..." for what is cut."""
    chosen: list[str] = []
    left = list(others)
    while left and own:
        best = max(own, key=lambda text: sum(text not in other for other in left))
        if all(best in other for other in left):
            break
        chosen.append(best)
        left = [other for other in left if best in other]
    chosen += [t for t in own if t not in chosen and not any(t in other for other in others)]
    listed = set(chosen[:at_most])
    return [t for t in own if t in listed] + ["..."] * (len(chosen) > at_most)


def _size(record: RunRecord, split: str) -> str:
    size = record.data.get(f"{split}_samples")
    return f"{size:,}" if isinstance(size, int) else "an unknown number of"


def _one_of(texts: Iterable[str]) -> str:
    """The common text, or all that occur, in order of appearance."""
    return " / ".join(dict.fromkeys(texts))


def _ranges(numbers: Sequence[int]) -> str:
    """[0, 1, 2, 5] as "0-2, 5"."""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
