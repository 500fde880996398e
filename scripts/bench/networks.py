"""What every network costs at the paper's sizes: parameters and FLOPs, counted, and a real step in its own process.

The expected FLOPs (2 x multiply-add of convolutions and linear layers) are those that the floors in seconds per epoch
were made from; a network that has changed differs from them. The memory is the process's own peak, as every network
runs in a process that has seen no other.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench import ceilings, gpu_report, sample_memory
from bench.cases import CASES, Case
from bench.measure import quartiles, timed
from bench.report import CLOCK
from randomix.engine.optim import resolve_precision
from randomix.records import provenance


def count(case: Case) -> dict[str, Any]:
    """Parameters and GFLOP of one sample, counted without computing anything."""
    with torch.device("meta"):
        model, sample, gflop = case.build(), torch.empty(1, *case.sample_shape), []
        for backward in (False, True):
            with FlopCounterMode(display=False) as counter:
                logits = model(sample)
                if backward:
                    logits.sum().backward()
            gflop.append(counter.get_total_flops() / 1e9)
    expected = [case.forward, case.step]
    return {
        "model": case.model,
        "sample_shape": case.sample_shape,
        "num_classes": case.num_classes,
        "parameters": sum(p.numel() for p in model.parameters()),
        "gflop_forward": gflop[0],
        "gflop_step": gflop[1],
        "gflop_expected": expected,
        "as_expected": [round(g, 3) for g in gflop] == expected,
    }


def run(case: Case, rounds: int, device: torch.device, precision_name: str) -> dict[str, Any]:
    """Forward and backward passes of a batch in training mode: seconds of each after one to warm up, and memory."""
    before, precision = _peak_memory(device), resolve_precision(precision_name, device)
    model, inputs = case.build().to(device).train(), torch.randn(case.batch, *case.sample_shape, device=device)
    if inputs.ndim == 4:
        model = model.to(memory_format=torch.channels_last)
        inputs = inputs.to(memory_format=torch.channels_last)
    targets = torch.arange(case.batch, device=device) % case.num_classes

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with precision.autocast():
            logits = model(inputs)
        F.cross_entropy(logits.float(), targets).backward()

    samples = [timed(step) for _ in range(rounds + 1)][1:]
    finite = all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    return {
        "batch": case.batch,
        "cpu_seconds": list(quartiles([s.cpu for s in samples])),
        "wall_seconds": list(quartiles([s.wall for s in samples])),
        "memory_mib": _peak_memory(device) / 2**20,
        "memory_before_mib": before / 2**20,
        "gradients_finite": finite and all(p.grad is not None for p in model.parameters()),
    }


def _peak_memory(device: torch.device) -> float:
    """The most bytes used so far: of the GPU's memory, or resident ones of this process alone.

    Not ``ru_maxrss``: a process inherits that of the one that started it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def _in_own_process(index: int, rounds: int, device: str, precision: str, threads: int) -> dict[str, Any]:
    """``run`` in a fresh interpreter."""
    path = [str(Path(__file__).resolve().parents[i]) for i in (1, 2)]
    code = (
        f"import sys; sys.path[:0] = {path!r}; import json, torch; torch.set_num_threads({threads});"
        f"torch.backends.cudnn.benchmark = True; from bench import networks as n, sample_memory as m;"
        f"case, rounds, device = n.CASES[{index}], {rounds}, torch.device({device!r});"
        f"row = n.run(case, rounds, device, {precision!r}) | {{'per_sample': m.per_sample(case, rounds, device)}};"
        f"print(json.dumps(row))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        error = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{CASES[index].label} ended with code {done.returncode}: {error}")
    return json.loads(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Table:
    """What was counted and measured, by network."""

    rows: dict[str, dict[str, Any]]
    rounds: int
    device: str
    precision: str
    started: float
    ceilings: dict[str, Any] | None = None  # copy: bytes/s; compute: FLOP/s by precision

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        where = provenance.collect(
            world_size=1, device=self.device, precision=self.precision, threads=threads, started=self.started
        )
        content = {"suite": "networks", "rounds": self.rounds, "rows": self.rows, "provenance": where}
        return content if self.ceilings is None else content | {"ceilings": self.ceilings}

    def figure(self, content: dict[str, Any], stem: Path) -> Path | None:
        """STEM.png: the networks under the measured ceilings."""
        if self.ceilings is None:
            return None
        rows = [
            {
                "network": name,
                "mode": "eager",
                "precision": self.precision,
                "flops": row["flops"],
                "bytes": row["bytes"],
                "flops_per_second": row["flops"] / row[f"{CLOCK[self.device]}_seconds"][1],
            }
            for name, row in self.rows.items()
        ]
        return gpu_report.roofline(content | {"rows": rows}, stem)

    def markdown(self, content: dict[str, Any]) -> str:
        """The table that people read."""
        where = content["provenance"]
        machine = where["hardware"].get("gpu") if self.device == "cuda" else where["hardware"]["cpu"]
        peaks = (
            []
            if self.ceilings is None
            else [
                "Ceilings on random data: the faster of a matrix product and a 3x3 convolution "
                f"{self.ceilings['compute'][self.precision] / 1e9:.0f} GFLOP/s, copy "
                f"{self.ceilings['copy'] / 1e9:.1f} GB/s (read + written)."
            ]
        )
        wrong = [name for name, row in self.rows.items() if not row["as_expected"]]
        agrees = "as expected" if not wrong else "NOT as expected: " + ", ".join(wrong)
        lines = [
            "# Benchmark: networks",
            "",
            f"One forward and backward pass in training mode at the paper's sizes, {self.device}, {where['precision']}"
            f", channels last for images, {where['threads']} thread(s), median of {self.rounds} after one more, a "
            f"process for each network; {machine}, torch {where['versions']['torch']}.",
            f"GFLOP a sample: 2 x multiply-add, {agrees}. "
            "Memory: peak of the process, and what it had before the network was made.",
            *peaks,
            "",
            "| network | parameters | GFLOP forward | GFLOP step | batch | CPU s | wall s | samples per CPU s | "
            "GFLOP per CPU s | peak MiB (before) |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        memory = sample_memory.table(
            {name: row["per_sample"] for name, row in self.rows.items() if "per_sample" in row}
        )
        return "\n".join([*lines, *map(_line, self.rows.items()), *memory]) + "\n"


def _line(named: tuple[str, dict[str, Any]]) -> str:
    name, row = named
    cpu, wall = row["cpu_seconds"][1], row["wall_seconds"][1]
    rate = row["batch"] / cpu
    cells = [
        name,
        f"{row['parameters']:,}",
        f"{row['gflop_forward']:.3f}",
        f"{row['gflop_step']:.3f}",
        str(row["batch"]),
        f"{cpu:.3f}",
        f"{wall:.3f}",
        f"{rate:.2f}",
        f"{rate * row['gflop_step']:.0f}",
        f"{row['memory_mib']:.0f} ({row['memory_before_mib']:.0f})",
    ]
    return "| " + " | ".join(cells) + " |"


def measure(device: str, precision: str, threads: int, rounds: int, progress: Callable[[str], None]) -> Table:
    """Count and run every network."""
    rows, started, chosen = {}, time.time(), resolve_precision(precision, torch.device(device))
    for index, case in enumerate(CASES):
        progress(f"{case.label:60s}")
        rows[case.label] = count(case) | _in_own_process(index, rounds, device, precision, threads)
        with torch.device("meta"):
            flops, moved = ceilings.work(case.build(), case.sample_shape, case.batch, chosen.dtype)
        rows[case.label] |= {"flops": flops, "bytes": moved}
    peaks = {"copy": ceilings.copy(chosen.device), "compute": {chosen.name: ceilings.compute(chosen)}}
    return Table(rows, rounds, device, chosen.name, started, peaks)
