"""Evaluators of samples as they are."""

from __future__ import annotations

from dataclasses import replace

from randomix.robustness.measure import Measure, Outcome, counts


def clean(measure: Measure) -> Outcome:
    """The images as they are: top1, top5, top1_error and ece in percent, loss in nats.

    counts: for reliability diagrams also ``bins``, 15 of equal width in confidence from 0 to 1, each [samples, correct
    ones, sum of confidences].
    """
    result = measure()
    names = ("top1", "top1_error", "top5", "loss", "ece")
    bins = [[samples, correct, round(confidence, 4)] for samples, correct, confidence in result.bins]
    more = {"correct5": result.correct5, "bins": bins}
    return {name: getattr(result, name) for name in names}, counts([result]) | more


def validation(measure: Measure) -> Outcome:
    """The validation split as it is: validation_top1, validation_top1_error in percent, validation_loss in nats."""
    if measure.split is None:
        raise ValueError("the evaluator validation needs the data set's validation split: pass split=")
    result = replace(measure, eval_set=measure.split("validation"))()
    metrics = {f"validation_{name}": getattr(result, name) for name in ("top1", "top1_error", "loss")}
    return metrics, counts([result])
