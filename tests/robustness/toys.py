"""Small image sets and networks to attack, and the attack by its definition."""

import torch
from torch import nn
from torch.nn import functional as F

from datasets.resident import ArrayData

CPU = torch.device("cpu")
MEAN, STD = (0.5, 0.4, 0.45), (0.2, 0.3, 0.25)
EPS = 8 / 255


def make_eval_set(count=50, classes=5, spatial=(6, 4)):
    draw = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, *spatial, 3), generator=draw, dtype=torch.uint8).numpy()
    labels = torch.randint(0, classes, (count,), generator=draw).numpy()
    names = tuple(map(str, range(classes)))
    return ArrayData("toy", names, images, labels, images, labels, MEAN, STD).eval_set(CPU)


def make_network(classes=5, seed=0):
    """Convolution, batch normalisation, dropout: whatever an attack could disturb."""
    torch.manual_seed(seed)
    first = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Tanh(), nn.Dropout(0.5)]
    network = nn.Sequential(*first, nn.Flatten(), nn.LazyLinear(classes))
    network(torch.randn(40, 3, 6, 4))  # running statistics away from their start
    return network


def whole(eval_set):
    (batch,) = eval_set.batches(eval_set.num_samples)
    return batch


def slow_fgsm(model, inputs, labels, eps):
    """One sample at a time, from the definition."""
    found = []
    for image, label in zip(inputs.split(1), labels.split(1), strict=True):
        leaf = image.clone().requires_grad_()
        F.cross_entropy(model(leaf), label).backward()
        found.append((image + eps * leaf.grad.sign()).clamp(0, 1))
    return torch.cat(found)


class Linear(nn.Module):
    """Two classes; the logit of the second is the weighted sum of the pixels."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, pixels):
        logit = pixels.flatten(1) @ self.weight
        return torch.stack([torch.zeros_like(logit), logit], dim=1)
