"""train.py as a process: exit codes, what it prints, what it imports, what it writes, and the launchers."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from randomix.engine import cli
from randomix.engine.schema import TrainConfig
from randomix.engine.signals import exit_on_signals, restore_signals

ROOT = Path(__file__).parents[2]
CLEAN = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A checkout whose runs take no time."""
    shutil.copy(Path(__file__).with_name("stub_train.py"), tmp_path / "train.py")
    (tmp_path / "beside.py").write_text("VALUE = 'found'\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path / "train.py"


def run(script: Path, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None):
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd or script.parent,
        env=CLEAN | {"OMP_NUM_THREADS": "1"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_mistake_is_reported_without_torch_and_nothing_is_written(script: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = run(script, "recipe.epoch=3", "mixer=mixupp", "seed=x")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 3
    assert done.returncode == 2
    mixers = ", ".join(sorted(p.stem for p in (ROOT / "configs/mixer").glob("*.yaml")))
    assert done.stderr.splitlines() == [
        f"error: mixer=mixupp: must be one of {mixers}; did you mean mixup?",
        "error: recipe.epoch: unknown key; did you mean recipe.epochs?",
        "error: seed=x: must be a whole number of at least 0 and below 2^63",
        f"nothing was started; python {script} --help has options and examples",
    ]
    assert done.stdout == "torch imported: False\n"
    assert {p.name for p in script.parent.iterdir()} == {"train.py", "configs", "beside.py"}


def test_options_with_dashes_are_explained(script: Path) -> None:
    done = run(script, "--recipe.epochs=5", "--lr", "0.1")
    assert done.returncode == 2
    assert done.stderr.splitlines()[:2] == [
        "error: --recipe.epochs=5: no such option; keys are written without dashes: recipe.epochs=5",
        "error: --lr: no such option; keys are written without dashes: lr=VALUE",
    ]


@pytest.mark.parametrize("name", ["train.py", "eval.py"])
def test_help_names_groups_examples_and_tables(name: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = run(ROOT / name, "--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 2  # torch alone takes longer
    assert done.returncode == 0
    assert done.stdout.count(f"python {name}") >= 5
    if name == "train.py":
        assert "mixer: baseline, comixup" in done.stdout
        assert "scripts/make_tables.py" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_help_for_a_wrong_option_is_an_error() -> None:
    done = run(ROOT / "train.py", "--help", "mixer=nonsense")
    assert done.returncode == 2
    assert "nonsense" in done.stderr


def test_the_configuration_can_be_shown(script: Path) -> None:
    done = run(script, "--cfg", "job", "mixer=cutmix")
    assert done.returncode == 0
    assert "name: cutmix" in done.stdout
    assert run(script, "--cfg", "job", "mixer=cutmx").returncode == 2


def test_a_single_run_writes_nothing_of_hydra(script: Path) -> None:
    done = run(script)
    assert done.returncode == 0
    assert done.stdout.startswith("outputs/digits/preact_resnet18/randomix-")
    assert not (script.parent / "outputs").exists()  # the engine makes the folder of the run, nobody else


@pytest.mark.parametrize(
    ("seed", "code", "error"),
    [
        (102, 2, "error: no such data\n"),
        (104, 4, ""),
        (175, 75, "stopped at step 3; the same command continues\n"),
        (130, 75, "interrupted; the same command goes on with what was not finished\n"),
    ],
)
def test_exit_codes_of_a_run(script: Path, seed: int, code: int, error: str) -> None:
    done = run(script, f"seed={seed}")
    assert (done.returncode, done.stderr) == (code, error)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_while_modules_are_imported_ends_the_command(script: Path, name: str) -> None:
    signals = f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(5)\n"
    (script.parent / "beside.py").write_text(f"try:\n    {'    '.join(signals.splitlines(True))}except:\n    pass\n")
    done = run(script)
    assert done.returncode == 75
    assert done.stderr == "interrupted before the first step; the same command starts it\n"


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and background jobs do
    try:
        previous = exit_on_signals()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert set(previous) == {signal.SIGTERM, signal.SIGUSR1}
        restore_signals(previous)
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        restore_signals(before)


def test_no_launcher_has_to_be_installed(script: Path) -> None:
    """Hydra finds its plugins in a package that is there only where one is installed."""
    (script.parent / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n\n"
        "class Hidden(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'hydra_plugins':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n\n"
        "sys.meta_path.insert(0, Hidden())\n"
    )
    done = run(script, "-m", "seed=1,2", env={"PYTHONPATH": str(script.parent)})
    assert (done.returncode, done.stderr) == (0, "")
    assert "seed-1 found" in done.stdout and "seed-2 found" in done.stdout
    for name, extra in (("parallel", "joblib"), ("slurm", "slurm")):
        refused = run(script, "-m", "seed=1,2", f"hydra/launcher={name}", env={"PYTHONPATH": str(script.parent)})
        line = f"error: hydra/launcher={name}: its package is not installed; pip install 'randomix[{extra}]'"
        assert (refused.returncode, refused.stderr.splitlines()[0]) == (2, line)
    code = "from randomix.engine import sweeper; sweeper.register(); import hydra_plugins as p; print(p.__path__)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env=CLEAN | {"PYTHONPATH": f"{script.parent}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "[]\n"  # without one Hydra 1.3.2 has an AttributeError


def test_an_unexpected_error_keeps_its_traceback(script: Path) -> None:
    done = run(script, "seed=101")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: a bug\n")


def test_a_sweep_goes_on_after_a_failure_and_ends_with_the_first_code(script: Path) -> None:
    done = run(script, "-m", "seed=0,103,102,1")
    assert done.returncode == 3
    labels = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("[")]
    assert labels == ["[1/4]", "[2/4]", "[4/4]"]
    assert done.stderr.splitlines() == [
        "error: [3/4] no such data",
        "error: run [2/4] failed with exit code 3",
        "error: run [3/4] failed with exit code 2",
    ]
    written = [p.relative_to(script.parent) for p in (script.parent / "outputs").rglob("*")]
    assert written == [Path("outputs/multirun.yaml")]


def test_options_may_stand_between_overrides(script: Path) -> None:
    done = run(script, "mixer=mixup", "-m", "seed=0,1")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[:2]] == ["[1/2]", "[2/2]"]
    assert "name: cutmix" in run(script, "seed=1", "--cfg", "job", "mixer=cutmix").stdout


def test_options_that_do_not_go_together_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    for arguments in (["--resolve"], ["seed=1", "--package", "mixer"], ["-m", "--cfg", "job"]):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        assert cli._main(lambda config, label: 0, ROOT, "train", TrainConfig, {}) == 2
        (error, _) = capsys.readouterr().err.splitlines()
        assert error.startswith(f"error: {next(a for a in arguments if a.startswith('--'))}: shows ")


def test_an_interruption_ends_a_sweep(script: Path) -> None:
    done = run(script, "-m", "seed=0,175,1")
    assert done.returncode == 75
    assert "[3/3]" not in done.stdout


@pytest.mark.parametrize("arguments", [["-m", "seed=0,1"], ["experiment=demo"]])
def test_a_sweep_under_torchrun_is_refused(script: Path, arguments: list[str]) -> None:
    world = {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1"}
    done = run(script, *arguments, env=world | {"RANK": "0"})
    assert done.returncode == 2
    expected = (
        "a sweep under torchrun would run in each of its 2 processes; use: python train.py -m trainer.nproc=2 ..."
    )
    assert done.stderr.splitlines()[0] == f"error: {expected}"
    second = run(script, *arguments, env=world | {"RANK": "1"})
    assert (second.returncode, second.stderr) == (2, "")


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["parallel", "submitit_local"])  # parallel: joblib with our settings
def test_launchers_run_the_jobs_elsewhere(script: Path, tmp_path: Path, launcher: str) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher" if "submitit" in launcher else "joblib")
    elsewhere = tmp_path / "elsewhere"  # workers must find the script's modules from any folder
    elsewhere.mkdir()
    done = run(script, "-m", "seed=0,102", f"hydra/launcher={launcher}", cwd=elsewhere)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: run [2/2] failed with exit code 2: no such data"
    logs = [p.read_text() for p in elsewhere.rglob("*_log.out")]
    assert "[1/2] outputs/digits/preact_resnet18/randomix-" in "".join([done.stdout, *logs])
    assert "seed-0 found" in "".join([done.stdout, *logs])


def test_the_scripts_stay_short() -> None:
    for name in ("train.py", "eval.py"):
        assert len((ROOT / name).read_text().splitlines()) < 60
