"""Tar shards: written, resumed, read by ranks and workers in equal shares, refused where they are damaged."""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import datasets
from datasets import imagenet
from datasets.streams import make_shards, shard_files, shards
from datasets.streams.shards import Lane, ShardTraining, buffer_order
from datasets.streams.streaming import Share
from randomix.errors import ConfigError, DataError
from tests.datasets.file_server import serving
from tests.datasets.pictures import CPU, cut, joined, load, make_folders, same

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


def write(root, out, *arguments):
    call = ["--root", str(root), "--out", str(out), "--no-verify", "--jobs", "1", *arguments]
    return make_shards.main(call, imagenet.open_folders)


def build(root, **options):
    settings = {"name": "imagenet", "root": str(root), "image_size": 32, "workers": 0, "verify": False}
    return datasets.build(settings | options)


def stream(place, **options):
    return build("/nonexistent", shards=str(place), **{"shuffle_buffer": 5, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("pictures"), train=11, val=7)


@pytest.fixture(scope="module")
def place(folder):
    write(folder, folder / "shards", "--per-shard", "5")
    return folder / "shards"


@pytest.fixture
def copy(place, tmp_path):
    for path in place.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


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


# -- what is wrong ---------------------------------------------------------------------------------------------------


def members_of(path):
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def rewrite(folder, name, members, sizes=True):
    """Replace a shard; the manifest then has its size."""
    with tarfile.open(folder / name, "w") as tar:
        for key, data in members.items():
            info = tarfile.TarInfo(key)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    path = folder / f"{name.partition('-')[0]}-manifest.json"
    manifest = json.loads(path.read_text())
    for shard in manifest["shards"]:
        if shard["name"] == name and sizes:
            shard["bytes"] = (folder / name).stat().st_size
    path.write_text(json.dumps(manifest))


def failure(place, **options):
    with pytest.raises(DataError) as caught:
        list(load(stream(place, **options)).batches(0, 20))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_cut_shards_are_named_at_the_start(copy):
    cut(copy / "train-000002.tar")
    assert "train-000002.tar: expected " in failure(copy) and "imagenet-shards" in failure(copy)
    (copy / "train-000002.tar").unlink()
    assert "found no file; copy it again" in failure(copy)
    (copy / "train-manifest.json").unlink()
    assert "train-manifest.json: cannot be read (No such file or directory); set dataset.shards" in failure(copy)


@pytest.mark.parametrize("workers", [0, 2])
def test_wrong_contents_are_named_while_reading(copy, workers):
    name = "train-000002.tar"
    good = members_of(copy / name)
    first = next(iter(good)).partition(".")[0]
    rewrite(copy, name, {k: v for k, v in good.items() if k != f"{first}.cls"})
    assert f"{name}: {first}: expected an image (.jpg) and its class (.cls)" in failure(copy, workers=workers)
    rewrite(copy, name, {**good, f"{first}.cls": b"3"})
    assert "a number below 3, found .cls .jpg, class b'3'" in failure(copy, workers=workers)
    rewrite(copy, name, dict(list(good.items())[:-2]))
    assert f"{name}: expected 5 samples as in the manifest, found 4" in failure(copy, workers=workers)
    rewrite(copy, name, {**good, "more.jpg": b"", "more.cls": b"0"})
    assert "expected 5 samples as in the manifest, found more" in failure(copy, workers=workers)
    rewrite(copy, name, {**good, f"{first}.pyd": b"cos\nsystem\n(S'touch /tmp/never'\ntR."})  # is not even looked at
    list(load(stream(copy, workers=workers)).batches(0, 6))


def test_a_shard_of_the_right_size_and_wrong_bytes(copy):
    path = copy / "train-000002.tar"
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert "train-000002.tar: cannot be read (" in failure(copy)


def test_zeros_in_a_shard_are_not_taken_for_its_end(copy):
    path = copy / "train-000001.tar"
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4].offset
    data = path.read_bytes()
    path.write_bytes(data[:third] + bytes(len(data) - third))
    assert "expected 5 samples as in the manifest, found 2" in failure(copy)


