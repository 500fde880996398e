"""Several ranks against one: the same batch shared among them (strong) and a batch for each (weak) (T9)."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bench import report, targets, waiting
from bench.loops import Setting, fake_data, make_trainer, ours
from bench.measure import keep_memory, quartiles, timed
from randomix.engine import distributed
from randomix.engine.launcher import launch
from randomix.engine.optim import resolve_precision
from randomix.records import provenance

METHOD = "randomix"


def measure(
    setting: Setting, ranks: list[int], threads: int, rounds: int, progress: Callable[[str], None]
) -> report.Plain:
    """Each number of ranks in processes of its own, one after another, ``threads`` CPU threads each."""
    started, rows = time.time(), {}
    for count in ranks:
        for kind in ("strong", "weak") if count > 1 else ("strong",):
            progress(f"{count} rank(s), {kind:10s}")
            batch = setting.batch * (count if kind == "weak" else 1)
            rows[f"{count} {kind}"] = _of_ranks(replace(setting, batch=batch), count, threads, rounds) | {
                "ranks": count,
                "kind": kind,
            }
    rows = {name: row | _efficiency(row, next(iter(rows.values()))) for name, row in rows.items()}
    gpu = provenance.hardware()["gpu"] or ""
    point, verdicts = targets.Point(setting.device, setting.width, setting.size, gpu=gpu), []
    for row in rows.values():
        if row["ranks"] == 8:
            verdict = targets.judge(targets.SCALING, (row["wall_efficiency"],) * 3, point)
            verdicts += [verdict | {"what": f"{verdict['what']}, {row['kind']}"}] if verdict else []
    body = {"rows": rows, "rounds": rounds, "setting": asdict(setting), "targets": verdicts}
    precision = resolve_precision(setting.precision, setting.torch_device).name
    return report.Plain("scaling", body, _lines, setting.device, precision, started)


def _of_ranks(setting: Setting, ranks: int, threads: int, rounds: int) -> dict[str, Any]:
    """What the ranks measured, put together: the slowest one's wall time, all of their processor time."""
    with tempfile.TemporaryDirectory(prefix="randomix-") as folder:
        arguments = (asdict(setting), rounds, threads, folder)
        if ranks == 1:  # in a process of its own too, as ``launch`` would stay in this one
            process = multiprocessing.get_context("spawn").Process(target=worker, args=arguments)
            process.start()
            process.join()
            code = process.exitcode
        else:
            code = launch(worker, arguments, ranks, Path(folder), threads_per_process=threads)
        if code:
            raise RuntimeError(f"the benchmark's {ranks} rank(s) ended with code {code}")
        found = [json.loads((Path(folder) / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    wall = [max(each) for each in zip(*(rank["wall"] for rank in found), strict=True)]
    cpu = [sum(each) for each in zip(*(rank["cpu"] for rank in found), strict=True)]
    images = setting.batch * setting.steps
    return {
        "batch": setting.batch,
        "images_per_second": images / quartiles(wall)[1],
        "images_per_cpu_second": images / quartiles(cpu)[1],
        "wall_milliseconds": [1e3 * q / setting.steps for q in quartiles(wall)],
        "cpu_milliseconds": [1e3 * q / setting.steps for q in quartiles(cpu)],
        "gradient_bytes": found[0]["gradient_bytes"],
        "waits": [rank["waits"] for rank in found],
    }


def worker(setting_: dict[str, Any], rounds: int, threads: int, folder: str) -> None:
    """One rank: writes its seconds of every round, which all ranks begin together."""
    torch.set_num_threads(threads)

    setting = Setting(**setting_)
    keep_memory(setting.device)
    with distributed.init(setting.device, 5.0) as world:
        trainer = make_trainer(setting, fake_data(setting), METHOD, world=world)
        run, samples, waits = ours(trainer, setting.steps), [], []
        for number in range(2 * rounds + 1):  # then once more each, as a profiler slows down what it looks at
            distributed.all_reduce_sum(torch.ones(1, device=world.device)).item()
            if number > rounds:
                waits.append(waiting.share(run, world.device))
            else:
                samples.append(timed(run))
        samples, known = samples[1:], [share for share in waits if share is not None]
        sent = sum(p.numel() * p.element_size() for p in trainer.model.parameters() if p.requires_grad)
        content = {
            "wall": [s.wall for s in samples],
            "cpu": [s.cpu for s in samples],
            "gradient_bytes": sent,
            "waits": quartiles(known) if known else None,
        }
        (Path(folder) / f"rank-{world.rank}.json").write_text(json.dumps(content))


def _efficiency(row: dict[str, Any], one: dict[str, Any]) -> dict[str, float]:
    """Throughput against that of one rank times the number of ranks; and images a CPU second against one rank's."""
    return {
        "wall_efficiency": row["images_per_second"] / one["images_per_second"] / row["ranks"],
        "cpu_efficiency": row["images_per_cpu_second"] / one["images_per_cpu_second"],
    }


def _lines(content: dict[str, Any]) -> list[str]:
    setting = content["setting"]
    lines = [
        f"RandoMix, PreAct-ResNet18 width {setting['width']}, 3x{setting['size']}x{setting['size']}, "
        f"{setting['device']}, {content['provenance']['precision']}; {report.machine(content)} in each rank; median of "
        f"{content['rounds']} runs of {setting['steps']} steps.",
        "Strong: one batch shared by the ranks; weak: a batch of that size for each. Efficiency: images/s against one "
        "rank's times the ranks; CPU efficiency: images a CPU second of all ranks together against one rank's, which "
        "other load on the machine does not change. A step reduces the gradients once.",
        "Waits: share of the step in which a rank only waits for others, the least and the most of the ranks' medians; "
        "on a CPU its thread sleeps then, on a GPU no kernels run but NCCL's.",
        "",
        "| ranks | | batch of all | images/s | efficiency | images/CPU s | CPU efficiency | wall ms/step | CPU ms/step "
        "| MB reduced | waits |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in content["rows"].values():
        reduced = row["gradient_bytes"] / 1e6 if row["ranks"] > 1 else 0.0
        wall, cpu = (
            f"{m:.2f} [{low:.2f}, {high:.2f}]" for low, m, high in (row["wall_milliseconds"], row["cpu_milliseconds"])
        )
        cells = [
            str(row["ranks"]),
            row["kind"] if row["ranks"] > 1 else "",
            str(row["batch"]),
            f"{row['images_per_second']:.0f}",
            f"{row['wall_efficiency']:.3f}",
            f"{row['images_per_cpu_second']:.0f}",
            f"{row['cpu_efficiency']:.3f}",
            wall,
            cpu,
            f"{reduced:.2f}",
            _share(row["waits"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + targets.lines(content["targets"])


def _share(waits: list[list[float] | None]) -> str:
    if None in waits:
        return ""
    medians = [middle for _, middle, _ in waits]
    return f"{min(medians):.1%} to {max(medians):.1%}" if len(medians) > 1 else f"{medians[0]:.1%}"
