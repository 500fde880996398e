"""reproduce.py: its arguments, how it tells runs apart, what it starts, and how it stops."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import reproduce  # noqa: E402
from grid.plan import Composer, Run  # noqa: E402
from grid.scales import load  # noqa: E402
from grid.state import state_of  # noqa: E402
from grid.tasks import tasks_of  # noqa: E402
from randomix.engine.status import Status  # noqa: E402
from randomix.records import record  # noqa: E402


@pytest.fixture(scope="module")
def config() -> dict:
    """Two evaluators, one of them with settings."""
    with Composer(ROOT) as composer:
        return composer.compose(["mixer=mixup", "evaluators=[clean,occlusion]", "evaluator.occlusion.block=2"])


@pytest.fixture
def run(config: dict, tmp_path: Path) -> Run:
    overrides = ("mixer=mixup", "evaluators=[clean,occlusion]", "evaluator.occlusion.block=2")
    cells = ("table1/mixup/cifar10-wrn_28_10", "table4/mixup/occlusion_error")
    return Run({**config, "output_root": str(tmp_path)}, overrides, (0, 1), cells, cpu_seconds=5.0)


def finish(run: Run, folder: Path, evaluators: list[str], kind: str = "train", **changes: object) -> None:
    """Leave what a finished run leaves."""
    settings = {"evaluators": evaluators, **changes, "checkpoint": "last.pt"}
    text = record.build_record({**run.with_seed(0), **settings}, history=[{"epoch": 1, "top1": 50.0}], best={},
                               evaluated={"metrics": {"occlusion_error": 40.0}}, candidates={}, mode="l", data={},
                               provenance={}, kind=kind)  # fmt: skip
    name = "record.json" if kind == "train" else f"evaluations/last-{len(evaluators)}.json"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


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
        (["5"], "5: arguments are KEY=VALUE, for example table=5 or run=true"),
    ],
)
def test_wrong_arguments_take_one_line(arguments: list[str], message: str, capsys) -> None:
    assert reproduce.main(arguments) == 2
    assert capsys.readouterr().err == f"reproduce.py: {message}\n"


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


def test_a_run_that_holds_its_lock_is_running(run: Run, tmp_path: Path) -> None:
    from filelock import FileLock

    folder = state_of(run, 0, tmp_path).folder
    folder.mkdir(parents=True)
    Status(folder / "status.json").update("running")
    code = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True)"
    other = subprocess.Popen([sys.executable, "-c", f"{code}; time.sleep(60)", str(folder / ".lock")],
                             stdout=subprocess.PIPE)  # fmt: skip
    try:
        assert other.stdout is not None and other.stdout.readline()
        assert state_of(run, 0, tmp_path).name == "running"
    finally:
        other.kill()
        other.wait()
    assert state_of(run, 0, tmp_path).name == "interrupted"
    with FileLock(folder / ".lock", timeout=0):  # looking has not left it locked
        pass


def test_committed_records_count(run: Run, tmp_path: Path) -> None:
    finish(run, tmp_path / "made", ["clean", "occlusion"])
    name = json.loads((tmp_path / "made" / "record.json").read_text())["run"]
    (tmp_path / "store" / name).parent.mkdir(parents=True)
    (tmp_path / "made" / "record.json").rename(tmp_path / "store" / f"{name}.json")
    assert state_of(run, 0, tmp_path / "store").name == "done"
    (tmp_path / "store" / f"{name}.json").write_text("{")
    assert state_of(run, 0, tmp_path / "store").name == "missing"


def test_what_is_left_to_do(run: Run, tmp_path: Path) -> None:
    folder = state_of(run, 0, tmp_path).folder
    states = {seed: state_of(run, seed, tmp_path) for seed in run.seeds}
    assert [t.arguments[-1] for t in tasks_of(run, states, "paper", [])] == ["seed=0", "seed=1"]
    (both,) = tasks_of(run, states, "demo", ["trainer.device=cpu"])
    assert both.command.startswith("python train.py mixer=mixup 'evaluators=[clean,occlusion]' evaluator.occlusion.bl")
    assert both.arguments[-2:] == ("trainer.device=cpu", "seed=0,1")
    assert both.cpu_seconds == 10.0
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    finish(run, folder, ["clean"])
    states[0] = state_of(run, 0, tmp_path)
    evaluate, train = tasks_of(run, states, "demo", ["trainer.device=cpu", "trainer.compile=true"])
    assert evaluate.arguments == ("eval.py", f"checkpoint={folder}", "evaluators=[occlusion]",
                                  "evaluator.occlusion.block=2", "trainer.device=cpu")  # fmt: skip
    assert train.arguments[-1] == "seed=1"


def test_the_list(run: Run, monkeypatch, capsys) -> None:
    paper = replace(run, config={**run.config, "output_root": "nowhere"}, gpu_hours=1.5, seeds=(0, 1, 2))
    monkeypatch.setattr(reproduce, "plan", lambda *_: [[paper]])
    assert reproduce.main(["table=4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Mixup: 3 seeds missing; about 4.5 GPU-hours on an A100 (estimate)" in lines[0]
    assert lines[1] == "    fills table1/mixup/cifar10-wrn_28_10 table4/mixup/occlusion_error"
    assert [line.split()[-1] for line in lines[2:5]] == ["seed=0", "seed=1", "seed=2"]
    assert reproduce.main(["table=2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("all are done; ") and "outputs/tables/paper results/records && make tables" in last


def test_scales_are_complete() -> None:
    for name in ("demo", "smoke"):
        scale = load(name, ROOT / "configs")
        assert set(scale.stand_ins) == {"cifar10", "cifar100", "tiny_imagenet", "imagenet", "speech_commands"}
        assert scale.first.startswith("python scripts/make_spoken_words.py") and scale.first.endswith(scale.needs)


def test_planning_needs_no_torch() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import reproduce; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
