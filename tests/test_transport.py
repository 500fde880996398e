"""The auction that moves cells: against the T^2 x T^2 form of it, round by round; moving patches against slices."""

import numpy as np
import pytest
import torch

from randomix import transport
from randomix.transport import move_cells, spread, transport_plan

GRIDS = [(3, 3), (4, 4), (8, 8), (3, 5), (6, 4), (7, 7)]


def reference_plan(visible, saliency, t_eps):
    """One sample (R, C), every cost and every bid in full: matrix (P, P), row = cell, column = place."""
    rows, columns = visible.shape
    cells, side = rows * columns, max(rows, columns)
    at = np.stack(np.divmod(np.arange(cells), columns)).astype(np.float32)
    squares = ((at[:, :, None] - at[:, None, :]) ** 2).sum(0) / np.float32((side - 1) ** 2)
    cost = squares * np.float32(t_eps) - saliency.reshape(-1, 1) * visible.reshape(1, -1)
    for _ in range(side):
        plan = np.zeros((cells, cells))
        plan[np.arange(cells), cost.argmin(1)] = 1
        winner = np.zeros((cells, cells))
        winner[(plan * cost).argmin(0), np.arange(cells)] = 1  # zeros where nobody bids: a bid above 0 loses to them
        won = plan * winner
        cost = (cost + (plan - won)).astype(np.float32)
    return won


def problem(grid, count=24, seed=0, concentration=3.0):
    draws = np.random.default_rng(seed)
    saliency = draws.random((count, *grid)) ** concentration + 1e-6
    saliency /= saliency.sum((1, 2), keepdims=True)
    visible = draws.random((count, *grid)) < draws.random((count, 1, 1))
    return torch.from_numpy(visible), torch.from_numpy(saliency).float()


def as_matrix(source, empty):
    plan = np.zeros((source.size, source.size))
    plan[source.ravel(), np.arange(source.size)] = ~empty.ravel()
    return plan


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("concentration", [1.0, 4.0, 20.0])
@pytest.mark.parametrize("t_eps", [0.1, 0.8, 3.0])
def test_the_plan_is_that_of_the_full_auction(grid, concentration, t_eps):
    visible, saliency = problem(grid, concentration=concentration)
    source, empty = transport_plan(visible, saliency, t_eps)
    for i in range(len(visible)):
        expected = reference_plan(visible[i].numpy(), saliency[i].numpy(), t_eps)
        assert np.array_equal(as_matrix(source[i].numpy(), empty[i].numpy()), expected)


def test_these_plans_do_move_cells():
    visible, saliency = problem((8, 8), concentration=4.0)
    source, _ = transport_plan(visible, saliency)
    assert (source != torch.arange(64).view(8, 8)).sum() > 50


def test_equal_bids_go_to_the_first_cell():
    saliency = torch.tensor([[[0.4, 0.1, 0.4], [0.05, 0.0, 0.05], [0.0, 0.0, 0.0]]])
    visible = torch.tensor([[[False, True, False], [False] * 3, [False] * 3]])
    source, empty = transport_plan(visible, saliency)
    assert source[0, 0, 1] == 0
    assert empty.sum() == 8
    expected = reference_plan(visible[0].numpy(), saliency[0].numpy(), 0.8)
    assert np.array_equal(as_matrix(source[0].numpy(), empty[0].numpy()), expected)


def test_the_first_cell_stays_where_it_is_not_seen():
    visible = torch.zeros(1, 3, 3, dtype=torch.bool)
    source, empty = transport_plan(visible, torch.full((1, 3, 3), 1 / 9))
    assert torch.equal(source.flatten(), torch.arange(9))
    assert empty.flatten().tolist() == [False] + [True] * 8


def test_a_place_that_is_seen_is_never_empty():
    visible, saliency = problem((5, 5))
    saliency[:, :2] = 0  # these cells win nothing in the authors' code, which paints their places black
    _, empty = transport_plan(visible, saliency / saliency.sum((1, 2), keepdim=True))
    assert not (empty & visible).any()


@pytest.mark.parametrize("grid", [(1, 1), (1, 4), (2, 2), (2, 1)])
def test_the_smallest_grids(grid):
    source, empty = transport_plan(*problem(grid, count=6))
    assert source.shape == empty.shape == (6, *grid)
    assert ((source >= 0) & (source < grid[0] * grid[1])).all()


def test_samples_do_not_touch_each_other(monkeypatch):
    visible, saliency = problem((8, 8), count=7)
    source, empty = transport_plan(visible, saliency)
    alone = [transport_plan(visible[i : i + 1], saliency[i : i + 1]) for i in range(7)]
    assert torch.equal(torch.cat([s for s, _ in alone]), source)
    monkeypatch.setitem(transport._ENTRIES_AT_ONCE, "cpu", 3 * 64**2)  # three samples at a time
    parts = transport_plan(visible, saliency)
    assert torch.equal(parts[0], source)
    assert torch.equal(parts[1], empty)


@pytest.mark.parametrize("grid", [*GRIDS, (1, 1), (1, 2), (9, 16)])
def test_both_ways_to_find_the_next_place_agree(grid):
    visible, _ = problem(grid, count=5)
    visible[0], visible[1] = False, True
    cells = grid[0] * grid[1]
    order, _ = transport._by_distance(grid, torch.device("cpu"))
    hidden = (~visible.flatten(1).t()).to(torch.int16) << 14
    later = transport._minima_in_turn(hidden, order)
    assert torch.equal(later, transport._minima_by_doubling(hidden, order))
    assert (later[:, :, 0] == cells).all()
    assert torch.equal(later[:, 0, 1].long(), torch.arange(1, cells + 2).clamp(max=cells))


def test_half_precision_saliency():
    visible, saliency = problem((8, 8))
    source, _ = transport_plan(visible, saliency.half())
    assert torch.equal(source, transport_plan(visible, saliency.half().float())[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("size", "grid"), [((8, 8), (4, 4)), ((6, 12), (3, 2)), ((5, 4), (5, 4)), ((4, 6), (1, 1))])
def test_patches_are_moved_whole(dtype, channels_last, size, grid):
    draws = torch.Generator().manual_seed(0)
    image = torch.rand(3, 2, *size, generator=draws).to(dtype)
    if channels_last:
        image = image.contiguous(memory_format=torch.channels_last)
    cells = grid[0] * grid[1]
    source = torch.randint(cells, (3, *grid), generator=draws)
    moved, before = move_cells(image, source), image.clone()
    tall, wide = size[0] // grid[0], size[1] // grid[1]
    for n in range(3):
        for row in range(grid[0]):
            for column in range(grid[1]):
                r, c = divmod(int(source[n, row, column]), grid[1])
                here = moved[n, :, row * tall : (row + 1) * tall, column * wide : (column + 1) * wide]
                assert torch.equal(here, image[n, :, r * tall : (r + 1) * tall, c * wide : (c + 1) * wide])
    assert moved.dtype == dtype
    assert moved.stride() == image.stride()
    assert torch.equal(image, before)


def test_empty_places_are_zero():
    image, source = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 2, dtype=torch.int64)
    empty = torch.tensor([[[False, True], [False, False]]])
    assert move_cells(image, source, empty)[0, 1].tolist() == [[1, 1, 0, 0]] * 2 + [[1] * 4] * 2


def test_cells_spread_over_their_pixels():
    cells = torch.arange(6).view(1, 2, 3)
    assert torch.equal(spread(cells, (4, 9)), cells.repeat_interleave(2, 1).repeat_interleave(3, 2))
