"""Tar shards that are damaged, of other sets, behind a broken server, or in places that are refused."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from datasets.streams import shard_files
from randomix.errors import ConfigError, DataError
from tests.datasets.file_server import serving
from tests.datasets.pictures import CPU, cut, load, make_folders, same
from tests.datasets.shard_sets import stream, write


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
    "wrong",
    [
        b"[]",
        b"{}",
        b"<html>",
        b'{"format": 1, "classes": [], "shards": []}',
        ENTRY % b"../x.tar",
        ENTRY % b"pipe:ls",
        ENTRY % b"/etc/x.tar",
        ENTRY % b"http://x/y.tar",
    ],
)
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
    "url",
    [
        "https://me:s3cr3t@host/x",
        "https://me:s3/cr3t@host/x",
        "http:/me:s3cr3t@host",
        "s3://me:s3cr3t@bucket/x",
        "HTTPS://s3cr3t@host/x",
        "https://host/x?key=s3cr3t",
        "https://host/x#s3cr3t",
        "s3://me:s3/cr3t@b/x",
        "https://[s3cr3t@host",
        "ftp://me:s3cr3t@host",
        "abfs://c:s3cr3t@host/x",
        "pipe:curl https://me:s3cr3t@h/",
    ],
)
def test_secrets_in_a_url_are_refused_and_not_repeated(url):
    with pytest.raises(ConfigError, match=r"dataset.shards is a URL with a user, a password, a query") as caught:
        stream(url)
    assert not any(part in str(caught.value) for part in ("s3cr", "cr3t")) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "/a/me@b?c#d",
        "https://host:8080/x",
        "s3://bucket/x",
        "hf://datasets/me/set@main/x",
        "x/y",
        "abfs://container@account.dfs.core.windows.net/x",
        "file:///a@b",
        "hf://b/c",
    ],
)
def test_places_without_secrets(place):
    shard_files.check_place(place)


def test_the_record_does_not_say_where_shards_are():
    from randomix.records.record import public_config
    from tests.support import tiny_config

    config = tiny_config(Path("x"))
    assert public_config(config | {"dataset": {"name": "a", "shards": "https://host/x"}})["dataset"] == {
        "name": "a",
        "shards": True,
    }
    assert public_config(config | {"dataset": {"name": "a", "shards": None}})["dataset"]["shards"] is None


def test_the_description_says_what_the_shards_are(folder, copy, tmp_path):
    first = stream(copy).describe()
    assert first["source"] == "shards, not verified" and first["shards"]["train"]["resize"] is None
    assert [stream(copy, workers=n).describe()["workers"] for n in (0, 1, 2, None)] == [1, 1, 2, 4]
    assert (
        stream(copy, workers=1).describe() == first
        and not stream(copy)
        .train_loader(batch_size=6, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32)
        .any_ranks
    )
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
