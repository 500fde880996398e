"""Throughput of the networks on one device, as a share of its measured ceilings, and what a step consists of.

The CPU runs the same code at a small width: what a GPU would measure is tried there first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._dynamo.utils import counters

import models
from bench import ceilings, loops, profiles, targets
from bench.measure import quartiles, timed
from bench.report import CLOCK, Plain
from randomix import mixers
from randomix.engine.optim import Precision, resolve_precision
from randomix.engine.schema import TrainerConfig
from randomix.errors import ConfigError, is_out_of_memory
from randomix.records import provenance
from randomix.runs.setup import set_up_torch

METHOD = "randomix"
MODES = {
    "eager": {},
    "compile": {"compile": True},
    "cuda_graph": {"cuda_graph": True},
    "compile + cuda_graph": {"compile": True, "cuda_graph": True},
}
PRECISIONS = {"cpu": ("bf16", "fp32"), "cuda": ("bf16", "fp16", "tf32")}
_DATA_STEPS = 4  # batches of the made data set: it is gone through many times


@dataclass(frozen=True)
class Network:
    """A network at its benchmark's size; ``narrow(width)`` is the same code with little to compute."""

    model: dict[str, Any]
    size: int
    classes: int
    batches: tuple[int, ...]  # in the precision that ``auto`` picks; others take the middle one
    narrow: Callable[[int], dict[str, Any]]
    narrow_size: int = 32


NETWORKS = {
    "preact_resnet18": Network(
        {"name": "preact_resnet18"},
        32,
        10,
        (128, 256, 512, 1024),
        lambda width: {"name": "preact_resnet18", "width": width},
    ),
    "wrn_28_10": Network(
        {"name": "wrn_28_10"},
        32,
        10,
        (128, 256, 512),
        lambda width: {"name": "wrn_28_10", "depth": 10, "widen_factor": 1, "width": width},
    ),
    "resnet50": Network(
        {"name": "resnet50"},
        224,
        1000,
        (64, 128, 256),
        lambda width: {"name": "resnet50", "blocks": [1, 1, 1, 1], "width_per_group": width},
        64,
    ),
}
NARROW_BATCH = 16


@dataclass(frozen=True)
class Case:
    """One network in one mode, precision and batch size; ``model`` builds it, on whatever device is current."""

    network: str
    mode: str
    setting: loops.Setting
    config: dict[str, Any]

    def model(self) -> nn.Module:
        """The network, with weights that are the same every time."""
        torch.manual_seed(0)
        size = self.setting.size
        return models.build(self.config, sample_shape=(3, size, size), num_classes=self.setting.classes)


