"""The mixing methods as pure functions: every random draw is an argument, none is modified without ``inplace=True``.

Shapes: inputs (N, C, *spatial) in 1-D, 2-D or 3-D, any floating dtype, device and memory format, all three kept;
targets (N, K), mixed in float32; perm (N,) integers on the inputs' device: sample i is paired with perm[i].
lam is the share of each sample's own label: a float for the whole batch, or a tensor (N,), one for each sample.
The batch functions raise ValueError where the sizes disagree; none of them waits for the device.
"""

from randomix.functional._common import blend_partners, gradient_norm, mix_targets
from randomix.functional.boxes import cutmix, cutmix_box, cutout, saliencymix
from randomix.functional.cooperative import comixup, comixup_costs, comixup_objective
from randomix.functional.fourier import fmix, fmix_mask
from randomix.functional.linear import manifold_mixup, mixup
from randomix.functional.patches import (
    PatchUpBatch,
    patchup,
    patchup_features,
    patchup_gamma,
    patchup_lam,
    patchup_mask,
)
from randomix.functional.puzzle import (
    puzzlemix,
    puzzlemix_costs,
    puzzlemix_mask,
    puzzlemix_perturb,
    puzzlemix_transport,
)
from randomix.functional.resizing import resizemix, resizemix_boxes
from randomix.saliency import fine_grained_saliency, published_saliency, saliency_peaks, to_uint8

__all__ = [
    "PatchUpBatch",
    "blend_partners",
    "comixup",
    "comixup_costs",
    "comixup_objective",
    "cutmix",
    "cutmix_box",
    "cutout",
    "fine_grained_saliency",
    "fmix",
    "fmix_mask",
    "gradient_norm",
    "manifold_mixup",
    "mix_targets",
    "mixup",
    "patchup",
    "patchup_features",
    "patchup_gamma",
    "patchup_lam",
    "patchup_mask",
    "published_saliency",
    "puzzlemix",
    "puzzlemix_costs",
    "puzzlemix_mask",
    "puzzlemix_perturb",
    "puzzlemix_transport",
    "resizemix",
    "resizemix_boxes",
    "saliency_peaks",
    "saliencymix",
    "to_uint8",
]
