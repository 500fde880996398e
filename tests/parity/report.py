"""Print the largest difference of each method from its authors' code: ``python tests/parity/report.py``.

For the two methods with an optimiser also how far the labels found are from the authors' and from the best.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.parity import comixup, golden, hidden, puzzlemix, saliency

METHODS = {
    **golden.METHODS,
    **saliency.METHODS,
    "manifold_mixup": hidden.manifold_mixup,
    "patchup": hidden.patchup,
    "puzzlemix costs": puzzlemix.costs,
    "puzzlemix": puzzlemix.puzzlemix,
    "comixup": comixup.comixup,
}


def main() -> int:
    if not golden.folder().is_dir():
        print(f"no golden vectors in {golden.folder()}; set RANDOMIX_GOLDEN to their folder")
        return 1
    print(f"{'method':<20}{'checks':>8}{'max abs error':>16}   at")
    for method, compare in METHODS.items():
        differences = list(compare())
        what, error = max(differences, key=lambda d: d[1])
        print(f"{method:<20}{len(differences):>8}{error:>16.3g}   {what if error else '-'}")
    print("\npuzzlemix, energy relative to another's: largest, mean over the problems of a case")
    for what, worst, mean in puzzlemix.energies():
        print(f"{what:<48}{worst:>12.2e}{mean:>12.2e}")
    for precedence in ("paper", "code"):
        print(f"\ncomixup, thresholded objective with precedence {precedence}: ours, the authors'")
        for name, _, ours, theirs in comixup.solutions(precedence):
            print(f"{name:<48}{ours:>12.2f}{theirs:>12.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
