"""One function a method: (draws, seed) -> numbers by name. Shares are of pixels or of draws, in 0 .. 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats
from sklearn.datasets import load_sample_image
from torch.nn import functional as F

from randomix import functional, masks, partition
from randomix.functional import cooperative
from randomix.losses import soft_cross_entropy, softmax_bce

Numbers = dict[str, float]
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4824, 0.4467), (0.2471, 0.2435, 0.2616)


def cutmix(draws: int, seed: int) -> Numbers:
    """How much is pasted once boxes are clipped, and what the authors' rule would do to a signal."""
    rng, found = np.random.default_rng(seed), {}
    for size in (32, 64, 224):
        lam = rng.beta(1, 1, draws).astype(np.float32)
        boxes = functional.cutmix_box((size, size), lam, rng.integers(0, size, (draws, 2)))
        area = masks.box_share(boxes, (size, size))
        found[f"mean_pasted_{size}"] = float(area.mean())
        found[f"own_label_below_half_{size}"] = float((area > 0.5).float().mean())
        found[f"empty_{size}"] = float((area == 0).float().mean())
    lam = rng.beta(1, 1, draws)
    found["signal_empty_by_the_authors_rule"] = float((np.trunc(np.sqrt(1 - lam) * 1) // 2 == 0).mean())
    ours = functional.cutmix_box((16000,), lam.astype(np.float32), rng.integers(0, 16000, (draws, 1)))
    found["signal_mean_pasted"] = float(masks.box_share(ours, (16000,)).mean())
    return found


def resizemix(draws: int, seed: int) -> Numbers:
    """Patches that are moved inwards against patches that are cut; and the source index of the resizing."""
    rng, size = np.random.default_rng(seed), 32
    scale = rng.uniform(0.1, 0.8, draws)
    centers = rng.integers(0, size, (draws, 2))
    boxes = functional.resizemix_boxes((size, size), scale.astype(np.float32), centers)
    side = (size * scale).astype(int) // 2
    low, high = np.clip(centers - side[:, None], 0, size), np.clip(centers + side[:, None], 0, size)
    differs = 0
    for s in scale[:2000]:
        count = int(size * s)
        by_ratio = np.arange(count) * size // count
        (source,) = masks.patch_sources((size,), (count,), float(s))
        differs += not np.array_equal(source, by_ratio)
    return {
        "mean_pasted_32": float(masks.box_share(boxes, (size, size)).mean()),
        "mean_pasted_if_cut_32": float(np.prod(high - low, axis=1).mean() / size**2),
        "touches_top_32": float((boxes[:, 0] == 0).float().mean()),
        "index_differs_from_size_ratio": differs / 2000,
    }


def fmix(draws: int, seed: int) -> Numbers:
    """Column frequencies of the two spectra, their 1-D masks, and the label against the mask."""
    rng, size, count, found = np.random.default_rng(seed), 32, max(draws // 10, 2), {}
    for spectrum in masks.SPECTRA:
        noise = rng.standard_normal((count, *masks.noise_shape((size, size), spectrum)))
        image = masks.low_frequency(torch.from_numpy(noise), (size, size), 3.0, spectrum)
        power = torch.fft.fft2(image - image.mean((1, 2), keepdim=True)).abs().square().sum((0, 1))
        columns = power[: size // 2 + 1].clone()
        columns[1 : size // 2] *= 2
        share = columns / columns.sum()
        found[f"column_frequency_0_{spectrum}"], found[f"column_frequency_1_{spectrum}"] = map(float, share[:2])
        found[f"column_frequency_2_up_{spectrum}"] = float(share[2:].sum())
        lam = torch.from_numpy(rng.uniform(0.2, 0.8, count))
        noise = torch.from_numpy(rng.standard_normal((count, *masks.noise_shape((size,), spectrum))))
        mask = functional.fmix_mask(noise, (size,), lam, spectrum=spectrum)
        runs = (mask & ~mask.roll(1, 1)).sum(1)
        found[f"signals_of_one_interval_{spectrum}"] = float((runs == 1).float().mean())
    lam = torch.from_numpy(rng.beta(1, 1, count))
    up = torch.from_numpy(rng.random(count) < 0.5)
    noise = torch.from_numpy(rng.standard_normal((count, *masks.noise_shape((size, size)))))
    mean = functional.fmix_mask(noise, (size, size), lam, 3.0, up).double().mean((1, 2))
    found["largest_label_error"] = float((mean - lam).abs().max())
    found["one_pixel"] = 1 / size**2
    return found


def saliencymix(draws: int, seed: int) -> Numbers:
    """The published detector, which reads floats as bytes, against the same detector on the image."""
    rng, found = np.random.default_rng(seed), {}
    mean, std = (torch.tensor(values) for values in (CIFAR_MEAN, CIFAR_STD))
    for size, count in ((32, draws // 10), (64, draws // 40), (224, draws // 400)):
        images = torch.from_numpy(_crops(size, max(count, 2), rng))
        true = functional.fine_grained_saliency(images)
        published = functional.published_saliency((images.float() / 255 - mean) / std)
        ranks = [stats.spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(true, published, strict=True)]
        peaks, peaks_published = functional.saliency_peaks(true), functional.saliency_peaks(published)
        found[f"rank_correlation_{size}"] = float(np.mean(ranks))
        found[f"rank_correlation_deviation_{size}"] = float(np.std(ranks, ddof=1))
        found[f"same_peak_{size}"] = float((peaks == peaks_published).all(1).float().mean())
        found[f"peak_height_{size}"] = float(peaks[:, 0].float().mean() / size)
        found[f"peak_height_published_{size}"] = float(peaks_published[:, 0].float().mean() / size)
        found[f"peaks_in_every_fourth_column_published_{size}"] = float((peaks_published[:, 1] % 4 == 3).float().mean())
    return found


def _crops(size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (count, size, size, 3) from random places of scikit-learn's two photographs."""
    photos = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    crops = []
    for i in range(count):
        photo = photos[i % 2]
        top, left = (int(rng.integers(side - size + 1)) for side in photo.shape[:2])
        crops.append(photo[top : top + size, left : left + size])
    return np.stack(crops)


def patchup(draws: int, seed: int) -> Numbers:
    """The share that blocks of 7 cover by a probability for the size at hand, and by one kept from a size of 32."""
    rng, found = np.random.default_rng(seed), {}
    for size in (32, 16, 8):
        for name, sized in (("", size), ("_kept_from_32", 32)):
            gamma = functional.patchup_gamma(0.75, (sized, sized), 7)
            centers = torch.from_numpy(rng.random((max(draws // 20, 2), size, size)) < gamma)
            found[f"altered_{size}{name}"] = float(functional.patchup_mask(centers, 7).float().mean())
    hidden, logits = (torch.from_numpy(rng.standard_normal(shape)).float() for shape in ((64, 2, 8, 8), (64, 10)))
    targets, perm = torch.eye(10)[torch.from_numpy(rng.integers(10, size=64))], torch.from_numpy(rng.permutation(64))
    mask = functional.patchup_mask(torch.from_numpy(rng.random((2, 8, 8)) < 0.02), 7)
    mixed = functional.patchup(hidden, targets, perm, mask, 0.3)
    kept = mixed.unchanged
    terms = kept * softmax_bce(logits, mixed.own) + (1 - kept) * softmax_bce(logits, mixed.altered)
    total = terms + softmax_bce(logits, mixed.targets)
    found["three_terms_by_two_losses"] = float(total / (2 * softmax_bce(logits, mixed.targets)))
    return found


def comixup(draws: int, seed: int) -> Numbers:
    """Parts of 20 photograph crops whose edges stand for saliency: what the order of two operators changes."""
    rng, found, count, parts = np.random.default_rng(seed), {}, 20, max(draws // 1000, 2)
    images = torch.from_numpy(_crops(32, count * parts, rng)).float().mean(-1)
    saliency = (images - F.avg_pool2d(images[:, None], 5, 1, 2)[:, 0]).abs()
    dirichlet = torch.from_numpy(rng.dirichlet([2.0] * count, parts)).flatten().float()
    first = torch.from_numpy(rng.integers(0, count, (count * parts, 4, 4)))
    costs = functional.comixup_costs(saliency, (4, 4), dirichlet)
    present = torch.ones(parts, count, dtype=torch.bool)
    peaks = cooperative.in_parts(cooperative.window_peaks(saliency), count)
    compatibility = cooperative.comixup_compatibility(peaks, present, 0.001)
    share = {}
    for precedence in partition.PRECEDENCES:
        problem = partition.Problem(
            cooperative.in_parts(costs.flatten(1), count),
            compatibility,
            present,
            (4, 4),
            0.32 / 16,
            1.0 / 16,
            0.83 * 16,
            "hard",
            precedence,
        )
        masks = partition.solve(problem, cooperative.in_parts(first.flatten(1), count), 4, True, False)
        counts = masks.sum(2)
        share[precedence] = counts / 16
        objective = functional.comixup_objective(
            masks.unflatten(2, (4, 4)), costs.unflatten(0, (-1, count)), compatibility
        )
        found[f"objective_{precedence}"] = float(objective.mean())
        found[f"sources_{precedence}"] = float((counts > 0).float().sum(-1).mean())
    others = share["paper"].sum(1, keepdim=True) * 16 - share["paper"] * 16
    prices = {
        p: partition.diversity_penalty(others, compatibility[:, None], 1.0 / 16, 0.83 * 16, "hard", p)
        for p in partition.PRECEDENCES
    }
    found["largest_price_difference"] = float((prices["paper"] - prices["code"]).abs().max())
    found["largest_price"] = float(prices["paper"].max())
    found["targets_moved"] = float((share["paper"] - share["code"]).abs().sum(-1).mean() / 2)
    return found


def loss(draws: int, seed: int) -> Numbers:
    """Gradients at the logits: binary cross-entropy of the softmax, averaged over classes, against cross-entropy."""
    del draws
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for classes in (10, 100):
        logits = torch.randn(512, classes, generator=draw, requires_grad=True)
        targets = F.one_hot(torch.randint(classes, (512,), generator=draw), classes).float()
        norms = [
            float(torch.autograd.grad(function(logits, targets), logits)[0].norm())
            for function in (soft_cross_entropy, softmax_bce)
        ]
        found[f"gradient_ratio_{classes}_classes"] = norms[0] / norms[1]
    return found


MEASURES: dict[str, Callable[[int, int], Numbers]] = {
    "cutmix": cutmix,
    "resizemix": resizemix,
    "fmix": fmix,
    "saliencymix": saliencymix,
    "patchup": patchup,
    "comixup": comixup,
    "loss": loss,
}
