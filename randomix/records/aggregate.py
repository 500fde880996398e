"""From runs to statistics: group over seeds, compare with the Baseline on common seeds, measure cost."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from randomix.records.identity import evaluation, identity
from randomix.records.record import RunRecord

BASELINE = "baseline"
_MORE_DIGESTS = ("sha256_of_names_and_sizes", "shards")  # of Tiny-ImageNet and of ImageNet's shards
# Baseline first, the paper's order, others by name, RandoMix last.
_ORDER = (
    "baseline",
    "cutout",
    "mixup",
    "cutmix",
    "fmix",
    "resizemix",
    "saliencymix",
    "manifoldmixup",
    "patchup",
    "puzzlemix",
    "comixup",
)


@dataclass(frozen=True)
class Sample:
    """One run's value."""

    seed: int
    value: float
    record: RunRecord


@dataclass(frozen=True)
class Statistic:
    """The values of one quantity over seeds; at least one."""

    samples: tuple[Sample, ...]

    @property
    def n(self) -> int:
        """How many runs."""
        return len(self.samples)

    @property
    def values(self) -> list[float]:
        """The values, by seed."""
        return [s.value for s in self.samples]

    @property
    def by_seed(self) -> dict[int, float]:
        """Value of each seed."""
        return {s.seed: s.value for s in self.samples}

    @property
    def mean(self) -> float:
        """Arithmetic mean over the runs."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation (n - 1), None for one run."""
        return statistics.stdev(self.values) if self.n > 1 else None


@dataclass(frozen=True)
class Difference:
    """A method minus the Baseline: over the seeds both have (``paired``), else between the means.

    ``between_means``: between the means over all seeds, which ``p_welch`` is about.
    """

    mean: float
    std: float | None
    n: int
    paired: bool
    p_welch: float | None
    between_means: float


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, by seed."""

    dataset: str
    model: str
    config_hash: str
    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """A record that stands for what all of them share."""
        return self.records[0]

    @property
    def seeds(self) -> list[int]:
        """The seeds that were run."""
        return sorted({r.seed for r in self.records})

    def collect(self, value: Callable[[RunRecord], float | None]) -> Statistic | None:
        """The statistic of ``value`` over seeds; a training record goes before an evaluation of the same run."""
        samples: dict[int, Sample] = {}
        for record in self.records:
            found = value(record)
            if found is not None and record.seed not in samples:
                samples[record.seed] = Sample(record.seed, float(found), record)
        return Statistic(tuple(samples[s] for s in sorted(samples))) if samples else None

    def metric(
        self, name: str, checkpoint: str = "last", counts: Callable[[RunRecord], bool] = lambda record: True
    ) -> Statistic | None:
        """The statistic of one metric of the last or the best epoch, of records that count; None where none has it."""
        return self.collect(
            lambda r: r.metric(name, checkpoint) if counts(r) and (checkpoint != "last" or is_final(r)) else None
        )


@dataclass(frozen=True)
class Setting:
    """Runs that differ in method and seed only: what one table compares. ``groups`` are in the paper's order."""

    key: str
    groups: tuple[Group, ...]

    @property
    def records(self) -> list[RunRecord]:
        """All records, by method and seed."""
        return [r for g in self.groups for r in g.records]

    @property
    def baseline(self) -> Group | None:
        """The Baseline's group; None if there is none, or no single one."""
        found = [g for g in self.groups if g.first.mixer.name == BASELINE]
        return found[0] if len(found) == 1 else None


def group_runs(records: Iterable[RunRecord]) -> list[Group]:
    """Group by (dataset, model, config_hash), in the paper's order of methods."""
    found: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        found.setdefault((record.dataset, record.model, record.config_hash), []).append(record)

    def run_order(record: RunRecord) -> tuple[int, bool, str]:
        return record.seed, record.kind != "train", str(record.path)

    def group_order(group: Group) -> tuple[Any, ...]:
        variant = json.dumps(group.first.config["mixer"], sort_keys=True)
        return group.dataset, group.model, _method_order(group), group.first.mixer.label, variant, group.config_hash

    groups = [Group(*key, tuple(sorted(runs, key=run_order))) for key, runs in found.items()]
    return sorted(groups, key=group_order)


def settings(records: Iterable[RunRecord]) -> list[Setting]:
    """Split runs into what may be compared: everything but method and seed equal, the evaluators' settings too."""
    found: dict[tuple[str, str, str], list[RunRecord]] = {}
    for record in records:
        found.setdefault((record.dataset, record.model, _setting_key(record)), []).append(record)
    return [Setting(key, tuple(group_runs(runs))) for (_, _, key), runs in sorted(found.items(), key=lambda i: i[0])]


