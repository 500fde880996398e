"""WRN-28-10: parameter counts of the reference repositories, both kinds of block, initialisation, dropout, options."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
from models.wide_resnet import WideBlock
from randomix.errors import ConfigError

PUZZLEMIX = {"conv_bias": True, "init": "torch", "shortcut": "raw", "stride_conv": 2, "final_norm_momentum": 0.9}


def make(sample_shape=(3, 32, 32), num_classes=10, **options):
    return models.build({"name": "wrn_28_10", **options}, sample_shape=sample_shape, num_classes=num_classes)


def tiny(**options):
    torch.manual_seed(0)
    return make((3, 12, 9), 5, **({"depth": 16, "widen_factor": 2, "width": 4} | options))


@pytest.mark.parametrize(
    ("sample_shape", "num_classes", "options", "parameters"),
    [
        ((3, 32, 32), 10, {}, 36_479_194),  # Cutout, FMix
        ((3, 32, 32), 10, PUZZLEMIX, 36_489_290),  # Puzzle Mix, Manifold Mixup, PatchUp, ResizeMix
        ((3, 32, 32), 100, {}, 36_479_194 + 90 * 641),
        ((1, 28, 28), 10, {}, 36_479_194 - 2 * 9 * 16),
    ],
)
def test_parameter_counts(sample_shape, num_classes, options, parameters):
    with torch.device("meta"):
        model = make(sample_shape, num_classes, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 25


def block(channels, width, stride, **options):
    torch.manual_seed(0)
    built = WideBlock(
        channels, width, stride, **({"dropout": 0.0, "bias": False, "raw": False, "stride_conv": 1} | options)
    )
    for norm in (built.norm1, built.norm2):
        nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    return built.eval()


def by_hand(built, x, first, second, shortcut):
    middle = F.conv2d(F.relu(built.norm1(x)), built.conv1.weight, built.conv1.bias, first, padding=1)
    return F.conv2d(F.relu(built.norm2(middle)), built.conv2.weight, built.conv2.bias, second, padding=1) + shortcut


@pytest.mark.parametrize("raw", [False, True])
def test_identity_shortcuts_carry_the_raw_input(raw):
    built, x = block(6, 6, 1, raw=raw), torch.randn(2, 6, 5, 4)
    assert torch.allclose(built(x), by_hand(built, x, 1, 1, x), atol=1e-6)


@pytest.mark.parametrize(("raw", "stride_conv", "bias"), [(False, 1, False), (True, 2, True)])
def test_projections_take_what_their_repository_takes(raw, stride_conv, bias):
    built, x = block(6, 8, 2, raw=raw, stride_conv=stride_conv, bias=bias), torch.randn(2, 6, 5, 4)
    source = x if raw else F.relu(built.norm1(x))
    shortcut = F.conv2d(source, built.project.weight, built.project.bias, 2)
    strides = (2, 1) if stride_conv == 1 else (1, 2)
    assert torch.allclose(built(x), by_hand(built, x, *strides, shortcut), atol=1e-6)


def test_dropout_drops_in_training_before_the_second_convolution():
    built = block(4, 4, 1, dropout=0.5)
    x, zeros = torch.ones(64, 4, 5, 5), []
    built.conv2.register_forward_pre_hook(lambda _, inputs: zeros.append((inputs[0] == 0).float().mean()))
    nn.init.zeros_(built.norm2.weight), nn.init.ones_(built.norm2.bias)
    built(x)
    built.train()(x)
    assert zeros[0] == 0
    assert abs(zeros[1] - 0.5) < 0.05


def test_initialisations():
    model = tiny(init="he", conv_bias=True, widen_factor=8, width=8)
    for part in model.modules():
        if isinstance(part, nn.Conv2d) and part.weight.numel() > 20_000:
            expected = math.sqrt(2 / (9 * part.out_channels)) if part.kernel_size == (3, 3) else None
            assert expected is None or abs(part.weight.std() / expected - 1) < 0.05
            assert not part.bias.any()
    plain = tiny(init="torch", conv_bias=True)
    assert plain.stem.bias.any() and plain.head.bias.any() and not model.head.bias.any()


def test_taps_see_each_place_and_replace_the_features():
    model, x = tiny().eval(), torch.randn(2, 3, 12, 9)
    seen = []

    def watch(index, features):
        seen.append((index, tuple(features.shape)))
        return features

    assert torch.equal(model(x, tap=watch), model(x)) and model.num_taps == 5
    assert seen == [(0, (2, 3, 12, 9)), (1, (2, 4, 12, 9)), (2, (2, 8, 12, 9)), (3, (2, 16, 6, 5)), (4, (2, 32, 3, 3))]
    for at in range(model.num_taps):
        swapped = model(x, tap=lambda index, features, at=at: features.flip(0) if index == at else features)
        assert torch.allclose(swapped, model(x).flip(0), atol=1e-5)
        assert not torch.allclose(swapped, model(x), atol=1e-5)


def test_depth_is_counted_in_convolutions():
    for depth in (10, 16, 28):
        convolutions = [m for m in tiny(depth=depth).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert len(convolutions) == depth - 3  # the name counts the projections too


def test_the_final_momentum_is_the_last_norms_only():
    model = tiny(**PUZZLEMIX)
    momenta = {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m is not model.final_norm}
    assert (model.final_norm.momentum, momenta) == (0.9, {0.1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 27}, r"model.depth is 27, expected 6 n \+ 4"),
        ({"depth": 4}, "model.depth is 4, expected 6 n"),
        ({"widen": 1}, "model.widen is not an option of wrn_28_10; it takes depth, widen_factor"),
        ({"dropout": 1.0}, "model.dropout is 1.0, expected a number from 0"),
        ({"init": "xavier"}, "model.init is 'xavier', expected one of he, torch"),
        ({"stride_conv": 3}, "model.stride_conv is 3, expected 1 or 2"),
        ({"stride_conv": True, "width": 0}, "model.stride_conv is True.*\n.*model.width is 0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_sound_is_refused():
    with pytest.raises(ConfigError, match=r"takes samples \(C, H, W\), .* \(1, 16000\); use model=preact_resnet18_1d"):
        make((1, 16000))
