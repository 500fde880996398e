"""The mixing operations in the form that the methods' authors use: what ours are timed against.

Written from their description, with the same arithmetic a sample; no line is theirs. Where theirs overwrite the batch,
these work on a copy. Inputs (N, C, *S) in 1-D or 2-D.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from randomix import functional

NEAR_HALF = 1000.0  # of Beta(alpha, alpha): lam is nearly 1/2, and a box about as large as it is on average
SCALE = 0.5  # of ResizeMix's patches: as large as they are on average
Pairs = tuple[Tensor, Tensor, Tensor, float]  # mixed inputs, labels, the partners' labels, lam


def mixup(inputs: Tensor, labels: Tensor) -> Pairs:
    """Two scaled copies."""
    lam = float(np.random.beta(1.0, 1.0))
    order = torch.randperm(len(inputs), device=inputs.device)
    return lam * inputs + (1 - lam) * inputs[order], labels, labels[order], lam


def cutmix(inputs: Tensor, labels: Tensor) -> Pairs:
    """One box around a random pixel, pasted by slices."""
    center = [np.random.randint(side) for side in inputs.shape[2:]]
    return _pasted(inputs, labels, torch.randperm(len(inputs), device=inputs.device), center)


def saliencymix(inputs: Tensor, labels: Tensor) -> Pairs:
    """One box around the brightest pixel of the saliency of one image, found by OpenCV. Needs its contrib modules."""
    import cv2

    order = torch.randperm(len(inputs), device=inputs.device)
    image = (inputs[order[0]].clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy()
    _, saliency = cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency(np.ascontiguousarray(image))
    peak = np.unravel_index((saliency * 255).astype(np.uint8).argmax(), saliency.shape)
    return _pasted(inputs, labels, order, [int(at) for at in peak])


def _pasted(inputs: Tensor, labels: Tensor, order: Tensor, center: list[int]) -> Pairs:
    """A copy with the box of the partners around ``center``, and lam from what of it lies inside."""
    lam, spatial = float(np.random.beta(NEAR_HALF, NEAR_HALF)), inputs.shape[2:]
    half = [int(side * np.sqrt(1 - lam)) // 2 for side in spatial]
    bounds = [np.clip([at - h, at + h], 0, side) for at, h, side in zip(center, half, spatial, strict=True)]
    box = (slice(None), *(slice(int(low), int(high)) for low, high in bounds))
    mixed = inputs.clone()
    mixed[(slice(None), *box)] = inputs[(order, *box)]
    inside = np.prod([high - low for low, high in bounds]) / np.prod(spatial)
    return mixed, labels, labels[order], float(1 - inside)


def resizemix(inputs: Tensor, labels: Tensor) -> Pairs:
    """Patches pasted sample by sample."""
    spatial = inputs.shape[2:]
    scale = float(np.random.uniform(SCALE, SCALE))
    patch = [max(1, int(scale * side)) for side in spatial]
    small = F.interpolate(inputs, patch, mode="nearest")
    order = torch.randperm(len(inputs))
    mixed = inputs.clone()
    for sample, partner in enumerate(order.tolist()):
        centers = (np.random.randint(side) for side in spatial)
        starts = [
            min(max(int(at) - size // 2, 0), side - size)
            for at, size, side in zip(centers, patch, spatial, strict=True)
        ]
        box = tuple(slice(start, start + size) for start, size in zip(starts, patch, strict=True))
        mixed[(sample, slice(None), *box)] = small[partner]
    return mixed, labels, labels[order.to(labels.device)], 1 - float(np.prod(patch) / np.prod(spatial))


def fmix(inputs: Tensor, labels: Tensor) -> Pairs:
    """A mask made with NumPy and its complement, multiplied and added."""
    lam = float(np.random.beta(1.0, 1.0))
    mask = torch.from_numpy(_fourier_mask(tuple(inputs.shape[2:]), lam)).to(inputs.device)
    order = torch.randperm(len(inputs), device=inputs.device)
    return mask * inputs + (1 - mask) * inputs[order], labels, labels[order], lam


def _fourier_mask(spatial: tuple[int, ...], lam: float, decay_power: float = 3.0) -> np.ndarray:
    """Low-frequency noise, and a one where it is among the share lam of the largest."""
    squares = [np.fft.fftfreq(side) ** 2 for side in spatial[:-1]] + [np.fft.rfftfreq(spatial[-1]) ** 2]
    frequencies = np.sqrt(sum(np.meshgrid(*squares, indexing="ij")))
    decay = np.maximum(frequencies, 1 / max(spatial)) ** decay_power
    noise = np.random.randn(*frequencies.shape, 2)
    picture = np.fft.irfftn((noise[..., 0] + 1j * noise[..., 1]) / decay, spatial, axes=tuple(range(len(spatial))))
    largest = picture.reshape(-1).argsort()[::-1][: round(lam * picture.size)]
    mask = np.zeros(picture.size, np.float32)
    mask[largest] = 1
    return mask.reshape(spatial)


def cutout(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A mask of its own for each sample, made with NumPy, as a data loader's transform does; half a side long."""
    found, spatial = [], inputs.shape[2:]
    for sample in inputs:
        mask = np.ones(spatial, np.float32)
        centers = ((np.random.randint(side), side // 4, side) for side in spatial)
        mask[tuple(slice(max(at - half, 0), min(at + half, side)) for at, half, side in centers)] = 0.0
        found.append(sample * torch.from_numpy(mask).expand_as(sample).to(sample))
    return torch.stack(found), labels


def manifold_mixup(hidden: Tensor) -> Tensor:
    """Two scaled copies."""
    lam = float(np.random.beta(2.0, 2.0))
    order = torch.from_numpy(np.random.permutation(len(hidden))).to(hidden.device)
    return lam * hidden + (1 - lam) * hidden[order]


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


def forms() -> dict[str, Callable[[Tensor, Tensor], tuple[object, ...]]]:
    """``(inputs, labels) -> (mixed, what the loss needs)`` of every method that needs no network, by its name.

    RandoMix takes its candidates in turn, so that few steps are as long as many.
    """
    candidates = cycle([mixup, cutmix, resizemix, fmix])
    return {
        "mixup": mixup,
        "cutmix": cutmix,
        "resizemix": resizemix,
        "fmix": fmix,
        "cutout": cutout,
        "saliencymix": saliencymix,
        "randomix": lambda inputs, labels: next(candidates)(inputs, labels),
    }


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {"manifold_mixup": manifold_mixup, "patchup": patchup}
SALIENT: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {"puzzlemix": puzzlemix}
