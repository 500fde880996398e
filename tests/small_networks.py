"""A small network of this repository and a batch for it."""

import torch
from torch.nn import functional as F

import models


def network(**options):
    torch.manual_seed(0)
    return models.build(
        {"name": "preact_resnet18", "width": 4} | options, sample_shape=(3, 12, 10), num_classes=5
    ).train()


def batch(count=4, spatial=(12, 10)):
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(5, (count,), generator=draw)
    return torch.randn(count, 3, *spatial, generator=draw), F.one_hot(labels, 5).float()
