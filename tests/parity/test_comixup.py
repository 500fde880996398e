"""Co-Mixup on what was recorded from its authors' code: the same numbers, and labels that are no worse."""

import pytest
import torch

from randomix import functional
from tests.parity import comixup, golden

pytestmark = pytest.mark.skipif(not golden.folder().is_dir(), reason=f"no golden vectors in {golden.folder()}")
TOLERANCE = 1e-6


def test_matches_the_released_code(record_property):
    differences = dict(comixup.comixup())
    worst = max(differences, key=differences.get)
    record_property("largest_error", differences[worst])
    assert len(differences) > 700
    assert differences[worst] <= TOLERANCE, f"{worst}: {differences[worst]:.3g}"


@pytest.mark.parametrize("precedence", ["paper", "code"])
def test_the_objective_is_below_that_of_graph_cuts(precedence, record_property):
    for name, masks, ours, theirs in comixup.solutions(precedence):
        record_property(name, f"{ours:.2f} against {theirs:.2f}")
        assert ours <= theirs, name
        counts = masks.sum((1, 2))
        sources, mixed = (counts > 0).sum(1), (masks == 0.5).any(-1)
        assert set(masks.unique().tolist()) == {0.0, 0.5, 1.0}
        torch.testing.assert_close(masks.sum(-1), torch.ones(masks.shape[:-1]))
        assert (counts.sum(0) > 0).all()  # every input is used
        assert 2.0 <= sources.float().mean() <= 3.5
        assert sources.max() <= 6
        assert 0.04 <= mixed.float().mean() <= 0.2


def test_the_whole_function_gives_the_solutions():
    for (_, penalty, case), (name, masks, *_) in zip(comixup.cases(), comixup.solutions("code"), strict=True):
        mixed = functional.comixup(
            case["x"],
            comixup.one_hot(case),
            case["saliency"],
            case["dirichlet"],
            case["init_idx"],
            penalty=penalty,
            precedence="code",
            **case.settings,
        )
        counts = masks.sum((1, 2)) / masks[0, ..., 0].numel()
        torch.testing.assert_close(mixed.targets, counts @ comixup.one_hot(case), msg=name)
        torch.testing.assert_close(mixed.lam, counts.diagonal(), msg=name)
