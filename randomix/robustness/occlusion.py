"""Occlusion: parts of an image are covered, at places that depend only on (seed, data set index)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from randomix.robustness.counter import hash64, uniform_integers

KINDS = ("random_blocks", "center", "boundary", "grid")
PLACEMENTS = ("clipped", "inside")


def occlude(
    inputs: Tensor,
    indices: Tensor,
    *,
    kind: str = "random_blocks",
    n_blocks: int = 1,
    block: float | None = None,
    placement: str = "clipped",
    fill: float | Sequence[float] = 0.0,
    seed: int = 0,
) -> Tensor:
    """Cover parts of pixels (N, C, *S) in [0, 1] with ``fill``, a pixel value or one a channel; returns a new tensor.

    indices: (N,) int64 into the data set. The other options are those of ``occlusion_masks``.
    Raises ValueError for what does not fit.
    """
    check_fill(fill, inputs.shape[1])
    if indices.shape != (len(inputs),) or indices.is_floating_point() or indices.dtype == torch.bool:
        raise ValueError(
            f"indices are {indices.dtype} of shape {tuple(indices.shape)}, expected {len(inputs)} integers"
        )
    masks = occlusion_masks(
        tuple(inputs.shape[2:]), indices, kind=kind, n_blocks=n_blocks, block=block, placement=placement, seed=seed
    )
    if isinstance(fill, int | float):
        return inputs.masked_fill(masks, fill)
    colour = torch.tensor(fill, dtype=inputs.dtype, device=inputs.device)
    return torch.where(masks, colour.view(-1, *[1] * (inputs.ndim - 2)), inputs)


def check_fill(fill: float | Sequence[float], channels: int) -> None:
    """Raise ValueError unless ``fill`` is a value in [0, 1], or one for each of ``channels``."""
    values = [fill] if isinstance(fill, int | float) else fill
    if not isinstance(fill, int | float) and len(fill) != channels:
        raise ValueError(f"occlusion fill has {len(fill)} entries for inputs of {channels} channels")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"occlusion fill is {fill}, expected 0 to 1: a pixel's value before normalisation")


def occlusion_masks(
    spatial: tuple[int, ...],
    indices: Tensor,
    *,
    kind: str = "random_blocks",
    n_blocks: int = 1,
    block: float | None = None,
    placement: str = "clipped",
    seed: int = 0,
) -> Tensor:
    """Masks (N, 1, *S), True where covered, for samples ``indices`` (N,) of spatial size S, on the indices' device.

    kind: random_blocks, ``n_blocks`` squares anywhere; center, one square in the middle; boundary, all but that
    square; grid, ``n_blocks`` different cells of a grid that starts at the first corner.
    block: side in pixels, or, below 1, as a share of the shorter side; None is half of it. placement, of random_blocks:
    clipped, the centre is uniform over all pixels and what lies outside is lost (Cutout); inside, uniform over the
    places that fit.
    Raises ValueError for unknown names and sizes that do not fit.
    """
    block = _side(spatial, block)
    _check(spatial, kind, n_blocks, block, placement)
    if kind == "grid":
        return _grid(spatial, indices, n_blocks, block, seed)
    if kind == "random_blocks":
        starts = _random_starts(spatial, indices, n_blocks, block, placement, seed)
        return _union(spatial, starts, block)
    starts = torch.tensor([[(size - block) // 2 for size in spatial]], device=indices.device)
    masks = _union(spatial, starts[None], block).expand(len(indices), 1, *spatial)
    return masks if kind == "center" else ~masks


def _side(spatial: tuple[int, ...], block: float | None) -> int:
    """The block's side in pixels; a share is rounded, and never to nothing."""
    if block is None:
        return min(spatial) // 2
    if 0 < block < 1:
        return max(round(block * min(spatial)), 1)
    if block != int(block):
        raise ValueError(f"occlusion block is {block}, expected whole pixels, or a share of the side below 1")
    return int(block)


def _random_starts(
    spatial: tuple[int, ...], indices: Tensor, n_blocks: int, block: int, placement: str, seed: int
) -> Tensor:
    """First pixels (N, n_blocks, D) of the squares; negative where a clipped square begins outside."""
    numbers = torch.arange(n_blocks, device=indices.device)
    starts = []
    for axis, size in enumerate(spatial):
        bits = hash64(seed, axis, indices[:, None], numbers)
        if placement == "inside":
            starts.append(uniform_integers(bits, size - block + 1))
        else:
            starts.append(uniform_integers(bits, size) - block // 2)
    return torch.stack(starts, dim=-1)


def _union(spatial: tuple[int, ...], starts: Tensor, block: int) -> Tensor:
    """Masks (N, 1, *S) of the union of squares that start at (N, n_blocks, D)."""
    covered = torch.ones((), dtype=torch.bool, device=starts.device)
    for axis, size in enumerate(spatial):
        place = torch.arange(size, device=starts.device) - starts[..., axis, None]
        within = (place >= 0) & (place < block)
        covered = covered & within.view(*within.shape[:2], *[1] * axis, size, *[1] * (len(spatial) - axis - 1))
    return covered.any(dim=1, keepdim=True)


def _grid(spatial: tuple[int, ...], indices: Tensor, n_blocks: int, block: int, seed: int) -> Tensor:
    """Masks (N, 1, *S) of the ``n_blocks`` cells with the smallest hashes."""
    cells = [-(-size // block) for size in spatial]
    count = torch.Size(cells).numel()
    keys = hash64(seed, indices[:, None], torch.arange(count, device=indices.device))
    chosen = torch.zeros(len(indices), count, dtype=torch.bool, device=indices.device)
    chosen.scatter_(1, keys.argsort(dim=1)[:, :n_blocks], True)
    masks = chosen.view(len(indices), 1, *cells)
    for axis, size in enumerate(spatial):
        masks = masks.index_select(2 + axis, torch.arange(size, device=indices.device) // block)
    return masks


def _check(spatial: tuple[int, ...], kind: str, n_blocks: int, block: int, placement: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"occlusion kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if placement not in PLACEMENTS:
        raise ValueError(f"occlusion placement is {placement!r}, expected one of {', '.join(PLACEMENTS)}")
    if not 1 <= block <= min(spatial):
        raise ValueError(f"occlusion block is {block} pixels, expected 1 to {min(spatial)} for images of {spatial}")
    cells = torch.Size(-(-size // block) for size in spatial).numel() if kind == "grid" else n_blocks
    if not 0 <= n_blocks <= cells:
        raise ValueError(f"occlusion n_blocks is {n_blocks}, expected 0 to {cells}")
