"""Tables 1 to 6 of the paper: their runs, how these stand, and starting those that are missing.

    python scripts/reproduce.py table=5                                  list: done, running, missing, cost, commands
    python scripts/reproduce.py table=4,5 run=true jobs=4                start what is missing, one job a GPU
    python scripts/reproduce.py table=all scale=demo run=true jobs=2     all tables at small size on data that is here
    python scripts/reproduce.py table=1 launcher=slurm run=true          as a Slurm array (else only its script)
    python scripts/reproduce.py write_grid=true                          results/grid/paper.json and demo.json

Keys: table (all or 1 to 6), scale (paper, demo, smoke), run, jobs, launcher (local, slurm), write_grid, and trainer.KEY
for all runs, for example trainer.device=cpu. The same command again goes on with what was interrupted. Exit codes: 0
done, 2 wrong argument, 75 interrupted, else that of the first run that failed; the others were run all the same.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(CHECKOUT), str(CHECKOUT / "scripts")]

from grid import data, document, launch, slurm  # noqa: E402
from grid.more import check_more  # noqa: E402
from grid.plan import Run, plan  # noqa: E402
from grid.scales import PAPER, SCALES, Scale, load  # noqa: E402
from grid.state import DONE, NO_CHECKPOINT, STATES, state_of  # noqa: E402
from grid.tasks import Task, tasks_of  # noqa: E402
from randomix.errors import BUG, OK, USER, RunError  # noqa: E402
from randomix.files import write_atomic  # noqa: E402

TABLES = tuple(range(1, 7))
KEYS = ("table", "scale", "run", "jobs", "launcher", "write_grid")
LAUNCHERS = ("local", "slurm")
GRIDS = (PAPER, "demo")  # that are committed
SEVERAL = {"table": ", such as table=4,5"}
PIPE = 141  # what shells report for a closed pipe


@dataclass(frozen=True)
class Options:
    """``more``: overrides of ``trainer`` for all runs. ``jobs`` 0: one a GPU, or one."""

    tables: frozenset[int] = frozenset(TABLES)
    scale: str = PAPER
    run: bool = False
    jobs: int = 0
    launcher: str = "local"
    write_grid: bool = False
    more: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    texts = list(sys.argv[1:] if arguments is None else arguments)
    if not texts or {"-h", "--help"} & set(texts):
        print(__doc__, end="")
        return OK
    try:
        options = read(texts)
        os.chdir(CHECKOUT)  # outputs/ and data/ are there
        return _write_grids() if options.write_grid else _reproduce(options)
    except ValueError as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return USER
    except RunError as error:
        print("\n".join(f"reproduce.py: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # `| head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE
    except OSError as error:
        print(f"reproduce.py: {error}", file=sys.stderr)
        return BUG


def read(texts: Sequence[str]) -> Options:
    """The options of a command line; ValueError, one line, names the argument and what it may be."""
    given: dict[str, str] = {}
    values: dict[str, str] = {}
    more = []
    for text in ["write_grid=true" if text in ("write-grid", "write_grid") else text for text in texts]:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"{text}: arguments are KEY=VALUE, for example table=5 or run=true")
        if key in given:
            raise ValueError(f"{key}: given twice, {given[key]} and {text}: give it once{SEVERAL.get(key, '')}")
        given[key] = text
        if key.startswith("trainer."):
            more.append(text)
        elif key in KEYS:
            values[key] = value
        else:
            raise ValueError(f"{key}: no such key; expected one of {', '.join(KEYS)} or trainer.KEY")
    if _flag(values, "write_grid") and len(given) > 1:
        other = next(text for key, text in given.items() if key != "write_grid")
        raise ValueError(f"{other}: write_grid=true writes the two grids and nothing else; leave one of them out")
    jobs = values.get("jobs", "0")
    if "jobs" in values and not (jobs.isdecimal() and int(jobs) > 0):
        raise ValueError(f"jobs={jobs}: expected a number of at least 1")
    return Options(
        _tables(values.get("table", "all")),
        _choice(values, "scale", SCALES, PAPER),
        _flag(values, "run"),
        int(jobs),
        _choice(values, "launcher", LAUNCHERS, "local"),
        _flag(values, "write_grid"),
        more,
    )


def _tables(text: str) -> frozenset[int]:
    if text == "all":
        return frozenset(TABLES)
    parts = (text[1:-1] if text.startswith("[") and text.endswith("]") else text).split(",")
    if not all(part.strip() in map(str, TABLES) for part in parts):
        raise ValueError(f"table={text}: expected all, or numbers from 1 to {TABLES[-1]} such as 4,5")
    return frozenset(int(part) for part in parts)


def _choice(values: dict[str, str], key: str, choices: Sequence[str], default: str) -> str:
    value = values.get(key, default)
    if value not in choices:
        raise ValueError(f"{key}={value}: expected one of {', '.join(choices)}")
    return value


def _flag(values: dict[str, str], key: str) -> bool:
    return _choice(values, key, ("true", "false"), "false") == "true"


def _write_grids() -> int:
    scales = [load(name, CHECKOUT / "configs") for name in GRIDS]
    for scale, runs in zip(scales, plan(CHECKOUT, *scales), strict=True):
        path = CHECKOUT / "results" / "grid" / f"{scale.name}.json"
        write_atomic(path, document.text(scale, runs), parents=True)
        print(path.relative_to(CHECKOUT))
    return OK


def _reproduce(options: Options) -> int:
    scale = load(options.scale, CHECKOUT / "configs")
    runs = [run.for_tables(options.tables) for run in plan(CHECKOUT, scale)[0] if run.tables & options.tables]
    check_more(options.more, [run.config for run in runs])
    tasks = _list(runs, scale, options)
    speech = [task for task in tasks if task.run.config["dataset"].get("root") == scale.needs]
    if scale.needs and speech and not Path(scale.needs).is_dir():
        print(f"{scale.needs}: is not there; {len(speech)} of the commands need it, run first: {scale.first}")
        tasks = [task for task in tasks if task not in speech] if options.run else tasks
    if options.launcher == "slurm":
        return _slurm(tasks, options)
    return _run(tasks, scale, options) if options.run and tasks else OK


def _list(runs: Sequence[Run], scale: Scale, options: Options) -> list[Task]:
    """Print every run with its state and what is left of it with commands; returns these commands."""
    store, counts, tasks = CHECKOUT / "results" / "records", Counter(), []
    for run in runs:
        states = {seed: state_of(run, seed, store) for seed in run.seeds}
        counts.update(state.name for state in states.values())
        left = tasks_of(run, states, scale.name, options.more)
        tasks += left
        dataset, model, digest = run.key
        shown = ", ".join(f"seed {seed} {state.name}" for seed, state in states.items())
        if len(states) > 1 == len({state.name for state in states.values()}):
            shown = f"{len(states)} seeds {next(iter(states.values())).name}"
        print(f"{dataset}/{model}/{run.config['mixer']['name']}-{digest}  {run.label}: {shown}{_cost(left, scale)}")
        print(f"    fills {' '.join(run.cells)}")
        for task in left:
            print(f"    {task.command}")
        for state in states.values():
            if state.name == NO_CHECKPOINT:
                print(
                    f"    {state.folder}/checkpoints/last.pt is gone; {', '.join(state.missing)} would need it: "
                    "put it back, or delete the folder to train again"
                )
    states = ", ".join(f"{counts[name]} {name}" for name in STATES if counts[name])
    print(f"{len(runs)} runs, {sum(counts.values())} seeds in all: {states}{_cost(tasks, scale)}")
    if counts[DONE] == sum(counts.values()):
        root = f"outputs/tables/{scale.name}"
        print(f"all are done; their tables: python -m randomix.records.store {root} results/records && make tables")
    return tasks


def _cost(tasks: Sequence[Task], scale: Scale) -> str:
    """What the commands will take, where that is known."""
    if scale.name == PAPER:
        hours = [task.gpu_hours for task in tasks if task.gpu_hours is not None]
        return f"; about {sum(hours):.1f} GPU-hours on an A100 (estimate)" if hours else ""
    seconds = [task.cpu_seconds for task in tasks if task.cpu_seconds is not None]
    return f"; about {sum(seconds):.0f} CPU-seconds" if seconds else ""


def _run(tasks: Sequence[Task], scale: Scale, options: Options) -> int:
    gpus = [] if "trainer.device=cpu" in options.more or scale.name != PAPER else launch.visible_gpus()
    large = [task for task in tasks if gpus and task.gpus > len(gpus)]
    for task in large:
        print(
            f"left out: {task.title}: takes {task.gpus} GPUs, {len(gpus)} are here; see the experiment's header",
            file=sys.stderr,
        )
    tasks, unreadable = data.readable([task for task in tasks if task not in large], CHECKOUT)
    for line, count in unreadable.items():
        print(f"left out: {count} commands: {line}", file=sys.stderr)
    logs = Path(f"outputs/tables/{scale.name}/logs")
    pool = launch.Pool(options.jobs or max(1, len(gpus)), gpus, logs, CHECKOUT, lambda line: print(line, flush=True))
    code = pool.run(tasks)
    if pool.signals:
        print("interrupted; the same command goes on with what was not finished", file=sys.stderr)
    elif pool.failed:
        print(f"{len(pool.failed)} of {len(tasks)} commands failed, the first with exit code {code}", file=sys.stderr)
    return code or (USER if large or unreadable else OK)


def _slurm(tasks: Sequence[Task], options: Options) -> int:
    folder = CHECKOUT / "outputs" / "tables" / options.scale / "slurm"
    for script in slurm.write(tasks, folder, CHECKOUT, sys.executable):
        print(slurm.submit(script) if options.run else shlex.join(["sbatch", str(script)]))
    return OK


if __name__ == "__main__":
    sys.exit(main())