ENTRY = b'{"format": 1, "classes": ["a"], "shards": [{"name": "%s", "samples": 1, "bytes": 1, "sha256": ""}]}'


@pytest.mark.parametrize(
    "wrong", [b"[]", b"{}", b"<html>", b'{"format": 1, "classes": [], "shards": []}',
              ENTRY % b"../x.tar", ENTRY % b"pipe:ls", ENTRY % b"/etc/x.tar", ENTRY % b"http://x/y.tar"],
)  # fmt: skip
def test_a_manifest_that_is_none(copy, wrong):
    (copy / "train-manifest.json").write_bytes(wrong)
    assert "train-manifest.json: expected a manifest of shards, found something else" in failure(copy)


@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_image_in_a_shard(copy, skip, capsys):
    name = "train-000002.tar"
    good = members_of(copy / name)
    first = next(iter(good)).partition(".")[0]
    rewrite(copy, name, {**good, f"{first}.jpg": good[f"{first}.jpg"][:300]})
    if not skip:
        message = failure(copy)
        assert f"{name}: {first}: expected a whole image" in message and message.endswith("on_bad_sample=skip")
        return
    data = stream(copy, on_bad_sample="skip", max_bad_share=0.1)
    loader = load(data)
    batches = list(loader.batches(0, 10))  # two epochs: it is replaced once or, left over, not at all in each
    assert loader.replaced in (1, 2) and capsys.readouterr().err.count("another image takes its place") == 1
    bad = data.train.shards.counts[:2].sum()
    for batch in batches:
        assert bad not in batch.indices.tolist()
    assert sum(len(set(b.indices.tolist())) == 5 for b in batches) == loader.replaced
    assert "more than dataset.max_bad_share=0.01" in failure(copy, on_bad_sample="skip", max_bad_share=0.01)


@pytest.mark.parametrize("url", ["pipe:cat /etc/passwd", "pipe:ls", "ftp://x/y", "ssh://x", "http::file:///x", "py:x"])
def test_what_runs_commands_is_refused(url):
    with pytest.raises(ConfigError, match=r"dataset.shards is .*; commands are never run"):
        stream(url)


@pytest.mark.parametrize(
    "url", ["https://me:s3cr3t@host/x", "https://me:s3/cr3t@host/x", "http:/me:s3cr3t@host", "s3://me:s3cr3t@bucket/x",
            "HTTPS://s3cr3t@host/x", "https://host/x?key=s3cr3t", "https://host/x#s3cr3t", "s3://me:s3/cr3t@b/x",
            "https://[s3cr3t@host", "ftp://me:s3cr3t@host", "abfs://c:s3cr3t@host/x", "pipe:curl https://me:s3cr3t@h/"],
)  # fmt: skip
def test_secrets_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match=r"dataset.shards is a URL with a user, a password, a query") as caught:
        stream(url)
    assert not any(part in str(caught.value) for part in ("s3cr", "cr3t")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "place", ["/a/me@b?c#d", "https://host:8080/x", "s3://bucket/x", "hf://datasets/me/set@main/x", "x/y",
              "abfs://container@account.dfs.core.windows.net/x", "file:///a@b", "hf://b/c"],
)  # fmt: skip
def test_places_without_secrets(place):
    shard_files.check_place(place)


def test_the_record_does_not_say_where_shards_are():
    from randomix.records.record import public_config
    from tests.support import tiny_config

    config = tiny_config(Path("x"))
    assert public_config(config | {"dataset": {"name": "a", "shards": "https://host/x"}})["dataset"] == {
        "name": "a", "shards": True}  # fmt: skip
    assert public_config(config | {"dataset": {"name": "a", "shards": None}})["dataset"]["shards"] is None


