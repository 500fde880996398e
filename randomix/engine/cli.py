"""The command line of train.py and eval.py: hydra.main with all mistakes reported at once and with exit codes.

Hydra is imported on use: a job that a launcher sends elsewhere needs this module, and importing it must stay cheap.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from randomix.engine.launcher import describe, is_worker, leave
from randomix.engine.parallel import Worker, passing_on
from randomix.engine.schema import TrainConfig
from randomix.engine.signals import exit_on_signals, restore_signals
from randomix.errors import BUG, INTERRUPTED, OK, USER, ConfigError, RunError

if TYPE_CHECKING:
    import argparse

    from omegaconf import DictConfig

    from randomix.engine.precheck import Plan

Job = Callable[[dict[str, Any], str], int]  # (resolved configuration, label such as "[3/12]") -> exit code

_PIPE = 141  # what shells report for a closed pipe


class JobFailed(RunError):
    """A run of a sweep failed in another process; it has reported the reason there."""

    def __init__(self, label: str, exit_code: int, reason: str = "") -> None:
        super().__init__(label, exit_code, reason)  # the arguments by which it travels between processes
        self.exit_code = exit_code

    def __str__(self) -> str:
        label, code, reason = self.args
        return f"run {label} failed with exit code {code}" + (f": {reason}" if reason else "")


def main(job: Job, *, config_name: str, schema: type = TrainConfig) -> None:
    """Run ``job`` for the command line of this process and exit with its code.

    ``job`` is a function of the script itself; configs/ is beside the script. SIGINT, SIGTERM and SIGUSR1 end the
    command with 75, whether there was something to save or not.
    """
    previous = exit_on_signals()
    root = Path(sys.modules[job.__module__].__file__ or "").resolve().parent
    try:
        code = _main(job, root, config_name, schema, previous)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what was not finished", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # `--help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _PIPE
    if is_worker():  # of torchrun
        leave(code)
    sys.exit(code)


def _main(job: Job, root: Path, config_name: str, schema: type, previous: dict[int, Any]) -> int:
    from hydra._internal.utils import get_args_parser  # Hydra's own options, so that none is missing here

    args, unknown = get_args_parser().parse_known_intermixed_args(sys.argv[1:])
    problems = [_unknown_option(text) for text in unknown] + _option_problems(args)
    if not problems:  # Hydra's parser wants the overrides side by side
        sys.argv[1:] = _overrides_first(sys.argv[1:], args.overrides)
    overrides = [o for o in args.overrides if "=" in o or o.startswith("~") or not unknown]  # the 5 of `--epochs 5`
    runs = not (args.help or args.hydra_help or args.info or args.shell_completion or args.experimental_rerun)
    own_files = args.config_path or args.config_name or any(o.startswith("hydra.searchpath") for o in overrides)
    plan = None
    if runs and not own_files:  # with other files Hydra's own messages have to do
        plan = read_command(root, config_name, schema, overrides, args.multirun, args.config_dir)
        problems += plan.problems
        if not args.cfg:
            problems += _torchrun_problems(plan)
    if problems:
        return report(problems, f"nothing was started; python {sys.argv[0]} --help has options and examples")
    hydra_job = _HydraJob(job, schema, plan)
    if not hydra_job.in_process:
        restore_signals(previous)  # the launcher of the sweep ends its own workers
    if not args.help:
        return _run(hydra_job, root, config_name)
    text, code = io.StringIO(), OK
    try:
        with contextlib.redirect_stdout(text):
            code = _run(hydra_job, root, config_name)
    except SystemExit as done:  # Hydra's own way to end
        code = done.code if isinstance(done.code, int) else OK
    finally:
        print(_wrapped(text.getvalue()), end="")
    return code


def _wrapped(text: str) -> str:
    """Help with its long lists of options broken into lines of at most 120 characters."""
    wrapper = textwrap.TextWrapper(120, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "".join((wrapper.fill(line) if len(line) > 120 else line) + "\n" for line in text.splitlines())


def read_command(
    root: Path, config_name: str, schema: type, overrides: list[str], multirun: bool = False, more: str | None = None
) -> Plan:
    """What a command line asks for and what is wrong with it. ``more`` is a further folder of configuration files."""
    from hydra import version
    from hydra._internal.hydra import Hydra
    from hydra._internal.utils import create_config_search_path
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    from randomix.engine.precheck import plan

    version.setbase("1.3")
    path = create_config_search_path(str(root / "configs"))
    if more:
        path.prepend("command-line", f"file://{Path(more).resolve()}", anchor=SearchPathQuery(provider="schema"))
    hydra = Hydra.create_main_hydra2(task_name=config_name, config_search_path=path)
    try:
        return plan(hydra, config_name, overrides, schema, multirun)
    finally:
        GlobalHydra.instance().clear()


def report(problems: Sequence[str], hint: str = "") -> int:
    """Print one line a problem, on one process of a torchrun job only; returns the exit code for wrong settings."""
    if os.environ.get("RANK", "0") == "0":
        for problem in problems:
            print(f"error: {problem}", file=sys.stderr)
        if hint:
            print(hint, file=sys.stderr)
    return USER


def _print_run_error(error: RunError, label: str) -> None:
    """One line a problem, with the rank where there are several: only one of them may have it."""
    rank = os.environ.get("RANK")
    where = [*([label] if label else []), *([f"rank {rank}:"] if rank else [])]
    kind = [] if error.exit_code == INTERRUPTED else ["error:"]
    for line in str(error).splitlines():
        print(" ".join([*kind, *where, line]), file=sys.stderr)


def _unknown_option(text: str) -> str:
    bare = text.lstrip("-")
    return f"{text}: no such option; keys are written without dashes: {bare if '=' in bare else f'{bare}=VALUE'}"


def _option_problems(args: argparse.Namespace) -> list[str]:
    """Options of Hydra that do not go together, for which it would show a traceback."""
    problems = []
    if args.resolve and not (args.cfg or args.help):
        problems.append("--resolve: shows a configuration; write --cfg job --resolve")
    if args.package and not args.cfg:
        problems.append(f"--package: shows a part of a configuration; write --cfg job --package {args.package}")
    if args.multirun and args.cfg:
        problems.append("--cfg: shows the configuration of one run; leave out -m and the lists of values")
    return problems


def _overrides_first(argv: list[str], overrides: list[str]) -> list[str]:
    """The arguments with ``overrides`` in front, as options may stand between them: ``seed=0,1 -m mixer=cutmix``."""
    options = argv[::-1]
    for text in reversed(overrides):
        options.remove(text)  # the last one that is equal: an option's value may read the same
    return overrides + options[::-1]


def _torchrun_problems(plan: Plan) -> list[str]:
    """Under torchrun every process runs this command: a sweep would be run by each, and more processes by each too."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if "TORCHELASTIC_RUN_ID" not in os.environ and world == 1:
        return []
    if plan.multirun:
        return [
            f"a sweep under torchrun would run in each of its {world} processes; "
            f"use: python train.py -m trainer.nproc={world} ..."
        ]
    if any(text.startswith("trainer.nproc=") and text != "trainer.nproc=1" for job in plan.jobs for text in job):
        return [f"trainer.nproc: torchrun has started {world} processes already; leave it out"]
    return []


