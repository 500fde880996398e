"""Frost of ImageNet-C: a part of a picture of ice, blended in; and where the pictures come from.

The original's pictures are not ours to ship: they are read from the package imagecorruptions where that is installed
(pip install 'randomix[corruptions]'), else there are five of our own, made by counter, and results say so.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from randomix.errors import DataError
from randomix.robustness.corruptions.draws import Corruption, ImageRng
from randomix.robustness.corruptions.resampling import linear_matrix, luma
from randomix.robustness.corruptions.weather import height_map
from randomix.robustness.counter import hash64, unit_interval

# The original draws from five of its six pictures; frost6.jpg is never used.
FILES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
_FACTORS = ((48, 0.2), (112, 0.3))  # by the shorter side of the images; larger ones take the pictures as they are
_SIDE = 512  # of our own pictures
_OWN = (
    ((80, 148, 165), 22),
    ((200, 205, 214), 22),
    ((190, 200, 212), 24),
    ((138, 153, 165), 29),
    ((112, 123, 135), 42),
)
"""Mean colour and contrast of our own pictures: thin ice to thick rime."""
_RIME_DECAY, _CRYSTALS_DECAY, _FOLDS = 1.3, 1.6, (6, 14, 30)


def frost_source() -> str:
    """``textures`` where the pictures of ImageNet-C are installed, ``procedural`` where ours stand in for them."""
    return "textures" if _folder() is not None else "procedural"


def draw(rng: ImageRng, shape: tuple[int, int, int], parameters: tuple[float, float]) -> dict[str, Tensor]:
    """texture (n,), 0 .. 4; top, left (n,): the first pixel of the part."""
    texture = rng.integers("texture", len(FILES))
    sizes = torch.tensor([picture.shape[:2] for picture in textures(*shape[:2])])
    room = (sizes - torch.tensor(shape[:2])).to(texture.device)[texture]
    top, left = ((rng.integers(name, 2**30) * room[:, axis]) >> 30 for axis, name in enumerate(("top", "left")))
    return {"texture": texture, "top": top, "left": left}


def frost(images: Tensor, parameters: tuple[float, float], *, texture: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Weighted sum of images (n, H, W, C) uint8 and parts of the pictures of ice, at most 255; see ``draw``.

    parameters: weight of the image, weight of the ice.
    """
    weight, ice_weight = parameters
    height, width, channels = images.shape[1:]
    pixels, widths, firsts = _joined(height, width, images.device)
    y, x = (torch.arange(side, device=images.device) for side in (height, width))
    rows = (top[:, None] + y) * widths[texture][:, None] + firsts[texture][:, None]
    ice = pixels[rows[:, :, None] + left[:, None, None] + x]
    result = images.double().mul_(weight) + ice.double().mul_(ice_weight)
    result = result.clamp_(max=255)
    return (result if channels == 3 else luma(result)).to(torch.uint8)


@lru_cache(maxsize=4)
def textures(height: int, width: int) -> tuple[Tensor, ...]:
    """The five pictures (h, w, 3) uint8 for images of this size: resized by 0.2, 0.3 or not, by the shorter side.

    A picture that would then be no larger than the images is resized by the least factor that makes it so.
    """
    base = next((factor for side, factor in _FACTORS if min(height, width) <= side), 1.0)
    found = []
    for picture in _pictures():
        own_height, own_width = picture.shape[:2]
        found.append(_resized(picture, max(base, (height + 1) / own_height, (width + 1) / own_width)))
    return tuple(found)


@lru_cache(maxsize=4)
def _joined(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The pictures for images of this size on ``device``: all pixels (P, 3); width and first pixel of each (5,)."""
    pictures = textures(height, width)
    counts = torch.tensor([picture.shape[:2].numel() for picture in pictures])
    widths = torch.tensor([picture.shape[1] for picture in pictures])
    pixels = torch.cat([picture.flatten(0, 1) for picture in pictures])
    return pixels.to(device), widths.to(device), (counts.cumsum(0) - counts).to(device)


def _resized(picture: Tensor, factor: float) -> Tensor:
    """Linear interpolation at pixel centres without smoothing, as OpenCV's resize; (h, w, 3) uint8."""
    pixels = picture.double()
    for axis, side in enumerate(picture.shape[:2]):
        places = (torch.arange(round(side * factor), dtype=torch.float64) + 0.5) / factor - 0.5
        pixels = torch.tensordot(linear_matrix(places, side), pixels, dims=([1], [axis])).movedim(0, axis)
    return pixels.add_(0.5).floor_().clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=1)
def _pictures() -> tuple[Tensor, ...]:
    """The five pictures (h, w, 3) uint8, those of ImageNet-C where they are installed."""
    folder = _folder()
    if folder is None:
        return tuple(_own(number) for number in range(len(_OWN)))
    return tuple(_read(folder / name) for name in FILES)


def _folder() -> Path | None:
    """Where the package imagecorruptions has its pictures; it is not imported: it fails with present libraries."""
    spec = importlib.util.find_spec("imagecorruptions")
    folder = Path(spec.origin).parent / "frost" if spec is not None and spec.origin else None
    return folder if folder is not None and folder.is_dir() else None


def _read(path: Path) -> Tensor:
    import numpy as np
    from PIL import Image

    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image)[..., :3])  # transparency counts for nothing in the original
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: expected a picture of frost, found {error}; install it again: "
            "pip install --force-reinstall --no-deps imagecorruptions"
        ) from error


def _own(number: int) -> Tensor:
    """A picture of our own (512, 512, 3) uint8, a function of its number: rime below crystals of three sizes.

    The crystals are level lines of height maps, drawn as many times over their height as _FOLDS says.
    """
    mean, contrast = _OWN[number]
    relief = 2 * _map(number, 0, _RIME_DECAY)
    for layer, folds in enumerate(_FOLDS, 1):
        relief += (1 - (2 * (_map(number, layer, _CRYSTALS_DECAY) * folds % 1) - 1).abs()) ** 3
    relief = contrast * (relief - relief.mean()) / relief.std()
    return (torch.tensor(mean, dtype=torch.float64) + relief[..., None]).round_().clamp_(0, 255).to(torch.uint8)


def _map(number: int, layer: int, decay: float) -> Tensor:
    """A height map (512, 512) in [0, 1]."""
    wobble = unit_interval(hash64(number, layer, torch.arange(_SIDE * _SIDE))).mul_(2).sub_(1)
    return height_map(wobble.view(1, _SIDE, _SIDE), decay)[0]


FROST = Corruption(draw, frost)
