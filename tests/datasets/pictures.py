"""Class folders of small JPEGs in the layout of ImageNet, and damage to them."""

import numpy as np
import torch
from PIL import Image

CPU = torch.device("cpu")


def make_folders(root, train=6, val=4, classes=("n01", "n02", "n03"), sides=(40, 80)):
    """``root/{train,val}/<class>/*.JPEG`` with smooth pictures of different sizes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                cells = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
                width, height = (int(side) for side in rng.integers(*sides, 2))
                Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC).save(
                    folder / f"{name}_{number}.JPEG", quality=90
                )
    return root


def cut(path):
    """Leave the first half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def load(data, batch_size=6, seed=3, rank=0, world_size=1, dtype=torch.float32):
    return data.train_loader(
        batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, device=CPU, dtype=dtype
    )


def same(left, right):
    """Whether two lists of batches are bit-equal."""
    parts = ("inputs", "labels", "indices")
    return len(left) == len(right) and all(
        torch.equal(getattr(a, part), getattr(b, part)) for a, b in zip(left, right, strict=True) for part in parts
    )


def joined(shares):
    """The global batches of several ranks' batches."""
    from randomix.engine.protocols import Batch

    return [
        Batch(*(torch.cat([getattr(b, part) for b in parts]) for part in ("inputs", "labels", "indices")))
        for parts in zip(*shares, strict=True)
    ]
