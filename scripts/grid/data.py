"""Whether the data sets of runs can be read, before the first run is started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from grid.tasks import Task

_OPEN = """
import json, sys
import datasets
from randomix.errors import RunError
found = {}
for key in json.load(sys.stdin):
    try:
        datasets.build(json.loads(key))
    except RunError as error:
        found[key] = str(error)
print("\\n" + json.dumps(found))
"""


def readable(tasks: Iterable[Task], checkout: Path) -> tuple[list[Task], Counter[str]]:
    """The tasks whose data are there, and why how many others are not: {line: number of tasks}.

    Each data set is opened once, as train.py does it, in a process of its own.
    """
    tasks = list(tasks)
    keys = [json.dumps(task.run.config["dataset"], sort_keys=True) for task in tasks]
    asked = json.dumps(sorted(set(keys)))
    done = subprocess.run(
        [sys.executable, "-c", _OPEN], input=asked, cwd=checkout, stdout=subprocess.PIPE, text=True, check=False
    )
    lines: dict[str, str] = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
    return [task for task, key in zip(tasks, keys, strict=True) if key not in lines], Counter(
        lines[key] for key in keys if key in lines
    )
