"""Measure what docs/reference_quirks.md tells: how released code departs from its paper, and what that changes.

    python scripts/measure_quirks.py --out results/quirks.json

Random numbers come from --seed; images are crops of the two photographs that scikit-learn ships. Exit codes: 0 done, 2
wrong argument. Takes about a minute on one CPU core.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from quirks import measures
from randomix.records import provenance


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all of it, or what --only names, and write it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/quirks.json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draws", type=int, default=20_000, help="random boxes of each kind; masks are a tenth of it")
    parser.add_argument("--only", nargs="+", choices=measures.MEASURES, default=list(measures.MEASURES))
    options = parser.parse_args(arguments)
    if options.draws < 20:
        print(f"measure_quirks.py: --draws is {options.draws}, expected at least 20", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    found = {}
    started = time.time()
    for name in options.only:
        found[name] = measures.MEASURES[name](options.draws, options.seed)
        print(name, json.dumps(found[name]), flush=True)
    where = provenance.collect(world_size=1, device="cpu", precision="fp32", threads=1, started=started)
    content = {"draws": options.draws, "seed": options.seed, "measures": found, "provenance": where}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
