"""Manifold Mixup and PatchUp on the features and draws recorded from their authors' code give the authors' numbers."""

import pytest

from tests.parity import golden, hidden

TOLERANCE = 1e-6
pytestmark = pytest.mark.skipif(not golden.folder().is_dir(), reason=f"no golden vectors in {golden.folder()}")


@pytest.mark.parametrize("method", [hidden.manifold_mixup, hidden.patchup])
def test_matches_the_released_code(method, record_property):
    differences = dict(method())
    worst = max(differences, key=differences.get)
    record_property("largest_error", differences[worst])
    assert len(differences) >= 6
    assert differences[worst] <= TOLERANCE, f"{worst}: {differences[worst]:.3g}"


def test_blocks_and_exchanged_features_are_bit_exact():
    exact = {what: error for what, error in hidden.patchup() if "holes" in what or what.startswith("hard")}
    assert len(exact) > 40
    assert {what: e for what, e in exact.items() if e and "gamma" not in what and "loss" not in what} == {}
