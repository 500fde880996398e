"""Which occlusion did the paper measure? The setting at which a trained Baseline has the paper's error.

    python scripts/calibrate_occlusion.py outputs/cifar100/wrn_28_10/baseline-HASH/seed-0

The paper gives neither size nor placement of its blocks, but the Baseline's error under them: 42.50 % (Table 4, on
CIFAR-100 with WRN-28-10). This evaluates the run's last weights under blocks of 1/8 to 7/8 of the shorter side, clipped
at the borders and inside: 14 settings, prints the table, and names the one nearest to --target. Freeze that one for all
methods before any other is evaluated. Any run will do; another network or data set has another target. Exit codes: 0
done, 2 wrong argument.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TARGET = 42.50  # Table 4, "Occlusion Error" of the Baseline, in percent
EIGHTHS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)  # 4 to 28 pixels of 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    from randomix.errors import RunError
    from randomix.files import probe_writable, write_atomic

    try:
        probe_writable(options.out.parent)
        content = calibrate(options)
        print(table(content))
        write_atomic(options.out, json.dumps(content, indent=1) + "\n")
    except (RunError, ValueError) as error:
        print(f"calibrate_occlusion.py: {str(error).splitlines()[0]}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


def calibrate(options: argparse.Namespace) -> dict[str, Any]:
    """Evaluate every setting; the content of the JSON file. Raises ConfigError, DataError, CheckpointError."""
    import torch

    from randomix.engine import distributed
    from randomix.engine.optim import resolve_precision
    from randomix.records import provenance
    from randomix.robustness.evaluators import check_evaluators, run_evaluators
    from randomix.runs.setup import set_up_torch

    started = time.time()
    settings = {"occlusion_sweep": {"blocks": options.blocks, "repeats": options.repeats, "seed": options.seed}}
    if options.batch_size < 1:
        raise ValueError(f"--batch-size is {options.batch_size}, expected at least 1")
    if not 0 <= options.target <= 100:
        raise ValueError(f"--target is {options.target:g}, expected an error of 0 to 100 percent")
    if options.seed < 0:
        raise ValueError(f"--seed is {options.seed}, expected at least 0")
    run, epoch, data, model = load(options.run, options.root)
    check_evaluators(["occlusion_sweep"], settings, data)
    with distributed.init(options.device) as world:
        set_up_torch(resolve_precision("fp32", world.device))
        found = run_evaluators(
            model.to(world.device),
            data.eval_set(world.device),
            names=["clean", "occlusion_sweep"],
            settings=settings,
            batch_size=options.batch_size,
            world=world,
        )
    where = provenance.collect(device=world.device.type, threads=torch.get_num_threads(), started=started)
    points = settings_of(found["counts"]["occlusion_sweep"], min(data.input_shape[1:]))
    return {
        "run": run,
        "epoch": epoch,
        "samples": found["counts"]["clean"]["total"],
        "clean_error": found["metrics"]["top1_error"],
        "target": options.target,
        "nearest": nearest(points, options.target),
        "settings": points,
        "seed": options.seed,
        "provenance": where,
    }


def load(path: Path, root: str | None) -> tuple[str, int, Any, Any]:
    """Name and epochs of a run or checkpoint, its data set, now below ``root``, and its network."""
    import datasets
    import models
    from randomix.engine.runfolder import RunFolder
    from randomix.records.identity import run_name
    from randomix.runs.reevaluate import load_weights

    moved = {} if root is None else {"root": root}
    run, epoch, data, model = load_weights(Path(RunFolder.of_checkpoint(path)[1]), moved, datasets.build, models.build)
    return run_name(run), epoch, data, model


def settings_of(counts: dict[str, Any], side: int) -> list[dict[str, Any]]:
    """One entry a setting, as the counts of the evaluator occlusion_sweep have them: errors in percent.

    Of blocks that are equally many pixels, such as 0.25 and 8 of 32, the first one counts.
    """
    points: dict[tuple[str, int], dict[str, Any]] = {}
    for placement, rows in counts["correct1"].items():
        for block, correct in zip(counts["blocks"], rows, strict=True):
            errors = [100 * (counts["total"] - number) / counts["total"] for number in correct]
            spread = statistics.stdev(errors) if len(errors) > 1 else None
            pixels = max(round(block * side), 1) if block < 1 else int(block)
            point = {"placement": placement, "block": pixels, "error": statistics.fmean(errors), "error_std": spread}
            points.setdefault((placement, pixels), point | {"correct1": correct})
    return list(points.values())


def nearest(points: Sequence[dict[str, Any]], target: float) -> dict[str, Any]:
    """The setting whose error is nearest to ``target``, the earlier one of two; and how far it is."""
    best = min(points, key=lambda point: abs(point["error"] - target))
    return {"placement": best["placement"], "block": best["block"], "difference": best["error"] - target}


def table(content: dict[str, Any]) -> str:
    """Blocks by placements, errors in percent, and what follows from them."""
    placements = list(dict.fromkeys(point["placement"] for point in content["settings"]))
    lines = [f"{'block':>6}" + "".join(f"{name:>18}" for name in placements)]
    for block in dict.fromkeys(point["block"] for point in content["settings"]):
        row = [_cell(p) for p in content["settings"] if p["block"] == block]
        lines.append(f"{block:>6}" + "".join(f"{text:>18}" for text in row))
    best = content["nearest"]
    lines.append(
        f"{content['run']}, epoch {content['epoch']}: clean error {content['clean_error']:.2f} %, "
        f"{content['samples']} samples"
    )
    lines.append(
        f"nearest to {content['target']:.2f} %: placement={best['placement']} block={best['block']} "
        f"({best['difference']:+.2f})"
    )
    lines.append(f"evaluator.occlusion.placement={best['placement']} evaluator.occlusion.block={best['block']}")
    return "\n".join(lines)


def _cell(point: dict[str, Any]) -> str:
    spread = "" if point["error_std"] is None else f" ± {point['error_std']:.2f}"
    return f"{point['error']:.2f}{spread}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run, or a checkpoint file in it")
    parser.add_argument("--target", type=float, default=TARGET, help="the Baseline's error in percent, default: 42.50")
    parser.add_argument(
        "--blocks",
        type=float,
        nargs="+",
        default=list(EIGHTHS),
        help="sides in pixels, or, below 1, as shares of the shorter side",
    )
    parser.add_argument("--repeats", type=int, default=5, help="mask seeds; their mean counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", help="where the data are now; default: where the run found them")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("outputs/occlusion_calibration.json"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
