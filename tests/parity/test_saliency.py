"""Cutout and SaliencyMix give the authors' numbers: pixels, saliency maps and peaks bit for bit, shares to 1e-6."""

import pytest

from tests.parity import golden, saliency

pytestmark = pytest.mark.skipif(not golden.folder().is_dir(), reason=f"no golden vectors in {golden.folder()}")


@pytest.mark.parametrize("method", saliency.METHODS)
def test_matches_the_released_code(method, record_property):
    differences = dict(saliency.METHODS[method]())
    worst = max(differences, key=differences.get)
    record_property("largest_error", differences[worst])
    assert len(differences) >= 6
    assert differences[worst] <= 1e-6, f"{worst}: {differences[worst]:.3g}"


@pytest.mark.parametrize("method", saliency.METHODS)
def test_pixels_and_maps_are_bit_exact(method):
    exact = [v for what, v in saliency.METHODS[method]() if what.split()[-1] in ("inputs", "map", "peak", "box")]
    assert len(exact) >= 6
    assert max(exact) == 0.0
