"""reproduce.py: its arguments, how it tells runs apart, what it starts, and how it stops."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import reproduce  # noqa: E402
from grid import data, launch  # noqa: E402
from grid.more import check_more  # noqa: E402
from grid.plan import Experiments, Run  # noqa: E402
from grid.scales import Scale, load  # noqa: E402
from grid.state import METRICS, state_of  # noqa: E402
from grid.tasks import Task, tasks_of  # noqa: E402
from randomix.engine.status import Status  # noqa: E402
from randomix.records import record  # noqa: E402


@pytest.fixture(scope="module")
def config() -> dict:
    """Two evaluators, one of them with settings."""
    with Experiments(ROOT) as made:
        return made.compose(["mixer=mixup", "evaluators=[clean,occlusion]", "evaluator.occlusion.block=2"])


@pytest.fixture
def run(config: dict, tmp_path: Path) -> Run:
    overrides = ("mixer=mixup", "evaluators=[clean,occlusion]", "evaluator.occlusion.block=2")
    cells = ("table1/mixup/cifar10-wrn_28_10", "table4/mixup/top1_error", "table4/mixup/occlusion_error")
    return Run({**config, "output_root": str(tmp_path)}, overrides, (0, 1), cells, cpu_seconds=5.0)


def finish(
    run: Run,
    folder: Path,
    evaluators: list[str],
    kind: str = "train",
    *,
    value: float | None = 40.0,
    epoch: int | None = None,
    precision: str | None = None,
    **changes: object,
) -> None:
    """Leave what a finished run leaves, or an evaluation of it after ``epoch``."""
    settings = {"evaluators": evaluators, **changes, "checkpoint": "last.pt"}
    measured = {METRICS[name]: value for name in evaluators} | ({"epoch": epoch} if epoch else {})
    history = [{"epoch": run.config["recipe"]["epochs"], "top1": 50.0}] if kind == "train" else []
    text = record.build_record(
        {**run.with_seed(0), **settings},
        history=history,
        best={},
        candidates={},
        mode="l",
        evaluated={"metrics": measured},
        data={},
        kind=kind,
        provenance={"precision": precision} if precision else {},
    )
    name = "record.json" if kind == "train" else f"evaluations/last-{len(evaluators)}.json"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def trained(run: Run, tmp_path: Path, evaluators: list[str], **more: object) -> Path:
    """The folder of seed 0, trained to its end, with its checkpoint."""
    folder = state_of(run, 0, tmp_path).folder
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    Status(folder / "status.json").update("finished")
    finish(run, folder, evaluators, **more)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table=7"], "table=7: expected all, or numbers from 1 to 6 such as 4,5"),
        (["table=", "run=true"], "table=: expected all, or numbers from 1 to 6 such as 4,5"),
        (
            ["tabel=1"],
            "tabel: no such key; expected one of table, scale, run, jobs, launcher, write_grid or trainer.KEY",
        ),
        (["scale=big"], "scale=big: expected one of paper, demo, smoke"),
        (["jobs=0"], "jobs=0: expected a number of at least 1"),
        (["run=yes"], "run=yes: expected one of true, false"),
        (["launcher=pbs"], "launcher=pbs: expected one of local, slurm"),
        (["table=5", "table=4"], "table: given twice, table=5 and table=4: give it once, such as table=4,5"),
        (["run=true", "run=false"], "run: given twice, run=true and run=false: give it once"),
        (["table=[4,5"], "table=[4,5: expected all, or numbers from 1 to 6 such as 4,5"),
        (
            ["write-grid", "run=true"],
            "run=true: write_grid=true writes the two grids and nothing else; leave one of them out",
        ),
        (["5"], "5: arguments are KEY=VALUE, for example table=5 or run=true"),
    ],
)
def test_wrong_arguments_take_one_line(arguments: list[str], message: str, capsys) -> None:
    assert reproduce.main(arguments) == 2
    assert capsys.readouterr().err == f"reproduce.py: {message}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("trainer.devise=cpu", "trainer.devise=cpu: devise must be one of .*; did you mean device[?]"),
        ("trainer.precision=bf16", "trainer.precision=bf16: it makes other runs of them, which fill no cell; .*"),
        ("trainer.micro_batch_size=8", "trainer.micro_batch_size=8: it makes other runs of them, .*"),
        ("trainer.deterministic=true", "trainer.deterministic=true: it makes other runs of them, .*"),
        ("trainer.nproc=7", "recipe.batch_size=[0-9]+: must be divisible by trainer.nproc=7 .*"),
        ("trainer.nproc=many", "trainer.nproc=many: must be a whole number of at least 1"),
        ("trainer.compile=yes", "trainer.compile=yes: must be true or false"),
        ("trainer.device=cpu,cuda", "trainer.device=cpu,cuda: all runs take one value"),
        ("trainer.keep_last=[", "trainer.keep_last=\\[: cannot be read; check brackets and quotes"),
    ],
)
def test_overrides_of_all_runs_are_refused_before_any_starts(run: Run, text: str, line: str, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "plan", lambda *_: [[run]])
    assert reproduce.main(["table=4", "run=true", text]) == 2
    found = capsys.readouterr()
    assert re.fullmatch(f"reproduce.py: {line}\n", found.err) and not found.out


def test_an_override_that_changes_no_run_is_taken(run: Run) -> None:
    check_more(["trainer.precision=auto", "trainer.deterministic=false", "trainer.nproc=2"], [run.config])


def test_arguments() -> None:
    found = reproduce.read(["table=[4,5]", "scale=demo", "run=true", "jobs=2", "trainer.device=cpu"])
    assert (found.tables, found.scale, found.run, found.jobs) == (frozenset({4, 5}), "demo", True, 2)
    assert found.more == ["trainer.device=cpu"]
    assert reproduce.read(["write-grid"]).write_grid and reproduce.read(["table=all"]).tables == frozenset(range(1, 7))


def test_states(run: Run, tmp_path: Path) -> None:
    def state(seed: int = 0) -> tuple:
        found = state_of(run, seed, tmp_path / "store")
        return found.name, found.missing

    folder = state_of(run, 0, tmp_path).folder
    assert state() == ("missing", ("clean", "occlusion"))
    folder.mkdir(parents=True)
    for written, want in (("running", "interrupted"), ("interrupted", "interrupted"), ("failed", "failed")):
        Status(folder / "status.json").update(written)
        assert state()[0] == want
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.pt").touch()
    finish(run, folder, ["clean"])
    assert state() == ("unevaluated", ("occlusion",))
    other = {**run.config["evaluator"], "occlusion": {**run.config["evaluator"]["occlusion"], "block": 3}}
    finish(run, folder, ["occlusion"], "eval", evaluator=other)
    assert state() == ("unevaluated", ("occlusion",))  # with another block
    finish(run, folder, ["occlusion"], "eval")
    assert state() == ("done", ())
    assert state(1)[0] == "missing"


@pytest.mark.parametrize(
    ("epoch", "value", "want"), [(1, 40.0, "unevaluated"), (0, None, "unevaluated"), (0, 40.0, "done")]
)
def test_only_values_after_the_end_of_training_count(run: Run, tmp_path: Path, epoch, value, want) -> None:
    folder = trained(run, tmp_path, ["clean"])
    finish(run, folder, ["occlusion"], "eval", epoch=epoch or run.config["recipe"]["epochs"], value=value)
    assert state_of(run, 0, tmp_path).name == want


def test_a_trained_run_without_its_checkpoint_is_said_and_not_started(run: Run, tmp_path, monkeypatch, capsys) -> None:
    folder = trained(run, tmp_path, ["clean"])
    (folder / "checkpoints" / "last.pt").unlink()
    found = state_of(run, 0, tmp_path)
    assert (found.name, found.missing) == ("without checkpoint", ("occlusion",))
    assert tasks_of(run, {0: found, 1: state_of(run, 1, tmp_path)}, "demo", [])[0].arguments[-1] == "seed=1"
    monkeypatch.setattr(reproduce, "plan", lambda *_: [[run]])
    assert reproduce.main(["table=4"]) == 0
    assert f"    {folder}/checkpoints/last.pt is gone; occlusion would need it: " in capsys.readouterr().out


def test_a_run_that_holds_its_lock_is_running(run: Run, tmp_path: Path) -> None:
    from filelock import FileLock

    folder = state_of(run, 0, tmp_path).folder
    folder.mkdir(parents=True)
    Status(folder / "status.json").update("running")
    with locked(folder):
        assert state_of(run, 0, tmp_path).name == "running"
    assert state_of(run, 0, tmp_path).name == "interrupted"
    with FileLock(folder / ".lock", timeout=0):  # looking has not left it locked
        pass


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Another process holds the lock of a run."""
    code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}; time.sleep(60)", str(folder / ".lock")], stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None and other.stdout.readline()
        yield
    finally:
        other.kill()
        other.wait()