def test_the_description_says_what_the_shards_are(folder, copy, tmp_path):
    first = stream(copy).describe()
    assert first["source"] == "shards, not verified" and first["shards"]["train"]["resize"] is None
    assert [stream(copy, workers=n).describe()["workers"] for n in (0, 1, 2, None)] == [1, 1, 2, 4]
    assert stream(copy, workers=1).describe() == first and not stream(copy).train_loader(
        batch_size=6, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32).any_ranks  # fmt: skip
    write(folder, tmp_path / "small", "--resize", "45", "--quality", "80")
    small = stream(tmp_path / "small").describe()
    assert small["source"] == "shards, not verified, images made smaller"
    assert (small["shards"]["val"]["resize"], small["shards"]["val"]["quality"]) == (45, 80)
    for path in copy.glob("*-manifest.json"):
        path.write_text(path.read_text().replace("n02", "n07"))
    assert stream(copy).describe() != first


def test_train_size_needs_single_files(place):
    with pytest.raises(ConfigError, match=r"dataset.train_size takes single files"):
        stream(place, train_size=10)


def test_classes_of_another_set(copy):
    path = copy / "val-manifest.json"
    path.write_text(path.read_text().replace("n02", "n07"))
    assert "the shards of train and val have different classes" in failure(copy)


# -- from a server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server(place, monkeypatch):
    monkeypatch.setattr(shard_files, "_PAUSES", (0.0, 0.0))
    with serving({f"/data/{p.name}": p.read_bytes() for p in place.glob("*.*")}) as (url, server):
        yield f"{url}/data", server


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_from_a_server_are_the_same(place, server, workers):
    local, remote = stream(place, workers=workers), stream(server[0], workers=workers)
    assert same(list(load(remote).batches(0, 6)), list(load(local).batches(0, 6)))
    assert same(list(remote.eval_set(CPU).batches(4)), list(local.eval_set(CPU).batches(4)))
    assert remote.describe() == local.describe() and "/data" not in str(remote.describe())


def test_broken_connections_are_tried_again(place, server):
    url, files = server[0], server[1].files
    files["/data/train-000001.tar"].cut += [5000, 9000]  # in the middle, twice
    files["/data/train-000003.tar"].statuses += [503]
    assert same(list(load(stream(url)).batches(0, 5)), list(load(stream(place)).batches(0, 5)))
    assert not files["/data/train-000001.tar"].cut and not files["/data/train-000003.tar"].statuses


def test_a_server_that_stays_broken(server):
    files = server[1].files
    files["/data/train-000001.tar"].cut += [5000] * 3
    with pytest.raises(DataError, match=r"train-000001.tar: cannot be read \("):
        list(load(stream(server[0])).batches(0, 20))
    del files["/data/train-000003.tar"]
    server[1].log.clear()
    with pytest.raises(DataError, match=r"train-000003.tar: cannot be read \(.*(404|Not Found)"):
        list(load(stream(server[0])).batches(0, 20))
    assert sum("000003" in path for path, *_ in server[1].log) == 1  # what is not there does not come by waiting
    with pytest.raises(DataError, match=r"train-manifest.json: cannot be read"):
        stream("http://127.0.0.1:9/x")


def test_finished_shards_are_not_replaced_by_others_unasked(tmp_path):
    root, out = make_folders(tmp_path / "set"), tmp_path / "shards"
    assert write(root, out, "--per-shard", "5") == 0
    before = {p.name: p.read_bytes() for p in out.glob("train*")}
    for other in (["--per-shard", "4"], ["--per-shard", "5", "--seed", "1"], ["--per-shard", "5", "--resize", "32"]):
        with pytest.raises(ConfigError, match="holds finished train shards of other images, --seed, sizes or quality"):
            write(root, out, *other)
    assert {p.name: p.read_bytes() for p in out.glob("train*")} == before
    assert write(root, out, "--per-shard", "4", "--overwrite") == 0
    with pytest.raises(ConfigError, match="among the classes; use another folder"):
        write(root, root / "train" / "n01" / "shards")
