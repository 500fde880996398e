"""Mixing many inputs at once: every output is put together from the salient cells of several inputs of its part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from randomix import masks as geometry
from randomix import partition
from randomix.devices import no_autocast
from randomix.functional._common import check_targets
from randomix.types import MixedBatch

MOST_BLOCKS = 16  # cells along a side where they are drawn (the authors' code)
PEAK_WINDOW = 8  # pixels a side over which saliency is averaged before its peak is sought (the authors' code)


def comixup(
    inputs: Tensor,
    targets: Tensor,
    saliency: Tensor,
    dirichlet: Tensor,
    init_labels: Tensor,
    *,
    part_size: int = 20,
    beta: float = 0.32,
    gamma: float = 1.0,
    eta: float = 0.05,
    tau: float = 0.83,
    omega: float = 0.001,
    n_iter: int = 4,
    set_resolve: bool = True,
    penalty: str = "hard",
    precedence: str = "paper",
    repair: bool = True,
) -> MixedBatch:
    """Put N outputs together from cells of inputs (N, C, H, W); targets (N, K) by the share of the area.

    Consecutive inputs form parts of part_size, the last may be smaller; n inputs of a part make its n outputs.
    saliency (N, H, W): any scale; where it is zero everywhere or not finite, nothing is known of that input.
    dirichlet (N,): each part's draw from Dirichlet(alpha, .., alpha), the inputs' shares that are hoped for.
    init_labels (N, B, B) integers: for each of the B * B cells of an output the input, counted within the part, that
    it shows at first. B must divide H and W.
    beta: weight of smoothness; gamma: of diversity; eta: of the prior; all for a sum over 1 / B^2 cells. tau: share of
    an output up to which what other outputs show of an input costs nothing. omega: weight of the inputs' distances in
    their compatibility. n_iter: passes over all outputs. set_resolve: before the last one, outputs of the same inputs
    are told apart. penalty: "hard" or "soft". precedence: "paper", or "code" as the authors' line of code is executed.
    repair: finish with single cells whose change lowers the objective, where the authors take what the last pass left.
    Source: Kim et al., Co-Mixup (ICLR 2021), sections 3 and 4; the authors' code where those leave it open.
    """
    _check(inputs, targets, saliency, dirichlet, init_labels, part_size, penalty, precedence)
    size, cells = min(part_size, len(inputs)), init_labels[0].numel()
    with torch.no_grad(), no_autocast(inputs.device):
        _, rows, columns = init_labels.shape
        costs = comixup_costs(saliency, (rows, columns), dirichlet, eta).flatten(1)
        present = in_parts(torch.ones_like(costs[:, 0]), size) > 0
        problem = partition.Problem(
            in_parts(costs, size),
            comixup_compatibility(in_parts(window_peaks(saliency), size), present, omega),
            present,
            (rows, columns),
            beta / cells,
            gamma / cells,
            tau * cells,
            penalty,
            precedence,
        )
        first = in_parts(init_labels.flatten(1), size)
        masks = partition.solve(problem, first, n_iter, set_resolve, repair)
    return mix_cells(inputs, targets, masks.unflatten(2, init_labels.shape[1:]))


def comixup_objective(
    masks: Tensor,
    costs: Tensor,
    compatibility: Tensor | None = None,
    *,
    beta: float = 0.32,
    gamma: float = 1.0,
    tau: float = 0.83,
    thresholded: bool = True,
) -> Tensor:
    """What Co-Mixup minimises, (...), for masks (..., n, B, B, n) and costs (..., n, B, B), as ``comixup_costs`` has.

    masks[i, r, c, j]: how much of output i's cell (r, c) shows input j. compatibility (..., n, n); None is the
    identity, as in the objective that the authors log. thresholded: what other outputs show of an input costs only
    above tau * B^2 cells; False is the authors' logged objective, which their own iteration does not descend.
    Source: Kim et al., Co-Mixup (ICLR 2021), equation 1 and section 4.
    """
    size = masks.shape[-3], masks.shape[-2]
    cells = math.prod(size)
    flat = masks.float().flatten(-3, -2)
    saliency = (flat * costs.float().flatten(-2).mT[..., None, :, :]).sum((-3, -2, -1))
    smooth = partition.unevenness(flat, size)
    diverse = partition.diversity(flat.sum(-2), compatibility, tau * cells if thresholded else -1.0)
    return saliency + beta / cells * smooth + gamma / cells * diverse


def comixup_costs(
    saliency: Tensor, size: tuple[int, int], dirichlet: Tensor | None = None, eta: float = 0.05
) -> Tensor:
    """Costs (N, *size) float32 of showing each cell of saliency (N, H, W): minus its share of the sample's saliency.

    With dirichlet (N,) the prior is added: -eta / cells * log(dirichlet). Samples without saliency, or with values
    that are not finite, have it uniform.
    """
    block = (saliency.shape[1] // size[0], saliency.shape[2] // size[1])
    pooled = F.avg_pool2d(saliency.float()[:, None], block)[:, 0]
    total = pooled.sum((1, 2), keepdim=True)
    share = torch.where((total > 0) & (total < torch.inf), pooled / total, 1.0 / (size[0] * size[1]))
    if dirichlet is None:
        return -share
    return -share - eta / (size[0] * size[1]) * torch.log(dirichlet.float() + 1e-8)[:, None, None]


def window_peaks(saliency: Tensor) -> Tensor:
    """Row and column (N, 2) float32 of the windows of 8 x 8 pixels with the most saliency (N, H, W), the first ones."""
    height, width = saliency.shape[1:]
    sums = saliency.float().unfold(1, min(PEAK_WINDOW, height), 1).sum(-1)  # axis by axis: a quarter of pooling's time
    sums = sums.unfold(2, min(PEAK_WINDOW, width), 1).sum(-1)
    place = sums.flatten(1).argmax(1)
    return torch.stack([place // sums.shape[2], place % sums.shape[2]], 1).float()


def comixup_compatibility(peaks: Tensor, present: Tensor, omega: float) -> Tensor:
    """Compatibility A (P, n, n) of the inputs with peaks (P, n, 2), of which present (P, n) exist.

    (1 - omega) I + omega * D with D the distances |row| + |column| between peaks, scaled to a mean of 1 / n. Inputs
    whose peaks are far apart go together badly: showing one makes showing the other elsewhere dearer.
    """
    both = (present[:, :, None] & present[:, None]).float()
    distance = (peaks[:, :, None] - peaks[:, None]).abs().sum(-1) * both
    total = distance.sum((1, 2)).clamp(min=1.0)  # a part of one input, or equal peaks: no distances at all
    identity = torch.eye(peaks.shape[1], device=peaks.device)
    scale = omega * present.sum(1) / total
    return (1.0 - omega) * identity + scale[:, None, None] * distance


def in_parts(values: Tensor, size: int) -> Tensor:
    """Values (N, ...) as (P, size, ...), the last part filled up with zeros."""
    missing = -len(values) % size
    if missing:
        values = torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
    return values.unflatten(0, (-1, size))


def mix_cells(inputs: Tensor, targets: Tensor, masks: Tensor) -> MixedBatch:
    """Mix inputs (N, C, H, W) and targets (N, K) by masks (P, n, B, B, n) of whole cells and halves of two.

    masks[p, i, r, c, j]: how much of cell (r, c) of output i of part p shows that part's input j.
    """
    (parts, size, rows, columns, _), count = masks.shape, len(inputs)
    first = masks.argmax(-1, keepdim=True)
    second = masks.scatter_add(-1, first, masks.new_full((), -0.5).expand(first.shape)).argmax(-1)
    start = torch.arange(0, parts * size, size, device=masks.device).view(-1, 1, 1, 1)
    cells = [_take_cells(inputs, (index + start).flatten(0, 1)[:count]) for index in (first[..., 0], second)]
    mixed = cells[0].lerp_(cells[1], 0.5)  # of two equal ends exactly that end
    share = masks.sum((2, 3)) / (rows * columns)
    # in double precision no device rounds what it multiplies to 10 bits
    blended = (share.double() @ in_parts(targets, size).double()).float().flatten(0, 1)[:count]
    own = share.diagonal(dim1=1, dim2=2).flatten()[:count].contiguous()
    return MixedBatch(geometry.restride(mixed, inputs), blended, own)


def _take_cells(inputs: Tensor, source: Tensor) -> Tensor:
    """Inputs (N, C, H, W) whose cells come from those at source (N, B, B), in the inputs' memory format."""
    (channels, height), (rows, columns) = inputs.shape[1:3], source.shape[1:]
    view = geometry.memory_order(inputs)
    # a line of a cell's pixels at a time: on a CPU 2 to 7 times as fast as pixel by pixel
    if view is inputs:
        shape, source = [channels, rows, height // rows, columns], source[:, None, :, None]
    else:
        shape, source = [rows, height // rows, columns], source[:, :, None]
    lines = torch.arange(math.prod(shape), device=inputs.device).view(shape)
    table = view.reshape(len(inputs) * lines.numel(), -1)
    taken = table.index_select(0, (source * lines.numel() + lines).flatten()).view(view.shape)
    return taken if view is inputs else taken.movedim(-1, 1)


def _check(
    inputs: Tensor,
    targets: Tensor,
    saliency: Tensor,
    dirichlet: Tensor,
    init_labels: Tensor,
    part_size: int,
    penalty: str,
    precedence: str,
) -> None:
    if inputs.ndim != 4 or not inputs.is_floating_point():
        raise ValueError(f"inputs must be floating (N, C, H, W), got {inputs.dtype} {tuple(inputs.shape)}")
    check_targets(targets)
    lengths = {"targets": targets, "saliency": saliency, "dirichlet": dirichlet, "init_labels": init_labels}
    wrong = [f"{name} has {len(value)}" for name, value in lengths.items() if len(value) != len(inputs)]
    if wrong:
        raise ValueError(f"inputs has {len(inputs)} samples, {' and '.join(wrong)}")
    if saliency.shape[1:] != inputs.shape[2:]:
        raise ValueError(
            f"saliency must be (N, H, W) of inputs {tuple(inputs.shape)}, got {tuple(saliency.shape)}; average over "
            "the channels"
        )
    if init_labels.ndim != 3 or init_labels.shape[1] != init_labels.shape[2] or init_labels.is_floating_point():
        raise ValueError(f"init_labels must be integers (N, B, B), got {init_labels.dtype} {tuple(init_labels.shape)}")
    check_blocks(tuple(inputs.shape[2:]), init_labels.shape[1])
    if part_size < 1:
        raise ValueError(f"part_size must be >= 1, got {part_size}")
    if penalty not in partition.PENALTIES:
        raise ValueError(f"penalty must be one of {', '.join(partition.PENALTIES)}, got {penalty!r}")
    if precedence not in partition.PRECEDENCES:
        raise ValueError(f"precedence must be one of {', '.join(partition.PRECEDENCES)}, got {precedence!r}")


def block_choices(spatial: Sequence[int]) -> list[int]:
    """The numbers of cells along a side, from 2 to MOST_BLOCKS, that divide images of spatial (H, W) pixels."""
    return [b for b in range(2, MOST_BLOCKS + 1) if all(pixels % b == 0 for pixels in spatial)]


def check_blocks(spatial: Sequence[int], block_num: int | None) -> None:
    """Raise ValueError unless block_num divides both sides of images of spatial (H, W) pixels; None: any may."""
    choices, size = block_choices(spatial), f"images of {spatial[0]} x {spatial[1]} pixels"
    if block_num is not None and all(pixels % block_num == 0 for pixels in spatial):
        return
    if not choices:
        raise ValueError(f"no block_num from 2 to {MOST_BLOCKS} divides {size}; crop or pad them")
    if block_num is not None:
        raise ValueError(f"block_num {block_num} does not divide {size}; use one of {', '.join(map(str, choices))}")
