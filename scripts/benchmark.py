"""Measure the trainer against itself, side by side in one process: medians, spread, processor time beside wall time.

    python scripts/benchmark.py loop            full loop against a bare step, a peer-style and an airbench-style loop
    python scripts/benchmark.py step            cost of every method against Baseline (the paper's "Cost", Table 2)
    python scripts/benchmark.py mixers          every mixing operation alone at four sizes, against other libraries
    python scripts/benchmark.py feed            samples a CPU-second of every data set against the plain way
    python scripts/benchmark.py networks        parameters, FLOPs, a real step and peak memory of every network
    python scripts/benchmark.py corruptions     milliseconds an image of every corruption against a plain loop
    python scripts/benchmark.py growth          time of a sample by batch, classes, image size and number of samples
    python scripts/benchmark.py gpu             throughput of three networks as shares of ceilings, profile, waits, plot
    python scripts/benchmark.py graphs          compiled graphs and recompilations of every method, and their gain
    python scripts/benchmark.py scaling         several ranks against one, on a CPU two
    python scripts/benchmark.py startup         train.py --help, its refusals and its first step in fresh processes
    python scripts/benchmark.py check           short runs of loop, step and mixers against the committed records

On a GPU add ``--device cuda`` (and ``--compile``). Writes NAME.json and NAME.md to --out (outputs/bench); those to
commit go to ``--out results/benchmarks``. Exit codes: 0 done, 1 check found something slower,
2 wrong argument.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import suites
from bench.measure import cpu_seconds
from bench.report import Report
from randomix.engine.optim import resolve_precision
from randomix.errors import ConfigError, StorageError
from randomix.files import probe_writable, write_atomic
from randomix.records import provenance

RECORDS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=[*suites.SUITES, "check"])
    parser.add_argument(
        "--width", type=int, help="of the PreAct-ResNet18; default: 16; gpu: of all networks, full on a GPU"
    )
    parser.add_argument("--batch", type=int, help="default: 128; mixers: 128 and 256")
    parser.add_argument("--steps", type=int, default=16, help="steps in one timed run; mixers: as many as make 30 ms")
    parser.add_argument(
        "--rounds",
        type=int,
        default=11,
        help="timed runs of every case; loop and step say how many would make +-1.5 %%",
    )
    parser.add_argument(
        "--size",
        type=int,
        help="height and width of the images, at least 8; default: 32; mixers: 32, 64, 224, and 16000, "
        "which is one channel of 16,000 samples (as all from 1024 on)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help="loop: compared with these; step: these methods; growth: these axes; gpu: these networks",
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one operation")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["auto", "fp32", "tf32", "bf16", "fp16"], default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument(
        "--records", type=Path, default=RECORDS, help="check: the folder to compare with; default: results/benchmarks"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/bench"),
        help="default: outputs/bench; results/benchmarks to commit them",
    )
    parser.add_argument("--name", help="of the files; default: SUITE-DEVICE, of some suites SUITE-DEVICE-wWIDTH")
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, in one line; None if nothing is."""
    for name, least in {"width": 1, "batch": 1, "steps": 1, "rounds": 1, "size": 8, "threads": 1}.items():
        given = getattr(options, name)
        if given is not None and given < least:
            return f"--{name} is {given}, expected at least {least}"
    if options.suite == "mixers" and options.batch is not None and options.batch % 2 == 1:
        return f"--batch is {options.batch}, expected an even number: timm mixes no other batch"
    known = suites.choices(options.suite)
    for name in options.only or ():
        if name not in known:
            return f"--only {name}: {options.suite} has {', '.join(known) or 'nothing to choose from'}"
    if options.device == "cuda" and not torch.cuda.is_available():
        return "--device cuda: torch finds no GPU here; use --device cpu"
    if options.batch == 1 and options.suite not in ("mixers", "corruptions"):
        return "--batch is 1, expected at least 2: BatchNorm cannot train on one sample"
    try:
        resolve_precision(options.precision, torch.device(options.device))
    except ConfigError as error:
        return str(error).replace("trainer.precision=", "--precision ")
    return None


def _unwritable(folder: Path) -> str | None:
    """Why tables cannot be written to ``folder``, which is made; None if they can."""
    try:
        probe_writable(folder)
    except StorageError as error:
        return f"--out {folder}: {error}"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one suite and write its table; returns the exit code."""
    started = time.time(), cpu_seconds()
    options = _parser().parse_args(arguments)
    problem = _problem(options) or _unwritable(options.out)
    if problem is not None:
        print(f"benchmark.py: {problem}", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    command = shlex.join(["python", "scripts/benchmark.py", *(sys.argv[1:] if arguments is None else arguments)])
    width = f"-w{options.width or 16}" if options.suite in suites.AT_A_WIDTH else ""
    name = options.name or f"{options.suite}-{options.device}{width}"
    if options.suite == "check":
        return _check(options, name, command, started)
    _write(suites.SUITES[options.suite](options), options, name, command, started)
    return 0


def _check(options: argparse.Namespace, name: str, command: str, started: tuple[float, float]) -> int:
    from bench import check

    found = check.check(options.records)
    if found is None:
        print(f"benchmark.py: --records {options.records} holds no record of loop, step or mixers", file=sys.stderr)
        return 2
    slower = check.slower(_write(found, options, name, command, started))
    for what in slower:
        print(f"benchmark.py: slower than its record: {what}", file=sys.stderr)
    return 1 if slower else 0


def _write(
    table: Report, options: argparse.Namespace, name: str, command: str, started: tuple[float, float]
) -> dict[str, Any]:
    """NAME.json and NAME.md, which is printed too; returns the content. started: ``time.time()`` and CPU seconds."""
    content = table.as_dict(threads=options.threads) | {"command": command}
    where, taken = content["provenance"], {"wall": time.time() - started[0], "cpu": cpu_seconds() - started[1]}
    where["started"], content["seconds"] = provenance.iso(started[0]), taken
    changed = " (with uncommitted changes)" if where["git_dirty"] else ""
    text = f"{table.markdown(content)}\n`{command}` at {where['git_commit'] or 'an unknown commit'}{changed}, "
    text += f"{taken['wall']:.0f} s, {taken['cpu']:.0f} s of CPU time.\n"
    print(text)
    write_atomic(options.out / f"{name}.json", json.dumps(content, indent=1, sort_keys=True) + "\n")
    write_atomic(options.out / f"{name}.md", text)
    if getattr(table, "figure", None) is not None:
        table.figure(content, options.out / name)
    return content


if __name__ == "__main__":
    sys.exit(main())
