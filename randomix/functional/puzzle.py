"""Mixing by blocks that a graph cut would choose: salient blocks are kept, and moved to where they are seen."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from randomix import labelling
from randomix.devices import to_device
from randomix.functional._common import blend_masked, check, check_share, pair_batch
from randomix.masks import Spatial, take_rows
from randomix.transport import move_cells, spread, transport_plan
from randomix.types import MixedBatch

Channels = Sequence[float] | None
"""One value for each channel (or one for all), None where the inputs are in [0, 1] as they are."""

_COST_SCALE = 1000  # for each block; costs are then truncated to integers, as in the authors' code


def puzzlemix(
    inputs: Tensor,
    targets: Tensor,
    perm: Tensor,
    lam: float | Tensor,
    saliency: Tensor,
    block_num: int,
    *,
    n_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    neigh_size: int = 4,
    mean: Channels = None,
    std: Channels = None,
    transport: bool = True,
    t_eps: float = 0.8,
    t_size: int = 4,
    noise: Tensor | None = None,
    noise_on: tuple[bool, bool] = (True, True),
) -> MixedBatch:
    """Mix inputs (N, C, H, W) in block_num x block_num blocks, so that each keeps what saliency (N, H, W) marks.

    lam, a float or (N,): what the share of the own blocks leans to; the targets (N, K) follow the share they got.
    noise (N, C, H, W): added to images in [0, 1], of the samples themselves and of them as partners (noise_on).
    Other arguments: ``puzzlemix_mask``, ``puzzlemix_transport``. ValueError if block_num does not divide H and W.
    Source: Kim et al., Puzzle Mix (ICML 2020), equations 1-4; the authors' ``mixup_graph``.
    """
    check(inputs, targets, perm)
    _check_images(inputs, saliency)
    smoothness: dict[str, Any] = dict(n_labels=n_labels, beta=beta, gamma=gamma, eta=eta, neigh_size=neigh_size)
    _, mask = puzzlemix_mask(saliency, perm, lam, inputs, block_num, **smoothness, mean=mean, std=std)
    noised = inputs if noise is None else puzzlemix_perturb(inputs, noise, mean, std)
    own = noised if noise_on[0] else inputs
    partner = take_rows(noised if noise_on[1] else inputs, perm)
    if transport:  # what is not seen is left where it is: it has weight 0
        shares, grid = _cells(mask, saliency, t_size)
        seen = spread(torch.cat([mask > 0, mask < 1]), grid)
        source, _ = transport_plan(seen, torch.cat([shares, shares.index_select(0, perm)]), t_eps)
        own, partner = (move_cells(image, part) for image, part in zip((own, partner), source.chunk(2), strict=True))
    mixed = blend_masked(partner, own, spread(mask, inputs.shape[2:]))
    return pair_batch(mixed, inputs, targets, perm, mask.mean((1, 2)))


def puzzlemix_mask(
    saliency: Tensor,
    perm: Tensor,
    lam: float | Tensor,
    images: Tensor,
    block_num: int,
    n_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    neigh_size: int = 4,
    mean: Channels = None,
    std: Channels = None,
) -> tuple[Tensor, Tensor]:
    """Labels (N, B, B) int64 of B = block_num blocks a side, and the share 1 - label / (L - 1) of the sample itself.

    saliency (N, H, W) >= 0, only relative: one that is zero or not finite counts as uniform. images (N, C, H, W) were
    normalised by mean and std. beta, gamma: smoothness of the mask, and of the images across its borders (gamma <= 1);
    these are compared in pools of neigh_size pixels, or of its largest divisor of the block. eta: weight of the prior
    on the count of own blocks, binomial in lam.
    Source: Kim et al., Puzzle Mix (ICML 2020), equations 2-3. The least energy is found by ``labelling``, not by gco.
    """
    options = (block_num, n_labels, beta, gamma, eta, neigh_size, mean, std)
    labels = labelling.solve_grid(*puzzlemix_costs(saliency, perm, lam, images, *options))
    return labels, 1 - labels.float() / (n_labels - 1)


def puzzlemix_costs(
    saliency: Tensor,
    perm: Tensor,
    lam: float | Tensor,
    images: Tensor,
    block_num: int,
    n_labels: int = 3,
    beta: float = 1.2,
    gamma: float = 0.5,
    eta: float = 0.2,
    neigh_size: int = 4,
    mean: Channels = None,
    std: Channels = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The energy of ``puzzlemix_mask`` as ``labelling`` takes it: unary (N, B, B, L), down and right, all int32.

    A block that shows one sample loses the other's saliency. Where two blocks meet, gap[a][b] is how much image a of
    the first differs from image b of the second along the border (1: the sample itself, 0: its partner).
    """
    _check_images(images, saliency)
    check_share("lam", lam)
    check_share("gamma", gamma)
    if n_labels < 2:
        raise ValueError(f"n_labels must be >= 2, got {n_labels}")
    shares = _shares(saliency, _block(saliency.shape[1:], block_num))
    show_own, show_partner = shares.index_select(0, perm), shares.clone()
    pooled = _pooled(images, block_num, neigh_size, mean, std)
    both = (pooled.index_select(0, perm), pooled)
    smooth, weights = beta / block_num / 16, []
    for axis in (1, 2):
        gap = [[_gap(a, b, axis, block_num) * (smooth * gamma) for b in both] for a in both]
        show_own.narrow(axis, 0, block_num - 1).add_((gap[1][0] + gap[1][1]) / 2)  # first of the two blocks
        show_own.narrow(axis, 1, block_num - 1).add_((gap[0][1] + gap[1][1]) / 2)  # second
        show_partner.narrow(axis, 0, block_num - 1).add_((gap[0][1] + gap[0][0]) / 2)
        show_partner.narrow(axis, 1, block_num - 1).add_((gap[1][0] + gap[0][0]) / 2)
        weights.append((gap[1][0] + gap[0][1] - gap[1][1] - gap[0][0]) / 2 + smooth)
    ranks = [label / (n_labels - 1) for label in range(n_labels)]
    unary = torch.stack([(1 - rank) * show_own + rank * show_partner for rank in ranks], dim=-1)
    unary = unary.double() + _prior(lam, n_labels, saliency.device) * (eta / block_num**2)
    scale = _COST_SCALE * block_num**2
    down, right = ((weight * scale).int().clamp(min=0) for weight in weights)
    return (unary * scale).int(), down, right


