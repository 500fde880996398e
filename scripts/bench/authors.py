"""The mixing operations in the form that the methods' authors use: what ours are timed against.

Written from their description, with the same arithmetic a sample; no line is theirs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from randomix import functional


def mixup(inputs: Tensor) -> Tensor:
    """Two scaled copies."""
    lam = float(np.random.beta(1.0, 1.0))
    order = torch.randperm(len(inputs), device=inputs.device)
    return lam * inputs + (1 - lam) * inputs[order]


def cutmix(inputs: Tensor) -> Tensor:
    """One box, pasted by slices."""
    lam = float(np.random.beta(1.0, 1.0))
    order = torch.randperm(len(inputs), device=inputs.device)
    center = [int(np.random.randint(s)) for s in inputs.shape[2:]]
    top, left, bottom, right = functional.cutmix_box(tuple(inputs.shape[2:]), lam, center)
    mixed = inputs.clone()
    mixed[:, :, top:bottom, left:right] = inputs[order, :, top:bottom, left:right]
    return mixed


def resizemix(inputs: Tensor) -> Tensor:
    """Patches pasted sample by sample."""
    scale = float(np.random.uniform(0.1, 0.8))
    patch = [max(1, int(scale * side)) for side in inputs.shape[2:]]
    small = F.interpolate(inputs, patch, mode="nearest")
    (height, width), (rows, columns) = inputs.shape[2:], small.shape[2:]
    order = torch.randperm(len(inputs)).tolist()
    mixed = inputs.clone()
    for sample, partner in enumerate(order):
        top = min(max(int(np.random.randint(height)) - rows // 2, 0), height - rows)
        left = min(max(int(np.random.randint(width)) - columns // 2, 0), width - columns)
        mixed[sample, :, top : top + rows, left : left + columns] = small[partner]
    return mixed


def fmix(inputs: Tensor) -> Tensor:
    """A mask and its complement, multiplied and added."""
    lam, (height, width) = float(np.random.beta(1.0, 1.0)), inputs.shape[2:]
    noise = np.random.standard_normal((height, width // 2 + 1, 2))
    mask = functional.fmix_mask(torch.from_numpy(noise), (height, width), lam).to(inputs)
    order = torch.randperm(len(inputs), device=inputs.device)
    return mask * inputs + (1 - mask) * inputs[order]


def cutout(inputs: Tensor, length: int = 16) -> Tensor:
    """A mask of its own for each sample, made with NumPy, as a data loader's transform does."""
    found, (height, width) = [], inputs.shape[2:]
    for sample in inputs:
        mask = np.ones((height, width), np.float32)
        row, column = np.random.randint(height), np.random.randint(width)
        top, bottom = np.clip([row - length // 2, row + length // 2], 0, height)
        left, right = np.clip([column - length // 2, column + length // 2], 0, width)
        mask[top:bottom, left:right] = 0.0
        found.append(sample * torch.from_numpy(mask).expand_as(sample).to(sample))
    return torch.stack(found)


def patchup(hidden: Tensor, block_size: int = 7, gamma: float = 0.75) -> Tensor:
    """Bernoulli centres expanded to the batch, pooled for every sample, and five products of the batch's size."""
    count, channels, size, _ = hidden.shape
    adjusted = gamma * size**2 / (block_size**2 * (size - block_size + 1) ** 2)
    seeds = torch.bernoulli(torch.full((channels, size, size), adjusted, device=hidden.device))
    seeds = seeds.expand(count, channels, size, size)
    holes = F.max_pool2d(seeds, (block_size, block_size), stride=(1, 1), padding=(block_size // 2,) * 2)
    mask, lam = 1 - holes, float(np.random.beta(2.0, 2.0))
    order = torch.from_numpy(np.random.permutation(count)).to(hidden.device)
    unchanged, patches = mask * hidden, holes * hidden
    patches = patches * lam + patches[order] * (1 - lam)
    return unchanged + patches


def puzzlemix(inputs: Tensor, saliency: Tensor, block_num: int, t_size: int = 4) -> Tensor:
    """A graph cut for each sample, a dense cost matrix that is searched once for each line of cells, dense plans.

    The costs are ours, which take less time than theirs. Needs gco-wrapper: pip install 'randomix[graphcut]'.
    """
    import gco

    count, size = len(inputs), inputs.shape[2]
    order = torch.from_numpy(np.random.permutation(count))
    unary, down, right = functional.puzzlemix_costs(saliency, order, 0.5, inputs, block_num)
    ranks = np.arange(3) / 2
    smooth = np.square(ranks[:, None] - ranks)
    arrays = zip(unary.numpy(), down.numpy(), right.numpy(), strict=True)
    labels = [gco.cut_grid_graph(u, smooth, v, h, algorithm="swap").reshape(block_num, -1) for u, v, h in arrays]
    mask = 1 - torch.from_numpy(np.stack(labels)).float() / 2
    cells = size // min(t_size, size // block_num)
    shares = F.avg_pool2d(saliency[:, None], size // cells)[:, 0]
    shares = shares / shares.sum((1, 2), keepdim=True)
    fine = F.interpolate(mask[:, None], size=(cells, cells))[:, 0]
    moved = [
        _transport(image, part.flatten(1) > 0, share.flatten(1), cells)
        for image, part, share in ((inputs, fine, shares), (inputs[order], 1 - fine, shares[order]))
    ]
    weight = F.interpolate(mask[:, None], size=(size, size))
    return weight * moved[0] + (1 - weight) * moved[1]


def _transport(image: Tensor, visible: Tensor, share: Tensor, cells: int, t_eps: float = 0.8) -> Tensor:
    at = torch.stack(torch.meshgrid(torch.arange(cells), torch.arange(cells), indexing="ij"), -1).view(-1, 2).float()
    distance = torch.cdist(at, at).square() / (cells - 1) ** 2
    cost = t_eps * distance - share[:, :, None] * visible[:, None].float()
    for _ in range(cells):
        plan = torch.zeros_like(cost).scatter_(2, cost.argmin(2, keepdim=True), 1)
        winner = torch.zeros_like(cost).scatter_(1, (cost * plan).argmin(1, keepdim=True), 1)
        cost = cost + (1 - winner) * plan
        won = plan * winner
    side = image.shape[2] // cells
    patches = F.unfold(image, side, stride=side).unflatten(1, (image.shape[1], -1))
    moved = (patches.flatten(1, 2) @ won).view_as(patches)
    return F.fold(moved.flatten(1, 2), image.shape[2:], side, stride=side)


INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mixup": mixup,
    "cutmix": cutmix,
    "resizemix": resizemix,
    "fmix": fmix,
    "cutout": cutout,
}
HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {"manifold_mixup": mixup, "patchup": patchup}
SALIENT: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {"puzzlemix": puzzlemix}
