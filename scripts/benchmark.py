"""Measure the trainer against itself, side by side in one process: medians, spread, processor time beside wall time.

    python scripts/benchmark.py loop            full loop against a bare step, a peer-style and an airbench-style loop
    python scripts/benchmark.py step            cost of every method against Baseline (the paper's "Cost", Table 2)
    python scripts/benchmark.py mixers          every mixing operation alone at four sizes, against other libraries
    python scripts/benchmark.py feed            samples a CPU-second of every data set against the plain way
    python scripts/benchmark.py networks        parameters, FLOPs, a real step and peak memory of every network
    python scripts/benchmark.py corruptions     milliseconds an image of every corruption against a plain loop

On a GPU add ``--device cuda`` (and ``--compile``). Writes NAME.json and NAME.md to --out (outputs/bench); those to
commit go to ``--out results/benchmarks``. Exit codes: 0 done, 2 wrong argument.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench import feeds, loops, networks, operations, operations_report, report
from bench.measure import interleaved
from randomix import mixers
from randomix.engine.allocator import keep_freed_memory
from randomix.engine.optim import resolve_precision


def loop_suite(setting: loops.Setting, rounds: int) -> report.Table:
    """T1, T4, T5: ours / bare step, ours / peer-style loop, ours / airbench-style loader (throughput ratios)."""
    data = loops.fake_data(setting)
    precision = resolve_precision(setting.precision, setting.torch_device)
    cases = {
        "ours (RandoMix)": loops.ours(loops.make_trainer(setting, data, "randomix"), setting.steps),
        "ours (Baseline)": loops.ours(loops.make_trainer(setting, data, "baseline"), setting.steps),
        "bare step": loops.bare(setting, data),
        "airbench-style loader (RandoMix)": loops.airbench_style(setting, data, "randomix", precision),
        "peer-style loop (Mixup)": loops.peer(setting),
    }
    return report.Table("loop", interleaved(cases, rounds, progress=_note), "ours (RandoMix)", setting)


def step_suite(setting: loops.Setting, rounds: int) -> report.Table:
    """T2: the whole loop of every method against Baseline's."""
    data = loops.fake_data(setting)
    cases = {
        name: loops.ours(loops.make_trainer(setting, data, name), setting.steps)
        for name in ["baseline", *(n for n in mixers.available() if n != "baseline")]
    }
    return report.Table("step", interleaved(cases, rounds, progress=_note), "baseline", setting)


def mixers_suite(options: argparse.Namespace) -> operations_report.Table:
    """Every mixing operation alone on a batch, against other libraries' and a plain implementation of its authors'."""
    sizes = operations.SIZES if options.size is None else (options.size,)
    batches = operations.BATCHES if options.batch is None else (options.batch,)
    device = torch.device(options.device)
    kept = options.device == "cpu" and keep_freed_memory()
    measured = [
        operations.measure(point, options.rounds, device, networks=point.batch == batches[0], progress=_note)
        for point in operations.points(sizes, batches)
    ]
    return operations_report.Table(measured, options.rounds, options.device, kept)


def networks_suite(setting: loops.Setting, rounds: int) -> networks.Table:
    """Every network at the paper's sizes; of the setting only device and precision matter."""
    return networks.measure(setting.device, setting.precision, torch.get_num_threads(), rounds, _note)


def feed_suite(setting: loops.Setting, rounds: int) -> feeds.Table:
    """Every data set's training batches against the plain way to make them; of the setting nothing matters."""
    return feeds.measure(rounds, _note)


def corruptions_suite(setting: loops.Setting, rounds: int) -> Any:
    """Every corruption of batch * steps images; of the setting only these, size and device matter."""
    from bench import corruptions  # needs SciPy and PIL

    return corruptions.measure(setting, rounds, _note)


SUITES = {
    "loop": loop_suite,
    "step": step_suite,
    "feed": feed_suite,
    "networks": networks_suite,
    "corruptions": corruptions_suite,
}


def _note(text: str) -> None:
    print(text, file=sys.stderr, end="\r", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=[*SUITES, "mixers"])
    parser.add_argument("--width", type=int, default=16, help="of the PreAct-ResNet18")
    parser.add_argument("--batch", type=int, help="default: 128; mixers: 128 and 256")
    parser.add_argument("--steps", type=int, default=16, help="steps in one timed run; mixers: as many as make 30 ms")
    parser.add_argument("--rounds", type=int, default=11, help="timed runs of every case")
    parser.add_argument("--size", type=int,
                        help="height and width of the images, at least 8; default: 32; mixers: 32, 64, 224, and 16000, "
                             "which is one channel of 16,000 samples (as all from 1024 on)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one operation")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"),
                        help="default: outputs/bench; results/benchmarks to commit them")  # fmt: skip
    parser.add_argument(
        "--name", help="of the files; default: SUITE-DEVICE-wWIDTH; feed-, mixers-, networks-, corruptions-DEVICE"
    )
    return parser


def _problem(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments, in one line; None if nothing is."""
    for name, least in {"width": 1, "batch": 1, "steps": 1, "rounds": 1, "size": 8, "threads": 1}.items():
        given = getattr(options, name)
        if given is not None and given < least:
            return f"--{name} is {given}, expected at least {least}"
    if options.suite == "mixers" and options.batch is not None and options.batch % 2 == 1:
        return f"--batch is {options.batch}, expected an even number: timm mixes no other batch"
    if options.device == "cuda" and not torch.cuda.is_available():
        return "--device cuda: torch finds no GPU here; use --device cpu"
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one suite and write its table; returns the exit code."""
    options = _parser().parse_args(arguments)
    problem = _problem(options)
    if problem is not None:
        print(f"benchmark.py: {problem}", file=sys.stderr)
        return 2
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    setting = loops.Setting(
        width=options.width, batch=options.batch or 128, steps=options.steps, size=options.size or 32,
        device=options.device, precision=options.precision, compile=options.compile,
    )  # fmt: skip
    alone = options.suite == "mixers"  # its own sizes, and nothing else of the setting
    table = mixers_suite(options) if alone else SUITES[options.suite](setting, options.rounds)
    width = "" if options.suite in ("feed", "mixers", "networks", "corruptions") else f"-w{options.width}"
    name = options.name or f"{options.suite}-{options.device}{width}"
    options.out.mkdir(parents=True, exist_ok=True)
    content = table.as_dict(threads=options.threads)
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    text = table.markdown(content)
    (options.out / f"{name}.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
