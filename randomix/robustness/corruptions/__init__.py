"""The 19 corruptions of CIFAR-10-C and its relatives, batched, with random numbers by counter.

D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from randomix.robustness.corruptions import blur, digital, elastic, frost, noise, spatter, weather
from randomix.robustness.corruptions.draws import Corruption, ImageRng, no_draws
from randomix.robustness.corruptions.parameters import parameters

VERSION = "2"
"""Of the generator: changes whenever the same arguments give other bytes."""

REGISTRY: dict[str, Corruption] = {
    "gaussian_noise": Corruption(noise.draw_normal, noise.gaussian_noise),
    "shot_noise": Corruption(noise.draw_photons, noise.shot_noise),
    "impulse_noise": Corruption(noise.draw_impulses, noise.impulse_noise),
    "defocus_blur": Corruption(no_draws, blur.defocus_blur),
    "glass_blur": Corruption(blur.draw_glass, blur.glass_blur),
    "motion_blur": Corruption(blur.draw_motion, blur.motion_blur),
    "zoom_blur": Corruption(no_draws, blur.zoom_blur),
    "snow": weather.SNOW,
    "frost": frost.FROST,
    "fog": weather.FOG,
    "brightness": Corruption(no_draws, digital.brightness),
    "contrast": Corruption(no_draws, digital.contrast),
    "elastic_transform": elastic.ELASTIC_TRANSFORM,
    "pixelate": Corruption(no_draws, digital.pixelate),
    "jpeg_compression": Corruption(no_draws, digital.jpeg_compression),
    "speckle_noise": Corruption(noise.draw_normal, noise.speckle_noise),
    "gaussian_blur": Corruption(no_draws, blur.gaussian_blur),
    "spatter": spatter.SPATTER,
    "saturate": Corruption(no_draws, digital.saturate),
}
CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
)
"""In the official order."""
STANDARD = CORRUPTIONS[:15]
"""Those of the mean that is usually reported."""

_CHUNK_VALUES = {"cpu": 2**18, "cuda": 2**23}  # a CPU's cache; 256 MB in some float64 copies


def corrupt(
    images: np.ndarray | Tensor, name: str, severity: int, seed: int = 0, indices: np.ndarray | Tensor | None = None
) -> np.ndarray | Tensor:
    """Images (N, H, W, C) uint8, C 1 or 3, under corruption ``name`` at ``severity`` 1 to 5: new, of the same kind.

    indices: (N,) integers into the data set, 0 .. N - 1 if not given. An image's randomness depends on
    (seed, name, severity, its index) alone, not on its batch. Parameters go by the size of the images.
    Raises ValueError for unknown names, and for severities, shapes, types or indices that do not fit.
    """
    _check(images, name, severity, seed)
    # NumPy's read-only arrays (memory maps) are copied: torch has no such tensors
    pixels = torch.from_numpy(np.require(images, None, ["C", "W"])) if isinstance(images, np.ndarray) else images
    which = _on_device(indices, pixels)
    corruption, (height, width, channels) = REGISTRY[name], pixels.shape[1:]
    values = parameters(name, severity, height, width)
    result = torch.empty_like(pixels, memory_format=torch.contiguous_format)
    chunk = max(1, _CHUNK_VALUES.get(pixels.device.type, 2**23) // max(1, pixels[:1].numel()))
    for start in range(0, len(pixels), chunk):
        part = slice(start, start + chunk)
        draws = corruption.draw(ImageRng(seed, name, severity, which[part]), (height, width, channels), values)
        result[part] = corruption.apply(pixels[part].contiguous(), values, **draws)
    return result.numpy() if isinstance(images, np.ndarray) else result


def _check(images: np.ndarray | Tensor, name: str, severity: int, seed: int) -> None:
    if name not in CORRUPTIONS:
        raise ValueError(f"unknown corruption {name!r}, expected one of {', '.join(CORRUPTIONS)}")
    if type(severity) is not int or severity not in range(1, 6):
        raise ValueError(f"severity is {severity!r}, expected a whole number from 1 to 5")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"seed is {seed!r}, expected a whole number from 0 to 2**63 - 1")
    if not isinstance(images, np.ndarray | Tensor) or images.dtype not in (torch.uint8, np.uint8):
        raise ValueError(f"images are {getattr(images, 'dtype', type(images).__name__)}, expected uint8")
    if images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        raise ValueError(f"images have shape {tuple(images.shape)}, expected (N, H, W, C) with 1 or 3 channels")


def _on_device(indices: np.ndarray | Tensor | None, pixels: Tensor) -> Tensor:
    """int64 indices where the pixels are."""
    if indices is None:
        return torch.arange(len(pixels), device=pixels.device)
    which = indices if isinstance(indices, Tensor) else torch.tensor(np.asarray(indices))
    if which.shape != (len(pixels),) or which.is_floating_point() or which.dtype == torch.bool:
        raise ValueError(f"indices are {which.dtype} of shape {tuple(which.shape)}, expected {len(pixels)} integers")
    if which.device.type == "cpu" and bool((which < 0).any()):  # elsewhere a look would wait for the device
        raise ValueError(f"indices has {int(which.min())}, expected numbers >= 0")
    return which.to(pixels.device, torch.int64)
