"""Edges of batched gray layers (J. Canny, PAMI 1986) and the chamfer distance to them, without loops over pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

# Lengths of steps (down, right): Borgefors' 5x5 chamfer with OpenCV's numbers.
_STRAIGHT, _DIAGONAL, _KNIGHT = 1.0, 1.4, 2.1969
_STEPS = {
    **dict.fromkeys([(0, 1), (1, 0)], _STRAIGHT),
    **dict.fromkeys([(1, 1), (1, -1)], _DIAGONAL),
    **dict.fromkeys([(1, 2), (2, 1), (1, -2), (2, -1)], _KNIGHT),
}


def canny(layers: Tensor, low: float, high: float) -> Tensor:
    """Edges (n, H, W) bool of layers (n, H, W) of whole numbers in 0 .. 255.

    Sobel gradients (edges repeated) of length |x| + |y|; a pixel is thin where it is longest along its gradient, of
    four directions; thin pixels above ``low`` are edges if thin ones link them, in at most H + W steps, to one
    above ``high``.
    """
    gradient_x, gradient_y = _sobel(layers)
    length = gradient_x.abs() + gradient_y.abs()
    weak = _thin(length, gradient_x, gradient_y) & (length > low)
    return _linked(weak, weak & (length > high), steps=sum(layers.shape[1:]))


def _linked(weak: Tensor, strong: Tensor, steps: int) -> Tensor:
    """Weak pixels (n, H, W) bool that at most ``steps`` weak ones link to a strong one; strong ones are weak too."""
    # A fixed number of steps waits for no device; images last, so that shifted rows are long runs of memory.
    weak, strong = (
        part.permute(1, 2, 0).to(torch.uint8, memory_format=torch.contiguous_format) for part in (weak, strong)
    )
    wide = torch.zeros(weak.shape[0], weak.shape[1] + 2, weak.shape[2], dtype=torch.uint8, device=weak.device)
    tall = torch.zeros(weak.shape[0] + 2, *weak.shape[1:], dtype=torch.uint8, device=weak.device)
    for _ in range(steps):
        wide[:, 1:-1] = strong
        torch.bitwise_or(wide[:, :-2], wide[:, 2:], out=tall[1:-1]).bitwise_or_(strong)
        torch.bitwise_or(tall[:-2], tall[2:], out=strong).bitwise_or_(tall[1:-1]).bitwise_and_(weak)
    return strong.permute(2, 0, 1).bool()


def _sobel(layers: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients along x and y."""
    padded = pad(layers[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    down = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return down[:, :, 2:] - down[:, :, :-2], across[:, 2:] - across[:, :-2]


def _thin(length: Tensor, gradient_x: Tensor, gradient_y: Tensor) -> Tensor:
    """Where ``length`` is a local maximum along the gradient; of two equal neighbours the right or lower one is not."""
    height, width = length.shape[1:]
    padded = pad(length, (1, 1, 1, 1))

    def neighbour(y: int, x: int) -> Tensor:
        return padded[:, 1 + y : 1 + y + height, 1 + x : 1 + x + width]

    steepness = math.tan(math.pi / 8)
    x, y = gradient_x.abs(), gradient_y.abs()
    across = (length > neighbour(0, -1)) & (length >= neighbour(0, 1))
    along = (length > neighbour(-1, 0)) & (length >= neighbour(1, 0))
    falling = (length > neighbour(-1, -1)) & (length > neighbour(1, 1))
    rising = (length > neighbour(-1, 1)) & (length > neighbour(1, -1))
    diagonal = torch.where(gradient_x * gradient_y < 0, rising, falling)
    return torch.where(y < steepness * x, across, torch.where(x < steepness * y, along, diagonal))


def distance_to(edges: Tensor, farthest: float) -> Tensor:
    """Chamfer distance (n, H, W) float32 to the nearest of the edges (n, H, W) bool, at most ``farthest``.

    A shortest path has steps of at most two directions, in any order: minima along one direction after another are
    enough; along a direction, minima over 1, 2, 4, ... steps.
    """
    result = torch.where(edges, 0.0, float(farthest))
    for (y, x), length in _STEPS.items():
        for sign in (1, -1):
            for count in _doublings(farthest / length):
                _relax(result, sign * count * y, sign * count * x, count * length)
    return result


def _doublings(longest: float) -> list[int]:
    """1, 2, 4, ...: sums of some of them are all numbers up to ``longest``."""
    return [1 << bit for bit in range(int(longest).bit_length())]


def _relax(distance: Tensor, y: int, x: int, length: float) -> None:
    """In place: at most ``length`` more than at the pixel (y, x) away."""
    height, width = distance.shape[1:]
    if abs(y) >= height or abs(x) >= width:
        return
    here = distance[:, max(-y, 0) : height - max(y, 0), max(-x, 0) : width - max(x, 0)]
    there = distance[:, max(y, 0) : height - max(-y, 0), max(x, 0) : width - max(-x, 0)]
    torch.minimum(here, there + length, out=here)
