"""Launching, joining and ending several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch

from randomix import errors
from randomix.engine import distributed, launcher, signals, status
from randomix.engine.distributed import World
from randomix.engine.launcher import launch
from tests.faults import jobs, light_jobs

ROOT = Path(__file__).parents[2]
_warm_server: int | None = None


@pytest.fixture
def warm(monkeypatch):
    """Start workers from a process that has torch loaded already: seconds less for each test."""
    global _warm_server
    if _warm_server is None or forkserver._forkserver._forkserver_pid != _warm_server:
        forkserver._forkserver._stop()  # one that decoded images for other tests has signals blocked
        forkserver.set_forkserver_preload(["torch", "torch.distributed", "tests.faults.jobs"])
        forkserver.ensure_running()
        _warm_server = forkserver._forkserver._forkserver_pid
    monkeypatch.setattr(launcher, "_START_METHOD", "forkserver")


@pytest.fixture(scope="module", autouse=True)
def no_server_stays():
    """What decodes images for other tests has to start its own."""
    yield
    forkserver._forkserver._stop()


def run(job, args, folder: Path, **options) -> tuple[int, float]:
    started = time.monotonic()
    code = launch(job, args, 2, folder, **options)
    return code, time.monotonic() - started


def steps(folder: Path, rank: int) -> list[str]:
    return (folder / f"steps-{rank}.txt").read_text().splitlines()


# -- the launcher alone ------------------------------------------------------------------------------------------


def test_the_launching_process_needs_no_torch():
    code = "import sys, randomix.engine.distributed; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("return", 3, "rank 1: ended with exit code 3"),
        ("exit", 75, "rank 1: ended with exit code 75"),
        ("hard exit", 7, "rank 1: ended with exit code 7"),
        ("memory", 4, "rank 1: out of memory: Unable to allocate 9.31 GiB; trainer.micro_batch_size=auto"),
        ("data error", 2, "rank 1: datasets/x: not found"),
    ],
)
def test_a_worker_s_exit_code_and_its_line_are_passed_on(tmp_path, capfd, warm, how, code, text):
    assert run(light_jobs.end, (how, 1), tmp_path)[0] == code
    output = capfd.readouterr().err
    assert output.count(text) == 1
    assert "Traceback" not in output


def test_one_process_runs_in_place(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert launch(light_jobs.end, ("data error", 0), 1, tmp_path) == errors.USER
    assert launch(light_jobs.end, ("data error", 1), 1, tmp_path) == errors.OK
    assert capfd.readouterr().err == "error: datasets/x: not found\n"


def test_several_processes_inside_of_a_worker_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launcher.is_worker()
    with pytest.raises(errors.ConfigError, match=r"trainer\.nproc is 2 inside of a worker"):
        launch(light_jobs.end, ("return", 0), 2, tmp_path)


@pytest.mark.parametrize("deaf_rank", [-1, 1])
def test_the_others_are_ended_also_when_they_ignore_sigterm(tmp_path, capfd, warm, monkeypatch, deaf_rank):
    monkeypatch.setattr(signals, "GRACE", 1.0)
    code, seconds = run(light_jobs.one_fails_others_wait, (deaf_rank,), tmp_path)
    assert code == errors.USER
    assert seconds < 5
    assert capfd.readouterr().err == "error: rank 0: datasets/x: not found\n"


def test_an_agreed_end_gives_rank_0_the_time_to_save(tmp_path, warm):
    assert run(light_jobs.slow_goodbye, (str(tmp_path),), tmp_path)[0] == errors.INTERRUPTED
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_to_the_launcher_reaches_the_workers(tmp_path, warm, monkeypatch, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    code, seconds = run(light_jobs.signal_the_launcher, (number, os.getpid()), tmp_path)
    assert code == errors.INTERRUPTED
    assert seconds < 5
    assert signal.getsignal(number) is before


@pytest.mark.slow
def test_workers_end_with_their_launcher(tmp_path):
    """A real launch in a process of its own, which is then killed; rank 1 ignores SIGTERM."""
    code = (
        "from pathlib import Path; from randomix.engine import launcher; from tests.faults.light_jobs import *\n"
        f"launcher.launch(note_pid_and_wait, ({str(tmp_path)!r}, 1), 2, Path({str(tmp_path)!r}))"
    )
    script = tmp_path / "main.py"
    script.write_text(
        f"if __name__ == '__main__':\n    import sys; sys.path.insert(0, {str(ROOT)!r})\n    exec({code!r})"
    )
    parent = subprocess.Popen([sys.executable, script], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        pids = [_wait_for(lambda n=n: _pid(tmp_path / f"pid-{n}.txt"), 20) for n in (0, 1)]
    finally:
        parent.kill()
        parent.wait()
    assert _wait_for(lambda: not any(_runs(pid) for pid in pids), 10)


def _pid(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _wait_for(condition, seconds: float):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s")
        time.sleep(0.05)
    return value


# -- two gloo ranks ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_freshly_started_workers_find_each_other(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(launcher.tempfile, "tempdir", str(tmp_path / "temporary"))
    assert run(jobs.hello, (str(tmp_path),), tmp_path, threads_per_process=2)[0] == 0
    assert [(tmp_path / f"hello-{r}").read_text() for r in (0, 1)] == ["3 0 0/2 gloo 2", "3 0 1/2 gloo 2"]
    assert not list((tmp_path / "temporary").glob("randomix-*"))


def test_without_a_fault_weights_and_buffers_end_equal(tmp_path, warm):
    assert run(jobs.train, (str(tmp_path), ""), tmp_path)[0] == 0
    zero, one = (torch.load(tmp_path / f"weights-{r}.pt", weights_only=True) for r in (0, 1))
    assert all(torch.equal(zero[k], one[k]) for k in zero)
    assert len(steps(tmp_path, 0)) == len(steps(tmp_path, 1)) == 12


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_one_rank_stops_both_at_the_same_step(tmp_path, capfd, warm, name):
    code, seconds = run(jobs.train, (str(tmp_path), name), tmp_path, status_file=tmp_path / "status.json")
    assert code == errors.INTERRUPTED
    assert seconds < 10
    assert len(steps(tmp_path, 0)) == len(steps(tmp_path, 1)) == jobs.FAULT_STEP + 1
    assert "stop=True" in steps(tmp_path, 0)[-1]
    assert "stop=True" in steps(tmp_path, 1)[-1]
    assert status.read(tmp_path / "status.json").state == "interrupted"
    assert f"{name}: stopping after this step" in (tmp_path / "rank-1.log").read_text()


@pytest.mark.parametrize("fault", ["nan loss", "inf input"])
def test_a_bad_number_on_one_rank_stops_both_before_the_update(tmp_path, capfd, warm, fault):
    assert run(jobs.train, (str(tmp_path), fault), tmp_path)[0] == errors.NONFINITE
    expected = f"{jobs.FAULT_STEP} stop=False nonfinite=True at={jobs.FAULT_STEP} same=True"
    assert [steps(tmp_path, rank)[-1] for rank in (0, 1)] == [expected, expected]
    assert capfd.readouterr().err.count(f"not finite at step {jobs.FAULT_STEP}") == 1


def test_an_exception_on_one_rank_ends_all_and_is_shown_once(tmp_path, capfd, warm):
    code, seconds = run(jobs.train, (str(tmp_path), "exception"), tmp_path, status_file=tmp_path / "status.json")
    output = capfd.readouterr().err
    assert code == errors.BUG
    assert seconds < 10
    assert output.count("Traceback") == 1
    assert "rank 1: ValueError: boom; last checkpoint: last.pt" in output
    assert "ValueError: boom" in (tmp_path / "rank-1.log").read_text()
    known = status.read(tmp_path / "status.json")
    assert (known.state, known.exit_code, known.checkpoint) == ("failed", 1, "last.pt")
    assert "boom" in known.reason


def test_a_kill_is_the_cause_even_if_another_rank_s_error_came_first(tmp_path, capfd, warm):
    assert run(light_jobs.error_here_kill_there, (str(tmp_path),), tmp_path)[0] == errors.BUG
    assert capfd.readouterr().err == "rank 1: was killed by SIGKILL (out of host memory?)\n"


def test_a_killed_rank_ends_the_job_within_ten_seconds(tmp_path, capfd, warm):
    code, seconds = run(jobs.train, (str(tmp_path), "SIGKILL"), tmp_path, status_file=tmp_path / "status.json")
    assert code == errors.BUG
    assert seconds < 10
    line = "rank 1: was killed by SIGKILL (out of host memory?); last checkpoint: last.pt"
    assert capfd.readouterr().err.splitlines()[-1] == line
    assert status.read(tmp_path / "status.json").reason == line


@pytest.mark.slow
def test_torchrun_and_its_restart_after_a_killed_rank(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["--monitor-interval=0.2", str(Path(jobs.__file__)), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(command, check=True, env=environment, timeout=100, stderr=subprocess.DEVNULL)
    names = [f"attempt-{a}-rank-{r}" for a in (0, 1) for r in (0, 1)]
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == dict.fromkeys(names, "2")


# -- one process -------------------------------------------------------------------------------------------------


def test_a_single_process_needs_no_group():
    module, tensor = torch.nn.Linear(2, 2), torch.ones(2)
    with distributed.init("cpu") as world:
        assert world == World(0, 1, 0, torch.device("cpu"))
        assert world.is_main
        assert not torch.distributed.is_initialized()
        assert distributed.ddp(module, world) is module
        assert distributed.all_reduce_sum(tensor) is tensor
        assert distributed.broadcast_object(3) == 3
        distributed.sync_buffers(module)


def test_a_device_that_is_not_there_is_a_config_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name, text in (("cuda", "but 0 CUDA device"), ("tpu", "'tpu' is not one of auto, cpu, cuda")):
        with pytest.raises(errors.ConfigError, match=text), distributed.init(name):
            pass
    with distributed.init("auto") as world:
        assert world.device.type == "cpu"


def test_ranks_that_do_not_come_are_named_in_time(tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", launcher.STORE: str(tmp_path / "store")}.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    with (
        pytest.raises(errors.RunError, match="rank 0 could not join the 2 processes"),
        distributed.init("cpu", timeout_minutes=0.02),
    ):
        pass
    assert time.monotonic() - started < 10
    assert not torch.distributed.is_initialized()
    assert distributed.current_world() == World()


@pytest.mark.parametrize("keyword", ["forward_sync_buffers", "broadcast_buffers"])
def test_ddp_uses_the_keyword_that_this_torch_has(monkeypatch, keyword):
    new = keyword == "forward_sync_buffers"

    class New:
        def __init__(
            self,
            module,
            device_ids=None,
            broadcast_buffers=None,
            gradient_as_bucket_view=False,
            forward_sync_buffers=None,
        ):
            self.given = {"forward_sync_buffers": forward_sync_buffers, "broadcast_buffers": broadcast_buffers}

    class Old:
        def __init__(self, module, device_ids=None, broadcast_buffers=True, gradient_as_bucket_view=False):
            self.given = {"broadcast_buffers": broadcast_buffers}

    monkeypatch.setattr(torch.nn.parallel, "DistributedDataParallel", New if new else Old)
    wrapped = distributed.ddp(torch.nn.Linear(1, 1), World(0, 2))
    assert wrapped.given[keyword] is False
    assert not new or wrapped.given["broadcast_buffers"] is None