def puzzlemix_transport(image: Tensor, mask: Tensor, saliency: Tensor, t_eps: float = 0.8, t_size: int = 4) -> Tensor:
    """Images (N, C, H, W) whose salient cells have moved to where mask (N, B, B), the images' weight, is above 0.

    Cells are of t_size pixels a side, or of its largest divisor of the block's side; -1: whole blocks. t_eps > 0: the
    price of a move across the whole image. Cells to which nothing moved are 0; they are not seen.
    Source: Kim et al., Puzzle Mix (ICML 2020), equation 4 and algorithm 1.
    """
    _check_images(image, saliency)
    shares, grid = _cells(mask, saliency, t_size)
    source, empty = transport_plan(spread(mask > 0, grid), shares, t_eps)
    return move_cells(image, source).masked_fill(spread(empty, image.shape[2:])[:, None], 0)


def puzzlemix_perturb(inputs: Tensor, noise: Tensor, mean: Channels = None, std: Channels = None) -> Tensor:
    """Inputs (N, C, H, W), normalised by mean and std, with noise added in [0, 1] and clamped to it."""
    offset, factor = _normalisation(inputs, mean, std)
    return (((inputs.float() * factor + offset + noise).clamp(0, 1) - offset) / factor).to(inputs.dtype)


def _check_images(images: Tensor, saliency: Tensor) -> None:
    if images.ndim != 4 or saliency.shape != (len(images), *images.shape[2:]):
        raise ValueError(
            f"images must be (N, C, H, W) and saliency (N, H, W), got {tuple(images.shape)} and {tuple(saliency.shape)}"
        )