class _HydraJob:
    """What Hydra calls for each run. It is sent to other processes by joblib and submitit, so it holds plain data."""

    def __init__(self, job: Job, schema: type, plan: Plan | None) -> None:
        functools.update_wrapper(self, job)  # Hydra names the app after the wrapped function's file
        self.job, self.schema = job, schema
        self.num_jobs = plan.num_jobs if plan and plan.multirun else 0
        self.in_process = plan is None or not plan.multirun or plan.launcher.endswith(".BasicLauncher")
        self.beside_others = plan is not None and plan.multirun and plan.launcher.endswith(".JoblibLauncher")
        self.failures: list[tuple[str, int]] = []

    def __call__(self, config: DictConfig) -> Any:
        """Run one job; returns its exit code, for a search its run's name and objectives.

        A failure ends the command, or lets a sweep go on and is remembered for its end.
        """
        label = self._label()
        attempt = functools.partial(self._attempt, config, label)
        code, reason, objectives = Worker.here().run(attempt) if self.beside_others else attempt()
        if code == OK:
            return objectives or OK
        if not self.in_process:
            raise JobFailed(label, code, reason)
        if not self.num_jobs or code == INTERRUPTED:
            raise SystemExit(code)
        self.failures.append((label, code))
        return code

    def _label(self) -> str:
        number = _of_hydra("job.num")
        return f"[{number + 1}/{self.num_jobs}]" if self.num_jobs and number is not None else ""

    def _attempt(self, config: DictConfig, label: str) -> tuple[int, str, Any]:
        """The exit code of one run, why it is not 0 if that is known here, and what a search asks for."""
        from omegaconf import OmegaConf

        from randomix.engine.runfolder import RunFolder
        from randomix.engine.schema import parse
        from randomix.engine.validation import normalise
        from randomix.records.identity import run_folder

        try:
            plain: Any = OmegaConf.to_container(config, resolve=True)
            parse(plain, self.schema)
            plain, wanted = normalise(plain), _of_hydra("sweeper.objectives")
            code = self.job(plain, label)
            return code, "", RunFolder(run_folder(plain)).objectives(wanted) if wanted and code == OK else None
        except RunError as error:
            _print_run_error(error, label)
            return error.exit_code, str(error).partition("\n")[0], None
        except Exception as error:
            failure = describe(error)
            prefix = "" if failure.trace else "error:"  # a bug shows its traceback, running out of memory does not
            words = filter(None, [prefix, label, failure.trace.rstrip() or failure.line])
            print(" ".join(words), file=sys.stderr, flush=True)
            return failure.code, failure.line, None


def _of_hydra(key: str) -> Any:
    """A setting of Hydra's own for the job that runs, None where it has none."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    config: Any = HydraConfig.instance().cfg
    value = OmegaConf.select(config, f"hydra.{key}", throw_on_missing=False)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _call_hydra(decorated: Callable[[], None], beside_others: bool) -> None:
    """Raises KeyboardInterrupt where runs beside each other were left unfinished after a signal."""
    if not beside_others:
        return decorated()
    with passing_on() as came:
        try:
            return decorated()
        except Exception as error:
            if came:
                raise KeyboardInterrupt from error
            raise


def _run(hydra_job: _HydraJob, root: Path, config_name: str) -> int:
    """Hand over to Hydra; returns the exit code of the command."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from randomix.engine import sweeper

    sweeper.register()
    if not hydra_job.in_process:  # workers start elsewhere and need the checkout's modules
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves errors to us instead of printing and exiting with 1
    decorated = hydra.main(version_base="1.3", config_path=str(root / "configs"), config_name=config_name)(hydra_job)
    try:
        _call_hydra(decorated, hydra_job.beside_others)
    except JobFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ConfigError as error:  # of a search
        return report(error.problems)
    except (HydraException, OmegaConfBaseException) as error:
        from randomix.engine.composer import one_line

        return report([one_line(error)])
    except BrokenPipeError:
        raise
    except Exception:
        traceback.print_exc()
        return BUG
    for label, code in hydra_job.failures:
        print(f"error: run {label} failed with exit code {code}", file=sys.stderr)
    return hydra_job.failures[0][1] if hydra_job.failures else OK
