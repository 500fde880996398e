"""Which cell of an image moves where, so that what is salient becomes visible: Puzzle Mix's transport as an auction.

Moving cell i to cell j costs M_ij = eps * |i - j|^2 / (T - 1)^2 - s_i if j is visible, without the gain s_i if not.
The authors repeat T times: each cell bids for its cheapest place, each place takes its lowest bid below 0 (the first of
equals), and a bid that lost costs 1 more from then on. As sum(s) <= 1, a bid below 0 is one for a visible place that
the cell has not lost yet, and a bid of 0 or more wins nothing and stops nobody: so each cell goes through the visible
places by distance and drops out when its next bid is not below 0. That needs no T^2 x T^2 costs in each round.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

from randomix.devices import to_device
from randomix.masks import Spatial, memory_order

_NUMBER_BITS = 24
_LAST_NUMBER = (1 << _NUMBER_BITS) - 1
_NO_BID = -(1 << 62)
_ENTRIES_AT_ONCE = {"cpu": 1 << 23, "cuda": 1 << 25}
"""Size of the largest table, 2 bytes an entry, by type of device; finer grids take the samples in parts."""


@torch.no_grad()
def transport_plan(visible: Tensor, saliency: Tensor, t_eps: float = 0.8) -> tuple[Tensor, Tensor]:
    """The plans (N, R, C) for grids of R x C cells: the source of each place, an int64 index, and whether it is empty.

    visible (N, R, C) bool; saliency (N, R, C) >= 0, each sample's sum 1. T is the longer side of the grid, also the
    count of rounds. An empty place has its own index for source; a visible place is never empty.
    Source: Kim et al., Puzzle Mix (ICML 2020), algorithm 1; the ties are those of the authors' code.
    """
    count, rows, columns = visible.shape
    limit = _ENTRIES_AT_ONCE.get(visible.device.type, _ENTRIES_AT_ONCE["cpu"])
    at_once = max(1, limit // (rows * columns) ** 2)
    parts = [
        _auction(v.flatten(1).t().contiguous(), s.flatten(1).t().float().contiguous(), (rows, columns), t_eps)
        for v, s in zip(visible.split(at_once), saliency.split(at_once), strict=True)
    ]
    source, empty = (torch.cat(part, dim=1).t().reshape(count, rows, columns) for part in zip(*parts, strict=True))
    return source, empty


def _auction(visible: Tensor, saliency: Tensor, grid: tuple[int, int], t_eps: float) -> tuple[Tensor, Tensor]:
    """Source and emptiness (P, N) of P places, for visible and saliency (P, N): samples innermost."""
    order, distance = _by_distance(grid, visible.device)
    later = _next_visible(visible, order)
    cost = distance * t_eps
    # authors: a visible place turns black if its own cell has no saliency at all and no other cell bids for it
    gain = saliency.clamp(min=torch.finfo(torch.float32).tiny)
    cells = len(visible)
    number = torch.arange(cells, device=visible.device)[:, None]
    rank = later[0].long().masked_fill(visible, 0)  # in each cell's list of places by distance; 0 is its own
    for left in reversed(range(max(grid))):
        entry = rank * cells + number
        bid = gain - cost.take(entry)
        # one integer orders the bids: the bits of a float above 0, then the lower number; negative for 0 and less
        key = (bid.view(torch.int32).long() - 1 << _NUMBER_BITS) + (_LAST_NUMBER - number)
        place = order.take(entry)
        best = torch.full_like(key, _NO_BID).scatter_reduce_(0, place, key, "amax")
        if left:
            won = best.gather(0, place) == key
            rank = torch.where(won, rank, later.gather(0, rank[None])[0].long())
    empty = best < 0
    # authors: of bids that are 0 the first cell of all counts, so that only cell 0 can stay where it is not seen
    empty[0] &= bid[0] > 0
    return torch.where(best < 0, number, _LAST_NUMBER - (best & _LAST_NUMBER)), empty


def _next_visible(visible: Tensor, order: Tensor) -> Tensor:
    """For each rank r (P + 1) in the list of each cell (P): the next visible place's rank, P if none; (P + 1, P, N)."""
    small, bits = (torch.int16, 14) if len(visible) < 1 << 14 else (torch.int32, 30)
    hidden = (~visible).to(small) << bits
    return _minima_by_doubling(hidden, order) if visible.is_cuda else _minima_in_turn(hidden, order)