def test_what_is_being_evaluated_is_not_evaluated_twice(run: Run, tmp_path: Path) -> None:
    folder = trained(run, tmp_path, ["clean"])
    with locked(folder):
        states = {0: state_of(run, 0, tmp_path)}
        assert states[0].name == "running"
        assert tasks_of(replace(run, seeds=(0,)), states, "paper", []) == []
    assert state_of(run, 0, tmp_path).name == "unevaluated"


def test_committed_records_count(run: Run, tmp_path: Path) -> None:
    finish(run, tmp_path / "made", ["clean", "occlusion"])
    name = json.loads((tmp_path / "made" / "record.json").read_text())["run"]
    (tmp_path / "store" / name).parent.mkdir(parents=True)
    (tmp_path / "made" / "record.json").rename(tmp_path / "store" / f"{name}.json")
    assert state_of(run, 0, tmp_path / "store").name == "done"
    (tmp_path / "store" / f"{name}.json").write_text("{")
    assert state_of(run, 0, tmp_path / "store").name == "missing"


def test_what_is_left_to_do(run: Run, tmp_path: Path) -> None:
    states = {seed: state_of(run, seed, tmp_path) for seed in run.seeds}
    assert [t.arguments[-1] for t in tasks_of(run, states, "paper", [])] == ["seed=0", "seed=1"]
    (both,) = tasks_of(run, states, "demo", ["trainer.device=cpu"])
    assert both.command.startswith("python train.py mixer=mixup 'evaluators=[clean,occlusion]' evaluator.occlusion.bl")
    assert both.arguments[-2:] == ("trainer.device=cpu", "seed=0,1")
    assert both.cpu_seconds == 10.0
    folder = trained(run, tmp_path, ["clean"], precision="bf16")
    states[0] = state_of(run, 0, tmp_path)
    evaluate, train = tasks_of(run, states, "demo", ["trainer.device=cpu", "trainer.compile=true"])
    assert evaluate.arguments == (
        "eval.py",
        f"checkpoint={folder}",
        "evaluators=[occlusion]",
        "evaluator.occlusion.block=2",
        "trainer.precision=bf16",
        "trainer.device=cpu",
    )
    assert evaluate.gpus == 1
    evaluate, train = tasks_of(run, states, "demo", ["trainer.nproc=8"])
    assert evaluate.arguments[-1] == "trainer.nproc=8" and (evaluate.gpus, train.gpus) == (8, 8)
    assert train.arguments[-1] == "seed=1"


