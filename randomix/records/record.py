"""The record of one run: what was computed, from which configuration, by which code, on which machine.

A record is one JSON file. It names no host, no user and no absolute path, so that it can be published as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from randomix.records.identity import _SECTIONS, ADDRESSES, config_hash, mixer_label, run_name

SCHEMA = 1
KINDS = ("train", "eval")
CHECKPOINTS = ("last", "best")
_CLEAN = ("epoch", "top1", "top1_error", "top5", "test_loss")
_RUN = re.compile(r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)+", re.ASCII)
_ABSOLUTE = re.compile(r"(/|~|file:|[A-Za-z]:[\\/])")


@dataclass(frozen=True)
class MixerInfo:
    """A method in a record: registry name, name in tables, mixed mode ("-", "l", "m" or "l+m")."""

    name: str
    label: str
    mode: str


@dataclass(frozen=True)
class RunRecord:
    """One run. ``metrics`` maps "last" and "best" to values by name: accuracies and errors in percent, None if unknown.

    ``source`` is the file it was read from and no part of the record. ``extra`` keeps keys this version does not know.
    """

    kind: str
    run: str
    config_hash: str
    config: Mapping[str, Any]
    seed: int
    dataset: str
    model: str
    mixer: MixerInfo
    metrics: Mapping[str, Mapping[str, float | None]]
    counts: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    candidates: Mapping[str, int] = field(default_factory=dict)
    timing: Mapping[str, float | None] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    source: Path | None = field(default=None, compare=False)

    @property
    def path(self) -> Path:
        """Where the record lies below a store; the same run always has the same path."""
        if self.kind == "train":
            return Path(self.run + ".json")
        asked = {k: self.config.get(k) for k in ("evaluator", "evaluators", "checkpoint")}
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        return Path(f"{self.run}.eval-{digest}.json")

    @property
    def finished(self) -> str:
        """When the run ended (ISO 8601, UTC), or an empty string."""
        return str(self.provenance.get("finished") or "")

    def metric(self, name: str, checkpoint: str = "last") -> float | None:
        """One value, or None where it was not measured or not finite."""
        return self.metrics.get(checkpoint, {}).get(name)


def build_record(
    config: Mapping[str, Any],
    *,
    history: Sequence[Mapping[str, Any]],
    best: Mapping[str, Any],
    evaluated: Mapping[str, Any],
    candidates: Mapping[str, int],
    mode: str,
    data: Mapping[str, Any],
    provenance: Mapping[str, Any],
    kind: str = "train",
) -> str:
    """The text of record.json for a resolved run configuration.

    history: one entry an epoch; the last gives the clean numbers of the last epoch. best: those of the best epoch.
    evaluated: ``{"metrics": {name: value}, "counts": {evaluator: {...}}}`` of the final evaluators (last weights).
    Names, hash and label come from ``config``. Paths of this machine are left out, non-finite numbers become null.
    """
    measured = dict(evaluated.get("metrics", {}))
    if kind == "eval" and Path(config.get("checkpoint", "")).stem == "best":
        metrics = {"best": measured}  # never among the numbers of the last epoch
    else:
        metrics = {"last": _clean(history[-1] if history else {}) | measured}
        metrics |= {"best": _clean(best)} if best else {}
    record = RunRecord(
        kind=kind,
        run=run_name(config),
        config_hash=config_hash(config),
        config=public_config(config),
        seed=config["seed"],
        dataset=config["dataset"]["name"],
        model=config["model"]["name"],
        mixer=MixerInfo(config["mixer"]["name"], mixer_label(config["mixer"]), mode),
        metrics=metrics,
        counts=evaluated.get("counts", {}),
        history=list(history),
        candidates=candidates,
        timing=_timing(history),
        provenance=provenance,
        data=data,
    )
    text = to_json(record)
    from_json(text)  # what is written is what a reader accepts
    return text


def _clean(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The clean numbers of an epoch, by their names in records."""
    return {{"test_loss": "loss"}.get(k, k): entry[k] for k in _CLEAN if k in entry}


