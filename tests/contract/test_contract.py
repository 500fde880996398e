"""What holds for every mixer in the registry, checked on all of them: a new file in the folder is picked up by itself.

Methods that mix inputs are called; the others run with a network of one linear layer.
"""

import hashlib
import inspect
import itertools

import pytest
import torch
from torch import nn

from randomix.mixers import available, build, get
from randomix.mixers.base import BatchMixer, PairMixer
from randomix.rng import StepRng
from randomix.types import MixedMode

CLASSES = 5
SPATIAL = {"1d": (32,), "2d": (8, 16), "3d": (8, 8, 4)}
FORMATS = {"2d": torch.channels_last, "3d": torch.channels_last_3d}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def settings(name):
    """The mixers to check of one method: as it is, and per sample where it has that setting."""
    takes = inspect.signature(get(name)).parameters
    return [{"name": name}] + ([{"name": name, "granularity": "sample"}] if "granularity" in takes else [])


INPUT_MIXERS = [s for n in available() if issubclass(get(n), BatchMixer) for s in settings(n)]
ALL_MIXERS = [s for n in available() for s in settings(n)]


def label(config):
    return "-".join(config.values())


def mixer_of(config):
    return build(config, num_classes=CLASSES)


def supports(config, dims):
    """A method may say which dimensions it covers; one that says nothing covers all three."""
    return dims in getattr(get(config["name"]), "spatial_dims", (1, 2, 3))


def batch(dims="2d", count=7, dtype=torch.float32, seed=0, channels=3):
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, channels, *SPATIAL[dims], generator=draw).to(dtype)
    return inputs, torch.randint(CLASSES, (count,), generator=draw)


def digest(*tensors):
    return [hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for t in tensors]


class Network(nn.Module):
    """The smallest network with taps, as many as a method's defaults reach for, all at its input; then one layer."""

    num_taps = 4

    def __init__(self, channels=3, classes=CLASSES):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(channels, classes)

    def forward(self, inputs, tap=None):
        for index in range(self.num_taps):
            inputs = tap(index, inputs) if tap is not None else inputs
        return self.head(inputs.flatten(2).mean(2))


