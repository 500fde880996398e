"""The device-resident loader against a slow loop over samples, and its guarantees about ranks and resuming."""

import numpy as np
import pytest
import torch

from datasets import resident
from datasets.resident import ArrayData
from datasets.windows import Windows, plan_epoch
from randomix.errors import ConfigError

CPU = torch.device("cpu")


def make_data(num_train=23, spatial=(7, 5), channels=3, padding=2, flip=True, dtype=np.uint8, num_test=11):
    rng = np.random.default_rng(0)
    low, high = (0, 256) if dtype == np.uint8 else (-32768, 32768)
    train = rng.integers(low, high, (num_train, *spatial, channels), dtype=dtype)
    test = rng.integers(low, high, (num_test, *spatial, channels), dtype=dtype)
    mean, std = tuple(0.1 * (i + 1) for i in range(channels)), tuple(0.2 + 0.1 * i for i in range(channels))
    labels = rng.integers(0, 4, num_train), rng.integers(0, 4, num_test)
    names = ("a", "b", "c", "d")
    return ArrayData("toy", names, train, labels[0], test, labels[1], mean, std, padding, flip)


def load(data, batch_size=4, seed=3, rank=0, world_size=1, dtype=torch.float32):
    return data.train_loader(
        batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, device=CPU, dtype=dtype
    )


def slow_sample(data, index, offset, flip):
    """Pad, crop, mirror, scale and normalise one sample with explicit loops over positions; (C, *S) float64."""
    image = data.train_images[index].astype(np.float64)
    spatial, pad = image.shape[:-1], data.crop_padding
    out = np.zeros_like(image)
    for place in np.ndindex(*spatial):
        source = [p + int(o) - pad for p, o in zip(place, offset, strict=True)]
        if flip:
            source[-1] = spatial[-1] - 1 - place[-1] + int(offset[-1]) - pad
        if all(0 <= s < size for s, size in zip(source, spatial, strict=True)):
            out[place] = image[tuple(source)]
    full = 255 if data.train_images.dtype == np.uint8 else 32768
    return np.moveaxis((out / full - np.array(data.mean)) / np.array(data.std), -1, 0)