def difference(group: Statistic | None, baseline: Statistic | None) -> Difference | None:
    """``group`` minus ``baseline``: paired over common seeds if there are any, with Welch's test on all runs."""
    if group is None or baseline is None:
        return None
    a, b = group.by_seed, baseline.by_seed
    common = [a[seed] - b[seed] for seed in sorted(set(a) & set(b))]
    p = welch_p(group.values, baseline.values)
    between = group.mean - baseline.mean
    if not common:
        return Difference(between, None, min(group.n, baseline.n), False, p, between)
    std = statistics.stdev(common) if len(common) > 1 else None
    return Difference(statistics.fmean(common), std, len(common), True, p, between)


def welch_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t-test; None with a single run on a side, without spread, or without SciPy."""
    if min(len(a), len(b)) < 2:
        return None
    of_a, of_b = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    if of_a + of_b == 0:
        return None
    try:
        from scipy.special import stdtr
    except ImportError:
        return None
    t = (statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(of_a + of_b)
    freedom = (of_a + of_b) ** 2 / (of_a**2 / (len(a) - 1) + of_b**2 / (len(b) - 1))
    return float(2 * stdtr(freedom, -abs(t)))


def cpu_seconds_per_epoch(record: RunRecord) -> float | None:
    """CPU time of an epoch of a run on the CPU (median without the first); None for other devices."""
    if record.provenance.get("device") != "cpu":
        return None
    return _median_epoch(record, "cpu_seconds")


def seconds_per_epoch(record: RunRecord) -> float | None:
    """Wall time of an epoch (median without the first)."""
    stated = record.timing.get("seconds_per_epoch")
    return stated if stated is not None else _median_epoch(record, "seconds")


def time_measure(groups: Iterable[Group]) -> tuple[str, Callable[[RunRecord], float | None]]:
    """("CPU time", ...) if all runs have it, as other work on the machine disturbs it less; else ("wall time", ...)."""
    records = [r for g in groups for r in g.records if r.kind == "train"]
    if records and all(cpu_seconds_per_epoch(r) for r in records):
        return "CPU time", cpu_seconds_per_epoch
    return "wall time", seconds_per_epoch


def cost(group: Group, baseline: Group | None, measure: Callable[[RunRecord], float | None]) -> Statistic | None:
    """Training time of an epoch divided by the Baseline's of the same seed on the same hardware."""
    if baseline is None:
        return None
    reference = {(r.seed, machine(r)): measure(r) for r in baseline.records if r.kind == "train"}

    def ratio(record: RunRecord) -> float | None:
        own, base = measure(record), reference.get((record.seed, machine(record)))
        return own / base if record.kind == "train" and own and base else None

    return group.collect(ratio)


def data_digests(record: RunRecord) -> list[Any]:
    """What the record says of the content of its data files, whatever the data set calls it."""
    seen = record.data
    return [seen.get("sha256"), seen.get("md5"), *(seen[k] for k in _MORE_DIGESTS if k in seen)]


def machine(record: RunRecord) -> str:
    """What must be equal for times to be comparable, as text."""
    seen = record.provenance
    parts = {k: seen.get(k) for k in ("hardware", "world_size", "device", "precision", "threads")}
    return json.dumps(parts | {"torch": (seen.get("versions") or {}).get("torch")}, sort_keys=True)


def differences(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """For each configuration the settings in which they are not all equal, as ``key=value``."""
    flat = [_flatten(c) for c in configs]
    keys = sorted({k for f in flat for k in f})
    distinct = [k for k in keys if len({json.dumps(f.get(k), sort_keys=True) for f in flat}) > 1]
    return [[f"{k}={_short(f[k])}" for k in distinct if k in f] for f in flat]


def is_final(record: RunRecord) -> bool:
    """Whether "last" means the end of training: a run in progress can be evaluated too."""
    epochs = record.config["recipe"].get("epochs")
    return record.kind == "train" or record.metric("epoch") in (None, epochs)


def _median_epoch(record: RunRecord, key: str) -> float | None:
    times = [e[key] for e in record.history[1:] or record.history if e.get(key) is not None]
    return statistics.median(times) if times else None


def _method_order(group: Group) -> tuple[int, str]:
    name = group.first.mixer.name.replace("_", "").replace("-", "")
    if name == "randomix":
        return len(_ORDER) + 1, ""
    return (_ORDER.index(name), "") if name in _ORDER else (len(_ORDER), name)


def _setting_key(record: RunRecord) -> str:
    shared = {k: v for k, v in identity(record.config).items() if k != "mixer"}
    shared["evaluator"] = evaluation(record.config)  # a block of 16 pixels is another test than one of 8
    shared["arithmetic"] = record.provenance.get("precision")  # what "auto" was on that machine
    shared["data"] = data_digests(record)
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(_short(v) for v in value) + "]"
    if isinstance(value, Mapping):
        settings = ", ".join(f"{k}={_short(v)}" for k, v in value.items() if k not in ("name", "label"))
        return f"{value['name']}({settings})" if "name" in value and settings else str(value.get("name", dict(value)))
    return f"{value:g}" if isinstance(value, float) else str(value)
