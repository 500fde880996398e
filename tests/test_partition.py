"""The solver of Co-Mixup: what its steps, its iterations and its repair guarantee."""

import itertools

import pytest
import torch

from randomix import functional, partition
from tests.cooperative_problems import objective, problem_of


def test_outputs_of_the_same_inputs_are_told_apart():
    counts = torch.tensor([[3, 0, 6.0, 0], [2, 0, 7, 0], [9, 0, 0, 0], [0, 0, 0, 9], [4, 5, 0, 0]])[None]
    expected = torch.zeros(1, 5, 4)
    expected[0, 0, 0] = expected[0, 1, 2] = 1  # inputs 0 and 2; outputs of one input are left alone
    assert torch.equal(partition.told_apart(counts), expected)


def test_they_are_told_apart_before_the_last_iteration(monkeypatch):
    problem, labels = problem_of(6, 4)
    seen = []

    def record(counts):
        seen.append(counts.clone())
        return torch.eye(6)[None] * 1e3  # nobody is to show the input of the same number

    monkeypatch.setattr(partition, "told_apart", record)
    for iterations in (1, 2, 4):
        masks = partition.solve(problem, labels, iterations, True, repair=False)
        diagonal = masks.sum(2)[0].diagonal().sum()
        assert (diagonal == 0) == (iterations > 1)
    before = partition.solve(problem, labels, 3, False, repair=False).sum(2)
    assert len(seen) == 2
    assert torch.equal(seen[1], before)
    partition.solve(problem, labels, 4, False, repair=False)
    assert len(seen) == 2


def test_a_step_finds_good_labels_of_an_output():
    """Nearly always, against all labellings of 2 x 2 cells with 4 inputs and the pairs of the 3 that it shows most."""
    found = 0
    for seed in range(30):
        problem, labels = problem_of(4, 2, seed)
        solution = partition.Solution(problem, labels)
        for output in range(4):
            solution.relabel(output, mix=False)
        counts, order = solution.counts[0].clone(), solution.board.order
        shown = [j for j in counts[1].argsort(descending=True, stable=True).tolist()[:3] if counts[1, j] > 0]
        pairs = [(torch.eye(4)[a] + torch.eye(4)[b]) / 2 for a, b in itertools.combinations(shown, 2)]
        kinds = torch.stack([*torch.eye(4), *pairs])
        price = partition.diversity_penalty(
            counts.sum(0) - counts[1], problem.compatibility[0], problem.gamma, problem.threshold, "hard", "paper"
        )
        every = kinds[torch.tensor(list(itertools.product(range(len(kinds)), repeat=4)))]  # (L^4, cells, n)
        costs = problem.costs[0].T + price
        grid = every.unflatten(1, (2, 2))
        apart = sum(grid.diff(dim=axis).square().sum((1, 2, 3)) for axis in (1, 2))
        bonus = partition.MIXED_BONUS * (every == 0.5).any(-1).sum(-1)
        energy = (every * costs).sum((1, 2)) + problem.beta / 2 * apart - bonus
        solution.relabel(1, mix=True)
        ours = solution.masks[0, 1][order.argsort()]
        mine = energy[(every == ours).all(-1).all(-1)]
        assert len(mine) > 0  # only labels that the method has
        found += bool(mine.min() <= energy.min() + 1e-6)
    assert found >= 25


@pytest.mark.parametrize(("omega", "tau", "spare"), [(0.0, 0.83, 1e-4), (0.1, 0.83, 0.05)])
def test_repair_ends_where_no_cell_lowers_the_objective(omega, tau, spare, monkeypatch):
    """But for spare: it looks for cells as if inputs did not weigh on each other, though it does count them."""
    monkeypatch.setattr(partition, "REPAIRS", 8.0)
    repaired = 0
    for seed in range(4):
        problem, labels = problem_of(8, 3, seed, omega, tau)
        before = objective(problem, partition.solve(problem, labels, 2, False, False))
        masks = partition.solve(problem, labels, 2, False, True)
        after = objective(problem, masks)
        assert after <= before + 1e-5
        repaired += after < before - 0.1
        whole = [(i, s) for i, s in itertools.product(range(8), range(9)) if masks[0, i, s].max() == 1]
        others = masks[0].repeat(len(whole), 8, 1, 1, 1)  # every other input in every cell of one input
        for k, (i, s) in enumerate(whole):
            others[k, :, i, s] = torch.eye(8)
        costs = problem.costs.unflatten(2, (3, 3))
        values = functional.comixup_objective(others.unflatten(3, (3, 3)), costs, problem.compatibility, tau=tau)
        assert values.min() >= after - spare
    assert repaired >= 3


def test_repair_never_raises_the_objective():
    for seed, penalty in itertools.product(range(6), partition.PENALTIES):
        problem, labels = problem_of(12, 4, seed, penalty=penalty)
        plain, repaired = (partition.solve(problem, labels, 3, True, repair) for repair in (False, True))
        costs = problem.costs.unflatten(2, problem.size)
        values = [
            float(functional.comixup_objective(m.unflatten(2, problem.size), costs, problem.compatibility))
            for m in (plain, repaired)
        ]
        assert values[1] <= values[0] + 1e-4


def test_outputs_are_several_sources_in_few_pieces():
    """As the authors' labels: 2 to 3.5 sources an output, all inputs used, some cells mixed; no output an input."""
    problem, labels = problem_of(20, 4, omega=0.001)
    masks = partition.solve(problem, labels, 4, True, True)[0]
    counts = masks.sum(1)
    assert set(masks.unique().tolist()) == {0.0, 0.5, 1.0}
    assert 2 <= (counts > 0).sum(1).float().mean() <= 3.5
    assert (counts.sum(0) > 0).all()
    assert 0.02 <= (masks == 0.5).any(-1).float().mean() <= 0.25
    grid = masks.unflatten(1, (4, 4))
    same = (grid.diff(dim=1) == 0).all(-1).float().mean() + (grid.diff(dim=2) == 0).all(-1).float().mean()
    assert same / 2 > 0.5  # initial labels: 0.05
