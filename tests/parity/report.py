"""Print the largest difference of each method from its authors' code: ``python tests/parity/report.py [FILE]``.

For the two methods with an optimiser also how far the labels found are from the authors' and from the best. FGSM and
PGD are compared with torchattacks and foolbox where these are installed. With a FILE the same is written there, for
docs/methods.md (results/parity.json).
"""

import json
import sys
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from randomix.records import provenance
from tests.parity import attacks, comixup, golden, hidden, puzzlemix, saliency

METHODS = {
    **golden.METHODS,
    **saliency.METHODS,
    "manifold_mixup": hidden.manifold_mixup,
    "patchup": hidden.patchup,
    "puzzlemix costs": puzzlemix.costs,
    "puzzlemix": puzzlemix.puzzlemix,
    "comixup": comixup.comixup,
}


def collect() -> dict[str, dict[str, object]]:
    """All that is compared, by method."""
    return {
        "differences": {method: _largest(compare()) for method, compare in METHODS.items()},
        "attacks": {
            name: _largest(attacks.compare(name)) | {"version": version(name)}
            for name in attacks.PACKAGES
            if name not in attacks.missing()
        },
        "puzzlemix_energy": {what: {"largest": worst, "mean": mean} for what, worst, mean in puzzlemix.energies()},
        "comixup_objective": {
            f"{name}, precedence {precedence}": {"ours": ours, "authors": theirs}
            for precedence in ("paper", "code")
            for name, _, ours, theirs in comixup.solutions(precedence)
        },
    }


def _largest(differences: Iterable[golden.Difference]) -> dict[str, object]:
    found = list(differences)
    what, error = max(found, key=lambda d: d[1])
    return {"checks": len(found), "largest": error, "at": what if error else "-"}


def show(found: dict[str, dict[str, object]]) -> None:
    """The same as text."""
    print(f"{'method':<20}{'checks':>8}{'max abs error':>16}   at")
    for method, row in (found["differences"] | found["attacks"]).items():
        print(f"{method:<20}{row['checks']:>8}{row['largest']:>16.3g}   {row['at']}")
    print("\npuzzlemix, energy relative to another's: largest, mean over the problems of a case")
    for what, row in found["puzzlemix_energy"].items():
        print(f"{what:<48}{row['largest']:>12.2e}{row['mean']:>12.2e}")
    print("\ncomixup, thresholded objective: ours, the authors'")
    for what, row in found["comixup_objective"].items():
        print(f"{what:<48}{row['ours']:>12.2f}{row['authors']:>12.2f}")


def main(arguments: list[str]) -> int:
    if not golden.folder().is_dir():
        print(f"no golden vectors in {golden.folder()}; set RANDOMIX_GOLDEN to their folder")
        return 1
    started = time.time()
    found = collect()
    show(found)
    if arguments:
        where = provenance.collect(world_size=1, device="cpu", precision="fp32", threads=1, started=started)
        Path(arguments[0]).write_text(json.dumps(found | {"provenance": where}, indent=1, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
