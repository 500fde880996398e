"""A train.py whose runs take no time, so that the command line is tested without the engine."""

from __future__ import annotations

import atexit
import sys
from typing import Any

from randomix.engine import cli
from randomix.errors import DataError, Interrupted

atexit.register(lambda: print("torch imported:", "torch" in sys.modules, flush=True))


def run(config: dict[str, Any], label: str) -> int:
    """Ends as its seed says."""
    import beside  # a module of the script's folder: workers must find it

    from randomix.records.identity import run_folder

    outcomes = {103: 3, 104: 4}
    errors = {101: RuntimeError("a bug"), 102: DataError("no such data"), 130: KeyboardInterrupt()}
    errors[175] = Interrupted("stopped at step 3; the same command continues")
    if config["seed"] in errors:
        raise errors[config["seed"]]
    print(f"{label} {run_folder(config)} {beside.VALUE}".strip(), flush=True)
    return outcomes.get(config["seed"], 0)


if __name__ == "__main__":
    cli.main(run, config_name="train")
