"""Our functions on the draws recorded from the authors' code give the authors' numbers."""

import pytest

from tests.parity import golden

TOLERANCE = 1e-6


@pytest.mark.skipif(not golden.folder().is_dir(), reason=f"no golden vectors in {golden.folder()}")
@pytest.mark.parametrize("method", golden.METHODS)
def test_matches_the_released_code(method, record_property):
    differences = dict(golden.METHODS[method]())
    worst = max(differences, key=differences.get)
    record_property("largest_error", differences[worst])
    assert len(differences) >= 2
    assert differences[worst] <= TOLERANCE, f"{worst}: {differences[worst]:.3g}"


@pytest.mark.skipif(not golden.folder().is_dir(), reason=f"no golden vectors in {golden.folder()}")
@pytest.mark.parametrize(("method", "part"), [("cutmix", "inputs"), ("resizemix", "inputs"), ("fmix", "mask")])
def test_pixels_are_bit_exact(method, part):
    differences = [value for what, value in golden.METHODS[method]() if what.endswith(part)]
    assert len(differences) > 8
    assert max(differences) == 0.0


def test_a_difference_is_seen():
    assert golden.largest([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert golden.largest([1.0], [1.0, 1.0]) == float("inf")
