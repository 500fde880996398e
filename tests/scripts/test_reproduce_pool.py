"""The pool of reproduce.py: commands side by side, and how signals stop them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from grid import launch  # noqa: E402
from grid.tasks import Task  # noqa: E402

STUBBORN = "import signal, subprocess, sys, time; signal.signal(15, signal.SIG_IGN); "


def task(code: str, gpus: int = 1) -> Task:
    return Task(("-c", code), code[:20].replace(" ", "-"), SimpleNamespace(), (0,), gpus)


def test_commands_run_side_by_side_on_gpus_of_their_own_and_a_failure_stops_no_other(tmp_path: Path) -> None:
    show = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep({})"
    tasks = [task(f"a{i} = 1; " + show.format(0.5)) for i in range(2)]
    tasks += [
        task("b = 1; import sys; print('error: no data'); sys.exit(2)"),
        task("c = 1; " + show.format(0), 2),
    ]
    said: list[str] = []
    pool = launch.Pool(4, ["3", "5"], tmp_path, ROOT, said.append)
    started = time.monotonic()
    assert pool.run(tasks) == 2
    assert time.monotonic() - started < 30
    seen = {path.name[:2]: path.read_text().strip() for path in tmp_path.iterdir()}
    assert {seen["a0"], seen["a1"]} == {"3", "5"}
    assert sorted(seen["c-"].split(",")) == ["3", "5"]
    assert sum(line.startswith("done") for line in said) == 3
    (failed,) = [line for line in said if line.startswith("failed")]
    assert "exit code 2: error: no data (log: " in failed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_children_with_75(tmp_path: Path, number: int) -> None:
    stop = "import os, signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); open('{}', 'w'); time.sleep(60)"
    tasks = [task(f"d{i} = 1; " + stop.format(tmp_path / f"up{i}")) for i in range(3)]
    pid = fork(tasks, 2, tmp_path / "logs")
    wait_for(lambda: (tmp_path / "up0").exists() and (tmp_path / "up1").exists())
    os.kill(pid, number)
    assert exit_code(pid) == 75
    assert not (tmp_path / "up2").exists()


def fork(tasks: Sequence[Task], jobs: int, logs: Path) -> int:
    """Run a pool in a process of its own, as signals belong to a process; returns its id."""
    pid = os.fork()
    if pid == 0:
        os._exit(launch.Pool(jobs, [], logs, ROOT, lambda _: None).run(tasks))
    return pid


def exit_code(pid: int) -> int:
    """That of a pool, which has to end long before its commands would."""
    ends = time.monotonic() + 20
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        assert time.monotonic() < ends
        time.sleep(0.02)
    return os.waitstatus_to_exitcode(ended[1])


def wait_for(fulfilled: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not fulfilled():
        assert time.monotonic() < ends
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def stubborn(up: Path) -> Task:
    """A command that ignores SIGTERM and has a child that does, too."""
    code = f"c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); open({str(up)!r}, 'w')"
    return task(f"{STUBBORN}{code}.write(str(c.pid) + chr(10)); time.sleep(60)")


def started(up: Path) -> int:
    """The id of the child of a stubborn command, once it is there."""
    wait_for(lambda: up.exists() and up.read_text().endswith("\n"))
    return int(up.read_text())


def test_a_second_signal_ends_what_ignores_the_first_with_all_its_children(tmp_path: Path) -> None:
    pid = fork([stubborn(tmp_path / "up")], 1, tmp_path / "logs")
    child = started(tmp_path / "up")
    os.kill(pid, signal.SIGTERM)
    time.sleep(0.4)
    assert alive(child) and os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGTERM)
    assert exit_code(pid) == 75
    wait_for(lambda: not alive(child))


def test_patience_ends(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.5)
    pid = fork([stubborn(tmp_path / "up")], 1, tmp_path / "logs")
    child = started(tmp_path / "up")
    os.kill(pid, signal.SIGINT)
    assert exit_code(pid) == 75
    wait_for(lambda: not alive(child))


def test_a_signal_while_a_command_starts_reaches_it(tmp_path: Path, monkeypatch) -> None:
    popen = launch.subprocess.Popen

    def interrupted(*arguments: object, **settings: object) -> object:
        process = popen(*arguments, **settings)
        os.kill(os.getpid(), signal.SIGTERM)  # before the pool knows the process
        return process

    monkeypatch.setattr(launch.subprocess, "Popen", interrupted)
    began = time.monotonic()
    assert launch.Pool(1, [], tmp_path, ROOT, lambda _: None).run([task("import time; time.sleep(60)")] * 2) == 75
    assert time.monotonic() - began < 30
    assert len(list(tmp_path.iterdir())) == 1


def test_after_an_error_of_our_own_nothing_goes_on(tmp_path: Path) -> None:
    def say(line: str) -> None:
        if line.startswith("[2/2]"):
            wait_for((tmp_path / "up").exists)
            raise BrokenPipeError

    pool = launch.Pool(2, [], tmp_path / "logs", ROOT, say)
    slow = f"import time; open({str(tmp_path / 'up')!r}, 'w').close(); time.sleep(60)"
    with pytest.raises(BrokenPipeError):
        pool.run([task(slow), task("pass")])
    (child,) = pool.children
    assert child.process.returncode == -signal.SIGTERM
