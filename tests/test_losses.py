"""The losses against PyTorch's own in float64, and where those fail."""

import pytest
import torch
import torch.nn.functional as F

from randomix.losses import LOSSES, soft_cross_entropy, softmax_bce


def pair(count=7, classes=5, spread=3.0):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(count, classes, generator=draw) * spread
    a, b = (torch.randint(classes, (count,), generator=draw) for _ in range(2))
    lam = torch.rand(count, generator=draw)
    targets = lam[:, None] * F.one_hot(a, classes) + (1 - lam)[:, None] * F.one_hot(b, classes)
    return logits, targets, a, b, lam


def test_soft_cross_entropy_is_the_mean_of_two_cross_entropies():
    logits, targets, a, b, lam = pair()
    two = lam * F.cross_entropy(logits, a, reduction="none") + (1 - lam) * F.cross_entropy(logits, b, reduction="none")
    torch.testing.assert_close(soft_cross_entropy(logits, targets), two.mean())
    torch.testing.assert_close(soft_cross_entropy(logits, F.one_hot(a, 5)), F.cross_entropy(logits, a))


def test_softmax_bce_is_bce_of_the_softmax():
    logits, targets, *_ = pair()
    expected = F.binary_cross_entropy(logits.double().softmax(1), targets.double())
    torch.testing.assert_close(softmax_bce(logits, targets).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_match_float64(loss):
    logits, targets, *_ = pair()
    logits.requires_grad_()
    (ours,) = torch.autograd.grad(loss(logits, targets), logits)
    wide = logits.detach().double().requires_grad_()
    if loss is softmax_bce:
        value = F.binary_cross_entropy(wide.softmax(1), targets.double())
    else:
        value = F.cross_entropy(wide, targets.double())
    (theirs,) = torch.autograd.grad(value, wide)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-7)


def test_softmax_bce_stays_exact_where_one_class_is_certain():
    # softmax in float32 is exactly 1 here, so that 1 - p would be 0 and its logarithm lost
    logits = torch.tensor([[40.0, 0.0, 0.0]], requires_grad=True)
    targets = torch.tensor([[0.0, 1.0, 0.0]])
    value = softmax_bce(logits, targets)
    expected = ((40 - torch.tensor(2.0).log()) + 40) / 3  # -log(1 - p_0) and -log(p_1)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.abs().max() > 0.3


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_extreme_logits_of_any_precision_give_a_finite_float32_scalar(loss, dtype):
    logits = (torch.eye(4) * 60000 - 30000).to(dtype).requires_grad_()
    value = loss(logits, torch.full((4, 4), 0.25))
    assert value.dtype == torch.float32
    assert value.shape == ()
    (gradient,) = torch.autograd.grad(value, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_integer_labels_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"\(3, 5\) and \(3,\)"):
        loss(torch.zeros(3, 5), torch.zeros(3))


def test_softmax_bce_needs_two_classes():
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        softmax_bce(torch.zeros(3, 1), torch.ones(3, 1))
    assert set(LOSSES) == {"cross_entropy", "softmax_bce"}