def _minima_in_turn(hidden: Tensor, order: Tensor) -> Tensor:
    """The least rank after each rank whose place is not hidden; each entry is touched once."""
    cells, count = hidden.shape
    later = hidden.new_empty(cells + 1, cells, count)
    later[-2:] = cells
    near = torch.empty_like(later[0])
    for rank in range(cells - 1, 0, -1):  # minima, not torch.where: vectorised for these types, 10 times as fast
        torch.index_select(hidden, 0, order[rank], out=near)
        torch.minimum(later[rank], near.add_(rank), out=later[rank - 1])
    return later


def _minima_by_doubling(hidden: Tensor, order: Tensor) -> Tensor:
    """The same in few operations: first over 2 ranks, then over 4, 8, ..."""
    cells, count = hidden.shape
    ranks = torch.arange(cells + 1, dtype=hidden.dtype, device=hidden.device)[:, None, None]
    near = (hidden.index_select(0, order.flatten()).view(cells + 1, cells, count) + ranks).clamp(max=cells)
    later = torch.cat([near[1:], torch.full_like(near[:1], cells)])
    reach = 1
    while reach <= cells:
        later = torch.cat([torch.minimum(later[:-reach], later[reach:]), later[-reach:]])
        reach *= 2
    return later


@functools.lru_cache(maxsize=4)
def _by_distance(grid: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """For each cell (P) the places by distance, the first of equals first: numbers and distances, both (P + 1, P).

    The distance is |i - j|^2 / (T - 1)^2 in cells; a last row at infinite distance stands for: no place is left.
    """
    at = np.stack(np.divmod(np.arange(grid[0] * grid[1]), grid[1]))
    squares = np.square(at[:, :, None] - at[:, None, :]).sum(0)
    order = np.argsort(squares, axis=1, kind="stable")
    distance = np.take_along_axis(squares, order, 1).T.astype(np.float32) / np.float32(max(max(grid) - 1, 1) ** 2)
    nowhere = np.full((1, len(order)), np.inf, dtype=np.float32)
    return (
        to_device(np.concatenate([order.T, np.zeros_like(order[:1])]), device),
        to_device(np.concatenate([distance, nowhere]), device),
    )


def move_cells(image: Tensor, source: Tensor, empty: Tensor | None = None) -> Tensor:
    """Image (N, C, H, W) with the patch of cell source (N, R, C) at each place, zero at those that are empty (N, R, C).

    R and C divide H and W. Keeps the image's memory format.
    """
    (height, width), (rows, columns) = image.shape[2:], source.shape[1:]
    tall, wide = height // rows, width // columns
    start = source // columns * (tall * width) + source % columns * wide
    inside = torch.arange(tall, device=image.device)[:, None, None] * width + torch.arange(wide, device=image.device)
    index = (start[:, :, None, :, None] + inside).flatten(1)
    view = memory_order(image)
    channels = image.shape[1]
    if view is image:
        moved = image.flatten(2).gather(2, index[:, None].expand(-1, channels, -1)).view_as(image)
    else:
        moved = view.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, channels)).view_as(view).movedim(-1, 1)
    return moved if empty is None else moved.masked_fill(spread(empty, (height, width))[:, None], 0)


def spread(cells: Tensor, spatial: Spatial) -> Tensor:
    """Values (N, R, C) of cells as pixels (N, H, W)."""
    count, rows, columns = cells.shape
    tall, wide = spatial[0] // rows, spatial[1] // columns
    return cells[:, :, None, :, None].expand(-1, -1, tall, -1, wide).reshape(count, *spatial)
