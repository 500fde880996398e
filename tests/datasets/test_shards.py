"""Tar shards: written, resumed, read by ranks and workers in equal shares."""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.streams import make_shards, shard_files, shards
from datasets.streams.shards import Lane, ShardTraining, buffer_order
from datasets.streams.streaming import Share
from randomix.errors import DataError
from tests.datasets.pictures import CPU, cut, joined, load, make_folders, same
from tests.datasets.shard_sets import build, stream, write

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


# -- writing ---------------------------------------------------------------------------------------------------------


def test_shards_hold_every_image_once(folder, place, capsys):
    for split, count in (("train", 33), ("val", 21)):
        files, found = build(folder), []
        files = (files.train if split == "train" else files.test).files
        manifest = json.loads((place / f"{split}-manifest.json").read_text())
        for shard in manifest["shards"]:
            members = {}
            with tarfile.open(place / shard["name"]) as tar:
                for member in tar:
                    members[member.name] = tar.extractfile(member).read()
            assert len(members) == 2 * shard["samples"]
            keys = list(dict.fromkeys(name.partition(".")[0] for name in members))
            for key in keys:
                assert members[f"{key}.jpg"] == files.read(int(key))
                assert int(members[f"{key}.cls"]) == files.labels[int(key)]
            found += [int(key) for key in keys]
        assert sorted(found) == list(range(count)) == list(range(manifest["samples"]))
        assert (found == sorted(found)) == (split == "val")  # only training images are shuffled
        assert manifest["classes"] == ["n01", "n02", "n03"]
        assert {s["samples"] for s in manifest["shards"][:-1]} == {5}


