"""One Slurm job array for what is missing; a job that is stopped before its end is queued again and resumes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from grid.tasks import Task
from randomix.errors import INTERRUPTED
from randomix.files import write_atomic

_SCRIPT = """#!/bin/bash
#SBATCH --job-name=randomix-{name}
#SBATCH --array=1-{count}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
#SBATCH --output={logs}/%x-%A_%a.log
cd {checkout}
command=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {commands})
bash -c "exec $command" &
trap 'kill -TERM $!' TERM
wait $!; code=$?
[ $code -gt 128 ] && {{ wait $!; code=$?; }}
[ $code -eq {interrupted} ] && scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
exit $code
"""


def write(tasks: Sequence[Task], folder: Path, checkout: Path, python: str) -> list[Path]:
    """Write one array a number of GPUs below ``folder``; returns the scripts for sbatch."""
    scripts = []
    for gpus, group in groupby(sorted(tasks, key=lambda task: task.gpus), key=lambda task: task.gpus):
        commands = [task.command.replace("python", python, 1) for task in group]
        listed, script = folder / f"{gpus}-gpu.commands", folder / f"{gpus}-gpu.sbatch"
        write_atomic(listed, "\n".join(commands) + "\n", parents=True)
        content = _SCRIPT.format(name=f"{gpus}-gpu", count=len(commands), gpus=gpus, cpus=8 * gpus, logs=folder,
                                 checkout=checkout, commands=listed, interrupted=INTERRUPTED)  # fmt: skip
        write_atomic(script, content, parents=True)
        scripts.append(script)
    return scripts


def submit(script: Path) -> str:
    """Hand a script to sbatch; returns what it says. Raises OSError where there is none or it refuses."""
    done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["sbatch failed"])[-1])
    return done.stdout.strip()
