"""Evaluators of samples that an attack has moved."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from randomix.engine.evaluate import EvalResult
from randomix.engine.protocols import Batch
from randomix.robustness.attacks import attack
from randomix.robustness.measure import Cell, Measure, Outcome, counts


def fgsm(measure: Measure, *, eps_255: float = 8.0, quantize: bool = False) -> Outcome:
    """The fast gradient sign method within eps_255 / 255 of each pixel; fgsm_error in percent.

    quantize: the attacked pixels are rounded to 8 bits (sound: to 16) before the network sees them; the metrics are
    then fgsm_quantized_error and so on. Of sound, in [-1, 1], eps_255 / 255 is a share of full scale: see fgsm_sound.
    """
    return _attacked(measure, "fgsm", quantize, eps=eps_255 / 255)


def pgd(
    measure: Measure,
    *,
    eps_255: float = 8.0,
    step_255: float = 2.0,
    steps: int = 10,
    random_start: bool = True,
    seed: int = 0,
    quantize: bool = False,
) -> Outcome:
    """Projected gradient steps of step_255 / 255 within eps_255 / 255 of each pixel; pgd_error in percent.

    quantize: as fgsm's.
    """
    sizes = {"eps": eps_255 / 255, "step_size": step_255 / 255}
    return _attacked(measure, "pgd", quantize, **sizes, steps=steps, random_start=random_start, seed=seed)


def fgsm_sound(measure: Measure, *, eps: Sequence[float] = (0.0005, 0.001, 0.002, 0.005, 0.01)) -> Outcome:
    """The fast gradient sign method on waveforms, for each ``eps`` in units of full scale, the 1 of [-1, 1].

    A clip with root mean square r is disturbed at a signal-to-noise ratio of 20 log10(r / eps) dB. fgsm_sound_error in
    percent is the mean over ``eps``, fgsm_sound_error_EPS one of them.
    """
    results: list[EvalResult] = []
    gradients: dict[str, int] = {}
    for size in eps:
        result, gradients = _under_attack(
            measure, f"eps {size}", False, eps=size
        )  # every eps begins with the gradient at the clip
        results.append(result)
    errors = [result.top1_error for result in results]
    single = {f"fgsm_sound_error_{size:g}": error for size, error in zip(eps, errors, strict=True)}
    curve = {"total": results[0].total, "eps": list(eps), "correct1": [result.correct1 for result in results]}
    shares = _shares("fgsm_sound", results[0], gradients)
    return {"fgsm_sound_error": statistics.fmean(errors)} | single | shares, curve | gradients


def _attacked(measure: Measure, name: str, quantize: bool, **options: Any) -> Outcome:
    """Every image is attacked and counted, those that are wrong already too."""
    name = f"{name}_quantized" if quantize else name
    result, gradients = _under_attack(measure, "attacked", quantize, **options)
    return {f"{name}_error": result.top1_error} | _shares(name, result, gradients), counts([result]) | gradients


def _under_attack(measure: Measure, cell: str, quantize: bool, **options: Any) -> tuple[EvalResult, dict[str, int]]:
    """What the network gets right under attack, and what tells a robust one from one whose gradient has vanished.

    That is the images, and the entries of all ``entries`` of the first gradient, for which it is zero or not finite.
    """
    network, bounds = measure.pixel_network(), measure.eval_set.value_range

    def compute() -> Cell:
        parts = []

        def transform(batch: Batch) -> Tensor:
            found = attack(network, batch.inputs, batch.labels, indices=batch.indices, bounds=bounds, **options)
            size = batch.inputs.shape[1:].numel()
            every = found.zeros.new_full((), found.zeros.numel() * size)
            parts.append(torch.stack([(found.zeros == size).sum(), found.zeros.sum(), every]))
            return _stored(found.inputs, bounds) if quantize else found.inputs

        return measure(transform), measure.total(parts, 3)

    result, (images, zeros, entries) = measure.kept(cell, compute)
    return result, {"zero_gradient_images": images, "zero_gradient_entries": zeros, "entries": entries}


def _stored(inputs: Tensor, bounds: tuple[float, float]) -> Tensor:
    """As a file would hold them: pixels (N, C, *S) of 8 bits, sound of 16."""
    levels = 255 if bounds == (0.0, 1.0) else 2**15
    return (inputs * levels).round_().clamp_(max=levels - (bounds[0] < 0)).div_(levels)  # 16 bits end at 32,767


def _shares(name: str, result: EvalResult, gradients: dict[str, int]) -> dict[str, float]:
    """Vanished gradients in percent of images and of entries."""
    images, entries = gradients["zero_gradient_images"], gradients["zero_gradient_entries"]
    return {
        f"{name}_zero_gradient_images": 100.0 * images / result.total,
        f"{name}_zero_gradient_entries": 100.0 * entries / gradients["entries"],
    }
