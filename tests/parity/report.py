"""Print the largest difference of each method from its authors' code: ``python tests/parity/report.py``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.parity import golden


def main() -> int:
    if not golden.folder().is_dir():
        print(f"no golden vectors in {golden.folder()}; set RANDOMIX_GOLDEN to their folder")
        return 1
    print(f"{'method':<20}{'checks':>8}{'max abs error':>16}   at")
    for method, compare in golden.METHODS.items():
        differences = list(compare())
        what, error = max(differences, key=lambda d: d[1])
        print(f"{method:<20}{len(differences):>8}{error:>16.3g}   {what if error else '-'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