def _block(spatial: Spatial, block_num: int) -> tuple[int, ...]:
    """Height and width of a block; ValueError if block_num does not divide the image's."""
    if block_num < 1 or any(size % block_num for size in spatial):
        raise ValueError(
            f"block_num {block_num} does not divide the size {tuple(spatial)} of the images; "
            "choose a divisor of both sides, or crop the images"
        )
    return tuple(size // block_num for size in spatial)


def _divisor(size: int, limit: int) -> int:
    """The largest divisor of size that is at most limit: the authors' code crashes where limit itself is none."""
    return max(part for part in range(1, min(size, max(limit, 1)) + 1) if size % part == 0)


def _shares(saliency: Tensor, cell: Spatial) -> Tensor:
    """Each cell's share (N, R, C) of the saliency (N, H, W), equal ones where that is zero or not finite."""
    mean = F.avg_pool2d(saliency.float()[:, None], tuple(cell))[:, 0]
    total = mean.sum((1, 2), keepdim=True)
    known = (total > 0) & (total < torch.inf)
    return torch.where(known, mean / total, 1.0 / mean[0].numel())


def _cells(mask: Tensor, saliency: Tensor, t_size: int) -> tuple[Tensor, tuple[int, ...]]:
    """Saliency of the cells that are moved (N, R, C), and (R, C)."""
    blocks = _block(saliency.shape[1:], mask.shape[-1])
    shares = _shares(saliency, blocks if t_size == -1 else [_divisor(size, t_size) for size in blocks])
    return shares, tuple(shares.shape[1:])


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    return to_device(np.array(values, dtype=np.float32), device).reshape(-1, 1, 1)


def _normalisation(images: Tensor, mean: Channels, std: Channels) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (C or 1, 1, 1) on the images' device."""
    given = [(0.0,) if mean is None else mean, (1.0,) if std is None else std]
    for name, values in zip(("mean", "std"), given, strict=True):
        if len(values) not in (1, images.shape[1]):
            raise ValueError(f"{name} has {len(values)} values but the images have {images.shape[1]} channels")
    offset, factor = (_constant(tuple(float(v) for v in values), images.device) for values in given)
    return offset, factor


def _pooled(images: Tensor, block_num: int, neigh_size: int, mean: Channels, std: Channels) -> Tensor:
    """The images in [0, 1], averaged over pools that divide the blocks."""
    pools = [_divisor(size, neigh_size) for size in _block(images.shape[2:], block_num)]
    pixels = images.float()
    if mean is not None or std is not None:
        offset, factor = _normalisation(images, mean, std)
        pixels = pixels * factor + offset
    return F.avg_pool2d(pixels.contiguous(), pools)


def _gap(first: Tensor, second: Tensor, axis: int, block_num: int) -> Tensor:
    """Mean |last line of first's block - first line of second's next one|; axis 1: (N, B - 1, B), 2: (N, B, B - 1)."""
    lines = first.shape[1 + axis] // block_num
    last = first.unflatten(1 + axis, (block_num, lines)).select(2 + axis, lines - 1).narrow(1 + axis, 0, block_num - 1)
    next_ = second.unflatten(1 + axis, (block_num, lines)).select(2 + axis, 0).narrow(1 + axis, 1, block_num - 1)
    along = 3 - axis
    return (last - next_).abs().mean(1).unflatten(along, (block_num, -1)).mean(1 + along)


def _prior(lam: float | Tensor, n_labels: int, device: torch.device) -> Tensor:
    """-log P(label) (L,), or (N, 1, 1, L) for lam (N,), float64: of all parts own, each with probability lam."""
    parts = n_labels - 1
    if not isinstance(lam, Tensor):
        chances = [math.comb(parts, k) * lam ** (parts - k) * (1 - lam) ** k for k in range(n_labels)]
        return to_device(-np.log(np.array(chances) + 1e-8), device)
    own = lam.double().reshape(-1, 1, 1)
    each = [math.comb(parts, k) * own ** (parts - k) * (1 - own) ** k for k in range(n_labels)]
    return -(torch.stack(each, dim=-1) + 1e-8).log()
