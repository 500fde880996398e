"""Which evaluator measures a metric: the name under which its settings stand in a configuration."""

from __future__ import annotations

CLEAN = "clean"
ERRORS = {  # in percent, of the test set: what a search may make small
    "top1_error": CLEAN,
    "fgsm_error": "fgsm",
    "pgd_error": "pgd",
    "noise_error": "noise",
    "corruption_error": "corruptions",
    "corruption_error_19": "corruptions",
    "occlusion_error": "occlusion",
}
MEASURED_BY = ERRORS | {"validation_top1": "validation"}


def evaluator_of(metric: str) -> str:
    """The evaluator's name; ``clean`` for what every evaluation measures."""
    return MEASURED_BY.get(metric, CLEAN)
