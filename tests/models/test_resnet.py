"""ResNet-50 is torchvision's: its weights load, its outputs are equal; taps, options, other inputs."""

import pytest
import torch
import torchvision
from torch import nn

import models
from randomix.errors import ConfigError


def make(sample_shape=(3, 64, 64), num_classes=10, **options):
    return models.build({"name": "resnet50", **options}, sample_shape=sample_shape, num_classes=num_classes)


def tiny(sample_shape=(3, 32, 32), **options):
    torch.manual_seed(0)
    return make(sample_shape, 5, **({"width_per_group": 4, "blocks": [1, 1, 2, 1]} | options))


@torch.no_grad()
def test_weights_of_torchvision_load_and_give_its_outputs():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(num_classes=10)
    for part in theirs.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    theirs.train()(torch.randn(8, 3, 64, 64))  # statistics that let every layer through
    ours = make()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert (ours(x)[0] - ours(x)[1]).abs().max() > 0.01
    assert torch.equal(ours(x, tap=lambda _, features: features), theirs(x))


def test_initial_weights_are_torchvisions():
    ours = tiny()
    torch.manual_seed(0)
    theirs = torchvision.models.ResNet(
        torchvision.models.resnet.Bottleneck, [1, 1, 2, 1], num_classes=5, width_per_group=4
    )
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_parameter_count():
    with torch.device("meta"):
        model = make((3, 224, 224), 1000)
    assert sum(p.numel() for p in model.parameters()) == 25_557_032


def test_taps_see_each_place_and_replace_the_features():
    model, x = tiny().eval(), torch.randn(2, 3, 32, 32)
    seen = []

    def watch(index, features):
        seen.append((index, tuple(features.shape)))
        return features

    assert torch.equal(model(x, tap=watch), model(x)) and model.num_taps == 6
    assert seen == [
        (0, (2, 3, 32, 32)),
        (1, (2, 64, 8, 8)),
        (2, (2, 256, 8, 8)),
        (3, (2, 512, 4, 4)),
        (4, (2, 1024, 2, 2)),
        (5, (2, 2048, 1, 1)),
    ]
    for at in range(model.num_taps):
        swapped = model(x, tap=lambda index, features, at=at: features.flip(0) if index == at else features)
        assert torch.allclose(swapped, model(x).flip(0), atol=1e-4)
        assert not torch.allclose(swapped, model(x), atol=1e-4)


def test_zero_initialised_residuals_are_an_option():
    plain, zero = tiny(), tiny(zero_init_residual=True)
    assert all(block.bn3.weight.all() for stage in (plain.layer1, plain.layer3) for block in stage)
    assert not any(block.bn3.weight.any() for stage in (zero.layer1, zero.layer3) for block in stage)


@pytest.mark.parametrize("sample_shape", [(3, 8, 8), (1, 28, 28), (4, 33, 20)])
def test_other_inputs(sample_shape):
    assert tiny(sample_shape).eval()(torch.randn(2, *sample_shape)).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [3, 4, 6]}, r"model.blocks is \[3, 4, 6\], expected four block counts"),
        ({"width": 32}, "model.width is not an option of resnet50; it takes blocks, width_per_group"),
        ({"zero_init_residual": 1}, "model.zero_init_residual is 1, expected true or false"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_sound_is_refused():
    with pytest.raises(ConfigError, match=r"takes samples \(C, H, W\), .* \(1, 16000\); use model=preact_resnet18_1d"):
        make((1, 16000))
