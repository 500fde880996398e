"""The generator's version stands for its bytes: other ones under the same number would be taken for the same test set.

The bytes of all 95 cells of one small image are kept in corruptions_pinned.npz. CPUs may round a sum differently, which
moves single pixels: a few may differ in a cell. ``python -m tests.robustness.test_corruptions_pinned`` writes the file.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from randomix.robustness import corruptions
from randomix.robustness.corruptions import CORRUPTIONS, corrupt, frost
from randomix.robustness.corruptions.parameters import parameters

PINNED = Path(__file__).with_name("corruptions_pinned.npz")
RAISE = (
    "the generator makes other bytes: raise randomix.robustness.corruptions.VERSION, then write the pinned ones anew"
)
SIDES = (32, 64, 224)  # of the three sets of parameters


def image():
    """(1, 16, 20, 3): ramps, squares and some texture, in whole numbers alone."""
    y, x, c = np.mgrid[:16, :20, :3]
    squares = (x // 5 + y // 4) % 2
    return ((13 * x + 7 * y + 31 * c + x * y * (c + 1) % 29 + 60 * squares) % 256).astype(np.uint8)[None]


def forget():
    """The pictures of frost that were read."""
    frost._pictures.cache_clear()
    frost.textures.cache_clear()
    frost._joined.cache_clear()


def cells():
    """(19, 5, 16, 20, 3): every corruption at every severity; frost of our own pictures."""
    options = {"seed": 3, "indices": np.array([5])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frost, "_folder", lambda: None)
        forget()
        made = [[corrupt(image(), name, s, **options)[0] for s in range(1, 6)] for name in CORRUPTIONS]
    forget()
    return np.array(made)


def parameter_digest():
    every = [
        (name, s, side, parameters(name, s, side, side)) for name in CORRUPTIONS for s in range(1, 6) for side in SIDES
    ]
    return hashlib.sha256(repr(every).encode()).hexdigest()


@pytest.fixture(scope="module")
def pinned():
    with np.load(PINNED, allow_pickle=False) as archive:
        return dict(archive)


def test_other_bytes_are_another_version(pinned):
    found = cells()
    differ = (found != pinned["cells"]).mean((2, 3, 4))
    wrong = [f"{CORRUPTIONS[n]}/{s + 1}" for n, s in np.argwhere(differ > 0.01)]
    assert not wrong and differ.mean() <= 0.001, f"{', '.join(wrong)}: {RAISE}"


def test_other_parameters_are_another_version(pinned):
    assert parameter_digest() == str(pinned["parameters"]), RAISE


def test_the_pinned_bytes_are_those_of_this_version(pinned):
    assert str(pinned["version"]) == corruptions.VERSION, "run python -m tests.robustness.test_corruptions_pinned"


if __name__ == "__main__":
    np.savez_compressed(PINNED, version=corruptions.VERSION, parameters=parameter_digest(), cells=cells())
