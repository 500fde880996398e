"""Elastic transform of ImageNet-C: a random affine map, then smooth random displacements.

P. Simard, D. Steinkraus, J. Platt: Best practices for convolutional neural networks, ICDAR 2003.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from randomix.robustness.corruptions.draws import Corruption, ImageRng, to_uint8, to_unit
from randomix.robustness.corruptions.resampling import smooth

Parameters = tuple[float, float, float]
"""alpha: scale of the displacements; sigma: their smoothing; affine: largest shift of the three points; in pixels."""

# Interpolation between equal bytes may fall short of them by rounding; cutting off would then lose a whole level.
_ROUNDING = 1e-6


def draw(rng: ImageRng, shape: tuple[int, int, int], parameters: Parameters) -> dict[str, Tensor]:
    """corners (n, 3, 2), displacement (n, 2, H, W): uniform in [-1, 1], each as (x, y)."""
    return {
        "corners": rng.uniform("corners", 3, 2, low=-1),
        "displacement": rng.uniform("displacement", 2, *shape[:2], low=-1),
    }


def elastic_transform(images: Tensor, parameters: Parameters, *, corners: Tensor, displacement: Tensor) -> Tensor:
    """Warp images (n, H, W, C) uint8, bilinearly; see ``draw`` for the random numbers.

    Three points around the centre move by affine * corners, which fixes the affine map; beyond the edge the image is
    reflected (c b | a b c). Then each pixel is read alpha * smoothed displacement away; beyond the edge: a | a b c.
    """
    alpha, sigma, affine = parameters
    height, width = images.shape[1:3]
    pixels = to_unit(images, torch.float64).permute(0, 3, 1, 2)
    pixels = _read(pixels, *_affine_places(height, width, affine * corners.double()), align_corners=True)
    if alpha > 0:
        shifts = alpha * smooth(displacement.flatten(0, 1), sigma, 3.0, mirror=True).view_as(displacement)
        y, x = _grid(height, width, images.device)
        pixels = _read(pixels, x + shifts[:, 0], y + shifts[:, 1], align_corners=False)
    return to_uint8(pixels.add_(_ROUNDING).permute(0, 2, 3, 1).contiguous())


def _affine_places(height: int, width: int, moves: Tensor) -> tuple[Tensor, Tensor]:
    """Where to read each pixel: x and y (n, H, W) of the inverse of the map that moves the three points."""
    center = torch.tensor([width // 2, height // 2], dtype=moves.dtype, device=moves.device)
    size = max(min(height, width) // 3, 1)
    signs = torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=moves.dtype, device=moves.device)
    first, second, third = (center + size * signs + moves).unbind(1)
    along_x, along_y = (second - third) / (2 * size), (first - second) / (2 * size)
    determinant = along_x[:, 0] * along_y[:, 1] - along_x[:, 1] * along_y[:, 0]
    y, x = _grid(height, width, moves.device)
    middle = (first + third) / 2
    right, down = (grid - middle[:, axis, None, None] for axis, grid in enumerate((x, y)))
    along_x, along_y = ((part / determinant[:, None])[..., None, None] for part in (along_x, along_y))
    return (
        center[0] + along_y[:, 1] * right - along_y[:, 0] * down,
        center[1] + along_x[:, 0] * down - along_x[:, 1] * right,
    )


def _grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """y (H, 1) and x (1, W)."""
    return (
        torch.arange(height, dtype=torch.float64, device=device)[:, None],
        torch.arange(width, dtype=torch.float64, device=device)[None],
    )


def _read(pixels: Tensor, x: Tensor, y: Tensor, *, align_corners: bool) -> Tensor:
    """Pixels (n, C, H, W) at x, y (n, H, W); reflected at the centres of the outer pixels, or else at their edges."""
    height, width = pixels.shape[2:]
    if align_corners:
        places = [2 * at / max(side - 1, 1) - 1 for at, side in ((x, width), (y, height))]
    else:
        places = [(2 * at + 1) / side - 1 for at, side in ((x, width), (y, height))]
    return grid_sample(pixels, torch.stack(places, -1), "bilinear", "reflection", align_corners)


ELASTIC_TRANSFORM = Corruption(draw, elastic_transform)
