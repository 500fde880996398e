"""The loader of sound against slow loops over samples, and its guarantees about ranks, resuming and evaluation."""

import numpy as np
import pytest
import torch

from datasets.sound.audio import LEVELS, MEAN, STD, AudioData, plan_background
from datasets.sound.background import noise_of
from datasets.sound.clips import ClipSet
from datasets.sound.log_mel import LogMel
from datasets.windows import BLOCK_BYTES, blocks, plan_epoch
from randomix.errors import ConfigError

CPU = torch.device("cpu")


def make_clips(count, length, seed, extra=0):
    rng = np.random.default_rng(seed)
    stored = rng.integers(-32768, 32768, (count + 3, length), dtype=np.int16)
    stored.flags.writeable = False  # as a map of a file
    rows = np.sort(rng.permutation(count + 3)[:count])
    silent = rng.integers(-100, 100, (extra, length), dtype=np.int16)
    return ClipSet(stored, rows, rng.integers(0, 3, count + extra), silent)


def make_data(length=50, shift=7, prob=0.8, volume=0.3, features="waveform", num_train=21, extra=2):
    recordings = [np.random.default_rng(9 + i).integers(-32768, 32768, 40 * length, dtype=np.int16) for i in range(2)]
    return AudioData(
        name="toy",
        class_names=("a", "b", "c"),
        train=make_clips(num_train, length, 0, extra),
        held_out={"test": make_clips(10, length, 1, extra=3), "validation": make_clips(5, length, 2)},
        rate=16_000,
        features=features,
        shift=shift,
        noise=noise_of(recordings, "train", length) if prob else None,
        background_prob=prob,
        background_volume=volume,
    )


def load(data, batch_size=4, seed=3, rank=0, world_size=1, dtype=torch.float32):
    return data.train_loader(
        batch_size=batch_size, seed=seed, rank=rank, world_size=world_size, device=CPU, dtype=dtype
    )


def slow_sample(data, seed, epoch, position):
    """One training sample (1, L) float64 before features: shift, add background, clip, each by a loop."""
    plan = plan_epoch(seed, epoch, data.num_train, 1, data.shift, False)
    clip = data.train[0 : data.num_train][plan.order[position], :, 0].astype(np.float64) / 32768
    sound = np.zeros(len(clip))
    for place in range(len(clip)):
        source = place + int(plan.offsets[position, 0]) - data.shift
        if 0 <= source < len(clip):
            sound[place] = clip[source]
    if data.noise is not None:
        starts, levels = plan_background(data, seed, epoch)
        volume = data.background_volume * levels[position] / LEVELS
        for place in range(len(clip)):
            sound[place] += volume * data.noise.samples[starts[position] + place] / 32768
            sound[place] = min(1.0, max(-1.0, sound[place]))
    return sound[None], plan.order[position]


@pytest.mark.parametrize(
    "options", [{}, {"shift": 0}, {"prob": 0.0}, {"shift": 60, "volume": 1.0, "prob": 1.0}, {"length": 13, "shift": 1}]
)
def test_batches_equal_a_slow_loop(options):
    data = make_data(**options)
    loader = load(data)
    assert loader.steps_per_epoch == 5 and loader.replaced == 0
    labels = data.train.labels
    for epoch in (0, 3):
        for number, batch in enumerate(loader.batches(5 * epoch, 5 * epoch + 5)):
            assert batch.inputs.shape == (4, *data.sample_shape) and batch.inputs.is_contiguous()
            for row in range(4):
                sound, index = slow_sample(data, 3, epoch, 4 * number + row)
                np.testing.assert_allclose(batch.inputs[row].numpy(), (sound - MEAN[0]) / STD[0], atol=2e-5)
                assert batch.indices[row] == index and batch.labels[row] == labels[index]