def _timing(history: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Totals over the epochs; seconds_per_epoch and images_per_second are medians without the first epoch."""

    def values(key: str, entries: Sequence[Mapping[str, Any]]) -> list[float]:
        return [e[key] for e in entries if e.get(key) is not None]

    later = history[1:] or history
    found: dict[str, float | None] = {k: math.fsum(values(k, history)) for k in ("seconds", "cpu_seconds")}
    for name, key in (("seconds_per_epoch", "seconds"), ("images_per_second", "images_per_second")):
        found[name] = statistics.median(values(key, later)) if values(key, later) else None
    return found


def dumps(value: Any) -> str:
    """One line of JSON: keys sorted, no NaN, nothing of this machine."""
    return json.dumps(public(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def public(value: Any) -> Any:
    """``value`` as plain JSON: non-finite numbers become None, absolute paths their last part."""
    if isinstance(value, Mapping):
        return {str(k): public(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [public(v) for v in value]
    if isinstance(value, Enum):
        return public(value.value)
    if isinstance(value, str | Path):
        text = str(value)
        return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if _ABSOLUTE.match(text) else text
    if value is None or isinstance(value, bool | int):
        return value
    if hasattr(value, "item"):  # NumPy and torch scalars
        return public(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise ValueError(f"a record cannot hold a {type(value).__name__}: {value!r}")


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration without the folders of the machine it ran on."""
    plain = {k: v for k, v in public(config).items() if k != "output_root"}
    addresses = {k: True for k in ADDRESSES["dataset"] if plain["dataset"].get(k) is not None}
    plain["dataset"] = {k: v for k, v in plain["dataset"].items() if k != "root"} | addresses
    return plain


def to_json(record: RunRecord) -> str:
    """The file's text: keys sorted, one line a key and one line an epoch, no NaN. Equal records give equal bytes."""
    names = (
        "kind",
        "run",
        "config_hash",
        "config",
        "seed",
        "dataset",
        "model",
        "metrics",
        "counts",
        "history",
        "candidates",
        "timing",
        "provenance",
        "data",
    )
    content = dict(record.extra) | {name: getattr(record, name) for name in names}
    content |= {"schema": SCHEMA, "mixer": vars(record.mixer)}

    lines = []
    for key in sorted(content):
        value = content[key]
        if isinstance(value, list | tuple) and value:
            lines.append(f'"{key}": [\n  ' + ",\n  ".join(dumps(v) for v in value) + "\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def from_json(text: str, source: Path | None = None) -> RunRecord:
    """Read a record; ValueError, one line with the file and the key, for a damaged or foreign one."""
    where = str(source) if source else "record"

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"holds {constant}, which is not JSON")

    try:
        content = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: damaged: not JSON ({error.msg}, line {error.lineno})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: damaged: {error}") from None
    try:
        return replace(_checked(content), source=source)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def read(path: str | Path) -> RunRecord:
    """The record in a file; ValueError with one line for a damaged, foreign or unreadable one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: damaged: not UTF-8 text") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    return from_json(text, Path(path))


_TYPES = {
    "kind": str,
    "run": str,
    "config_hash": str,
    "config": dict,
    "seed": int,
    "dataset": str,
    "model": str,
    "mixer": dict,
    "metrics": dict,
    "counts": dict,
    "history": list,
    "candidates": dict,
    "timing": dict,
    "provenance": dict,
    "data": dict,
}
_ARTICLES = {str: "a string", int: "an integer", dict: "an object", list: "a list"}


def _checked(content: Any) -> RunRecord:
    """A RunRecord from parsed JSON; ValueError names the first key that is wrong."""
    if not isinstance(content, dict) or "schema" not in content:
        raise ValueError("foreign: no record of a run (it has no key 'schema')")
    if content["schema"] != SCHEMA:
        raise ValueError(f"schema is {content['schema']!r}, this version reads {SCHEMA}")
    for key, kind in _TYPES.items():
        if key not in content:
            raise ValueError(f"damaged: key '{key}' is missing")
        if not isinstance(content[key], kind) or isinstance(content[key], bool):
            raise ValueError(f"damaged: {key} must be {_ARTICLES[kind]}, got {content[key]!r:.60}")
    if content["kind"] not in KINDS:
        raise ValueError(f"damaged: kind must be one of {', '.join(KINDS)}, got {content['kind']!r}")
    if not _RUN.fullmatch(content["run"]):
        raise ValueError(f"damaged: run must look like dataset/model/mixer-hash/seed-0, got {content['run']!r:.80}")
    names = "/".join((content["dataset"], content["model"], ""))
    if not (content["run"].startswith(names) and content["run"].endswith(f"/seed-{content['seed']}")):
        raise ValueError(
            f"damaged: run is {content['run']!r}, but dataset, model and seed say {names}.../seed-{content['seed']}"
        )
    for section in _SECTIONS:
        if not isinstance(content["config"].get(section), dict):
            raise ValueError(f"damaged: key 'config.{section}' is missing or no object")
    for key in ("name", "label", "mode"):
        if not isinstance(content["mixer"].get(key), str):
            raise ValueError(f"damaged: key 'mixer.{key}' is missing or no string")
    _check_values(content)
    known = {k: content[k] for k in _TYPES if k != "mixer"}
    extra = {k: v for k, v in content.items() if k not in _TYPES and k != "schema"}
    mixer = MixerInfo(**{k: content["mixer"][k] for k in ("name", "label", "mode")})
    return RunRecord(**known, mixer=mixer, extra=extra)


def _check_values(content: dict[str, Any]) -> None:
    """Metrics, timing and history hold numbers or null."""
    metrics = content["metrics"]
    if not metrics or not set(metrics) <= set(CHECKPOINTS):
        raise ValueError(f"damaged: metrics must have {' or '.join(CHECKPOINTS)}, got {sorted(metrics)}")
    for name, values in metrics.items():
        if not isinstance(values, dict):
            raise ValueError(f"damaged: metrics.{name} must be an object, got {values!r:.60}")
        _check_numbers(f"metrics.{name}", values)
        _check_percentages(f"metrics.{name}", values)
    _check_numbers("timing", content["timing"])
    for key in ("versions", "hardware"):
        if not isinstance(content["provenance"].get(key) or {}, dict):
            raise ValueError(f"damaged: provenance.{key} must be an object")
    for i, entry in enumerate(content["history"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("epoch"), int):
            raise ValueError(f"damaged: history[{i}] must be an object with an integer epoch, got {entry!r:.60}")
        _check_numbers(f"history[{i}]", entry)


def _check_percentages(where: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if value is not None and (key.endswith(("_error", "top1", "top5")) and not 0 <= value <= 100):
            raise ValueError(f"damaged: {where}.{key} must be 0 to 100 percent, got {value!r:.60}")


def _check_numbers(where: str, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"damaged: {where}.{key} must be a number or null, got {value!r:.60}")
        if isinstance(value, float) and not math.isfinite(value):  # 1e999 parses as infinity
            raise ValueError(f"damaged: {where}.{key} is not finite")
