"""The evaluator of corrupted test sets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from randomix.engine.evaluate import EvalResult
from randomix.engine.protocols import Data
from randomix.engine.validation import nearest
from randomix.errors import DataError
from randomix.robustness.corruptions import CORRUPTIONS, STANDARD, VERSION
from randomix.robustness.corruptions.frost import frost_source
from randomix.robustness.measure import Cell, Measure, Outcome

SOURCES = ("official", "generated")
SEVERITIES = (1, 2, 3, 4, 5)
WHOLE = {"all": CORRUPTIONS, "standard": STANDARD}


def corruptions(
    measure: Measure,
    *,
    source: str = "official",
    names: str | Sequence[str] = "all",
    severities: Sequence[int] = SEVERITIES,
    seed: int = 0,
    allow_missing: bool = False,
) -> Outcome:
    """Top-1 errors in percent under corruptions: means over severities of one, then over all of a set of them.

    Metrics: corruption_error over the 15 standard ones, corruption_error_19 over all, where these are complete, and
    corruption_NAME_error. counts: ``matrix``, for each corruption the correct ones at each of ``severities``.
    """
    data = measure.data
    if data is None:
        raise ValueError("the evaluator corruptions needs the data set's corrupted test sets: pass data=")
    there = data.check_corrupted(_chosen(names), severities, source=source, allow_missing=allow_missing)

    def at(name: str, severity: int) -> EvalResult:
        def compute() -> Cell:
            corrupted = data.corrupted_set(measure.world.device, name, severity, source=source, seed=seed)
            return replace(measure, eval_set=corrupted)(), []

        return measure.kept(f"{name}/{severity}", compute)[0]

    results = {name: [at(name, severity) for severity in severities] for name in there}
    totals = {result.total for row in results.values() for result in row}
    if len(totals) != 1:
        raise DataError(
            f"{data.name}: the corrupted test sets have {', '.join(map(str, sorted(totals)))} images, "
            "expected as many in each; get them again"
        )
    counts: dict[str, Any] = {
        "total": totals.pop(),
        "source": source,
        "severities": list(severities),
        "matrix": {name: [result.correct1 for result in row] for name, row in results.items()},
    }
    counts |= corruption_sources({"source": source, "names": there, "severities": severities, "seed": seed}, data)
    return mean_errors(counts["matrix"], counts["total"]), counts


def corruption_sources(options: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """What the test sets were, beside the settings: digests of the official files, or what generated them."""
    names, severities = _chosen(options.get("names", "all")), options.get("severities", SEVERITIES)
    if options.get("source", "official") == "official":
        return {"files": data.identify_corrupted(names, severities)}
    generator = {"generator": VERSION, "seed": options.get("seed", 0)}
    return generator | ({"frost": frost_source()} if "frost" in names else {})


def mean_errors(matrix: Mapping[str, Sequence[int]], total: int) -> dict[str, float]:
    """The metrics of correct ones by corruption and severity, of ``total`` images each: errors in percent."""
    shares = {name: statistics.fmean((total - correct) / total for correct in row) for name, row in matrix.items()}
    means = {
        metric: 100.0 * statistics.fmean(shares[name] for name in complete)
        for metric, complete in (("corruption_error", STANDARD), ("corruption_error_19", CORRUPTIONS))
        if shares.keys() >= set(complete)
    }
    return means | {f"corruption_{name}_error": 100.0 * share for name, share in shares.items()}


def corruption_problems(options: Mapping[str, Any], data: Data) -> list[str]:
    """What is wrong with the settings; raises DataError for files that are missing or damaged."""
    if len(data.input_shape) != 3:
        return [
            f"evaluators has corruptions, which is for images (C, H, W); the samples of {data.name} are "
            f"{data.input_shape}"
        ]
    source, severities = options.get("source", "official"), options.get("severities", SEVERITIES)
    names, problems = _chosen(options.get("names", "all")), []
    if unknown := [name for name in names if name not in CORRUPTIONS]:
        near = list(dict.fromkeys(filter(None, (nearest(str(name), (*WHOLE, *CORRUPTIONS)) for name in unknown))))
        problems.append(
            f"evaluator.corruptions.names has {', '.join(map(repr, unknown))}, expected all, standard or "
            f"some of {', '.join(CORRUPTIONS)}" + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    if not names or len(set(names)) != len(names):
        problems.append("evaluator.corruptions.names: expected one corruption or more, each once")
    if source not in SOURCES:
        problems.append(f"evaluator.corruptions.source is {source!r}, expected {' or '.join(SOURCES)}")
    if not severities or len(set(severities)) != len(severities) or set(severities) - set(SEVERITIES):
        problems.append(f"evaluator.corruptions.severities is {severities!r}, expected some of 1 to 5, each once")
    if not problems:
        data.check_corrupted(names, severities, source=source, allow_missing=options.get("allow_missing", False))
    return problems


def _chosen(names: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        return WHOLE.get(names, (names,))
    return tuple(names)
