"""One Slurm job array for what is missing; a job that is stopped before its end is queued again and resumes."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from grid.tasks import Task
from randomix.errors import INTERRUPTED, USER
from randomix.files import write_atomic

# Slurm keeps a copy from submission on: the commands of a queued array stay those that it was submitted with.
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
#SBATCH --output={logs}
cd {checkout} || exit {wrong}
commands=(
{commands}
)
if (( SLURM_ARRAY_TASK_ID < 1 || SLURM_ARRAY_TASK_ID > ${{#commands[@]}} )); then
  echo "array task $SLURM_ARRAY_TASK_ID: there are ${{#commands[@]}} commands" >&2
  exit {wrong}
fi
stopped= child=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child"' TERM USR1
bash -c "exec ${{commands[SLURM_ARRAY_TASK_ID - 1]}}" &
child=$!
[ -z "$stopped" ] || kill -TERM "$child"
while kill -0 "$child" 2>/dev/null; do wait "$child"; done  # a signal ends wait before the child ends
wait "$child"; code=$?
[ $code -eq {interrupted} ] && scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
exit $code
"""


def write(tasks: Sequence[Task], folder: Path, checkout: Path, python: str) -> list[Path]:
    """Write one array a number of GPUs below ``folder``, named by its commands; returns the scripts for sbatch."""
    scripts = []
    for gpus, group in groupby(sorted(tasks, key=lambda task: task.gpus), key=lambda task: task.gpus):
        commands = [shlex.quote(shlex.join([python, *task.arguments])) for task in group]
        digest = hashlib.sha256("\n".join(commands).encode()).hexdigest()[:8]
        name = f"{gpus}-gpu-{digest}"
        logs = f"{folder}/".replace("%", "%%") + "%x-%A_%a.log"
        content = _SCRIPT.format(
            name=name,
            count=len(commands),
            gpus=gpus,
            cpus=8 * gpus,
            logs=shlex.quote(logs),
            checkout=shlex.quote(str(checkout)),
            commands="\n".join(commands),
            wrong=USER,
            interrupted=INTERRUPTED,
        )
        scripts.append(folder / f"{name}.sbatch")
        write_atomic(scripts[-1], content, parents=True)
    return scripts


def submit(script: Path) -> str:
    """Hand a script to sbatch; returns what it says. Raises OSError where there is none or it refuses."""
    if shutil.which("sbatch") is None:
        raise OSError(f"launcher=slurm: there is no sbatch here; submit {script} where Slurm is, or use launcher=local")
    done = subprocess.run(["sbatch", str(script)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError((done.stderr.strip().splitlines() or ["sbatch failed"])[-1])
    return done.stdout.strip()
