"""Labels on a grid that minimise a convex energy, for a whole batch at once: what Puzzle Mix finds by graph cuts.

E(l) = sum over cells of unary(l_p) + sum over neighbours of w_pq ((l_p - l_q) / (L - 1))^2, w >= 0, labels 0 .. L - 1.
The unary costs are shared out between chains along the rows and chains along the columns. How much a label costs at
least within its row (its min-marginal) takes two sweeps along the row; a part of that is handed to the column, then
back, and so on. This raises the lower bound that the two parts give; for convex costs the bound that no exchange can
raise is the minimum of E (Werner, PAMI 2007; the exchange: Shekhovtsov et al., arXiv 1601.06274). Counts are fixed and
nothing looks at the data, so that nothing waits for the device.
"""

from __future__ import annotations

import functools
import warnings
from types import ModuleType

import torch
from torch import Tensor

SHARE = 0.4
"""The part of a min-marginal that is handed over; all of 0.33 to 0.5 do well."""

TRIES = 3


def energy(labels: Tensor, unary: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """E (N,) of labels (N, H, W) for costs unary (N, H, W, L) and weights down (N, H - 1, W), right (N, H, W - 1)."""
    scale = 1.0 / max(unary.shape[-1] - 1, 1) ** 2
    total = unary.gather(-1, labels[..., None]).sum((1, 2, 3))
    total = total + (down * labels.diff(dim=1).square()).sum((1, 2)) * scale
    return total + (right * labels.diff(dim=2).square()).sum((1, 2)) * scale


@torch.no_grad()
def solve_grid(unary: Tensor, down: Tensor, right: Tensor, rounds: int | None = None) -> Tensor:
    """Labels (N, H, W) int64 of (almost) least energy E; see ``energy`` for the costs, any dtype, weights >= 0.

    rounds: exchanges between rows and columns, None for 20 and 2 for each cell of the longer side: of Puzzle Mix's
    problems that leaves 1 in 1000 above the least, by 0.2 % at most. Solved in float32.
    """
    _, height, width, count = unary.shape
    if unary.is_cuda and (kernel := _kernel(unary.device)) is not None and kernel.fits(unary):
        return kernel.solve(unary, down, right, SHARE, rounds)
    ranks = torch.arange(count, dtype=torch.float32, device=unary.device) / max(count - 1, 1)
    # samples innermost: one operation moves all chains of a direction by one cell, over contiguous memory
    costs = unary.float().permute(1, 2, 3, 0).contiguous()
    down, right = (weight.float().permute(1, 2, 0).contiguous() for weight in (down, right))
    rows = _Chains(costs.permute(1, 2, 0, 3) / 2, right.transpose(0, 1), ranks)
    columns = _Chains(costs.permute(0, 2, 1, 3) / 2, down, ranks)
    for turn in range(2 * max(height, width) + 20 if rounds is None else rounds):
        columns.take(rows.give(backwards=turn % 2 == 1))
        rows.take(columns.give(backwards=turn % 2 == 1))
    first = rows.best().transpose(0, 1)
    columns.take(rows.give())
    uniform = ranks[costs.sum((0, 1)).min(0).indices].expand_as(first)
    chosen = torch.cat([first, columns.best(), uniform], dim=-1)  # by the rows' costs, by the columns', one for all
    costs, down, right = (torch.cat([part] * TRIES, dim=-1) for part in (costs, down, right))
    chosen = _improve(chosen, costs, down, right)
    chosen = _improve(chosen, costs.transpose(0, 1), right.transpose(0, 1), down.transpose(0, 1))
    labels = (chosen * (count - 1)).round().long().permute(2, 0, 1)
    tries = [part.permute(-1, *range(part.ndim - 1)) for part in (costs, down, right)]
    best = energy(labels, *tries).view(TRIES, -1).min(0).indices
    return labels.view(TRIES, -1, height, width).gather(0, best.view(1, -1, 1, 1).expand(1, -1, height, width))[0]


@functools.cache
def _kernel(device: torch.device) -> ModuleType | None:
    """The module that solves on a GPU in one launch; None, with a warning, where Triton does not run or errs.

    Asked once for a device, it solves 32 problems there and on the CPU: no energy may be above the CPU's by 1 %.
    """
    draw = torch.Generator().manual_seed(0)
    problem = [torch.rand(32, *shape, generator=draw) for shape in ((5, 7, 3), (4, 7), (5, 6))]
    try:
        from randomix import labelling_cuda

        unary, down, right = (part.to(device) for part in problem)
        found = labelling_cuda.solve(unary, down, right, SHARE).cpu()
        good = bool(((found >= 0) & (found < 3)).all())
        least = energy(solve_grid(problem[0], problem[1], problem[2]), *problem)
        if not good or (energy(found, *problem) > 1.01 * least).any():
            raise RuntimeError("its labels are not the best ones")
    except Exception as error:  # no Triton, no C compiler for it, a GPU it does not know or computes wrongly on
        warnings.warn(f"Puzzle Mix's masks take some 10,000 launches each: {error}", RuntimeWarning, stacklevel=3)
        return None
    return labelling_cuda


class _Chains:
    """All rows, or all columns, of all samples side by side: P cells in a chain, L labels, M = others * samples.

    costs (P, L, others, N); weights (P - 1, others, N) between the cells of a chain; ranks (L,): labels from 0 to 1.
    """

    def __init__(self, costs: Tensor, weights: Tensor, ranks: Tensor) -> None:
        self.grid, self.ranks = costs.shape, ranks[:, None]
        length, count, self.weights = len(costs), len(ranks), weights.flatten(1)
        self.costs = costs.contiguous().flatten(2)
        self.steps = list((self.weights[:, None, None] * (ranks[:, None] - ranks).square()[..., None]).unbind())
        self.given = torch.empty_like(self.costs)
        self.rest = torch.zeros_like(self.costs)
        self.so_far, self.sum = self.costs.new_empty(2, *self.costs.shape[1:]).unbind()
        self.pairs = self.costs.new_empty(count, count, self.costs.shape[-1])
        self.cells = range(length)

    def _step(self, costs: Tensor, step: Tensor, out: Tensor) -> None:
        """For each label of the next cell the least of costs (L, M) of this one plus the step between the two."""
        torch.amin(torch.add(costs[:, None], step, out=self.pairs), 0, out=out)

    def _sweep(self, costs: list[Tensor], rest: list[Tensor], steps: list[Tensor]) -> None:
        """rest[p]: for each label of cell p the least cost of all cells after it."""
        rest[-1].zero_()
        for p in reversed(self.cells[1:]):
            self._step(torch.add(costs[p], rest[p], out=self.sum), steps[p - 1], rest[p - 1])

    def give(self, backwards: bool = False) -> Tensor:
        """Take a share of each cell's min-marginals off these chains and return them whole, (P, L, others, N).

        In the order of the cells, each after what was taken off those before it. They count from label 0, as a constant
        changes no label.
        """
        order = slice(None, None, -1 if backwards else 1)
        costs, rest, given = (list(part.unbind())[order] for part in (self.costs, self.rest, self.given))
        steps, total = self.steps[order], self.sum
        self._sweep(costs, rest, steps)
        for p in self.cells:
            before = torch.add(costs[p], self.so_far, out=self.so_far) if p else self.so_far.copy_(costs[p])
            torch.add(before, rest[p], out=total)
            torch.sub(total, total[:1], out=given[p])
            costs[p].sub_(given[p], alpha=SHARE)
            if p < len(steps):
                self._step(before.sub_(given[p], alpha=SHARE), steps[p], self.so_far)
        return self.given.view(self.grid)

    def take(self, given: Tensor) -> None:
        """Add what the chains of the other direction have given."""
        self.costs.view(self.grid).add_(given.transpose(0, 2), alpha=SHARE)

    def best(self) -> Tensor:
        """The labels of least cost of each chain on its own, as ranks (P, others, N); the lower one of equals."""
        costs, rest = list(self.costs.unbind()), list(self.rest.unbind())
        self._sweep(costs, rest, self.steps)
        chosen = [self._least(costs[0] + rest[0])]
        for p in self.cells[1:]:
            bend = (self.ranks - chosen[-1]).square_().mul_(self.weights[p - 1])
            chosen.append(self._least(bend.add_(costs[p]).add_(rest[p])))
        return torch.stack(chosen).view(self.grid[0], *self.grid[2:])

    def _least(self, costs: Tensor) -> Tensor:
        return self.ranks[:, 0][costs.min(0).indices]


def _improve(chosen: Tensor, costs: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Ranks (H, W, N) with each row chosen anew given those above and below it: first every second, then the others.

    costs (H, W, L, N), down (H - 1, W, N), right (H, W - 1, N). Returned transposed, (W, H, N): the columns are next.
    """
    height, _, count, _ = costs.shape
    ranks = torch.arange(count, dtype=torch.float32, device=costs.device) / max(count - 1, 1)
    border = down.new_zeros(1, *down.shape[1:]) if height > 1 else costs.new_zeros(1, *chosen.shape[1:])
    pull = torch.cat([border, down, border])[:, :, None]
    for start in (0, 1):
        near = torch.cat([border, chosen, border])[:, :, None]
        mine = slice(start, height, 2)
        total = costs[mine].clone()
        for side in (0, 1):
            there = slice(start + 2 * side, height + 2 * side, 2)
            total += pull[start + side : height + side : 2] * (ranks[:, None] - near[there]).square()
        chosen = chosen.clone()
        if len(total):
            best = _Chains(total.permute(1, 2, 0, 3), right[mine].transpose(0, 1), ranks).best()
            chosen[mine] = best.transpose(0, 1)
    return chosen.transpose(0, 1)
