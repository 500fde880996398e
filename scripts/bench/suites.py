"""The suites by name: from the command line's options to a report. What only one needs is imported by that one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import torch

from bench import loops, report, targets
from bench.measure import interleaved, keep_memory
from randomix import mixers
from randomix.engine.protocols import Data


def note(text: str) -> None:
    """Say on the terminal how far it is; overwritten by the next."""
    print(text, file=sys.stderr, end="\r", flush=True)


def setting_of(options: argparse.Namespace) -> loops.Setting:
    """The point that loop, step and others are measured at."""
    return loops.Setting(
        width=options.width or 16,
        batch=options.batch or 128,
        steps=options.steps,
        size=options.size or 32,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
    )


def loop(options: argparse.Namespace) -> report.Report:
    """T1, T4, T5: ours / bare step, ours / peer-style loop, ours / airbench-style loader (throughput ratios)."""
    return loop_at(setting_of(options), options.rounds, options.only)


LOOPS: dict[str, tuple[str, Callable[[loops.Setting, Data], Callable[[], None]]]] = {  # what ours is compared with
    "baseline": ("ours (Baseline)", lambda s, data: loops.ours(loops.make_trainer(s, data, "baseline"), s.steps)),
    "bare": (targets.BARE, loops.bare),
    "airbench": (targets.AIRBENCH, lambda s, data: loops.airbench_style(s, data, "randomix")),
    "peer": (targets.PEER, lambda s, _: loops.peer(s)),
}


def loop_at(setting: loops.Setting, rounds: int, only: list[str] | None = None) -> report.Table:
    """Ours with RandoMix and every other loop, or those of ``only``, side by side."""
    kept = keep_memory(setting.device)
    data = loops.fake_data(setting)
    cases = {targets.OURS: loops.ours(loops.make_trainer(setting, data, "randomix"), setting.steps)}
    for name in only or LOOPS:
        label, build = LOOPS[name]
        cases[label] = build(setting, data)
    samples = interleaved(cases, rounds, progress=note)
    return report.Table("loop", samples, targets.OURS, setting, targets.LOOP, kept)


def step(options: argparse.Namespace) -> report.Report:
    """T2, T3: the whole loop of every method against Baseline's."""
    return step_at(setting_of(options), options.rounds, options.only)


def step_at(setting: loops.Setting, rounds: int, only: list[str] | None = None) -> report.Table:
    """Baseline and every method, or those of ``only``, side by side."""
    kept = keep_memory(setting.device)
    data = loops.fake_data(setting)
    cases = {
        name: loops.ours(loops.make_trainer(setting, data, name), setting.steps)
        for name in ["baseline", *(n for n in only or mixers.available() if n != "baseline")]
    }
    samples = interleaved(cases, rounds, progress=note)
    return report.Table("step", samples, "baseline", setting, targets.STEP, kept)


def mixing(options: argparse.Namespace) -> report.Report:
    """Every mixing operation alone on a batch, against other libraries' and a plain implementation of its authors'."""
    from bench import operations

    sizes = operations.SIZES if options.size is None else (options.size,)
    batches = operations.BATCHES if options.batch is None else (options.batch,)
    return mixing_at(operations.points(sizes, batches), options.rounds, options.device, batches[0])


def mixing_at(points: list[Any], rounds: int, device: str, network_batch: int | None) -> report.Report:
    """The operations at ``points``; those that need the network at ``network_batch`` samples only."""
    from bench import operations, operations_report

    kept = keep_memory(device)
    measured = [
        operations.measure(point, rounds, torch.device(device), networks=point.batch == network_batch, progress=note)
        for point in points
    ]
    return operations_report.Table(measured, rounds, device, kept)


def networks(options: argparse.Namespace) -> report.Report:
    """Every network at the paper's sizes; only device and precision matter."""
    from bench import networks

    return networks.measure(options.device, options.precision, torch.get_num_threads(), options.rounds, note)


def feed(options: argparse.Namespace) -> report.Report:
    """Every data set's training batches against the plain way to make them; only the rounds matter."""
    from bench import feeds

    keep_memory("cpu")
    return feeds.measure(options.rounds, note)


def corruptions(options: argparse.Namespace) -> report.Report:
    """Every corruption of batch * steps images; only these, size and device matter."""
    from bench import corruptions  # needs SciPy and PIL

    keep_memory(options.device)
    return corruptions.measure(setting_of(options), options.rounds, note)


def growth(options: argparse.Namespace) -> report.Report:
    """Time of a sample along every axis, or those of ``only``; steps do not matter."""
    from bench import growth

    keep_memory(options.device)
    axes = {axis: growth.AXES[axis] for axis in options.only or growth.AXES}
    return growth.measure(setting_of(options), options.rounds, note, axes)


def gpu(options: argparse.Namespace) -> report.Report:
    """Throughput of the networks, or those of ``only``, against ceilings; at full width unless on a CPU."""
    from bench import gpu

    keep_memory(options.device)
    width = options.width or (16 if options.device == "cpu" else None)
    names = options.only or list(gpu.NETWORKS)
    return gpu.measure(
        options.device, names, width, options.batch, options.precision, options.steps, options.rounds, note
    )


def graphs(options: argparse.Namespace) -> report.Report:
    """T8: graphs and recompilations of every method, seconds of compiling, and what a compiled step gains."""
    from bench import graphs

    keep_memory(options.device)
    return graphs.measure(setting_of(options), options.rounds, note)


def scaling(options: argparse.Namespace) -> report.Report:
    """T9: 1 and 2 ranks on a CPU, 1, 2, 4, ... and all of the GPUs; --threads are those of a rank."""
    from bench import scaling

    count = torch.cuda.device_count() if options.device == "cuda" else 2
    ranks = sorted({2**power for power in range(8) if 2**power <= count} | {count})
    return scaling.measure(setting_of(options), ranks, options.threads, options.rounds, note)


def startup(options: argparse.Namespace) -> report.Report:
    """Processor seconds of train.py until it helps, refuses or takes its first step; only the rounds matter."""
    from bench import startup

    return startup.measure(options.rounds, note)


SUITES: dict[str, Callable[[argparse.Namespace], report.Report]] = {
    "loop": loop,
    "step": step,
    "mixers": mixing,
    "feed": feed,
    "networks": networks,
    "corruptions": corruptions,
    "growth": growth,
    "gpu": gpu,
    "graphs": graphs,
    "scaling": scaling,
    "startup": startup,
}
AT_A_WIDTH = ("loop", "step", "growth", "graphs", "scaling")  # suites whose files are named after the width


def choices(suite: str) -> list[str]:
    """What ``--only`` may name in this suite."""
    if suite == "loop":
        return list(LOOPS)
    if suite == "step":
        return mixers.available()
    if suite == "growth":
        from bench.growth import AXES

        return list(AXES)
    if suite == "gpu":
        from bench.gpu import NETWORKS

        return list(NETWORKS)
    return []
