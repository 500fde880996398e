"""Where the paper's tables and text do not fit together, computed from the printed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from randomix.records.paper import AUTHORS, TABLE, TABLES, Printed, mean_accuracies, recomputed


@dataclass(frozen=True)
class Contradiction:
    """Where the paper's statements do not fit together. ``tables``: whose readers must know; ``gap``: in points."""

    tables: tuple[int, ...]
    text: str
    gap: float | None = None


_CLAIMED = {"mixup": 2.23, "cutmix": 2.5, "puzzlemix": 1.13}  # section 4.2.1: RandoMix over these, CIFAR-100, WRN28-10
_STATED = "randomix-3111"  # the weights of section 4.2.1 for WRN28-10
_WRN = "cifar100-wrn_28_10"
_SINGLE = {"mixup": "M", "cutmix": "C", "fmix": "F", "resizemix": "R"}
_REPEATED = {"baseline": "baseline", **_SINGLE, "randomix": "MCRF"}  # rows of Table 2 and of Table 6: one setting


def contradictions() -> list[Contradiction]:
    """Every contradiction among tables and text, computed from the printed numbers."""
    return [*_wrong_arrows(), *_weights(), *_two_clean_errors(), *_not_the_best(), *_repeated(), *_candidates()]


def _wrong_arrows() -> Iterator[Contradiction]:
    for table in TABLES:
        for row in table.rows:
            for column, printed in zip(table.columns, row.cells, strict=True):
                if not printed.arrow:
                    continue
                found = recomputed(table, row.key, column.key)
                if found.arrow != printed.arrow or printed.delta not in (None, found.delta):
                    gap = round(abs(printed.delta - (found.delta or 0.0)), 2) if printed.delta is not None else None
                    yield Contradiction(
                        (table.number,),
                        f"{row.label}, {column.title}: printed {_change(printed)}, "
                        f"but the numbers give {_change(found)}",
                        gap,
                    )


def _change(cell: Printed) -> str:
    return cell.arrow + (f"{cell.delta:.2f}" if cell.delta is not None else "")


def _weights() -> Iterator[Contradiction]:
    ours, stated = TABLE[1].value("randomix", _WRN), round(100 - TABLE[5].value(_STATED, "top1_error"), 2)
    (same,) = [r for r in TABLE[5].rows if round(100 - ours, 2) == r.cells[0].value]
    if same.key != _STATED:
        yield Contradiction(
            (1, 4, 5),
            f"section 4.2.1 gives WRN28-10 the weights [3,1,1,1], but Table 1's {ours:.2f} on CIFAR-100 is "
            f"100 - {same.cells[0].value:.2f}, Table 5's {same.label}; its [3,1,1,1] gives {stated:.2f}",
            round(ours - stated, 2),
        )
    if [c.value for c in TABLE[4].row("randomix").cells] == [c.value for c in same.cells]:
        yield Contradiction((4, 5), f"Table 4's RandoMix is Table 5's {same.label}, and Table 4 does not say so")
    gains = {k: [round(x - TABLE[1].value(k, _WRN), 2) for x in (ours, stated)] for k in _CLAIMED}
    if all(gains[k][0] == v != gains[k][1] for k, v in _CLAIMED.items()):
        with_stated = ", ".join(f"{g[1]:.2f} over {TABLE[1].row(k).label}" for k, g in gains.items())
        claimed = ", ".join(f"{v:.2f} over {TABLE[1].row(k).label}" for k, v in _CLAIMED.items())
        yield Contradiction(
            (1,),
            f"section 4.2.1's gains on CIFAR-100 with WRN28-10 ({claimed}) hold for "
            f"{same.label}; with the weights it states they are {with_stated}",
        )


def _two_clean_errors() -> Iterator[Contradiction]:
    gaps = {r.key: round(TABLE[1].value(r.key, _WRN) - 100 + r.cells[0].number, 2) for r in TABLE[4].rows}
    apart = {k: v for k, v in gaps.items() if v}
    if apart:
        listed = ", ".join(f"{TABLE[4].row(k).label} {v:+.2f}" for k, v in apart.items())
        equal = ", ".join(TABLE[4].row(k).label for k in gaps if k not in apart) or "no method"
        yield Contradiction(
            (1, 4),
            "Table 4's clean errors are 100 minus Table 1's accuracies (CIFAR-100, WRN28-10) "
            f"only for {equal}; sums differ from 100: {listed}",
            max(map(abs, apart.values())),
        )


def _not_the_best() -> Iterator[Contradiction]:
    """Section 4.3.1: RandoMix beats single mixed modes in both noise and occlusion."""
    for index, column in enumerate(TABLE[4].columns):
        values, own = [r.cells[index].number for r in TABLE[4].rows], TABLE[4].row("randomix")
        best = TABLE[4].rows[values.index(min(values))]
        if best is not own:
            gap = round(own.cells[index].number - min(values), 2)
            yield Contradiction(
                (4,),
                f"{column.heading}: section 4.3.1 has RandoMix enhance both noise and occlusion "
                f"robustness over single mixed modes, but {best.label} is {gap:.2f} lower",
                gap,
            )
    without = [
        r.label
        for r in TABLE[1].rows
        if r.part == AUTHORS and r.key.removeprefix(f"{AUTHORS}-") not in {o.key for o in TABLE[1].rows}
    ]
    if without:
        yield Contradiction(
            (1,),
            f"section 4.1 says all methods were implemented, but {', '.join(without)} have no "
            "row among the paper's own results",
        )


def _repeated() -> Iterator[Contradiction]:
    gaps = {
        k: round(TABLE[6].value(v, "top1") - TABLE[2].value(k, "tiny_imagenet-top1"), 2) for k, v in _REPEATED.items()
    }
    if any(gaps.values()):
        listed = ", ".join(f"{TABLE[2].row(k).label} {v:+.2f}" for k, v in gaps.items())
        yield Contradiction(
            (2, 6),
            f"Tables 2 and 6 repeat settings on Tiny-ImageNet, yet Table 6 minus Table 2 is {listed}",
            max(map(abs, gaps.values())),
        )


def _candidates() -> Iterator[Contradiction]:
    keys, rows = [r.key for r in TABLE[6].rows], TABLE[6].rows
    for n in range(1, 5):
        missing = ["[" + ",".join(c) + "]" for c in combinations("MCRF", n) if "".join(c) not in keys]
        if missing:
            yield Contradiction((6,), f"of the sets of {n} candidates {', '.join(missing)} is missing")
    for n, mean in mean_accuracies().items():
        (printed,) = {r.cells[1].number for r in rows if r.candidates == n}
        if abs(printed - mean) > 0.005 + 1e-9:  # more than rounding
            yield Contradiction(
                (6,),
                f"the mean of the sets of {n} is printed as {printed:.2f}, the rows give {mean:.4f}",
                abs(printed - mean),
            )
    best, most = max(rows, key=lambda r: r.cells[0].number), max(rows, key=lambda r: r.candidates)
    if best is not most:
        gap = round(best.cells[0].number - most.cells[0].number, 2)
        yield Contradiction(
            (6,),
            "section 4.3.2 finds more candidates better by the Mean column, but the best row is "
            f"{best.label}, {gap:.2f} above {most.label}",
            gap,
        )
