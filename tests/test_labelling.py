"""Labels of least energy on a grid: against all labellings, against exact dynamic programming, against graph cuts."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from randomix.labelling import energy, solve_grid

ROOT = Path(__file__).resolve().parents[1]
SIZES = [(2, 2), (2, 3), (3, 2), (1, 5), (5, 1), (1, 1)]


def problem(height, width, labels, count=64, seed=0, smooth=1.0):
    """Costs of the kind that Puzzle Mix has: two competing maps, blends of them between, weights of their size."""
    draws = np.random.default_rng(seed)
    ends = draws.exponential(1000.0, (2, count, height, width)) * draws.choice([0.2, 1.0, 3.0], (2, count, 1, 1))
    ranks = np.linspace(0, 1, labels)
    prior = draws.exponential(200.0, (count, 1, 1, labels))
    unary = ends[0][..., None] * (1 - ranks) + ends[1][..., None] * ranks + prior
    down, right = (
        draws.exponential(600.0 * smooth, (count, height - 1, width)),
        draws.exponential(600.0 * smooth, (count, height, width - 1)),
    )
    return tuple(torch.from_numpy(part.astype(np.int32)) for part in (unary, down, right))


def reference_energy(labels, unary, down, right):
    """One labelling (H, W) of one sample, cell by cell."""
    height, width, count = unary.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            total += unary[i, j, labels[i, j]]
            if i + 1 < height:
                total += down[i, j] * ((labels[i, j] - labels[i + 1, j]) / (count - 1)) ** 2
            if j + 1 < width:
                total += right[i, j] * ((labels[i, j] - labels[i, j + 1]) / (count - 1)) ** 2
    return total


def least_energy(unary, down, right):
    """Exact: over whole rows, each of the L ** W ways to label one from the best of those for the row above."""
    height, width, count = unary.shape
    rows = np.array(list(itertools.product(range(count), repeat=width)))
    steps = (rows[:, None] - rows) / (count - 1)
    best = np.zeros(len(rows))
    for i in range(height):
        own = unary[i][np.arange(width), rows].sum(1)
        own += (right[i] * np.diff(rows / (count - 1), axis=1) ** 2).sum(1)
        above = (best[:, None] + (down[i - 1] * steps**2).sum(2)).min(0) if i else best
        best = above + own
    return best.min()


def arrays(parts):
    return [part.numpy().astype(float) for part in parts]


def excess(parts, labels):
    found = energy(labels, *(part.double() for part in parts)).numpy()
    least = np.array([least_energy(*sample) for sample in zip(*arrays(parts), strict=True)])
    assert (found >= least - 1e-6 * least).all()
    return found / least - 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("labels", [2, 3, 4])
def test_energy_is_the_sum_over_cells_and_neighbours(size, labels):
    parts = problem(*size, labels, count=3)
    chosen = torch.from_numpy(np.random.default_rng(1).integers(0, labels, (3, *size)))
    expected = [reference_energy(c, *p) for c, *p in zip(chosen.numpy(), *arrays(parts), strict=True)]
    np.testing.assert_allclose(energy(chosen, *(part.double() for part in parts)), expected, rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("labels", [2, 3, 4])
def test_small_grids_have_the_least_energy_of_all_labellings(size, labels):
    parts = problem(*size, labels, count=40)
    cells = size[0] * size[1]
    every = torch.tensor(list(itertools.product(range(labels), repeat=cells))).view(-1, *size)
    costs = [part.double() for part in parts]
    least = [energy(every, *(c[i].expand(len(every), *c.shape[1:]) for c in costs)).min() for i in range(40)]
    found = energy(solve_grid(*parts), *costs)
    np.testing.assert_allclose(found, torch.stack(least), rtol=1e-6)


@pytest.mark.parametrize(("size", "labels"), [((4, 4), 3), ((8, 5), 3), ((5, 8), 2), ((16, 5), 3), ((6, 4), 4)])
@pytest.mark.parametrize("smooth", [0.3, 1.0, 4.0])
def test_larger_grids_come_to_the_least_energy(size, labels, smooth):
    parts = problem(*size, labels, count=12, seed=2, smooth=smooth)
    if labels ** size[1] > 300:  # a row is what the reference enumerates
        parts = (parts[0].transpose(1, 2), parts[2].transpose(1, 2), parts[1].transpose(1, 2))
    above = excess(parts, solve_grid(*parts))
    assert above.max() <= 1e-3
    assert (above > 1e-9).sum() <= 1


def test_more_rounds_bring_it_down():
    parts = problem(16, 16, 3, count=24, seed=3)
    total = [energy(solve_grid(*parts, rounds=rounds), *(p.double() for p in parts)).sum() for rounds in (0, 3, 52)]
    assert total[0] > 1.0005 * total[2]
    assert total[0] > total[1] > total[2]


def test_without_neighbours_each_cell_takes_its_cheapest_label_and_with_strong_ones_all_the_same():
    unary, down, right = problem(5, 7, 3)
    assert torch.equal(solve_grid(unary, down * 0, right * 0), unary.argmin(-1))
    same = solve_grid(unary, down * 0 + 10**7, right * 0 + 10**7)
    best = unary.double().sum((1, 2)).argmin(-1)
    assert torch.equal(same, best[:, None, None].expand(-1, 5, 7))


def test_samples_do_not_touch_each_other_and_arguments_stay():
    parts = problem(8, 8, 3, count=9)
    before = [part.clone() for part in parts]
    labels = solve_grid(*parts)
    for i in range(9):
        assert torch.equal(solve_grid(*(part[i : i + 1] for part in parts))[0], labels[i])
    assert all(torch.equal(a, b) for a, b in zip(parts, before, strict=True))
    assert labels.dtype == torch.int64


def test_types_and_gradients_are_left_outside():
    parts = problem(4, 4, 3)
    labels = solve_grid(*parts)
    assert torch.equal(solve_grid(*(part.double().requires_grad_() for part in parts)), labels)
    assert torch.equal(solve_grid(parts[0].float() + 1000, *parts[1:]), labels)  # a constant changes nothing


def test_a_transposed_problem_has_transposed_labels():
    unary, down, right = problem(8, 5, 3, count=32)
    turned = solve_grid(unary.transpose(1, 2), right.transpose(1, 2), down.transpose(1, 2)).transpose(1, 2)
    costs = [part.double() for part in (unary, down, right)]
    torch.testing.assert_close(
        energy(turned, *costs), energy(solve_grid(unary, down, right), *costs), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("side", [4, 8, 16])
@pytest.mark.parametrize("labels", [2, 3])
def test_no_worse_than_a_graph_cut(side, labels):
    gco = pytest.importorskip("gco", reason="needs the extra graphcut")
    parts = problem(side, side, labels, count=24, seed=3)
    ranks = np.arange(labels)
    steps = ((ranks[:, None] - ranks) / (labels - 1)) ** 2
    cuts = [
        gco.cut_grid_graph(unary, steps, down, right, algorithm="swap").reshape(side, side)
        for unary, down, right in zip(*(part.numpy() for part in parts), strict=True)
    ]
    costs = [part.double() for part in parts]
    theirs, ours = energy(torch.from_numpy(np.stack(cuts)).long(), *costs), energy(solve_grid(*parts), *costs)
    assert (ours <= theirs).all()


INTERPRETED = """
import torch
from randomix import labelling, labelling_cuda
from tests.test_labelling import problem

