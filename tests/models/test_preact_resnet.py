"""PreAct-ResNet: parameter counts of the reference repositories, shortcuts, taps, layouts, compilation, options."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import models
from models.preact_resnet import PreActBlock
from randomix.errors import ConfigError


def make(sample_shape=(3, 32, 32), num_classes=10, **options):
    return models.build({"name": "preact_resnet18", **options}, sample_shape=sample_shape, num_classes=num_classes)


def tiny(sample_shape=(3, 12, 9), num_classes=5, **options):
    torch.manual_seed(0)
    return make(sample_shape, num_classes, width=4, **options).eval()


@pytest.mark.parametrize(
    ("sample_shape", "num_classes", "options", "parameters", "norms"),
    [
        ((3, 32, 32), 10, {}, 11_171_274, 17),  # mixup, FMix
        ((3, 32, 32), 10, {"stem_norm": False, "shortcut": "raw"}, 11_171_146, 16),  # Puzzle Mix, Manifold, PatchUp
        ((1, 32, 32), 12, {}, 11_171_148, 17),  # FMix on speech commands
        ((3, 64, 64), 200, {"stem_norm": False, "shortcut": "raw", "stem_stride": 2}, 11_268_616, 16),
        ((3, 32, 32), 10, {"final_norm": True}, 11_171_274 + 2 * 512, 18),
    ],
)
def test_parameter_counts(sample_shape, num_classes, options, parameters, norms):
    with torch.device("meta"):
        model = make(sample_shape, num_classes, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == norms


@pytest.mark.parametrize("raw", [False, True])
def test_block_equals_the_formula(raw):
    torch.manual_seed(0)
    block = PreActBlock(2, 6, 6, 1, raw).eval()
    for norm in (block.norm1, block.norm2):
        nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    x = torch.randn(2, 6, 5, 4)
    active = F.relu(block.norm1(x))
    body = F.conv2d(F.relu(block.norm2(F.conv2d(active, block.conv1.weight, padding=1))), block.conv2.weight, padding=1)
    assert torch.allclose(block(x), body + (x if raw else active), atol=1e-6)
    wider = PreActBlock(2, 6, 8, 2, raw).eval()
    active = F.relu(wider.norm1(x))
    body = wider.conv2(F.relu(wider.norm2(wider.conv1(active))))
    assert torch.allclose(wider(x), body + F.conv2d(active, wider.project.weight, stride=2), atol=1e-6)


def test_one_definition_serves_one_and_two_dimensions():
    """A 2-D network on a single row equals the 1-D network with the middle rows of its kernels."""
    flat = tiny((3, 20), stem_kernel=3, stem_stride=1)
    square = tiny((3, 1, 20))
    source = square.state_dict()
    shapes = flat.state_dict()
    flat.load_state_dict({k: v[:, :, v.shape[2] // 2] if v.ndim == 4 else v for k, v in source.items()})
    assert {k: v.shape for k, v in flat.state_dict().items()} == {k: v.shape for k, v in shapes.items()}
    x = torch.randn(2, 3, 20)
    assert torch.allclose(flat(x), square(x[:, :, None]), atol=1e-5)


def test_default_stems():
    assert (make((1, 16000), 12, width=4).stem.kernel_size, make((1, 16000), 12, width=4).stem.stride) == ((79,), (16,))
    assert (make(width=4).stem.kernel_size, make(width=4).stem.stride) == ((3, 3), (1, 1))
    assert tiny((1, 16000))(torch.randn(1, 1, 16000)).shape == (1, 5)


@pytest.mark.parametrize("size", [(1, 1), (7, 12), (28, 28), (8, 8)])
def test_any_input_size(size):
    assert tiny((2, *size))(torch.randn(3, 2, *size)).shape == (3, 5)


def test_taps_see_each_place_and_replace_the_features():
    model, x = tiny(), torch.randn(2, 3, 12, 9)
    seen = []

    def watch(index, features):
        seen.append((index, tuple(features.shape)))
        return features

    assert torch.equal(model(x, tap=watch), model(x)) and model.num_taps == 6
    assert seen == [
        (0, (2, 3, 12, 9)),
        (1, (2, 4, 12, 9)),
        (2, (2, 4, 12, 9)),
        (3, (2, 8, 6, 5)),
        (4, (2, 16, 3, 3)),
        (5, (2, 32, 2, 2)),
    ]
    for at in range(model.num_taps):
        swapped = model(x, tap=lambda index, features, at=at: features.flip(0) if index == at else features)
        assert torch.allclose(swapped, model(x).flip(0), atol=1e-5)
        zeroed = model(x, tap=lambda index, features, at=at: features * 0 if index == at else features)
        assert torch.allclose(zeroed[0], zeroed[1]) and not torch.allclose(zeroed, model(x))
    assert make((3, 8, 8), width=4, blocks=[1, 3]).num_taps == 4


def test_stem_norm_activates_and_final_norm_too():
    for stem_norm in (True, False):
        negative = []

        def watch(_, features, seen=negative):
            seen.append(bool((features < 0).any()))
            return features

        tiny(stem_norm=stem_norm)(torch.randn(2, 3, 12, 9), tap=watch)
        assert negative[1] is not stem_norm
    model = tiny(final_norm=True)
    nn.init.constant_(model.final_norm.weight, 0)
    nn.init.constant_(model.final_norm.bias, -1)
    assert torch.allclose(model(torch.randn(2, 3, 12, 9)), model.head.bias.expand(2, -1))


def test_channels_last_gives_the_same_and_stays():
    model, x = tiny(), torch.randn(2, 3, 12, 9)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    layouts = []

    def watch(_, features):
        layouts.append(features.is_contiguous(memory_format=torch.channels_last))
        return features

    assert torch.allclose(model(x.to(memory_format=torch.channels_last), tap=watch), expected, atol=1e-5)
    assert all(layouts)


def test_compiles_without_a_graph_break():
    model, x = tiny(), torch.randn(2, 3, 12, 9)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), model(x), atol=1e-6)


def test_gradients_reach_every_parameter():
    for options in ({}, {"shortcut": "raw", "stem_norm": False, "final_norm": True}):
        model = tiny(**options).train()
        model(torch.randn(4, 3, 12, 9)).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 64}, "model.widht is not an option of preact_resnet18; it takes width, blocks"),
        ({"width": 0}, "model.width is 0, expected a number of channels >= 1"),
        ({"blocks": []}, r"model.blocks is \[\]"),
        ({"blocks": [2, 0]}, r"model.blocks is \[2, 0\]"),
        ({"blocks": "2222"}, "model.blocks is '2222'"),
        ({"stem_kernel": 4}, "model.stem_kernel is 4, expected null or an odd number"),
        ({"stem_norm": "yes"}, "model.stem_norm is 'yes', expected true or false"),
        ({"shortcut": "post"}, "model.shortcut is 'post', expected one of preact, raw"),
        ({"width": 1.5, "final_norm": None}, "model.width is 1.5.*\n.*model.final_norm is None"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)


def test_unknown_network_and_shape():
    with pytest.raises(ConfigError, match=r"model.name is 'resnet19', expected one of preact_resnet18"):
        models.build({"name": "resnet19"}, sample_shape=(3, 32, 32), num_classes=10)
    with pytest.raises(ConfigError, match=r"are \(1, 4, 4, 4\)$"):
        make((1, 4, 4, 4))


def test_the_network_for_sound_refuses_images():
    message = (
        r"model.name is preact_resnet18_1d, which takes samples \(C, L\), but those of the data set are "
        r"\(3, 8, 8\); use model=preact_resnet18$"
    )
    with pytest.raises(ConfigError, match=message):
        models.build({"name": "preact_resnet18_1d"}, sample_shape=(3, 8, 8), num_classes=10)


def test_the_network_for_sound_has_its_stem_and_count():
    with torch.device("meta"):
        model = models.build({"name": "preact_resnet18_1d"}, sample_shape=(1, 16000), num_classes=12)
    assert sum(p.numel() for p in model.parameters()) == 3_851_980
    assert (model.stem.kernel_size, model.stem.stride) == ((79,), (16,))


def test_a_deeper_one():
    with torch.device("meta"):
        model = models.build({"name": "preact_resnet34"}, sample_shape=(3, 32, 32), num_classes=10)
    assert [len(stage) for stage in model.stages] == [3, 4, 6, 3]
    assert sum(p.numel() for p in model.parameters()) == 21_279_434