CASES = [
    {"spatial": (7, 5), "channels": 3, "padding": 2, "flip": True},
    {"spatial": (3, 12), "channels": 1, "padding": 1, "flip": True},
    {"spatial": (4, 4), "channels": 2, "padding": 0, "flip": False},
    {"spatial": (6, 5), "channels": 3, "padding": 0, "flip": True},
    {"spatial": (5, 6), "channels": 3, "padding": 3, "flip": False},
    {"spatial": (20,), "channels": 1, "padding": 4, "flip": False, "dtype": np.int16},
    {"spatial": (13,), "channels": 2, "padding": 3, "flip": True},
    {"spatial": (3, 4, 5), "channels": 2, "padding": 1, "flip": True},
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_batches_equal_a_slow_loop(case):
    data = make_data(**case)
    loader = load(data)
    for epoch in (0, 2):
        plan = plan_epoch(3, epoch, data.num_train, len(case["spatial"]), data.crop_padding, data.flip)
        start = epoch * loader.steps_per_epoch
        for number, batch in enumerate(loader.batches(start, start + loader.steps_per_epoch)):
            for row in range(4):
                at = number * 4 + row
                expected = slow_sample(data, plan.order[at], plan.offsets[at], plan.flips[at])
                np.testing.assert_allclose(batch.inputs[row].numpy(), expected, atol=2e-6)
                assert batch.indices[row] == plan.order[at]
                assert batch.labels[row] == data.train_labels[plan.order[at]]


def test_every_offset_and_both_directions_occur():
    plan = plan_epoch(0, 0, 5000, 2, 4, True)
    assert set(plan.offsets.ravel()) == set(range(9))
    assert 0.45 < plan.flips.mean() < 0.55
    assert 0.2 < (plan.flips * (plan.offsets[:, 0] < 4)).mean() < 0.25  # independent: 1/2 * 4/9
    assert not plan_epoch(0, 0, 50, 2, 0, False).offsets.any() and not plan_epoch(0, 0, 50, 2, 0, False).flips.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_layout_and_dtype(dtype):
    batch = next(load(make_data(), dtype=dtype).batches(0, 1))
    assert batch.inputs.dtype == dtype and batch.inputs.shape == (4, 3, 7, 5)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    exact = next(load(make_data()).batches(0, 1)).inputs
    assert torch.equal(batch.inputs, exact.to(dtype))  # rounded once, at the end
    assert next(load(make_data(spatial=(9,))).batches(0, 1)).inputs.is_contiguous()


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_ranks_together_see_the_batches_of_one_process(world_size):
    data = make_data(num_train=50)
    single = list(load(data, batch_size=12).batches(0, 9))
    shares = [list(load(data, batch_size=12, rank=r, world_size=world_size).batches(0, 9)) for r in range(world_size)]
    for step, batch in enumerate(single):
        parts = [share[step] for share in shares]
        assert torch.equal(torch.cat([p.inputs for p in parts]), batch.inputs)
        assert torch.equal(torch.cat([p.indices for p in parts]), batch.indices)
        assert torch.equal(torch.cat([p.labels for p in parts]), batch.labels)


@pytest.mark.parametrize(("num_train", "batch_size", "world_size"), [(24, 6, 3), (25, 6, 2), (7, 7, 1), (13, 1, 1)])
def test_an_epoch_loses_and_repeats_no_sample(num_train, batch_size, world_size):
    data = make_data(num_train=num_train)
    loaders = [load(data, batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    steps = loaders[0].steps_per_epoch
    assert steps == num_train // batch_size
    for epoch in range(3):
        seen = [i for ld in loaders for b in ld.batches(epoch * steps, (epoch + 1) * steps) for i in b.indices.tolist()]
        assert len(seen) == len(set(seen)) == steps * batch_size


def test_resume_from_any_step_gives_identical_batches():
    data = make_data()
    whole = list(load(data).batches(0, 14))
    for start in range(14):
        for step, batch in enumerate(load(data).batches(start, 14), start):
            assert torch.equal(batch.inputs, whole[step].inputs) and torch.equal(batch.indices, whole[step].indices)
    loader = load(data)  # one loader, asked out of order
    for step in (13, 0, 7, 6, 13):
        assert torch.equal(next(loader.batches(step, step + 1)).inputs, whole[step].inputs)


def test_seed_and_epoch_change_order_and_crops():
    plans = [plan_epoch(seed, epoch, 40, 2, 4, True) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for a, b in [(0, 1), (0, 2), (1, 2)]:
        assert not np.array_equal(plans[a].order, plans[b].order)
        assert not np.array_equal(plans[a].offsets, plans[b].offsets)
        assert not np.array_equal(plans[a].flips, plans[b].flips)
    assert sorted(plans[0].order) == list(range(40))


def test_what_a_loader_yields_belongs_to_the_caller():
    data = make_data(flip=False, padding=0)
    loader = load(data)
    first = next(loader.batches(0, 1))
    kept = first.inputs.clone()
    first.inputs.zero_(), first.labels.zero_()
    again = next(loader.batches(0, 1))
    assert torch.equal(again.inputs, kept)
    assert torch.equal(again.labels, torch.from_numpy(data.train_labels)[again.indices])


def test_batch_size_errors():
    data = make_data()
    with pytest.raises(ConfigError, match=r"recipe.batch_size 24 exceeds the 23 training images of toy; use"):
        load(data, batch_size=24)
    with pytest.raises(ConfigError, match=r"recipe.batch_size 9 does not divide by 2 processes"):
        load(data, batch_size=9, world_size=2)
    with pytest.raises(ConfigError, match=r"recipe.batch_size 0"):
        load(data, batch_size=0)


def test_channel_mismatch():
    with pytest.raises(ValueError, match="number of channels"):
        ArrayData("x", ("a",), np.zeros((2, 4, 4, 3)), np.zeros(2), np.zeros((2, 4, 4, 3)), np.zeros(2), (0.5,), (0.5,))


def test_padding_as_large_as_the_images_is_refused():
    arrays = np.zeros((2, 4, 5, 1), np.uint8), np.zeros(2), np.zeros((2, 4, 5, 1), np.uint8), np.zeros(2)
    ArrayData("x", ("a",), *arrays, (0.5,), (0.5,), crop_padding=3)
    with pytest.raises(ConfigError, match=r"dataset\.crop_padding is 4, expected less than the side of the 4-pixel"):
        ArrayData("x", ("a",), *arrays, (0.5,), (0.5,), crop_padding=4)


@pytest.mark.parametrize("block_bytes", [24, 2**20])  # an image at a time, all at once
def test_windows_address_every_crop(monkeypatch, block_bytes):
    monkeypatch.setattr("datasets.windows.BLOCK_BYTES", block_bytes)
    images = torch.arange(2 * 3 * 4 * 2, dtype=torch.uint8).view(2, 3, 4, 2)
    windows = Windows(images.numpy(), 1, mirror=True)
    padded = torch.nn.functional.pad(images, (0, 0, 1, 1, 1, 1))
    for index in range(2):
        for top in range(3):
            for left in range(3):
                for flip in range(2):
                    place = windows.places(np.array([index]), np.array([[top, left]]), np.array([flip]))
                    crop = padded[index, top : top + 3, left : left + 4]
                    expected = crop.flip(1) if flip else crop
                    assert torch.equal(windows.view[place[0]].view(3, 4, 2), expected)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_eval_set_yields_each_sample_once(world_size, batch_size):
    data = make_data()
    eval_set = data.eval_set(CPU)
    assert eval_set.num_samples == 11
    seen = []
    for rank in range(world_size):
        for batch in eval_set.batches(batch_size, rank, world_size):
            assert len(batch.inputs) <= batch_size and batch.inputs.dtype == torch.float32
            assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
            pixels = torch.from_numpy(data.test_images)[batch.indices].permute(0, 3, 1, 2).float() / 255
            assert torch.equal(batch.inputs, pixels)
            assert torch.equal(batch.labels, torch.from_numpy(data.test_labels)[batch.indices])
            assert (batch.indices % world_size == rank).all()
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(11))


def test_training_and_evaluation_normalise_alike():
    data = make_data(padding=0, flip=False)
    batch = next(load(data).batches(0, 1))
    pixels = torch.from_numpy(data.train_images)[batch.indices].permute(0, 3, 1, 2).float() / 255
    eval_set = data.eval_set(CPU)
    assert torch.allclose(eval_set.normalise(pixels), batch.inputs, atol=2e-6)
    pixels.requires_grad_()
    eval_set.normalise(pixels).sum().backward()
    assert torch.allclose(pixels.grad[0, :, 0, 0], 1 / torch.tensor(data.std))


def test_protocol_attributes():
    data = make_data(spatial=(7, 5))
    assert (data.sample_shape, data.num_classes, data.num_train, data.num_test) == ((3, 7, 5), 4, 23, 11)


def test_only_what_changes_from_epoch_to_epoch_goes_through_pinned_memory(monkeypatch):
    """torch keeps pinned memory for the next copy: a whole data set would stay there for the length of the run."""
    sent, data, real = [], make_data(num_train=23), resident.to_device
    monkeypatch.setattr(resident, "to_device", lambda array, device: sent.append(array.shape) or real(array, device))
    loader = load(data)
    data.eval_set(CPU)
    assert sent == []
    list(loader.batches(0, 5))
    assert sent == [(2, 5, 4)]