def plain(unary, down, right, rounds):
    ranks = torch.arange(unary.shape[-1]) / (unary.shape[-1] - 1)
    rows = labelling._Chains(unary.permute(2, 3, 1, 0) / 2, right.permute(2, 1, 0), ranks)
    columns = labelling._Chains(unary.permute(1, 3, 2, 0) / 2, down.permute(1, 2, 0), ranks)
    for turn in range(rounds):
        columns.take(rows.give(backwards=turn % 2 == 1))
        rows.take(columns.give(backwards=turn % 2 == 1))
    return (rows.best() * (unary.shape[-1] - 1)).round().long().permute(2, 1, 0)

for height, width, labels in ((3, 2, 3), (2, 3, 2)):
    parts = [part.float() for part in problem(height, width, labels, count=2)]
    found = labelling_cuda.solve(*parts, labelling.SHARE, rounds=2)
    assert torch.equal(found, plain(*parts, 2)), (height, width, labels)
print("equal")
"""


@pytest.mark.slow
def test_the_kernel_computes_the_same_exchange():
    pytest.importorskip("triton", reason="Triton comes with torch on Linux only")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "equal", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("side", "labels"), [(2, 3), (4, 3), (8, 3), (16, 3), (16, 2), (7, 4)])
def test_on_a_gpu_the_energies_are_those_of_the_cpu(side, labels):
    parts = problem(side, side, labels, count=64, seed=4)
    costs = [part.double() for part in parts]
    ours = energy(solve_grid(*(part.cuda() for part in parts)).cpu(), *costs)
    torch.testing.assert_close(ours, energy(solve_grid(*parts), *costs), rtol=1e-3, atol=0)
