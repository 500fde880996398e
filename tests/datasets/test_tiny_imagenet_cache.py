"""The cache of decoded Tiny-ImageNet images: used again, mended, made once, and placed where one can write."""

import os
import shutil
import stat

import numpy as np

from datasets import tiny_imagenet
from randomix.errors import StorageError
from tests.datasets.tiny_imagenet_files import WNIDS, build, content, jpeg, obvious, problem, same
from tests.support import fork, wait


def test_the_cache_is_used_again(tree, monkeypatch, tmp_path):
    first = content(build(tree))
    monkeypatch.setattr(tiny_imagenet, "decode", None)
    again = content(build(tree))
    assert same(again, first) and isinstance(again[0], np.memmap)
    copy = shutil.copytree(tree, tmp_path / "elsewhere" / "tiny-imagenet-200")  # keeps the times
    assert same(content(build(copy, cache=str(tree.parent / ".randomix-cache"))), first)
    assert not (copy.parent / ".randomix-cache").exists()


def test_a_damaged_cache_is_made_again(tree, capsys):
    expected = content(build(tree))
    arrays = sorted((tree.parent / ".randomix-cache").glob("*/*.npy"))
    assert len(arrays) == 2
    for path in arrays:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.unlink()
        path.write_bytes(bytes(data))
        assert same(content(build(tree)), expected)
    assert capsys.readouterr().err.count("decoding") == 3


def test_changed_files_are_decoded_again(tree):
    build(tree)
    victim = tree / "train" / WNIDS[3] / "images" / f"{WNIDS[3]}_4.JPEG"
    data = victim.read_bytes()
    times = victim.stat().st_mtime_ns
    other = jpeg(77)
    other = other + b"\0" * (len(data) - len(other)) if len(other) < len(data) else other
    victim.write_bytes(other)
    os.utime(victim, ns=(times, times + 1))
    assert same(content(build(tree)), obvious(tree))
    victim.write_bytes(data)
    assert same(content(build(tree)), obvious(tree))


def test_two_processes_at_once(tree, tmp_path, monkeypatch):
    decode, calls = tiny_imagenet.decode, tmp_path / "calls"

    def counted(*arguments):
        with calls.open("a") as file:
            file.write("x")
        return decode(*arguments)

    def make(number):
        np.savez(tmp_path / f"{number}.npz", *content(build(tree, workers=0)))
        return 0

    monkeypatch.setattr(tiny_imagenet, "decode", counted)
    log = tmp_path / "log.txt"
    assert wait([fork(lambda n=n: make(n), log) for n in range(2)]) == [0, 0], log.read_text()
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as file:
            assert same(list(file.values()), obvious(tree))
    assert calls.read_text() == "xx"  # training and validation images, once


def test_where_nothing_can_be_written(tree, tmp_path):
    (tree.parent / ".randomix-cache").write_text("a file in the way: what a read-only folder does to other users")
    text = problem(tree, StorageError)
    assert text.startswith("cannot write ") and "set dataset.cache=FOLDER" in text
    assert build(tree, cache=str(tmp_path / "new" / "place")).num_train == 24
    if os.geteuid():
        (tree.parent / ".randomix-cache").unlink()
        tree.parent.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            assert "set dataset.cache=FOLDER" in problem(tree, StorageError)
        finally:
            tree.parent.chmod(stat.S_IRWXU)


def test_a_folder_to_read_only_is_read_and_generated_sets_go_elsewhere(tree, tmp_path, monkeypatch):
    """The images that another user decoded there are used; what is made of them lies in the usual place."""
    assert build(tree).cache == tree.parent / ".randomix-cache"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(tiny_imagenet, "decode", None)
    monkeypatch.setenv("RANDOMIX_DATA", str(tmp_path / "own"))
    assert build(tree).cache == tmp_path / "own" / ".randomix-cache"