def cases(name: str, device: str, width: int | None, batch: int | None, precision: str) -> Iterator[Case]:
    """Every mode at every batch size in the main precision, and the other precisions at one batch size."""
    network = NETWORKS[name]
    config = network.model if width is None else network.narrow(width)
    batches = (batch,) if batch else network.batches if width is None else (NARROW_BATCH,)
    main = resolve_precision(precision, loops.Setting(device=device).torch_device).name
    points = [(main, size) for size in batches]
    if precision == "auto":
        points += [(other, batches[len(batches) // 2]) for other in PRECISIONS[device] if other != main]
    base = loops.Setting(
        width=width or 64,
        size=network.size if width is None else network.narrow_size,
        classes=network.classes,
        device=device,
        steps=_DATA_STEPS,
    )
    for chosen, size in points:
        for mode, keys in MODES.items():
            if why_not(mode, device) is None:
                yield Case(name, mode, replace(base, batch=size, precision=chosen, **keys), config)


def why_not(mode: str, device: str) -> str | None:
    """Why a mode is left out; None: it is measured."""
    if "cuda_graph" not in MODES[mode]:
        return None
    if "cuda_graph" not in {field.name for field in dataclasses.fields(TrainerConfig)}:
        return "this version has no trainer.cuda_graph"
    return None if device == "cuda" else "a CPU has no CUDA graphs"


def run(case: Case, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step of the whole loop after warming up, memory, recompiles, and a profile of one step."""
    setting, clock = case.setting, CLOCK[case.setting.device]
    device, precision = setting.torch_device, resolve_precision(setting.precision, setting.torch_device)
    set_up_torch(precision, torch.get_num_threads())
    _clean(device)
    row = {"network": case.network, "mode": case.mode, "precision": precision.name, "batch": setting.batch}
    with torch.device("meta"):
        flops, moved = ceilings.work(case.model(), (3, setting.size, setting.size), setting.batch, precision.dtype)
    try:
        trainer = loops.make_trainer(setting, loops.fake_data(setting), METHOD, model=case.model())
        loops.ours(trainer, 2)()
        graphs = _graphs()
        loops.ours(trainer, steps)()
        case_run = loops.ours(trainer, steps)
        samples = [getattr(timed(case_run), clock) / steps for _ in range(rounds)]
        profile = profiles.of_step(loops.ours(trainer, 1), device)
    except (RuntimeError, ConfigError) as error:
        if not (is_out_of_memory(error) or isinstance(error, ConfigError)):
            raise
        return row | {"failed": str(error).strip().splitlines()[0][:200]}
    middle = quartiles(samples)[1]
    return row | {
        "milliseconds": [1e3 * s for s in quartiles(samples)],
        "images_per_second": setting.batch / middle,
        "flops": flops,
        "bytes": moved,
        "flops_per_second": flops / middle,
        "graphs": graphs,
        "recompiles": _graphs() - graphs,
        "memory_mib": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None,
        "profile": profile,
    }


def _graphs() -> int:
    return counters["stats"]["unique_graphs"]


def _clean(device: torch.device) -> None:
    """What earlier cases left behind goes, so that memory and graphs are this case's own."""
    torch._dynamo.reset()
    counters.clear()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def waits(device: str, methods: list[str], steps: int = 4, width: int = 16, batch: int = 32) -> dict[str, str | None]:
    """What torch says of each method's steps if waiting for the device is an error; None: nothing. CPUs never wait."""
    found: dict[str, str | None] = {}
    setting = loops.Setting(width=width, batch=batch, steps=steps, device=device)
    data = loops.fake_data(setting)
    for method in methods:
        trainer = loops.make_trainer(setting, data, method)
        loops.ours(trainer, 2)()
        found[method], more = None, loops.ours(trainer, steps)
        try:
            with _waiting_is_an_error(device):
                more()
        except RuntimeError as error:
            found[method] = str(error).strip().splitlines()[0][:200]
    return found


@contextlib.contextmanager
def _waiting_is_an_error(device: str) -> Iterator[None]:
    if device != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def measure(
    device: str,
    names: list[str],
    width: int | None,
    batch: int | None,
    precision: str,
    steps: int,
    rounds: int,
    progress: Callable[[str], None],
) -> Plain:
    """Ceilings first, then every case of the networks, then the waits of every method."""
    from bench import gpu_report

    started, rows = time.time(), []
    where = loops.Setting(device=device).torch_device
    wanted = PRECISIONS[device] if precision == "auto" else (precision,)
    offered = [p for p in (_offered(name, where) for name in wanted) if p is not None]
    peaks = {"copy": ceilings.copy(where), "compute": {p.name: ceilings.compute(p) for p in offered}}
    for name in names:
        for case in cases(name, device, width, batch, precision):
            if case.setting.precision in peaks["compute"]:
                progress(f"{name}, {case.mode}, {case.setting.precision}, batch {case.setting.batch}".ljust(70))
                rows.append(run(case, steps, rounds) | {"size": case.setting.size})
    body = {
        "rows": [row | _shares(row, peaks) for row in rows],
        "ceilings": peaks,
        "width": width,
        "left_out": {mode: why for mode in MODES if (why := why_not(mode, device)) is not None},
        "waits": waits(device, mixers.available(), width=width or 16),
        "steps": steps,
        "rounds": rounds,
    }
    body["targets"] = _verdicts(body, device, width)
    main = resolve_precision(precision, where).name
    return Plain("gpu", body, gpu_report.lines, device, main, started, gpu_report.roofline)


def _offered(name: str, device: torch.device) -> Precision | None:
    try:
        return resolve_precision(name, device)
    except ConfigError:  # no TF32 here
        return None


def _shares(row: dict[str, Any], peaks: dict[str, Any]) -> dict[str, float]:
    """Of the two ceilings, each measured in this process; copying passes 1 where caches or fusion save bytes."""
    if "failed" in row:
        return {}
    seconds = row["milliseconds"][1] / 1e3
    return {
        "share_of_compute": row["flops_per_second"] / peaks["compute"][row["precision"]],
        "share_of_copy": row["bytes"] / seconds / peaks["copy"],
    }


def _verdicts(body: dict[str, Any], device: str, width: int | None) -> list[dict[str, Any]]:
    """T6 by the fastest row of each network in half precision at full width, and T7."""
    gpu = provenance.hardware()["gpu"] or ""
    found = []
    for name, of_network in targets.GPU.items():
        rows = [
            r for r in body["rows"] if r["network"] == name and "failed" not in r and r["precision"] in ("bf16", "fp16")
        ]
        if not rows or (device == "cuda" and width is not None):
            continue
        best = max(rows, key=lambda row: row["images_per_second"])
        for target in of_network:
            value = best["images_per_second" if "images" in target.what else "share_of_compute"]
            found.append(targets.judge(target, (value,) * 3, targets.Point(device, width or 64, best["size"], gpu=gpu)))
    waiting = float(sum(said is not None for said in body["waits"].values()))
    found.append(targets.judge(targets.SYNCS, (waiting,) * 3, targets.Point(device, gpu=gpu)))
    return [verdict for verdict in found if verdict is not None]
