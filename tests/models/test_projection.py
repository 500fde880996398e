"""The convolution of shortcuts: with few channels it takes another way to the same sums and gradients."""

import pytest
import torch
from torch import nn

from models.projection import project


@pytest.mark.parametrize("channels", [1, 3, 15, 16])
@pytest.mark.parametrize(("dims", "stride"), [(1, 2), (2, 1), (2, 2), (2, 3)])
def test_equals_the_convolution(channels, dims, stride):
    torch.manual_seed(0)
    convolution = (nn.Conv1d if dims == 1 else nn.Conv2d)(channels, 5, 1, stride).double()
    inputs = torch.randn(2, channels, 9, 12)[(..., *[0] * (2 - dims))].double().requires_grad_()
    expected = convolution(inputs)  # in float64 the plain call takes the plain way
    weight = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weight).sum(), [inputs, *convolution.parameters()])
    found = project(convolution, inputs)
    assert found.shape == expected.shape and torch.allclose(found, expected)
    for one, other in zip(torch.autograd.grad((found * weight).sum(), [inputs, *convolution.parameters()]), wanted):  # noqa: B905
        assert torch.allclose(one, other)


def test_few_channels_never_reach_the_strided_kernel(monkeypatch):
    narrow, wide = nn.Conv2d(4, 8, 1, 2), nn.Conv2d(16, 8, 1, 2)
    called = []
    for convolution in (narrow, wide):
        monkeypatch.setattr(
            convolution, "forward", lambda x, c=convolution: called.append(c) or nn.Conv2d.forward(c, x)
        )
    project(narrow, torch.randn(1, 4, 6, 6))
    assert called == []
    project(wide, torch.randn(1, 16, 6, 6))
    assert called == [wide]