@pytest.mark.parametrize("config", INPUT_MIXERS, ids=label)
class TestInputMixers:
    @pytest.mark.parametrize(("dims", "count"), list(itertools.product(SPATIAL, [1, 2, 7])))
    def test_shapes_and_targets(self, config, dims, count):
        if not supports(config, int(dims[0])):
            pytest.skip(f"{config['name']} does not cover {dims}")
        inputs, labels = batch(dims, count)
        for seed in range(8):
            mixed = mixer_of(config)(inputs, labels, seed)
            assert mixed.inputs.shape == inputs.shape
            assert mixed.targets.shape == (count, CLASSES)
            assert mixed.lam.shape == (count,)
            assert mixed.targets.dtype == mixed.lam.dtype == torch.float32
            torch.testing.assert_close(mixed.targets.sum(1), torch.ones(count))
            assert mixed.targets.min() >= 0
            assert 0 <= mixed.lam.min() <= mixed.lam.max() <= 1
            assert mixed.inputs.isfinite().all()
            assert mixed.name in available()

    def test_lam_is_the_share_of_the_own_label(self, config):
        inputs, _ = batch(count=7)
        identity = torch.eye(7)  # a class of its own for each sample shows who its partner is
        mixer = build(config)
        for seed in range(12):
            mixed = mixer(inputs, identity, seed)
            own, others = mixed.targets.diagonal(), (mixed.targets > 1e-7).sum(1)
            assert (own >= mixed.lam - 1e-6).all()
            paired = others > 1
            torch.testing.assert_close(own[paired], mixed.lam[paired])
            if issubclass(get(config["name"]), PairMixer):
                assert (others <= 2).all()

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_dtype_is_kept(self, config, dtype):
        inputs, labels = batch(dtype=dtype)
        mixed = mixer_of(config)(inputs, labels, 1)
        reference = mixer_of(config)(inputs.float(), labels, 1)
        assert mixed.inputs.dtype == dtype
        assert mixed.inputs.device == inputs.device
        torch.testing.assert_close(mixed.inputs.float(), reference.inputs.to(dtype).float(), atol=2e-2, rtol=2e-2)
        torch.testing.assert_close(mixed.targets, reference.targets)

    @pytest.mark.parametrize("dims", FORMATS)
    def test_memory_format_is_kept(self, config, dims):
        if not supports(config, int(dims[0])):
            pytest.skip(f"{config['name']} does not cover {dims}")
        inputs, labels = batch(dims)
        for seed in range(6):
            plain = mixer_of(config)(inputs, labels, seed).inputs
            mixed = mixer_of(config)(inputs.contiguous(memory_format=FORMATS[dims]), labels, seed).inputs
            assert plain.is_contiguous()
            assert mixed.is_contiguous(memory_format=FORMATS[dims])
            torch.testing.assert_close(mixed, plain)

    @pytest.mark.parametrize(("dims", "channels"), list(itertools.product(SPATIAL, [1, 3])))
    def test_strides_are_kept(self, config, dims, channels):
        """Also those of a single channel, which place nothing: a compiler makes one graph for each."""
        if not supports(config, int(dims[0])):
            pytest.skip(f"{config['name']} does not cover {dims}")
        first, labels = batch(dims, channels=channels)
        last = torch.empty(len(first), *SPATIAL[dims], channels).movedim(-1, 1).copy_(first)
        assert first.stride() != last.stride()
        for seed in range(6):
            plain = mixer_of(config)(first, labels, seed).inputs
            mixed = mixer_of(config)(last, labels, seed).inputs
            assert plain.stride() == first.stride()
            assert mixed.stride() == last.stride()
            torch.testing.assert_close(mixed, plain)

    def test_arguments_are_not_modified(self, config):
        inputs, labels = batch()
        before = digest(inputs, labels)
        for seed in range(8):
            mixer_of(config)(inputs, labels, seed)
        assert digest(inputs, labels) == before

    def test_the_same_rng_gives_the_same_batch(self, config):
        inputs, labels = batch()
        mixer, rng = mixer_of(config), StepRng(5, step=3, rank=1)
        first, other = mixer(inputs, labels, rng), mixer(inputs, labels, rng.at(4))
        again = mixer_of(config)(inputs, labels, rng)  # nothing is remembered between calls
        assert torch.equal(first.inputs, again.inputs)
        assert torch.equal(first.targets, again.targets)
        if mixer.mode is not MixedMode.NONE:
            assert not torch.equal(first.inputs, other.inputs)

    def test_without_rng_it_follows_the_torch_seed(self, config):
        inputs, labels = batch()
        results = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            results.append(mixer_of(config)(inputs, labels).inputs)
        assert torch.equal(results[0], results[1])
        if mixer_of(config).mode is not MixedMode.NONE:
            assert not torch.equal(results[0], results[2])

    def test_global_numpy_and_python_generators_are_left_alone(self, config):
        import random

        import numpy as np

        np.random.seed(0)
        random.seed(0)
        numpy_before, python_before = np.random.get_state()[1].tolist(), random.getstate()
        torch_before = torch.get_rng_state()
        mixer_of(config)(*batch(), 3)
        assert np.random.get_state()[1].tolist() == numpy_before
        assert random.getstate() == python_before
        assert torch.equal(torch.get_rng_state(), torch_before)

    def test_integer_and_dense_labels_agree(self, config):
        inputs, labels = batch()
        dense = nn.functional.one_hot(labels, CLASSES).float()
        mixer = mixer_of(config)
        assert torch.equal(mixer(inputs, labels, 2).targets, mixer(inputs, dense, 2).targets)

    def test_misuse_is_named(self, config):
        inputs, labels = batch()
        mixer = mixer_of(config)
        with pytest.raises(ValueError, match="uint8"):
            mixer((inputs * 9).to(torch.uint8), labels, 0)
        with pytest.raises(ValueError, match="one label a sample"):
            mixer(inputs, labels[:3], 0)
        with pytest.raises(ValueError, match="num_classes"):
            build(config)(inputs, labels, 0)
        with pytest.raises(ValueError, match=r"labels must be in \[0, 4\] for num_classes 5, found 0 to 5"):
            mixer(inputs, torch.tensor([0, 1, 2, 3, 4, 5, 0]), 0)
        with pytest.raises(ValueError, match="found -1 to -1"):
            mixer(inputs, torch.full((7,), -1), 0)
        with pytest.raises(ValueError, match=r"got torch.int64 \(7, 1\); pass labels.squeeze\(1\)"):
            mixer(inputs, labels[:, None], 0)
        with pytest.raises(ValueError, match=r"got torch.int64 \(7, 5\); convert with .float\(\)"):
            mixer(inputs, nn.functional.one_hot(labels, CLASSES), 0)
        with pytest.raises(ValueError, match="dense targets have 7 columns but num_classes is 5"):
            mixer(inputs, torch.eye(7), 0)

    def test_wrong_types_are_named(self, config):
        inputs, labels = batch()
        mixer = mixer_of(config)
        with pytest.raises(TypeError, match=r"inputs must be a torch.Tensor, got numpy.ndarray; use torch.from_numpy"):
            mixer(inputs.numpy(), labels, 0)
        with pytest.raises(TypeError, match=r"labels must be a torch.Tensor, got list; use torch.as_tensor"):
            mixer(inputs, labels.tolist(), 0)
        with pytest.raises(TypeError, match=r"rng must be a StepRng, .*, got str"):
            mixer(inputs, labels, "0")
        with pytest.raises(ValueError, match="labels must be"):
            mixer(inputs, labels.float(), 0)


@pytest.mark.parametrize("config", ALL_MIXERS, ids=label)
class TestAllMixers:
    def test_ranks_take_the_same_method_and_other_partners(self, config):
        inputs, labels = batch()
        mixer, model = mixer_of(config), Network()
        differs = False
        for step in range(6):
            a, b = (mixer.forward_mixed(model, inputs, labels, StepRng(1, step, rank)) for rank in (0, 1))
            assert a.name == b.name
            differs |= not torch.equal(a.targets, b.targets)
        assert differs or mixer.mode is MixedMode.NONE

    def test_forward_mixed_gives_what_a_loss_takes(self, config):
        inputs, labels = batch()
        mixer, model, rng = mixer_of(config), Network(), StepRng(1)
        before = digest(inputs, labels)
        model.train()
        result = mixer.forward_mixed(model, inputs, labels, rng)
        assert digest(inputs, labels) == before
        assert model.training
        assert result.logits.shape == result.targets.shape == (7, CLASSES)
        assert result.logits.requires_grad
        assert not result.targets.requires_grad
        assert result.lam.shape == (7,)
        assert result.name in available()
        torch.testing.assert_close(result.targets.sum(1), torch.ones(7))
        again = mixer.forward_mixed(model, inputs, labels, rng)
        assert torch.equal(result.logits, again.logits)
        if isinstance(mixer, BatchMixer):
            torch.testing.assert_close(result.targets, mixer(inputs, labels, rng).targets)

    def test_the_class_states_its_mode_and_source(self, config):
        found = get(config["name"])
        assert isinstance(found.mode, MixedMode)
        assert inspect.getdoc(found)
        assert inspect.getdoc(inspect.getmodule(found))
        assert mixer_of(config).name == config["name"]
        assert "num_classes" in inspect.signature(found).parameters
