"""The solver of ``labelling`` as one Triton kernel: on a GPU its some 10,000 small steps would each be a launch.

One program solves one sample. A sample's chains of a direction are its lanes, so that both directions' costs stay in
the multiprocessor's cache; the exchange itself is that of ``labelling``, with more rounds instead of further tries.
"""

from __future__ import annotations

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_CELLS = 64  # along a side
MOST_LABELS = 8


def fits(unary: Tensor) -> bool:
    """Whether the kernel takes costs (N, H, W, L)."""
    _, height, width, labels = unary.shape
    return max(height, width) <= MOST_CELLS and 2 <= labels <= MOST_LABELS


def solve(unary: Tensor, down: Tensor, right: Tensor, share: float, rounds: int | None = None) -> Tensor:
    """Labels (N, H, W) int64, see ``labelling.solve_grid``; share: of a min-marginal, that is handed over.

    rounds None: 20 and 6 for each cell of the longer side.
    """
    count, height, width, labels = unary.shape
    half = unary.float() / 2
    rows, columns = half.permute(0, 2, 3, 1).contiguous(), half.permute(0, 1, 3, 2).contiguous()
    right, down = right.float().permute(0, 2, 1).contiguous(), down.float().contiguous()
    found = torch.empty(count, height, width, dtype=torch.int32, device=unary.device)
    rounds = 6 * max(height, width) + 20 if rounds is None else rounds
    with torch.cuda.device(unary.device) if unary.is_cuda else contextlib.nullcontext():  # not the current one
        _solve[(count,)](
            rows,
            columns,
            torch.empty_like(rows),
            right,
            down,
            found,
            height,
            width,
            rounds,
            share,
            1.0 / (labels - 1),
            LABELS=labels,
            PADDED=triton.next_power_of_2(labels),
            LANES=triton.next_power_of_2(max(height, width)),
            num_warps=1,
            num_stages=1,
        )
    return found.long()


@triton.jit
def _step(costs, weight, scale, PADDED: tl.constexpr):
    """For each label of the next cell the least of costs (PADDED, LANES) of this one plus the step between the two."""
    rank = tl.arange(0, PADDED) * scale
    bend = rank[:, None] - rank[None, :]
    return tl.min(costs[:, None, :] + weight[None, None, :] * (bend * bend)[:, :, None], axis=0)


@triton.jit
def _sweep(
    costs,
    rest,
    weights,
    length,
    chains,
    flip,
    scale,
    LABELS: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Write to rest, for each label of each cell, the least cost of all cells after it; flip: 1 from the other end."""
    label, lane = tl.arange(0, PADDED)[:, None], tl.arange(0, LANES)
    inside = (label < LABELS) & (lane < chains)[None, :]
    at = label * chains + lane[None, :]
    after = tl.zeros((PADDED, LANES), tl.float32)
    for turn in range(length):
        cell = flip * turn + (1 - flip) * (length - 1 - turn)
        tl.store(rest + cell * LABELS * chains + at, after, mask=inside)
        if turn < length - 1:
            here = tl.load(costs + cell * LABELS * chains + at, mask=inside, other=1e30) + after
            edge = weights + (cell - 1 + flip) * chains + lane
            after = _step(here, tl.load(edge, mask=lane < chains, other=0.0), scale, PADDED)
    tl.debug_barrier()


@triton.jit
def _give(
    costs,
    other,
    rest,
    weights,
    length,
    chains,
    flip,
    share,
    scale,
    LABELS: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Hand the share of each cell's min-marginals from the chains' costs to the other direction's."""
    _sweep(costs, rest, weights, length, chains, flip, scale, LABELS, PADDED, LANES)
    label, lane = tl.arange(0, PADDED)[:, None], tl.arange(0, LANES)
    inside = (label < LABELS) & (lane < chains)[None, :]
    at, across = label * chains + lane[None, :], label * length + lane[None, :] * LABELS * length
    before = tl.zeros((PADDED, LANES), tl.float32)
    for turn in range(length):
        cell = flip * (length - 1 - turn) + (1 - flip) * turn
        own = tl.load(costs + cell * LABELS * chains + at, mask=inside, other=1e30)
        before += own
        total = before + tl.load(rest + cell * LABELS * chains + at, mask=inside, other=0.0)
        given = share * (total - tl.min(total, axis=0)[None, :])
        tl.store(costs + cell * LABELS * chains + at, own - given, mask=inside)
        there = other + across + cell
        tl.store(there, tl.load(there, mask=inside, other=0.0) + given, mask=inside)
        if turn < length - 1:
            edge = weights + (cell - flip) * chains + lane
            before = _step(before - given, tl.load(edge, mask=lane < chains, other=0.0), scale, PADDED)
    tl.debug_barrier()


@triton.jit
def _solve(
    rows,
    columns,
    rest,
    right,
    down,
    found,
    height,
    width,
    rounds,
    share,
    scale,
    LABELS: tl.constexpr,
    PADDED: tl.constexpr,
    LANES: tl.constexpr,
):
    """Exchange costs between rows (N, W, L, H) and columns (N, H, L, W), then write each row's labels to found."""
    sample = tl.program_id(0)
    rows += sample * height * width * LABELS
    columns += sample * height * width * LABELS
    rest += sample * height * width * LABELS
    right += sample * (width - 1) * height
    down += sample * (height - 1) * width
    for turn in range(rounds):
        _give(rows, columns, rest, right, width, height, turn % 2, share, scale, LABELS, PADDED, LANES)
        _give(columns, rows, rest, down, height, width, turn % 2, share, scale, LABELS, PADDED, LANES)
    _sweep(rows, rest, right, width, height, 0, scale, LABELS, PADDED, LANES)
    label, lane = tl.arange(0, PADDED)[:, None], tl.arange(0, LANES)
    inside = (label < LABELS) & (lane < height)[None, :]
    at = label * height + lane[None, :]
    rank = tl.zeros((LANES,), tl.float32)
    for cell in range(width):
        total = tl.load(rows + cell * LABELS * height + at, mask=inside, other=1e30)
        total += tl.load(rest + cell * LABELS * height + at, mask=inside, other=0.0)
        if cell > 0:
            weight = tl.load(right + (cell - 1) * height + lane, mask=lane < height, other=0.0)
            bend = label * scale - rank[None, :]
            total += weight[None, :] * bend * bend
        chosen = tl.argmin(total, axis=0)
        tl.store(found + (sample * height + lane) * width + cell, chosen, mask=lane < height)
        rank = chosen * scale
