"""Images, saliency and partners for Puzzle Mix."""

import torch

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def batch(count=6, size=(16, 24), seed=0):
    """Smooth images normalised by MEAN and STD, blobs of saliency, partners."""
    draws = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=draws)
    images = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    images = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    saliency = torch.nn.functional.interpolate(torch.rand(count, 1, 4, 4, generator=draws) ** 4, size)[:, 0] + 0.01
    return images, saliency, torch.randperm(count, generator=draws)