def test_the_list(run: Run, monkeypatch, capsys) -> None:
    paper = replace(run, config={**run.config, "output_root": "nowhere"}, gpu_hours=1.5, seeds=(0, 1, 2))
    monkeypatch.setattr(reproduce, "plan", lambda *_: [[paper]])
    assert reproduce.main(["table=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Mixup: 3 seeds missing; about 4.5 GPU-hours on an A100 (estimate)" in lines[0]
    assert lines[1] == f"    fills {' '.join(run.cells)}"
    assert [line.split()[-1] for line in lines[2:5]] == ["seed=0", "seed=1", "seed=2"]
    assert reproduce.main(["table=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "    fills table1/mixup/cifar10-wrn_28_10 table4/mixup/top1_error"
    assert lines[2].endswith(" evaluator.occlusion.block=2 'evaluators=[clean]' seed=0")
    assert reproduce.main(["table=2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("all are done; ") and "outputs/tables/paper results/records && make tables" in last


@pytest.fixture
def started(monkeypatch) -> list[Task]:
    """What would be started, on a machine with one GPU."""
    found: list[Task] = []
    monkeypatch.setattr(launch, "visible_gpus", lambda: ["0"])
    monkeypatch.setattr(launch.Pool, "run", lambda _, tasks: found.extend(tasks) or 0)
    monkeypatch.setattr(data, "readable", lambda tasks, _: (list(tasks), {}))
    return found


def test_what_takes_more_gpus_than_are_here_is_left_out(run: Run, started, monkeypatch, capsys) -> None:
    large = {**run.config, "output_root": "nowhere", "trainer": {**run.config["trainer"], "nproc": 8}}
    runs = [replace(run, config=large, seeds=(0,)), replace(run, config=large | {"trainer": run.config["trainer"]})]
    monkeypatch.setattr(reproduce, "plan", lambda *_: [runs])
    assert reproduce.main(["table=all", "run=true"]) == 2
    assert [task.gpus for task in started] == [1, 1]
    assert "takes 8 GPUs, 1 are here" in capsys.readouterr().err
    runs.pop(0)
    assert reproduce.main(["table=all", "run=true"]) == 0


def test_only_what_needs_data_that_are_not_here_is_left_out(run: Run, started, monkeypatch, capsys) -> None:
    config = {**run.config, "output_root": "nowhere"}
    speech = replace(run, config=config | {"dataset": {**run.config["dataset"], "root": "no/words"}})
    monkeypatch.setattr(reproduce, "plan", lambda *_: [[speech, replace(run, config=config)]])
    monkeypatch.setattr(reproduce, "load", lambda *_: Scale("demo", (0, 1), first="make words", needs="no/words"))
    assert reproduce.main(["table=all", "scale=demo", "run=true"]) == 0
    assert [task.run.config["dataset"]["root"] for task in started] == [None]
    assert "no/words: is not there; 1 of the commands need it, run first: make words" in capsys.readouterr().out


def test_runs_whose_data_cannot_be_read_are_not_started(run: Run, started, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(launch.Pool, "run", lambda _, tasks: started.extend(tasks) or 0)
    config = {**run.config, "output_root": "nowhere"}
    there = {"name": "fake_images", "train_size": 200, "test_size": 10, "num_classes": 2}
    runs = [
        replace(run, config=config | {"dataset": {**config["dataset"], "root": str(tmp_path)}}),
        replace(run, config=config | {"dataset": there}, seeds=(0,)),
    ]
    monkeypatch.setattr(reproduce, "plan", lambda *_: [runs])
    assert reproduce.main(["table=all", "run=true", "trainer.device=cpu"]) == 2
    assert [task.run.config["dataset"] for task in started] == [there]
    error = capsys.readouterr().err
    assert error.startswith(f"left out: 2 commands: digits.csv.gz: not found in dataset.root={tmp_path};")


def test_scales_are_complete() -> None:
    for name in ("demo", "smoke"):
        scale = load(name, ROOT / "configs")
        assert set(scale.stand_ins) == {"cifar10", "cifar100", "tiny_imagenet", "imagenet", "speech_commands"}
        assert scale.first.startswith("python scripts/make_spoken_words.py") and scale.first.endswith(scale.needs)


def test_planning_needs_no_torch() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import reproduce; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
