"""Two commits side by side: CPU time of a training step and of the mixing operations, and whether losses are the same.

    python scripts/compare_commits.py BEFORE [AFTER]           AFTER: HEAD
    python scripts/compare_commits.py HEAD~5 --only "training 16" "mixing 32" "curve"

Each measurement is a process of its own with one thread; a round has all of them, both commits next to each other.
Writes commits-BEFORE-AFTER.json and .md to --out. Exit codes: 0 done, 2 wrong argument or commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from bench.measure import median_interval, quartiles  # noqa: E402
from randomix.records import provenance  # noqa: E402

METHODS = ("cutout", "mixup", "cutmix", "fmix", "resizemix", "saliencymix", "randomix")
WITH_NETWORK = ("manifold_mixup", "patchup", "puzzlemix", "comixup")
Case = tuple[str, list[Any]]  # a function of at_commit.py and its arguments
TIMED: dict[str, Case] = {
    f"training {width} {precision}": ("training", [width, 128 // width, precision])
    for width in (16, 64)
    for precision in ("bf16", "fp32")
} | {
    f"mixing {size} {layout}": (
        "mixing",
        [[m for m in METHODS if size < 1000 or m != "saliencymix"], size, 128, layout],
    )
    for size, layout in ((32, "channels_last"), (32, "NCHW"), (224, "channels_last"), (224, "NCHW"), (16_000, "NCHW"))
}
CURVES: dict[str, Case] = {f"curve {m}": ("curve", [m, 20]) for m in ("baseline", *METHODS, *WITH_NETWORK)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    options = _parser().parse_args(arguments)
    chosen = [
        {name: case for name, case in cases.items() if not options.only or name.startswith(tuple(options.only))}
        for cases in (TIMED, CURVES)
    ]
    try:
        names = [_commit(options.before), _commit(options.after)]
        with tempfile.TemporaryDirectory() as folder:
            checkouts = [_checkout(name, Path(folder) / side) for name, side in zip(names, ("a", "b"), strict=True)]
            content = measure(*chosen, checkouts, options.rounds) | {"before": names[0], "after": names[1]}
    except RuntimeError as error:
        print(f"compare_commits.py: {error}", file=sys.stderr)
        return 2
    name = options.name or f"commits-{names[0][:7]}-{names[1][:7]}"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    (options.out / f"{name}.md").write_text(markdown(content))
    print(markdown(content))
    return 0


def measure(timed: dict[str, Case], curves: dict[str, Case], checkouts: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Every timed case ``rounds`` times on both checkouts, every curve once."""
    started, rows, equal = time.time(), {}, {}
    for number in range(rounds):
        for name, case in timed.items():
            print(f"round {number + 1} of {rounds}: {name:40s}", file=sys.stderr, end="\r", flush=True)
            found = {side: _run(checkouts[side], case) for side in ((0, 1) if number % 2 else (1, 0))}
            for row in found[0]:
                rows.setdefault(row, []).append((found[0][row], found[1][row]))
    for name, case in curves.items():
        first, second = (_run(checkout, case) for checkout in checkouts)
        equal[name.removeprefix("curve ")] = first == second
    where = provenance.collect(started=started, threads=1, precision="bf16 and fp32")
    rows = {name: _row(pairs) for name, pairs in rows.items()}
    return {"suite": "commits", "rounds": rounds, "rows": rows, "curves_equal": equal, "provenance": where}


def _row(pairs: Sequence[Sequence[dict[str, float]]]) -> dict[str, Any]:
    ratios = [before["cpu_ms"] / after["cpu_ms"] for before, after in pairs]
    sides = {
        side: {key: list(quartiles([pair[index][key] for pair in pairs])) for key in pairs[0][0]}
        for index, side in enumerate(("before", "after"))
    }
    return sides | {"speedup": list(median_interval(ratios))}


def markdown(content: dict[str, Any]) -> str:
    """The table that people read."""
    where = content["provenance"]
    machine = f"{where['hardware']['cpu']}, torch {where['versions']['torch']}"
    lines = [
        f"# Benchmark: {content['before'][:7]} against {content['after'][:7]}",
        "",
        "CPU milliseconds of a step (RandoMix, PreAct-ResNet18 of the width, batch 128 of 3x32x32), or of mixing 128 "
        f"float32 samples; median of {content['rounds']} processes each, one thread; {machine}. "
        "Faster: before / after in pairs, median and its 95 % interval. Faults: page faults of a step or batch.",
        "",
        "| case | before ms | after ms | faster | faults before | after | peak MiB before | after |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["rows"].items():
        before, after, (low, middle, high) = row["before"], row["after"], row["speedup"]
        numbers = [f"{before['cpu_ms'][1]:.3f}", f"{after['cpu_ms'][1]:.3f}", f"{middle:.2f}x [{low:.2f}, {high:.2f}]"]
        numbers += [f"{side[key][1]:.0f}" for key in ("faults", "peak_mib") for side in (before, after)]
        cells = [name, *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    if curves := content["curves_equal"]:
        same, differ = ([name for name, equal in curves.items() if equal is wanted] for wanted in (True, False))
        lines += ["", f"Losses of 20 steps in float32, identical: {', '.join(same) or 'none'}."]
        lines += [f"NOT identical: {', '.join(differ)}."] if differ else []
    return "\n".join(lines) + "\n"


def _run(checkout: Path, case: tuple[str, list[Any]]) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "scripts" / "bench" / "at_commit.py"), str(checkout), json.dumps(case)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}  # before an editable install
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=checkout, env=environment)
    if done.returncode:
        error = (done.stderr.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"{case[0]} {case[1]} cannot be run on {_commit('HEAD', checkout)[:7]}: {error}")
    return json.loads(done.stdout.splitlines()[-1])


def _commit(name: str, folder: Path = ROOT) -> str:
    done = _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", folder=folder)
    if done.returncode:
        raise RuntimeError(f"{name}: no such commit here")
    return done.stdout.strip()


def _checkout(commit: str, folder: Path) -> Path:
    for command in (
        ["clone", "--quiet", "--shared", "--no-checkout", str(ROOT), str(folder)],
        ["-C", str(folder), "checkout", "--quiet", "--detach", commit],
    ):
        done = _git(*command)
        if done.returncode:
            raise RuntimeError(f"{commit[:7]}: {done.stderr.strip()}")
    return folder


def _git(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, cwd=folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit, branch or tag")
    parser.add_argument("after", nargs="?", default="HEAD")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", metavar="START", help="cases that start so; default: all")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--name", help="of the files; default: commits-BEFORE-AFTER")
    return parser


if __name__ == "__main__":
    sys.exit(main())
