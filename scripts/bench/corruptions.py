"""What each corruption costs an image, all five severities, against a plain loop over images where libraries have one.

The plain forms follow the original generator's way (an image at a time, with NumPy, SciPy or PIL) at the parameters of
CIFAR-10-C, whatever the size; they are there to be timed, not to agree to the last level.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from bench.loops import Setting
from bench.measure import Sample, interleaved, quartiles
from randomix.records import provenance
from randomix.robustness.corruptions import CORRUPTIONS, VERSION, blur, corrupt
from randomix.robustness.corruptions.parameters import CIFAR

SEVERITIES = range(1, 6)
OF_A_SET = 10_000  # images of CIFAR's test sets
Plain = Callable[[np.ndarray, Any, np.random.RandomState], np.ndarray]


def _bytes(unit: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(unit, 0, 1) * 255)


def _gaussian_noise(image: np.ndarray, scale: float, rng: np.random.RandomState) -> np.ndarray:
    return _bytes(image / 255 + rng.normal(size=image.shape, scale=scale))


def _speckle_noise(image: np.ndarray, scale: float, rng: np.random.RandomState) -> np.ndarray:
    return _bytes(image / 255 * (1 + rng.normal(size=image.shape, scale=scale)))


def _shot_noise(image: np.ndarray, photons: int, rng: np.random.RandomState) -> np.ndarray:
    return _bytes(rng.poisson(image / 255 * photons) / photons)


def _impulse_noise(image: np.ndarray, amount: float, rng: np.random.RandomState) -> np.ndarray:
    values = np.where(rng.rand(*image.shape) < 0.5, 255, 0)
    return np.where(rng.rand(*image.shape) < amount, values, image).astype(np.uint8)


def _gaussian_blur(image: np.ndarray, sigma: float, rng: np.random.RandomState) -> np.ndarray:
    return _bytes(ndimage.gaussian_filter(image / 255, (sigma, sigma, 0), mode="nearest"))


def _glass_blur(image: np.ndarray, parameters: tuple[float, int, int], rng: np.random.RandomState) -> np.ndarray:
    sigma, delta, iterations = parameters
    image = _gaussian_blur(image, sigma, rng)
    for _ in range(iterations):
        for row in range(len(image) - delta, delta, -1):
            for column in range(image.shape[1] - delta, delta, -1):
                dx, dy = rng.randint(-delta, delta, size=2)
                image[row, column] = image[row + dy, column + dx]
    return _gaussian_blur(image, sigma, rng)


def _defocus_blur(image: np.ndarray, parameters: tuple[float, float], rng: np.random.RandomState) -> np.ndarray:
    kernel = blur._disk(*parameters)
    return _bytes(ndimage.correlate(image / 255, kernel[..., None], mode="mirror"))


def _zoom_blur(image: np.ndarray, parameters: tuple[float, float], rng: np.random.RandomState) -> np.ndarray:
    unit = (image / 255).astype(np.float32)
    total, factors = unit.copy(), np.arange(1, *parameters)
    height, width = unit.shape[:2]
    for factor in factors:
        rows, columns = math.ceil(height / factor), math.ceil(width / factor)
        top, left = (height - rows) // 2, (width - columns) // 2
        large = ndimage.zoom(unit[top : top + rows, left : left + columns], (factor, factor, 1), order=1)
        top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
        total += large[top : top + height, left : left + width]
    return _bytes(total / (len(factors) + 1))


def _brightness(image: np.ndarray, added: float, rng: np.random.RandomState) -> np.ndarray:
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    value = value.point(lambda v: min(255, v + 255 * added))
    return np.asarray(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


def _saturate(image: np.ndarray, parameters: tuple[float, float], rng: np.random.RandomState) -> np.ndarray:
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    saturation = saturation.point(lambda s: min(255, s * parameters[0] + 255 * parameters[1]))
    return np.asarray(Image.merge("HSV", (hue, saturation, value)).convert("RGB"))


def _contrast(image: np.ndarray, factor: float, rng: np.random.RandomState) -> np.ndarray:
    unit = image / 255
    mean = unit.mean((0, 1))
    return _bytes((unit - mean) * factor + mean)


def _pixelate(image: np.ndarray, share: float, rng: np.random.RandomState) -> np.ndarray:
    height, width = image.shape[:2]
    small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(small.resize((width, height), Image.Resampling.BOX))


def _jpeg_compression(image: np.ndarray, quality: int, rng: np.random.RandomState) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


PLAIN: dict[str, tuple[str, Plain]] = {
    "gaussian_noise": ("NumPy", _gaussian_noise),
    "shot_noise": ("NumPy", _shot_noise),
    "impulse_noise": ("NumPy", _impulse_noise),
    "defocus_blur": ("SciPy", _defocus_blur),
    "glass_blur": ("SciPy, NumPy", _glass_blur),
    "zoom_blur": ("SciPy", _zoom_blur),
    "brightness": ("PIL", _brightness),
    "contrast": ("NumPy", _contrast),
    "pixelate": ("PIL", _pixelate),
    "jpeg_compression": ("PIL", _jpeg_compression),
    "speckle_noise": ("NumPy", _speckle_noise),
    "gaussian_blur": ("SciPy", _gaussian_blur),
    "saturate": ("PIL", _saturate),
}


def pictures(count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8: blocks of colour and some noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (count, -(-size // 8), -(-size // 8), 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    return coarse[:, :size, :size] + rng.integers(0, 56, (count, size, size, 3), dtype=np.uint8)


def _ours(name: str, images: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        for severity in SEVERITIES:
            corrupt(images, name, severity)

    return run


def _loop(name: str, images: np.ndarray) -> Callable[[], None]:
    rng = np.random.RandomState(0)

    def run() -> None:
        for parameters in CIFAR[name]:
            for image in images:
                PLAIN[name][1](image, parameters, rng)

    return run


@dataclass(frozen=True)
class Table:
    """Samples of our way and of the plain one, by corruption; a run treats ``ours`` or ``plain`` images five times."""

    samples: dict[str, list[Sample]]
    ours: int
    plain: int
    setting: Setting

    def as_dict(self, threads: int) -> dict[str, Any]:
        """Everything measured, with the environment."""
        rows = {name: self._row(name) for name in CORRUPTIONS}
        totals = {
            clock: OF_A_SET * len(SEVERITIES) / 1e3 * sum(row["ours"][clock][1] for row in rows.values())
            for clock in ("cpu", "wall")
        }
        where = provenance.collect(
            world_size=1, device=self.setting.device, precision="fp32", threads=threads, started=time.time()
        )
        return {
            "suite": "corruptions",
            "generator": VERSION,
            "size": self.setting.size,
            "images": self.ours,
            "images_plain": self.plain,
            "rounds": len(next(iter(self.samples.values()))),
            "rows": rows,
            "seconds_for_all_of_10000": totals,
            "provenance": where,
        }

    def _row(self, name: str) -> dict[str, Any]:
        """Quartiles of milliseconds an image, mean over the severities."""
        row: dict[str, Any] = {"ours": self._milliseconds(name, self.ours), "plain": None, "plain_with": None}
        if name in PLAIN:
            row |= {"plain": self._milliseconds(f"plain {name}", self.plain), "plain_with": PLAIN[name][0]}
        return row

    def _milliseconds(self, case: str, images: int) -> dict[str, list[float]]:
        treated = images * len(SEVERITIES)
        return {
            clock: [1e3 * q / treated for q in quartiles([getattr(s, clock) for s in self.samples[case]])]
            for clock in ("cpu", "wall")
        }

    def markdown(self, content: dict[str, Any]) -> str:
        """The table that people read."""
        where, totals = content["provenance"], content["seconds_for_all_of_10000"]
        machine = where["hardware"].get("gpu") if self.setting.device == "cuda" else where["hardware"]["cpu"]
        size = self.setting.size
        lines = [
            "# Benchmark: corruptions",
            "",
            f"Milliseconds an image of {size} x {size}, mean over the five severities, {self.setting.device}, "
            f"{where['threads']} thread(s), {self.ours} images at once (plain: {self.plain}, one by one), median of "
            f"{content['rounds']} interleaved rounds; {machine}, torch {where['versions']['torch']}.",
            f"All {len(CORRUPTIONS)} at 5 severities for 10,000 images, from these medians: {totals['cpu']:.0f} s of "
            f"processor time, {totals['wall']:.0f} s by the clock.",
            "",
            "| corruption | CPU ms | wall ms | plain CPU ms | plain / ours (CPU) | plain with |",
            "|---|---|---|---|---|---|",
        ]
        return "\n".join([*lines, *(_line(name, row) for name, row in content["rows"].items())]) + "\n"


def _line(name: str, row: dict[str, Any]) -> str:
    ours, plain = row["ours"]["cpu"][1], row["plain"] and row["plain"]["cpu"][1]
    cells = [name, f"{ours:.3f}", f"{row['ours']['wall'][1]:.3f}"]
    cells += [f"{plain:.3f}", f"{plain / ours:.1f}", row["plain_with"]] if plain else ["-", "-", "-"]
    return "| " + " | ".join(cells) + " |"


def measure(setting: Setting, rounds: int, progress: Callable[[str], None]) -> Table:
    """``batch * steps`` images at once on the setting's device and size; a 32nd of them, at least one, one by one."""
    count = setting.batch * setting.steps
    images = pictures(count, setting.size)
    few = images[: max(1, count // 32)]
    cases = {name: _ours(name, torch.from_numpy(images).to(setting.device)) for name in CORRUPTIONS}
    cases |= {f"plain {name}": _loop(name, few) for name in PLAIN}
    return Table(interleaved(cases, rounds, progress=progress), count, len(few), setting)
