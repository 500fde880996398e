"""FGSM and PGD give the very pixels of torchattacks and foolbox."""

import pytest
import torch
from torch.nn import functional as F

from randomix.robustness.attacks import fgsm
from tests.parity import attacks


@pytest.mark.parametrize("package", attacks.PACKAGES)
def test_every_pixel_is_that_of_the_other_implementation(package):
    pytest.importorskip(package, reason=f"{package} is not installed: the extra randomix[attacks]")
    differences = dict(attacks.compare(package))
    assert len(differences) == len(attacks.EPS) * (1 + len(attacks.STEPS))
    assert {what: error for what, error in differences.items() if error != 0} == {}


def test_what_is_compared_moves_and_depends_on_the_step():
    model, pixels, labels = attacks.problem()
    one, many = (fgsm(model, pixels, labels, 8 / 255, steps, size) for steps, size in ((1, None), (10, attacks.STEP)))
    assert not torch.equal(one, pixels) and not torch.equal(one, many)
    losses = [float(F.cross_entropy(model(x), labels).detach()) for x in (pixels, one, many)]
    assert losses == sorted(losses)
    leaf = pixels.clone().requires_grad_()
    F.cross_entropy(model(leaf), labels).backward()
    assert torch.equal(one, (pixels + 8 / 255 * leaf.grad.sign()).clamp(0, 1))  # the definition, without a package
