"""Arguments and small problems of Co-Mixup, and its objective as a slow sum."""

import itertools

import numpy as np
import torch
from torch.nn.functional import one_hot

from randomix import functional, partition
from randomix.functional import cooperative


def batch(count=7, spatial=(16, 24), blocks=4, part_size=20, dtype=torch.float32, seed=0):
    """Arguments of functional.comixup; saliency is noise around an object, as input gradients are."""
    draw = np.random.default_rng(seed)
    inputs = torch.from_numpy(draw.standard_normal((count, 3, *spatial)).astype(np.float32)).to(dtype)
    rows, columns = (draw.uniform(0, size, (count, 1, 1)) for size in spatial)
    y, x = np.mgrid[: spatial[0], : spatial[1]]
    near = np.exp(-8 * (((y - rows) / spatial[0]) ** 2 + ((x - columns) / spatial[1]) ** 2))
    saliency = torch.from_numpy((np.abs(draw.standard_normal((count, *spatial))) * (near + 0.1)).astype(np.float32))
    sizes = [min(part_size, count - start) for start in range(0, count, part_size)]
    dirichlet = np.concatenate([draw.dirichlet(np.full(size, 2.0)) for size in sizes]).astype(np.float32)
    labels = np.concatenate([draw.integers(0, size, (size, blocks, blocks)) for size in sizes])
    return inputs, torch.eye(count), saliency, torch.from_numpy(dirichlet), torch.from_numpy(labels)


def random_masks(count, blocks, seed=0):
    """Masks (n, B, B, n) of whole cells and halves of two."""
    draw = torch.Generator().manual_seed(seed)
    first, second = (torch.randint(count, (count, blocks, blocks), generator=draw) for _ in range(2))
    second = torch.where(torch.rand(first.shape, generator=draw) < 0.6, first, second)
    return (one_hot(first, count) + one_hot(second, count)) / 2


def problem_of(count=5, blocks=3, seed=0, omega=0.05, tau=0.83, **settings):
    """A part with all inputs, and initial labels (1, n, S)."""
    _, _, saliency, dirichlet, labels = batch(count, (6 * blocks, 6 * blocks), blocks, seed=seed)
    cells, present = blocks * blocks, torch.ones(1, count, dtype=torch.bool)
    costs = functional.comixup_costs(saliency, (blocks, blocks), dirichlet).flatten(1)[None]
    compatibility = cooperative.comixup_compatibility(cooperative.window_peaks(saliency)[None], present, omega)
    sizes = ((blocks, blocks), 0.32 / cells, 1.0 / cells, tau * cells)
    return partition.Problem(costs, compatibility, present, *sizes, **settings), labels.flatten(1)[None]


def loop_objective(masks, costs, compatibility, beta, gamma, threshold):
    """The sum of the module docstring of randomix.partition, for masks (n, rows, columns, n)."""
    count, rows, columns, _ = masks.shape
    total = 0.0
    for i, r, c in itertools.product(range(count), range(rows), range(columns)):
        total += float(masks[i, r, c] @ costs[:, r, c])
        for below in [(r + 1, c)] * (r + 1 < rows) + [(r, c + 1)] * (c + 1 < columns):
            total += beta / 2 * float((masks[i, r, c] - masks[i][below]).square().sum())
    counts = masks.sum((1, 2))
    for i, j in itertools.product(range(count), repeat=2):
        others = counts.sum(0) - counts[i]
        value = float(compatibility[j] @ others)
        total += gamma * float(counts[i, j]) * value * (value > threshold)
    return total


def objective(problem, masks):
    """The slow sum for masks (1, n, S, n)."""
    grid, costs = masks[0].unflatten(1, problem.size), problem.costs[0].unflatten(1, problem.size)
    return loop_objective(grid, costs, problem.compatibility[0], problem.beta, problem.gamma, problem.threshold)