def test_writing_again_gives_the_same_bytes_and_goes_on_where_it_stopped(folder, place, tmp_path, monkeypatch):
    real, names = make_shards.write_shard, []

    def write_two(path, *arguments):
        if len(names) == 2:
            raise KeyboardInterrupt
        names.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(make_shards, "write_shard", write_two)
    with pytest.raises(KeyboardInterrupt):
        write(folder, tmp_path, "--per-shard", "5")
    assert not (tmp_path / "train-manifest.json").exists()
    (tmp_path / "train-000001.tar").write_bytes(b"half")  # damaged since
    monkeypatch.setattr(make_shards, "write_shard", lambda path, *rest: names.append(path.name) or real(path, *rest))
    write(folder, tmp_path, "--per-shard", "5")
    assert names[:2] == ["train-000000.tar", "train-000001.tar"] and "train-000000.tar" not in names[2:]
    assert names[2:5] == ["train-000001.tar", "train-000002.tar", "train-000003.tar"]
    count = len(names)
    write(folder, tmp_path, "--per-shard", "5")
    assert len(names) == count  # nothing to do
    for path in place.glob("[!.]*"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    write(folder, tmp_path, "--per-shard", "5", "--seed", "1", "--split", "train", "--overwrite")
    assert (tmp_path / "train-000000.tar").read_bytes() != (place / "train-000000.tar").read_bytes()


def test_sizes_and_shrinking(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(make_shards, "_MIB", 2**10)
    write(folder, tmp_path, "--size-mb", "20", "--split", "val", "--resize", "45", "--overwrite")
    manifest = json.loads((tmp_path / "val-manifest.json").read_text())
    assert len(manifest["shards"]) > 1 and all(s["bytes"] < 32 * 2**10 for s in manifest["shards"])
    files, sides = build(folder).test.files, []
    found = shard_files.open_manifest(str(tmp_path), "val")
    for index, sample in found.read(range(len(found.names)), 0, len(found)):
        before, after = Image.open(io.BytesIO(files.read(index))), Image.open(io.BytesIO(sample.data))
        assert min(after.size) == min(45, *before.size) and after.format == "JPEG"
        assert abs(after.width / after.height - before.width / before.height) < 0.03
        assert min(before.size) > 45 or sample.data == files.read(index)
        sides.append(min(before.size))
    assert min(sides) <= 45 < max(sides) and manifest["resize"] == 45


def test_the_command_line(folder, tmp_path, capsys):
    import prepare_data

    arguments = ["imagenet-shards", "--root", str(folder), "--out", str(tmp_path / "x"), "--jobs", "1"]
    assert prepare_data.main(arguments) == 2  # these are not ImageNet
    assert "expected 1000 class folders, found 3: missing n01440764" in capsys.readouterr().err
    assert prepare_data.main([*arguments, "--no-verify", "--split", "val", "--per-shard", "9"]) == 0
    assert "val: 21 images in 3 shards" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare_data.main([*arguments, "--per-shard", "0"])


def test_a_damaged_image_stops_shrinking(tmp_path):
    make_folders(tmp_path / "in", train=2, val=2)
    cut(tmp_path / "in" / "train" / "n02" / "n02_1.JPEG")
    with pytest.raises(DataError, match=r"n02_1.JPEG: expected a whole image"):
        write(tmp_path / "in", tmp_path / "out", "--resize", "32")
    assert not list((tmp_path / "out").glob("*.tar"))


# -- reading ---------------------------------------------------------------------------------------------------------


def test_batches_hold_what_the_folders_hold(folder, place):
    files, data = build(folder).train.files, stream(place)
    sequence = list(data.train.shards.read(range(7), 0, 33))
    assert [position for position, _ in sequence] == [sample.index for _, sample in sequence] == list(range(33))
    by_index = {sample.index: sample for _, sample in sequence}
    assert sorted(s.data for s in by_index.values()) == sorted(files.read(i) for i in range(33))
    from datasets.streams.streaming import step_draws

    batch = next(load(data).batches(0, 1))
    draws, flips = step_draws(3, 0, Share(6, 0, 1), True)
    for row, index in enumerate(batch.indices.tolist()):
        assert batch.labels[row] == by_index[index].label
        pixels = data.options.random_crop(by_index[index].data, "x", draws[row]).float() / 255
        pixels = pixels.flip(1) if flips[row] else pixels
        expected = (pixels - torch.tensor(data.mean)) / torch.tensor(data.std)
        assert torch.allclose(batch.inputs[row].permute(1, 2, 0), expected, atol=1e-5)


@pytest.mark.parametrize(("world_size", "lanes"), [(1, 1), (2, 1), (3, 2), (1, 4), (2, 3)])
def test_lanes_cover_an_epoch_once_and_are_equal(world_size, lanes):
    share, steps = 12, 7
    taken = []
    for rank in range(world_size):
        for number in range(lanes):
            lane = Lane.of(number, lanes, Share(share, rank, world_size), steps)
            assert lane.count == len(range(number, steps, lanes)) * share // world_size
            taken += range(lane.first, lane.first + lane.count)
    assert sorted(taken) == list(range(steps * share))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_an_epoch_shows_each_sample_at_most_once_in_another_order(place, world_size):
    data = stream(place)
    shares = [list(load(data, rank=r, world_size=world_size).batches(0, 10)) for r in range(world_size)]
    batches = joined(shares)
    epochs = [[i for b in batches[e * 5 : e * 5 + 5] for i in b.indices.tolist()] for e in range(2)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch) == 30
    assert epochs[0] != epochs[1] and epochs[0] != sorted(epochs[0])
    assert not same(list(load(data, seed=4).batches(0, 3)), shares[0][:3])


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_the_same_batches(place, workers):
    data = stream(place, workers=workers)
    whole = list(load(data).batches(0, 12))
    for start in (2, 5, 8):
        assert same(list(load(data).batches(start, 12)), whole[start:])
    part = list(load(data, rank=1, world_size=2).batches(0, 6))
    assert same(list(load(data, rank=1, world_size=2).batches(3, 6)), part[3:])
    assert sorted({i for b in whole[:5] for i in b.indices.tolist()}) == sorted(
        i for b in whole[:5] for i in b.indices.tolist()
    )


def test_a_resumed_worker_decodes_nothing_that_was_shown(place, monkeypatch):
    data, decoded = stream(place), []
    crop = type(data.options.random_crop)
    real = crop.__call__
    monkeypatch.setattr(crop, "__call__", lambda self, *of: decoded.append(of[1]) or real(self, *of))
    list(load(data).batches(4, 5))
    assert len(decoded) == 6


def test_each_worker_makes_the_steps_of_its_turn(place, monkeypatch):
    data, whole = stream(place), {}
    for start in (0, 3):
        for worker in range(3):
            monkeypatch.setattr(shards, "_this_worker", lambda worker=worker: (worker, 3))
            found = list(ShardTraining(data.train.shards, data.options, 3, Share(6, 0, 1), start, 11))
            for number, batch in enumerate(found):
                step = start + worker + 3 * number
                assert torch.equal(whole.setdefault(step, batch).images, batch.images)
                assert torch.equal(whole[step].indices, batch.indices)
    assert sorted(whole) == list(range(11))


def test_the_shuffle_buffer():
    for count, size in ((0, 3), (1, 1), (10, 1), (10, 4), (10, 50)):
        order = buffer_order(count, size, np.random.default_rng(0))
        assert sorted(order) == list(range(count))
        assert all(place < out + size for out, place in enumerate(order.tolist()))  # only what was in the buffer
    assert buffer_order(9, 1, np.random.default_rng(0)).tolist() == list(range(9))
    firsts = [buffer_order(10, 4, np.random.default_rng(seed))[0] for seed in range(400)]
    assert np.bincount(firsts).min() > 60 and max(firsts) == 3


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_counts_what_the_folders_count(folder, place, world_size, batch_size):
    data, plain = stream(place), build(folder)
    expected = {}
    for batch in plain.eval_set(CPU).batches(50):
        rows = zip(batch.labels, batch.inputs, strict=True)
        expected |= dict(zip(batch.indices.tolist(), rows, strict=True))
    seen, shares = [], []
    for rank in range(world_size):
        batches = list(data.eval_set(CPU).batches(batch_size, rank, world_size))
        shares.append(sum(len(b.labels) for b in batches))
        for batch in batches:
            assert len(batch.labels) <= batch_size
            for index, label, inputs in zip(batch.indices.tolist(), batch.labels, batch.inputs, strict=True):
                assert label == expected[index][0] and torch.equal(inputs, expected[index][1])
                seen.append(index)
    assert sorted(seen) == list(range(21)) and max(shares) - min(shares) <= 1


def test_evaluation_with_workers(place):
    data = stream(place, workers=2)
    batches = list(data.eval_set(CPU).batches(4, 1, 2))
    assert sorted(i for b in batches for i in b.indices.tolist()) == list(range(10, 21))
