"""Which input each cell of each output shows: Co-Mixup's labelling, for all parts of a batch at once.

A part has n inputs and makes n outputs, each of S = rows * columns cells. masks (P, n, S, n): how much of cell s of
output i input j shows: 1, or 1/2 for each of two. counts (P, n, n) = masks.sum(2). Sought are masks that minimise
    sum costs + beta / 2 * sum over neighbouring cells |m_p - m_q|^2 + gamma * sum over i, j of t_ij v_ij [v_ij > tau]
with t = counts and v_i = A sum of t_i' over i' != i: how much of what goes with input j the other outputs show.
As in the paper the outputs are relabelled one after the other; here each step covers all parts and several starts in
one problem, and consists of a fixed number of batched operations. Nothing waits for the device.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = ("hard", "soft")
PRECEDENCES = ("paper", "code")

SWEEPS = 2  # of each descent; more do not lower the sum
REPAIRS = 1.5  # relabelled cells of a part for each cell of an output: 9 of 10 parts of 20 are finished with that
MIXED_BONUS = 5e-4  # by which the authors favour a cell of two inputs
FORBIDDEN = 1e4


@dataclass(frozen=True)
class Problem:
    """What is sought: costs (P, n, S), smaller for cells worth showing; compatibility A (P, n, n); present (P, n) bool.

    size: (rows, columns). beta, gamma, threshold: those of the sum above, tau in cells. penalty: "hard" is that sum,
    "soft" has v - tau for v in the penalty of a step. precedence: see ``diversity_penalty``.
    """

    costs: Tensor
    compatibility: Tensor
    present: Tensor
    size: tuple[int, int]
    beta: float
    gamma: float
    threshold: float
    penalty: str = "hard"
    precedence: str = "paper"


class Checkerboard(NamedTuple):
    """Cells in two colours, no two neighbours alike: those of one are optimal at once, given the other.

    order (S,): the red cells, then the black ones. inverse (S,): its inverse. In that order: near (S, S), 1 between
    neighbours; link (R, B), its part from black to red cells; degree (S,), the number of neighbours.
    """

    order: Tensor
    inverse: Tensor
    near: Tensor
    link: Tensor
    degree: Tensor


@functools.lru_cache(maxsize=32)
def checkerboard(size: tuple[int, int], device: torch.device) -> Checkerboard:
    """The checkerboard of a grid of size (rows, columns); remembered, never written to."""
    row, column = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, size), indexing="ij"))
    order = torch.argsort((row + column) % 2, stable=True)
    row, column = row[order], column[order]
    near = ((row[:, None] - row).abs() + (column[:, None] - column).abs() == 1).float()
    reds = (len(order) + 1) // 2
    parts = order, order.argsort(), near, near[:reds, reds:].contiguous(), near.sum(1)
    return Checkerboard(*(part.to(device) for part in parts))


# --- The objective ---------------------------------------------------------------------------------------------------


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """matrix (..., n, n) @ vector (..., n) in full precision, whatever the device's matrix units round to."""
    return (matrix * vector[..., None, :]).sum(-1)


def diversity(counts: Tensor, compatibility: Tensor | None, threshold: float) -> Tensor:
    """Sum over i, j of t_ij v_ij [v_ij > threshold] for counts t (..., n, n); compatibility None is the identity."""
    shown = counts if compatibility is None else times(compatibility[..., None, :, :], counts)
    others = shown.sum(-2, keepdim=True) - shown
    return (counts * F.threshold(others, threshold, 0.0)).sum((-2, -1))


