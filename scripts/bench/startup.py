"""Processor seconds until train.py helps, refuses, or has taken its first step; each in a process of its own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import report, targets
from bench.measure import Sample, quartiles

ROOT = Path(__file__).resolve().parents[2]
TRAIN = [str(ROOT / "train.py")]
_STOP = """
import os, runpy, sys
from randomix.engine.step import TrainStep
whole = TrainStep.run
def first(*arguments):
    whole(*arguments)
    os._exit(0)
TrainStep.run = first
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
sys.exit(3)
"""  # the code is 0 only if a step was taken
_RUN = ["mixer=randomix", "model.width=16", "trainer.device=cpu", "trainer.threads=1", "trainer.resume=never"]
CASES: dict[str, tuple[list[str], int]] = {  # by what it is: what python is given, and the exit code
    "train.py --help": ([*TRAIN, "--help"], 0),
    "wrong key": ([*TRAIN, "trainer.devise=cpu"], 2),
    "wrong value": ([*TRAIN, "trainer.precision=bf17"], 2),
    "wrong group": ([*TRAIN, "model=resnet5"], 2),
    "import torch": (["-c", "import torch"], 0),
    "first step of training": (["-c", _STOP, *TRAIN, *_RUN], 0),
    "first step, compiled": (["-c", _STOP, *TRAIN, *_RUN, "trainer.compile=true"], 0),
}
SLOW = {"first step, compiled": 2}  # run so many times at most
LIGHT = ("train.py --help", "wrong key", "wrong value", "wrong group")  # must not import torch


def measure(rounds: int, progress: Callable[[str], None]) -> report.Plain:
    """``rounds`` fresh processes of every case, each round in another order, after one that fills the caches.

    Those of SLOW are run less often.
    """
    started, shuffle = time.time(), random.Random(0)
    samples: dict[str, list[Sample]] = {name: [] for name in CASES}
    for number in range(rounds + 1):
        for name in shuffle.sample(list(CASES), len(CASES)):
            if name in SLOW and not 0 < number <= SLOW[name]:
                continue
            sample = _run(name)
            samples[name] += [sample] if number else []
        progress(f"round {number + 1} of {rounds + 1}")
    rows = {
        name: {
            "cpu_seconds": list(quartiles([s.cpu for s in found])),
            "wall_seconds": list(quartiles([s.wall for s in found])),
            "imports_torch": name in SLOW or _imports_torch(name),
        }
        for name, found in samples.items()
    }
    point = targets.Point("cpu")
    verdicts = [targets.judge(targets.STARTUP, tuple(rows[name]["cpu_seconds"]), point) for name in LIGHT]
    verdicts = [
        v | {"line": v["line"].replace("start-up", name, 1)} for v, name in zip(verdicts, LIGHT, strict=True) if v
    ]
    return report.Plain(
        "startup", {"rows": rows, "rounds": rounds, "targets": verdicts}, _lines, "cpu", "auto", started
    )


def _run(name: str, *options: str) -> Sample:
    """Seconds of the case in a new process with one thread; RuntimeError if its exit code is not the expected one.

    What torch compiles is compiled anew, in the process itself, so that its processor time counts.
    """
    arguments, expected = CASES[name]
    with tempfile.TemporaryDirectory(prefix="randomix-") as folder, open(os.path.join(folder, "log"), "w+b") as log:
        compiler = {"TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "cache"), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *options, *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            env=os.environ | compiler | {"OMP_NUM_THREADS": "1"},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    if process.returncode != expected:
        last = (said or "nothing").splitlines()[-1]
        raise RuntimeError(f"{name} ended with code {process.returncode} instead of {expected}: {last}")
    return Sample(wall, usage.ru_utime + usage.ru_stime)


def _imports_torch(name: str) -> bool:
    """Asked of Python itself in one more process."""
    arguments, _ = CASES[name]
    with tempfile.TemporaryDirectory(prefix="randomix-") as folder:
        done = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def _lines(content: dict[str, Any]) -> list[str]:
    lines = [
        f"A fresh process each, one thread; median [quartiles] of {content['rounds']} after one more; "
        f"{report.machine(content)}. First step: `{' '.join(_RUN)}` on the digits, from the command line to the first "
        "update of the weights; compiled: with an empty cache and one compiling thread, "
        f"at most {max(SLOW.values())} processes.",
        "",
        "| what | CPU s | wall s | imports torch |",
        "|---|---|---|---|",
    ]
    for name, row in content["rows"].items():
        cells = [f"{m:.2f} [{low:.2f}, {high:.2f}]" for low, m, high in (row["cpu_seconds"], row["wall_seconds"])]
        lines.append(f"| {name} | {cells[0]} | {cells[1]} | {'yes' if row['imports_torch'] else 'no'} |")
    lines += ["", "Intervals of the targets below: quartiles."]
    return lines + targets.lines(content["targets"])
