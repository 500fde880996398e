"""What a mixing operation costs: kernels on a device, copies to it, and nothing else where it may mix in place."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from randomix import StepRng
from randomix.mixers import build
from randomix.mixers.randomix import RandoMix

METHODS = ["mixup", "cutmix", "cutout", "resizemix", "fmix", "randomix"]
LAYOUTS = [torch.contiguous_format, torch.channels_last]
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty"}
MOST_KERNELS = 5  # outside of the compiled region: docs/performance.md
MOST_COPIES = 3  # partners, lam, and one of what the method draws


def mixer_of(name, **settings):
    return build({"name": name, **settings} | ({"length": 6} if name == "cutout" else {}), num_classes=10)


class Launches(TorchDispatchMode):
    """Operations that would start a kernel on the device "meta", and copies from the host to it, by name."""

    def __init__(self):
        super().__init__()
        self.kernels, self.copies = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if isinstance(result, torch.Tensor) and result.device.type == "meta" and name not in ALLOCATIONS:
            sources = [a.device.type for a in args if isinstance(a, torch.Tensor)]
            if name in ("_to_copy", "copy_") and "cpu" in sources:
                self.copies.append(name)
            elif not self._is_view(func):
                self.kernels += [name] * (2 if name in ("masked_fill", "index_put") else 1)  # these copy, then write
        return result

    @staticmethod
    def _is_view(func):
        aliases = [r.alias_info for r in func._schema.returns]
        return any(alias is not None and not alias.is_write for alias in aliases)


@pytest.mark.parametrize(("name", "layout"), list(itertools.product(METHODS, LAYOUTS)))
def test_training_takes_few_kernels(name, layout):
    mixer = mixer_of(name).allow_inplace()
    inputs = torch.empty(8, 3, 12, 12, device="meta").to(memory_format=layout)
    labels = torch.empty(8, dtype=torch.int64, device="meta")
    mixer(inputs, labels, StepRng(0))  # what is remembered
    for step in range(8):
        with Launches() as launches:
            mixed = mixer(inputs, labels, StepRng(0, step))
        assert mixed.inputs.device.type == "meta"
        assert len(launches.kernels) <= MOST_KERNELS, (mixed.name, launches.kernels)
        assert len(launches.copies) <= MOST_COPIES, (mixed.name, launches.copies)


def test_kernels_are_counted():
    with Launches() as launches:
        tensor = torch.empty(4, 4, device="meta")
        tensor[1:].t().add_(1)  # two views, one kernel
        (tensor * 2).view(16).masked_fill(torch.ones(16, dtype=torch.bool).to("meta"), 0)
    assert launches.kernels == ["add_", "mul", "masked_fill", "masked_fill"]
    assert launches.copies == ["_to_copy"]


@pytest.mark.parametrize("granularity", ["batch", "sample"])
@pytest.mark.parametrize("name", [*METHODS, "saliencymix"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_place_gives_the_same(name, granularity, layout, dtype):
    labels = torch.arange(9)
    given = torch.randn(9, 3, 12, 10).to(dtype, memory_format=layout)
    settings = {} if name == "cutout" else {"granularity": granularity}
    plain, allowed = mixer_of(name, **settings), mixer_of(name, **settings).allow_inplace()
    wrote = False
    for step in range(8):
        inputs = given.clone()
        expected, mixed = plain(given, labels, StepRng(0, step)), allowed(inputs, labels, StepRng(0, step))
        wrote |= mixed.inputs is inputs
        assert mixed.inputs.stride() == given.stride()
        for mine, theirs in zip(
            (mixed.inputs, mixed.targets, mixed.lam), (expected.inputs, expected.targets, expected.lam), strict=True
        ):
            assert torch.equal(mine, theirs)
    assert wrote == (
        name in ("cutmix", "cutout", "resizemix", "saliencymix", "randomix")
        and (granularity == "batch" or name == "cutout")
    )


@pytest.mark.parametrize("name", METHODS)
def test_gradients_reach_the_inputs(name):
    """A batch that requires gradients takes the way of a device, with the same result; mixing is linear."""
    plain, other, labels = torch.rand(6, 3, 12, 10), torch.rand(6, 3, 12, 10), torch.arange(6)
    for step in range(6):
        inputs = plain.clone().requires_grad_()
        mixed, of_other = (mixer_of(name)(batch, labels, StepRng(0, step)).inputs for batch in (inputs, other))
        assert torch.equal(mixed, mixer_of(name)(plain, labels, StepRng(0, step)).inputs)
        (gradient,) = torch.autograd.grad((mixed * plain).sum(), inputs)
        torch.testing.assert_close((gradient * other).sum(), (of_other * plain).sum())
        with torch.no_grad():
            assert torch.equal(mixer_of(name)(inputs, labels, StepRng(0, step)).inputs, mixed)


def test_a_choice_for_each_sample_leaves_the_inputs_to_every_candidate():
    candidates = [{"name": "cutout", "length": 6}, {"name": "cutmix", "granularity": "batch"}]
    settings = {"name": "randomix", "candidates": candidates, "granularity": "sample"}
    inputs, labels = torch.rand(8, 3, 12, 10), torch.arange(8)
    expected = build(settings, num_classes=8)(inputs, labels, StepRng(0)).inputs
    mixed = build(settings, num_classes=8).allow_inplace()(inputs.clone(), labels, StepRng(0)).inputs
    assert torch.equal(mixed, expected)


@pytest.mark.parametrize("name", ["cutout", "resizemix"])
def test_writing_past_tensors_is_no_secret_of_autograd(name):
    """What writes into memory by NumPy counts as a change of tensors saved for backward."""
    labels, inputs = torch.arange(4), torch.rand(4, 3, 16, 16)
    mixer = build(name, num_classes=4)
    weight = torch.rand_like(inputs, requires_grad=True)
    loss = (inputs * weight).sum()
    mixer.allow_inplace()(inputs, labels, StepRng(1))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_composite_in_place_leaves_the_callers_methods_alone():
    cutmix = build("cutmix", num_classes=4)
    composite = RandoMix(candidates=[cutmix, "mixup"]).allow_inplace()
    assert not cutmix.inplace and all(candidate.inplace for candidate in composite.candidates)