def unevenness(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """Half the sum over neighbouring cells of |m_p - m_q|^2 for masks (..., n, S, n) of size (rows, columns)."""
    grid = masks.unflatten(-2, size)
    down, across = grid.diff(dim=-3), grid.diff(dim=-2)
    return (down.square().sum((-4, -3, -2, -1)) + across.square().sum((-4, -3, -2, -1))) / 2


def diversity_penalty(
    others: Tensor, compatibility: Tensor, gamma: float, threshold: float, penalty: str, precedence: str
) -> Tensor:
    """Cost (..., n) of a cell that shows input j, when the other outputs show others (..., n) cells of each input.

    With v = A others: "hard" is 2 gamma v_j [v_j > threshold], "soft" 2 gamma max(v_j - threshold, 0).
    precedence "code": as the authors' line is executed, 2 gamma sum_k A_jk [v_k > threshold] others_k, where their
    paper has the brackets around A others; it changes "hard" only.
    """
    value = times(compatibility, others)
    if penalty == "soft":
        return 2 * gamma * (value - threshold).clamp(min=0)
    if precedence == "paper":
        return 2 * gamma * F.threshold(value, threshold, 0.0)
    return 2 * gamma * times(compatibility, others * (value > threshold))


def told_apart(counts: Tensor) -> Tensor:
    """Extra cost (P, n, n), 0 or 1, that separates outputs composed of the same two or more inputs; counts (P, n, n).

    Of two such outputs the first pays for the first of these inputs, the second one for the second.
    """
    used = counts > 0
    rank = used.cumsum(-1)
    same = (used[:, :, None] == used[:, None]).all(-1) & (rank[..., -1] > 1)[..., None]
    later = same.triu(1)
    first, second = used & (rank == 1), used & (rank == 2)
    return ((first & later.any(2)[..., None]) | (second & later.any(1)[..., None])).float()


# --- One output ------------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """What a cell may show: masks (P, L, n), their inner products gram (P, L, L), and unary costs (P, K, S, L)."""

    masks: Tensor
    gram: Tensor
    unary: Tensor


def single_labels(unary: Tensor, singles: Tensor) -> Labels:
    """Each of the n inputs alone: unary (P, K, S, n), singles (P, n, n) the identity."""
    return Labels(singles, singles, unary)


def mixed_labels(unary: Tensor, singles: Tensor, counts: Tensor, relief: Tensor) -> Labels:
    """The inputs alone, and halves of any two of the three that the output shows most: counts (P, n).

    relief (S,): how much less a mixed cell costs than the mean of its two inputs.
    """
    amount, index = counts.topk(min(3, counts.shape[-1]))
    top = singles[0].index_select(0, index.flatten()).view(*index.shape, -1)
    masks = torch.cat([singles, (top + top.roll(1, 1)) / 2], 1)
    cost = unary.gather(-1, index[:, None, None].expand(*unary.shape[:3], -1))
    cost = cost + ((amount == 0) * FORBIDDEN)[:, None, None]
    cost = (cost + cost.roll(1, -1)) / 2 - relief[:, None]
    return Labels(masks, masks @ masks.mT, torch.cat([unary, cost], -1))


def descend(labels: Labels, blacks: Tensor, link: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Labels (P, K, S) of a low cost (P, K) from black cells of masks with inner products blacks (P, K, B, L).

    The red cells take their best label given the black ones, then the black ones given the red ones, and so on.
    """
    parts, starts, cells, count = labels.unary.shape
    reds = link.shape[0]
    unary, black = labels.unary.flatten(0, 1), blacks.flatten(0, 1)
    gram, base = labels.gram.flatten(0, 1), _row_base(parts, starts, count, unary.device)
    to_red, to_black = link.expand(len(unary), -1, -1), link.mT.expand(len(unary), -1, -1)
    red_unary, black_unary = unary[:, :reds], unary[:, reds:]
    for _ in range(SWEEPS):
        red_label = torch.baddbmm(red_unary, to_red, black, alpha=-beta).argmin(-1)
        red = gram.index_select(0, (red_label + base).flatten()).view(len(unary), reds, count)
        lowest, black_label = torch.baddbmm(black_unary, to_black, red, alpha=-beta).min(-1)
        black = gram.index_select(0, (black_label + base).flatten()).view(len(unary), cells - reds, count)
    cost = lowest.sum(-1) + red_unary.gather(-1, red_label[..., None]).sum((1, 2))
    return torch.cat([red_label, black_label], -1).view(parts, starts, cells), cost.view(parts, starts)


@functools.lru_cache(maxsize=32)
def _row_base(parts: int, starts: int, count: int, device: torch.device) -> Tensor:
    """Where the rows of each part begin in a table (parts * count, .): (parts * starts, 1); never written to."""
    return (torch.arange(parts, device=device) * count).repeat_interleave(starts)[:, None]


def best_masks(labels: Labels, masks: Tensor, link: Tensor, beta: float) -> Tensor:
    """Masks (P, S, n) of one output: descended to from the cheapest labels and from its masks (P, S, n), the better."""
    (parts, cells, inputs), reds, count = masks.shape, link.shape[0], labels.masks.shape[1]
    base = _row_base(parts, 1, count, masks.device)
    cheapest = labels.unary[:, 0, reds:].argmin(-1)
    rows = labels.gram.flatten(0, 1).index_select(0, (cheapest + base).flatten()).view(parts, cells - reds, count)
    blacks = torch.stack([rows, masks[:, reds:] @ labels.masks.mT], 1)
    index, cost = descend(labels._replace(unary=labels.unary.expand(-1, 2, -1, -1)), blacks, link, beta)
    best = index.gather(1, cost.argmin(1)[:, None, None].expand(-1, 1, cells))[:, 0]
    return labels.masks.flatten(0, 1).index_select(0, (best + base).flatten()).view(parts, cells, inputs)


# --- All outputs -----------------------------------------------------------------------------------------------------


class Solution:
    """A solution in the making: masks (P, n, S, n) with the cells in checkerboard order, and their counts (P, n, n)."""

    def __init__(self, problem: Problem, init_labels: Tensor) -> None:
        """init_labels (P, n, S): the input that each cell of each output shows at first."""
        self.problem = problem
        self.board = checkerboard(problem.size, problem.costs.device)
        parts, inputs = problem.costs.shape[:2]
        eye = torch.eye(inputs, device=problem.costs.device)
        self.singles = eye.expand(parts, -1, -1).contiguous()
        absent = torch.where(problem.present, 0.0, FORBIDDEN)
        costs = problem.costs.index_select(2, self.board.order) + absent[..., None]
        self.costs = costs.mT.contiguous()[:, None]  # (P, 1, S, n)
        self.present = problem.present.float()[..., None, None]  # (P, n, 1, 1)
        labels = init_labels.index_select(2, self.board.order)
        self.masks = eye.index_select(0, labels.flatten()).view(*labels.shape, inputs) * self.present
        self.counts = self.masks.sum(2)
        self.extra = torch.zeros_like(self.counts)  # what an output pays for each input on top

    def relabel(self, output: int, mix: bool) -> None:
        """A step of the paper's iteration: the best labels of one output at prices that the others' counts set."""
        problem, own = self.problem, self.counts[:, output]
        price = diversity_penalty(
            self.counts.sum(1) - own,
            problem.compatibility,
            problem.gamma,
            problem.threshold,
            problem.penalty,
            problem.precedence,
        )
        unary = self.costs + (price + self.extra[:, output])[:, None, None]
        if mix:
            relief = problem.beta / 4 * self.board.degree + MIXED_BONUS
            labels = mixed_labels(unary, self.singles, own, relief)
        else:
            labels = single_labels(unary, self.singles)
        masks = best_masks(labels, self.masks[:, output], self.board.link, problem.beta) * self.present[:, output]
        self.masks[:, output] = masks
        self.counts[:, output] = masks.sum(1)


class Repair:
    """A solution whose cells are relabelled singly: each time the one of a part that lowers the sum sought most.

    The iteration prices an input by what the other outputs show of it at that time. It does not see that its own
    choice makes their cells dearer, all at once where they cross the threshold. What is left of that is undone here.
    """

    def __init__(self, solution: Solution) -> None:
        self.problem, self.board, self.singles = solution.problem, solution.board, solution.singles[0]
        self.masks, self.counts = solution.masks, solution.counts
        self.shown = times(self.problem.compatibility[:, None], self.counts)  # (P, n, n): A t_i
        self.fixed = solution.costs + solution.extra[:, :, None] + FORBIDDEN * (1 - solution.present)
        self.parts = torch.arange(len(self.masks), device=self.masks.device)
        self.unit = self.problem.compatibility.diagonal(dim1=1, dim2=2)[:, None]  # what one cell adds to A t
        self.local, self.own = self._prices(self.fixed, self.masks)

    def relabel_one(self) -> None:
        """One cell of each part, where that lowers the sum."""
        (parts, _, cells, inputs), gamma = self.masks.shape, self.problem.gamma
        more, fewer = self._marginal()
        lowest, label = (self.local + gamma * more[:, :, None]).min(-1)
        change = lowest - self.own + gamma * (self.masks * fewer[:, :, None]).sum(-1)
        place = change.view(parts, -1).argmin(1)
        output, label = place // cells, label.view(parts, -1).gather(1, place[:, None])
        old = self.masks[self.parts, output]
        new = old.index_put((self.parts, place % cells), self.singles.index_select(0, label[:, 0]))
        local = self.local.view(parts, -1).gather(1, place[:, None] * inputs + label)[:, 0]
        plain = local - self.own.view(parts, -1).gather(1, place[:, None])[:, 0]
        amount = new.sum(1)
        shown = times(self.problem.compatibility, amount)
        index = self.parts, output
        counts, all_shown = self.counts.index_put(index, amount), self.shown.index_put(index, shown)
        # the choice rests on marginal costs, exact for whole cells and compatibility 0 between inputs; this does not
        lower = (plain + gamma * (self._clash(counts, all_shown) - self._clash(self.counts, self.shown)) < 0)[:, None]
        self.counts = torch.where(lower[..., None], counts, self.counts)
        self.shown = torch.where(lower[..., None], all_shown, self.shown)
        new = torch.where(lower[..., None], new, old)
        fixed = self.fixed[index]
        self.masks[index] = new
        self.local[index], self.own[index] = (price[:, 0] for price in self._prices(fixed[:, None], new[:, None]))

    def _prices(self, fixed: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """For cells of masks (P, O, S, n): what another label would cost each (P, O, S, n), and what its own does.

        Without the diversity; what a cell shows already is forbidden.
        """
        local = fixed - self.problem.beta * (self.board.near @ masks)
        bare = (masks.square().sum(-1) - 1) * (self.problem.beta / 2 * self.board.degree)
        return local + FORBIDDEN * masks, (masks * local).sum(-1) + bare

    def _marginal(self) -> tuple[Tensor, Tensor]:
        """Change of the last term of the sum, over gamma, for one cell more and one fewer of each input: (P, n, n)."""
        tau, counts = self.problem.threshold, self.counts
        value = self.shown.sum(1, keepdim=True) - self.shown
        clash = F.threshold(value, tau, 0.0)
        up = counts * (F.threshold(value + self.unit, tau, 0.0) - clash)
        down = counts * (F.threshold(value - self.unit, tau, 0.0) - clash)
        return clash + up.sum(1, keepdim=True) - up, down.sum(1, keepdim=True) - down - clash

    def _clash(self, counts: Tensor, shown: Tensor) -> Tensor:
        value = shown.sum(1, keepdim=True) - shown
        return (counts * F.threshold(value, self.problem.threshold, 0.0)).sum((1, 2))


def solve(problem: Problem, init_labels: Tensor, iterations: int, resolve: bool, repair: bool) -> Tensor:
    """Masks (P, n, S, n) from initial labels (P, n, S), with the cells in rows.

    Every iteration relabels each output once; in the first, cells are not mixed. resolve: before the last one, tell
    outputs of the same inputs apart. repair: then relabel single cells as long as the sum becomes smaller.
    """
    solution = Solution(problem, init_labels)
    for iteration in range(iterations):
        for output in range(init_labels.shape[1]):
            solution.relabel(output, mix=iteration > 0)
        if resolve and iteration == iterations - 2:
            solution.extra = problem.gamma * told_apart(solution.counts)
    masks = solution.masks
    if repair:
        repaired = Repair(solution)
        for _ in range(math.ceil(REPAIRS * init_labels.shape[2])):
            repaired.relabel_one()
        masks = repaired.masks
    return masks.index_select(2, solution.board.inverse)