def test_samples_that_come_in_blocks_are_the_same(monkeypatch):
    data = make_data()
    whole, held_out = next(load(data).batches(2, 3)), next(data.eval_set(CPU).batches(13))
    monkeypatch.setattr("datasets.windows.BLOCK_BYTES", 4 * 50 * 2)  # 4 clips at once
    assert torch.equal(next(load(data).batches(2, 3)).inputs, whole.inputs)
    assert torch.equal(next(data.eval_set(CPU).batches(13)).inputs, held_out.inputs)


def test_log_mel_batches_are_features_of_the_same_sound():
    data = make_data(length=2_000, features="log_mel", num_train=6, extra=1)
    assert data.sample_shape == (1, 32, 4) and data.input_shape == (1, 2_000)
    (batch,) = load(data).batches(1, 2)
    sounds = np.stack([slow_sample(data, 3, 1, position)[0] for position in range(4)])
    expected = LogMel(16_000, CPU)(torch.from_numpy(sounds.astype(np.float32)))
    torch.testing.assert_close(batch.inputs, expected, atol=1e-4, rtol=0)
    half = next(load(data, dtype=torch.bfloat16).batches(1, 2)).inputs
    assert half.dtype == torch.bfloat16 and torch.equal(half, batch.inputs.to(torch.bfloat16))


def test_the_plan_of_the_background_has_the_right_distribution():
    data = make_data(num_train=4_000, extra=0, prob=0.8)
    starts, levels = plan_background(data, 0, 0)
    assert 0.77 < (levels > 0).mean() < 0.83
    assert abs(levels[levels > 0].mean() / LEVELS - 0.5) < 0.02 and levels.max() < LEVELS
    allowed = set(data.noise.starts(np.arange(len(data.noise))).tolist())
    assert set(starts.tolist()) <= allowed and len(set(starts.tolist())) > 1_500
    other = plan_background(data, 0, 1)
    assert not np.array_equal(starts, other[0]) and not np.array_equal(levels, other[1])
    correlation = np.corrcoef([starts, levels, plan_epoch(0, 0, 4_000, 1, 7, False).offsets[:, 0]])
    assert np.abs(correlation - np.eye(3)).max() < 0.06  # independent of each other


def test_silence_hears_the_background_too():
    data = make_data(num_train=4, extra=4, prob=1.0, volume=1.0)
    sounds = {int(i): x for b in load(data).batches(0, 2) for i, x in zip(b.indices, b.inputs, strict=True)}
    assert all(sounds[i].std() * STD[0] > 0.01 for i in range(4, 8))


@pytest.mark.parametrize(("features", "length", "atol"), [("waveform", 50, 0), ("log_mel", 2_000, 1e-6)])
def test_samples_do_not_depend_on_the_size_of_the_batch(features, length, atol):
    data = make_data(length=length, features=features, num_train=78)
    (whole,) = load(data, batch_size=80).batches(0, 1)  # more than are mixed at once, and not a multiple
    parts = [batch.inputs for batch in load(data, batch_size=5).batches(0, 16)]
    torch.testing.assert_close(torch.cat(parts), whole.inputs, atol=atol, rtol=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_see_the_batches_of_one_process(world_size):
    data = make_data(num_train=40)
    single = list(load(data, batch_size=6).batches(0, 14))
    shares = [list(load(data, batch_size=6, rank=r, world_size=world_size).batches(0, 14)) for r in range(world_size)]
    for step, batch in enumerate(single):
        parts = [share[step] for share in shares]
        for name in ("inputs", "labels", "indices"):
            assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(batch, name))


def test_resume_from_any_step_gives_identical_batches():
    data = make_data()
    whole = list(load(data).batches(0, 13))
    for start in range(13):
        for step, batch in enumerate(load(data).batches(start, 13), start):
            assert torch.equal(batch.inputs, whole[step].inputs) and torch.equal(batch.indices, whole[step].indices)


