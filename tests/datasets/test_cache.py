"""Arrays kept on disk: made once, checked each time, never half there. And where data sets are looked for."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from datasets.cache import MANIFEST, cached_arrays
from datasets.places import data_root, find_folder, prepare_command
from randomix.errors import DataError, StorageError

SOURCE = {"files": [["a.jpg", 10]], "version": 1}


def arrays(fill: int = 1) -> dict[str, np.ndarray]:
    return {"images": np.full((4, 2, 3), fill, np.uint8), "labels": np.arange(4)}


class Maker:
    def __init__(self, fill: int = 1) -> None:
        self.calls, self.fill = 0, fill

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return arrays(self.fill)


def same(found: dict[str, np.ndarray], fill: int = 1) -> bool:
    return set(found) == {"images", "labels"} and all(np.array_equal(found[k], v) for k, v in arrays(fill).items())


def test_made_once_then_mapped_read_only(tmp_path):
    make = Maker()
    folder = tmp_path / "deep" / "cache"
    for _ in range(3):
        found = cached_arrays(folder, SOURCE, make)
        assert same(found) and isinstance(found["images"], np.memmap) and not found["images"].flags.writeable
    assert make.calls == 1
    assert not list(folder.parent.glob("*.part"))


def test_made_from_other_things_it_is_made_anew(tmp_path):
    cached_arrays(tmp_path / "c", SOURCE, Maker(1))
    other = Maker(2)
    assert same(cached_arrays(tmp_path / "c", SOURCE | {"version": 2}, other), 2)
    assert other.calls == 1
    assert (
        same(cached_arrays(tmp_path / "c", dict(sorted((SOURCE | {"version": 2}).items(), reverse=True)), other), 2)
        and other.calls == 1
    )


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": lambda c: _flip(c / "images.npy"),
    "a cut file": lambda c: os.truncate(c / "images.npy", 100),
    "an empty file": lambda c: os.truncate(c / "labels.npy", 0),
    "a lost file": lambda c: (c / "labels.npy").unlink(),
    "a lost manifest": lambda c: (c / MANIFEST).unlink(),
    "a cut manifest": lambda c: os.truncate(c / MANIFEST, 20),
    "another manifest": lambda c: (c / MANIFEST).write_text("[]"),
    "a file in its place": lambda c: (shutil.rmtree(c), c.write_text("no folder")),
    "a link to nowhere in its place": lambda c: (shutil.rmtree(c), c.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_it_is_made_anew(tmp_path, damage):
    cached_arrays(tmp_path / "c", SOURCE, Maker())
    DAMAGES[damage](tmp_path / "c")
    make = Maker()
    assert same(cached_arrays(tmp_path / "c", SOURCE, make)) and make.calls == 1


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("mapped", [True, False])
def test_objects_are_never_unpickled(tmp_path, monkeypatch, mapped):
    cached_arrays(tmp_path / "c", SOURCE, Maker())
    file, touched = tmp_path / "c" / "images.npy", tmp_path / "touched"
    np.save(file, np.array([Payload(touched)], dtype=object), allow_pickle=True)
    manifest = json.loads((tmp_path / "c" / MANIFEST).read_text())
    manifest["sha256"]["images"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(manifest))
    real = np.load
    if not mapped:  # mapping refuses objects by itself: without it, allow_pickle alone stands between
        monkeypatch.setattr(np, "load", lambda path, mmap_mode, **options: real(path, **options))
    make = Maker()
    assert same(cached_arrays(tmp_path / "c", SOURCE, make)) and make.calls == 1
    assert not touched.exists()
    np.save(file, np.array([Payload(touched)], dtype=object), allow_pickle=True)
    real(file, allow_pickle=True)
    assert touched.exists()  # it would have been seen


def _ask(folder: Path, log: Path) -> None:
    def make() -> dict[str, np.ndarray]:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return arrays()

    assert same(cached_arrays(folder, SOURCE, make))


def test_of_several_processes_one_makes_it(tmp_path):
    context = multiprocessing.get_context("fork")
    asking = [context.Process(target=_ask, args=(tmp_path / "c", tmp_path / "log")) for _ in range(4)]
    for process in asking:
        process.start()
    for process in asking:
        process.join(30)
    assert [p.exitcode for p in asking] == [0] * 4
    assert (tmp_path / "log").read_text() == "made\n"


def _die(folder: Path) -> None:
    def make() -> dict[str, np.ndarray]:
        folder.with_name(f"{folder.name}.part").mkdir(exist_ok=True)
        (folder.with_name(f"{folder.name}.part") / "images.npy").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    cached_arrays(folder, SOURCE, make)


def test_after_a_kill_the_next_one_makes_it(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=_die, args=(tmp_path / "c",))
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "c").exists()
    assert same(cached_arrays(tmp_path / "c", SOURCE, Maker()))
    assert not (tmp_path / "c.part").exists()


def test_a_full_disk_is_found_out_before_anything_is_made(tmp_path):
    make = Maker()
    with pytest.raises(StorageError, match=r"disk full at .*: need .* MiB, have"):
        cached_arrays(tmp_path / "c", SOURCE, make, need=10**18)
    assert make.calls == 0


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file/c"):
        cached_arrays(tmp_path / "file" / "c", SOURCE, Maker())


def test_the_root_is_the_setting_then_the_environment_then_data(monkeypatch):
    monkeypatch.delenv("RANDOMIX_DATA", raising=False)
    assert data_root() == Path("data") and prepare_command("cifar10") == "run: python scripts/prepare_data.py cifar10"
    monkeypatch.setenv("RANDOMIX_DATA", "/mnt/sets")
    assert data_root() == Path("/mnt/sets") and data_root("here") == Path("here")
    assert prepare_command("cifar10") == "run: python scripts/prepare_data.py cifar10 --root /mnt/sets"
    assert prepare_command("cifar10", "here").endswith("cifar10 --root here")


def test_the_first_complete_place_is_taken(tmp_path):
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
    assert find_folder("set", tmp_path, ["a", "b", "c"], Path.is_dir) == tmp_path / "b"
    assert find_folder("set", tmp_path, ["a", "."], Path.is_dir) == tmp_path
    with pytest.raises(DataError, match=r"^set: not found in \S+; run: python scripts/prepare_data.py set --root "):
        find_folder("set", tmp_path, ["a"], Path.is_dir)
