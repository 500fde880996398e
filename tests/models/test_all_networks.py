"""What holds for every network: cost at paper size, taps, every kind of method, layouts, compilation, optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import models
from randomix import mixers
from randomix.engine.optim import build_optimizer
from randomix.engine.schema import RecipeConfig
from randomix.losses import soft_cross_entropy
from randomix.networks import num_taps, tap_shapes
from randomix.rng import StepRng

CLASSES = 5
PUZZLEMIX = {"stem_norm": False, "shortcut": "raw"}
WIDE_PUZZLEMIX = {"conv_bias": True, "init": "torch", "shortcut": "raw", "stride_conv": 2, "final_norm_momentum": 0.9}
SMALL = {  # name: (network, samples, options, size of the feature maps at the taps)
    "preact_resnet18": ("preact_resnet18", (3, 16, 16), {"width": 4}, (16, 16, 16, 8, 4, 2)),
    "preact_resnet18, Puzzle Mix": ("preact_resnet18", (3, 16, 16), {"width": 4} | PUZZLEMIX, (16, 16, 16, 8, 4, 2)),
    "preact_resnet18_1d": ("preact_resnet18_1d", (1, 512), {"width": 4}, (512, 32, 32, 16, 8, 4)),
    "preact_resnet34": ("preact_resnet34", (3, 16, 16), {"width": 4}, (16, 16, 16, 8, 4, 2)),
    "wrn": ("wrn_28_10", (3, 16, 16), {"depth": 16, "widen_factor": 2, "width": 4}, (16, 16, 16, 8, 4)),
    "wrn, Puzzle Mix": (
        "wrn_28_10",
        (3, 16, 16),
        {"depth": 10, "widen_factor": 2, "width": 4} | WIDE_PUZZLEMIX,
        (16, 16, 16, 8, 4),
    ),
    "resnet50": ("resnet50", (3, 64, 64), {"width_per_group": 4, "blocks": [1, 1, 1, 1]}, (64, 16, 16, 8, 4, 2)),
}
COSTS = [  # network, samples, classes, options, GFLOP (2 x multiply-add) of one sample: forward, forward and backward
    ("preact_resnet18", (3, 32, 32), 10, {}, 1.111, 3.329),
    ("preact_resnet18", (3, 64, 64), 200, {}, 4.444, 13.316),
    ("preact_resnet18", (3, 64, 64), 200, {"stem_stride": 2} | PUZZLEMIX, 1.111, 3.330),
    ("wrn_28_10", (3, 32, 32), 10, {}, 10.487, 31.459),
    ("resnet50", (3, 224, 224), 1000, {}, 8.178, 24.299),
    ("resnet50", (3, 160, 160), 1000, {}, 4.175, 12.404),
    ("preact_resnet18_1d", (1, 16000), 12, {"stem_kernel": 3, "stem_stride": 1}, 21.764, 65.286),
    ("preact_resnet18_1d", (1, 16000), 12, {"stem_kernel": 9, "stem_stride": 4}, 5.444, 16.328),
    ("preact_resnet18_1d", (1, 16000), 12, {}, 1.370, 4.100),
    ("preact_resnet18", (3, 32, 32), 10, {"width": 16}, 0.070, 0.209),
]


@pytest.mark.parametrize(("name", "sample_shape", "classes", "options", "forward", "step"), COSTS)
def test_cost_at_paper_size(name, sample_shape, classes, options, forward, step):
    with torch.device("meta"):
        model = models.build({"name": name, **options}, sample_shape=sample_shape, num_classes=classes)
        sample, counted = torch.empty(1, *sample_shape), []
        for backward in (False, True):
            with FlopCounterMode(display=False) as counter:
                logits = model(sample)
                if backward:
                    logits.sum().backward()
            counted.append(counter.get_total_flops() / 1e9)
    assert [round(c, 3) for c in counted] == [forward, step]


def make(case: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network in training mode, and a batch for it."""
    name, sample_shape, options, _ = SMALL[case]
    torch.manual_seed(0)
    model = models.build({"name": name, **options}, sample_shape=sample_shape, num_classes=CLASSES).train()
    return model, torch.randn(4, *sample_shape), torch.randint(CLASSES, (4,))


def test_every_network_is_here():
    assert {name for name, *_ in SMALL.values()} == set(models.MODULES)


@pytest.mark.parametrize("case", SMALL)
def test_taps_have_their_sizes(case):
    model, inputs, _ = make(case)
    assert tuple(shape[1] for shape in tap_shapes(model, inputs)) == SMALL[case][3]
    assert num_taps(model) == len(SMALL[case][3])


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("method", ["baseline", "randomix", "manifold_mixup", "patchup", "puzzlemix"])
def test_every_kind_of_method_trains_it(case, method):
    model, inputs, labels = make(case)
    mixer = mixers.build(method, num_classes=CLASSES)
    if inputs.ndim - 2 not in mixer.spatial_dims:
        with pytest.raises(ValueError, match="2-D samples only"):
            mixer.check_shape(inputs.shape[1:])
        return
    mixer.check_shape(inputs.shape[1:])
    mixer.check_network(model, inputs.shape[1:])
    for step in range(4):
        result = mixer.forward_mixed(model, inputs, labels, StepRng(0, step))
        result.loss(soft_cross_entropy).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("case", SMALL)
def test_channels_last_and_half_precision(case):
    model, inputs, _ = make(case)
    expected = model.eval()(inputs)
    if inputs.ndim == 4:
        seen = []
        model, images = model.to(memory_format=torch.channels_last), inputs.to(memory_format=torch.channels_last)
        logits = model(images, tap=lambda _, f: seen.append(f.is_contiguous(memory_format=torch.channels_last)) or f)
        assert torch.allclose(logits, expected, atol=1e-4)
        assert all(seen)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(model(inputs).float(), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("case", [c for c in SMALL if "Puzzle" not in c and "34" not in c])
def test_compiles_without_a_graph_break(case):
    model, inputs, _ = make(case)
    expected = model.eval()(inputs)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(inputs), expected, atol=1e-5)
    half = torch.tensor(0.5)
    mixed = compiled(inputs, tap=lambda index, f: torch.lerp(f.flip(0), f, half) if index == 2 else f)
    assert not torch.allclose(mixed, expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("case", SMALL)
def test_weight_decay_spares_norms_and_biases_where_asked(case):
    model, _, _ = make(case)
    spared = {id(p) for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for p in m.parameters()}
    spared |= {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    settings = {"name": "x", "epochs": 1, "batch_size": 4, "lr": 0.1, "weight_decay": 0.25}
    for decay_norms in (True, False):
        groups = build_optimizer(model, RecipeConfig(**settings, decay_norms=decay_norms)).param_groups
        decayed = {id(p) for g in groups if g["weight_decay"] == 0.25 for p in g["params"]}
        everything = {id(p) for p in model.parameters()}
        assert {id(p) for g in groups for p in g["params"]} == everything
        assert decayed == everything - (set() if decay_norms else spared)