@pytest.mark.parametrize("world_size", [1, 2, 3, 14])
@pytest.mark.parametrize("split", ["test", "validation"])
def test_evaluation_yields_each_clip_once_as_it_is(world_size, split):
    data = make_data()
    clips = data.held_out[split]
    eval_set = data.eval_set(CPU, split)
    assert eval_set.num_samples == len(clips) == {"test": 13, "validation": 5}[split]
    assert eval_set.value_range == (-1.0, 1.0)
    seen = []
    for rank in range(world_size):
        for batch in eval_set.batches(3, rank, world_size):
            assert batch.inputs.shape[1:] == data.input_shape and batch.inputs.dtype == torch.float32
            for sound, label, index in zip(batch.inputs, batch.labels, batch.indices, strict=True):
                stored = clips[int(index) : int(index) + 1][0, :, 0].astype(np.float64) / 32768
                assert np.array_equal(sound[0].numpy(), stored) and label == clips.labels[index]
            seen += batch.indices.tolist()
    assert sorted(seen) == list(range(len(clips)))


@pytest.mark.parametrize("features", ["waveform", "log_mel"])
def test_training_and_evaluation_normalise_alike_and_differentiably(features):
    data = make_data(length=2_000, shift=0, prob=0.0, features=features)
    batch = next(load(data).batches(0, 1))
    sound = torch.stack([torch.from_numpy(data.train[int(i) : int(i) + 1][0, :, 0] / 32768.0) for i in batch.indices])
    sound = sound.float()[:, None].requires_grad_()
    normalised = data.eval_set(CPU).normalise(sound)
    torch.testing.assert_close(normalised, batch.inputs, atol=1e-5, rtol=0)
    assert normalised.shape[1:] == data.sample_shape
    normalised.sum().backward()
    assert sound.grad.isfinite().all() and sound.grad.abs().sum() > 0


def test_clip_sets_slice_across_their_two_parts(monkeypatch):
    clips = make_clips(9, 4, 0, extra=5)
    whole = np.concatenate([clips.clips[clips.rows], clips.extra])[..., None]
    assert clips.shape == (14, 4, 1) == whole.shape
    for start in range(15):
        for stop in range(16):
            assert np.array_equal(clips[start:stop], whole[start:stop])
    monkeypatch.setattr("datasets.windows.BLOCK_BYTES", 4 * 2 * 4)
    parts = list(blocks(clips))
    assert BLOCK_BYTES > 32 and len(parts) == 4  # of 4, 4, 4 and 2 clips
    assert np.array_equal(torch.cat([block for _, block in parts]).numpy(), whole)


def test_only_one_array_of_integers_goes_to_the_device_an_epoch(monkeypatch):
    from datasets import resident

    sent, real = [], resident.to_device
    monkeypatch.setattr(resident, "to_device", lambda array, device: sent.append(array.shape) or real(array, device))
    loader = load(make_data())
    assert sent == []
    list(loader.batches(0, 5))
    assert sent == [(4, 5, 4)]


def test_attributes_and_errors():
    data = make_data()
    assert (data.num_classes, data.num_train, data.num_test, data.splits) == (3, 23, 13, ("test", "validation"))
    assert (data.mean, data.std) == (MEAN, STD) and make_data(length=2_000, features="log_mel").mean == (0.5,)
    assert data.describe() == {"train_samples": 23, "test_samples": 13, "validation_samples": 5}
    with pytest.raises(ConfigError, match=r"recipe.batch_size 24 exceeds the 23 training clips of toy"):
        load(data, batch_size=24)
    with pytest.raises(ConfigError, match=r"recipe.batch_size 5 does not divide by 2 processes"):
        load(data, batch_size=5, world_size=2)
    with pytest.raises(ValueError, match="toy has no split 'train', only 'test', 'validation'"):
        data.eval_set(CPU, "train")
    with pytest.raises(ConfigError, match=r"dataset.seconds gives clips of 50 samples .* takes 1025 or more"):
        make_data(features="log_mel")
