"""Decoding by workers: what ranks, workers, resuming and bad images change."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import datasets
from datasets.streams import streaming
from datasets.streams.crops import CentreCrop
from datasets.streams.file_stream import FileTraining
from randomix.errors import ConfigError, DataError
from tests.datasets.pictures import CPU, cut, joined, load, make_folders, same
from tests.support import fork, wait

ROOT = Path(__file__).parents[2]


def config(root, **options):
    settings = {"name": "image_folder", "root": str(root), "image_size": 32, "workers": 0}
    return datasets.build(settings | options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("pictures"), train=9, val=5)


# -- batches ---------------------------------------------------------------------------------------------------------


def test_more_workers_than_processors_are_told_once(folder, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    module = sys.modules["datasets.streams.workers"]
    module._note_crowd.cache_clear()
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch's own
            list(load(config(folder, workers=2), batch_size=9).batches(0, 1))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert lines == ["note: dataset.workers=2: more than may run at once here (1)"]
    module._note_crowd.cache_clear()


def test_batches_equal_a_slow_loop(folder):
    data = config(folder)
    files, loader = data.train.files, load(data)
    mean, std = np.array(data.mean), np.array(data.std)
    seen, mirrored = [], 0
    for step, batch in enumerate(loader.batches(0, loader.steps_per_epoch)):
        draws, flips = streaming.step_draws(3, step, streaming.Share(6, 0, 1), True)
        for row, index in enumerate(batch.indices.tolist()):
            path = Path(files.path(index))
            pixels = data.options.random_crop(path.read_bytes(), "x", draws[row]).numpy()
            pixels = pixels[:, ::-1] if flips[row] else pixels
            expected = np.moveaxis((pixels / 255 - mean) / std, -1, 0)
            np.testing.assert_allclose(batch.inputs[row].numpy(), expected, atol=1e-5)
            assert data.class_names[batch.labels[row]] == path.parent.name
            seen.append(index)
            mirrored += bool(flips[row])
    assert len(seen) == len(set(seen)) == 24 and 4 < mirrored < 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layout_and_dtype(folder, dtype):
    batch = next(load(config(folder), dtype=dtype).batches(0, 1))
    assert batch.inputs.dtype == dtype and batch.inputs.shape == (6, 3, 32, 32)
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    assert batch.labels.dtype == batch.indices.dtype == torch.int64
    assert torch.equal(batch.inputs, next(load(config(folder)).batches(0, 1)).inputs.to(dtype))  # rounded once


def test_ranks_workers_and_resuming_change_nothing(folder):
    data = config(folder)
    single = list(load(data).batches(0, 9))
    for world_size in (2, 3):
        assert same(
            joined([load(data, rank=r, world_size=world_size).batches(0, 9) for r in range(world_size)]), single
        )
    for start in (1, 4, 7):  # in the middle of an epoch, at its end, in the next
        assert same(list(load(data).batches(start, 9)), single[start:])
    before = torch.get_rng_state()
    assert same(list(load(config(folder, workers=2)).batches(0, 9)), single)
    assert same(
        list(load(config(folder, workers=2), rank=1, world_size=2).batches(3, 9)),
        list(load(data, rank=1, world_size=2).batches(3, 9)),
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(list(load(data, seed=4).batches(0, 9)), single)
    assert not same(single[4:8], single[:4])


@pytest.mark.parametrize("world_size", [1, 2, 3, 20])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluation_shows_each_image_once(folder, world_size, batch_size):
    data = config(folder)
    check_evaluation(data, world_size, batch_size)


def check_evaluation(data, world_size, batch_size):
    files, seen, shares = data.test.files, [], []
    for rank in range(world_size):
        batches = list(data.eval_set(CPU).batches(batch_size, rank, world_size))
        shares.append(sum(len(b.labels) for b in batches))
        for batch in batches:
            assert len(batch.inputs) <= batch_size and batch.inputs.dtype == torch.float32
            assert batch.inputs.min() >= 0 and batch.inputs.max() <= 1
            seen += zip(batch.indices.tolist(), batch.labels.tolist(), strict=True)
    assert sorted(seen) == list(enumerate(files.labels.tolist())) and max(shares) - min(shares) <= 1


def test_evaluation_with_workers_is_the_same_and_normalises_as_training_does(folder):
    data, ahead = config(folder), config(folder, workers=2)
    found = list(data.eval_set(CPU).batches(4))
    assert same(list(ahead.eval_set(CPU).batches(4)), found)
    exact = CentreCrop(32, 37)(data.test.files.read(0), "x").permute(2, 0, 1)
    assert torch.equal(found[0].inputs[0], exact / 255)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.mean, data.std))
    assert torch.allclose(data.eval_set(CPU).normalise(found[0].inputs), (found[0].inputs - mean) / std)
    assert (data.sample_shape, data.input_shape, data.splits) == ((3, 32, 32), (3, 32, 32), ("test",))
    with pytest.raises(ValueError, match="no split 'validation'"):
        data.eval_set(CPU, "validation")


def test_batch_size_errors(folder):
    with pytest.raises(ConfigError, match=r"recipe.batch_size 28 exceeds the 27 training images of image_folder; use"):
        load(config(folder), batch_size=28)
    with pytest.raises(ConfigError, match=r"recipe.batch_size 9 does not divide by 2 processes"):
        load(config(folder), batch_size=9, world_size=2)


# -- images that cannot be read --------------------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path):
    make_folders(tmp_path, train=9, val=3)
    cut(tmp_path / "train" / "n02" / "n02_3.JPEG")
    (tmp_path / "train" / "n03" / "n03_8.JPEG").write_bytes(b"")  # the last: the first takes its place
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_ends_training_with_its_name(damaged, workers):
    with pytest.raises(DataError) as caught:
        list(load(config(damaged, workers=workers), batch_size=9).batches(0, 3))
    message = str(caught.value)
    assert "\n" not in message and "Traceback" not in message
    assert "n02_3.JPEG: expected a whole image" in message or "n03_8.JPEG: expected a whole image" in message
    assert message.endswith("or set dataset.on_bad_sample=skip")


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_images_are_replaced_counted_and_named_once(damaged, workers, capsys):
    data = config(damaged, workers=workers, on_bad_sample="skip", max_bad_share=0.1)
    loader = load(data, batch_size=9)
    files = [Path(data.train.files.path(i)).name for i in range(27)]
    bad = {files.index("n02_3.JPEG"): files.index("n02_4.JPEG"), files.index("n03_8.JPEG"): 0}
    plain = FileTraining(data.train.files, data.options, 3, streaming.Share(9, 0, 1))
    order = np.concatenate([plain._epoch(0), plain._epoch(1)])
    batches = list(loader.batches(0, 6))
    shown = [i for b in batches for i in b.indices.tolist()]
    assert shown == [bad.get(i, i) for i in order.tolist()]
    assert [data.train.files.labels[i] for i in shown] == [k for b in batches for k in b.labels.tolist()]
    assert loader.replaced == 4
    errors = capsys.readouterr().err
    assert errors.count("n02_3.JPEG") == errors.count("n03_8.JPEG") == 1
    assert errors.count("warning: another image takes its place") == 2
    assert same(batches[4:], list(load(data, batch_size=9).batches(4, 6)))


def test_too_many_bad_images_are_an_error(damaged):
    loader = load(config(damaged, on_bad_sample="skip", max_bad_share=0.04), batch_size=9)
    with pytest.raises(
        DataError,
        match=r"image_folder: 2 of 27 training images cannot be read, more than dataset"
        r".max_bad_share=0.04; the last: .*JPEG",
    ):
        list(loader.batches(0, 3))


def test_evaluation_never_skips(damaged):
    cut(damaged / "val" / "n01" / "n01_0.JPEG")
    for workers in (0, 1):
        data = config(damaged, on_bad_sample="skip", max_bad_share=1, workers=workers)
        with pytest.raises(DataError, match=r"val/n01/n01_0.JPEG: expected a whole image"):
            list(data.eval_set(CPU).batches(4))


# -- processes -------------------------------------------------------------------------------------------------------


def children(pid):
    """The processes below ``pid``, workers of its fork server included."""
    found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for p in found for below in children(p)]


def gone(pids, seconds=3.0):
    """Whether all processes end in time; a dead one that nobody has waited for counts as ended."""
    deadline = time.monotonic() + seconds
    while any(alive(p) for p in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def alive(pid):
    with contextlib.suppress(OSError):
        return status(pid)[0] != "Z"
    return False


def status(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent(pid):
    return int(status(pid)[1])


def test_closing_ends_the_workers_and_signals_do_not(folder):
    before = set(children(os.getpid()))
    batches = load(config(folder, workers=2)).batches(0, 4000)
    next(batches)
    workers = [p for p in set(children(os.getpid())) - before if parent(p) != os.getpid()]  # the fork server stays
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in workers:
            os.kill(pid, number)
    for _ in range(20):  # more than were decoded before the signals
        next(batches)
    batches.close()
    assert gone(workers, 0)


@pytest.mark.slow
def test_workers_die_with_a_killed_parent(folder, tmp_path):
    def train():
        batches = load(config(folder, workers=2)).batches(0, 100_000)
        next(batches)
        (tmp_path / "ready").write_text("")
        time.sleep(60)
        return 0

    pid = fork(train, tmp_path / "log")
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    workers = [p for p in children(pid) if parent(p) != pid]  # the fork server ends after them, when it comes to it
    assert len(workers) == 2
    os.kill(pid, signal.SIGKILL)
    assert wait([pid]) == [-signal.SIGKILL] and gone(workers, 30)


def test_a_killed_worker_is_one_line(folder):
    batches = load(config(folder, workers=1)).batches(0, 100_000)
    next(batches)
    (worker,) = [p for p in children(os.getpid()) if parent(p) != os.getpid()]
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a worker that decodes images was ended by SIGKILL; if memory ran out, lower"):
        list(batches)


def test_too_little_shared_memory_is_said_before(folder, monkeypatch):
    monkeypatch.setattr("datasets.streams.workers.shutil.disk_usage", lambda path: type("", (), {"free": 2**10}))
    with pytest.raises(ConfigError, match=r"dataset.workers: 2 workers need .*--shm-size"):
        next(load(config(folder, workers=2)).batches(0, 1))


def test_shared_memory_is_asked_for_all_ranks_and_the_evaluation_before_they_start(folder, monkeypatch):
    data = config(folder, workers=2)
    need = 2 * (2 * 2 + 2) * (3 + 8) * 32**2 * 3  # ranks x batches that wait x (training + half of 15 held-out) images
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for free in (need, need - 1):
        monkeypatch.setattr("datasets.streams.workers.shutil.disk_usage", lambda path, f=free: SimpleNamespace(free=f))
        if free == need:
            load(data, world_size=2)
            continue
        with pytest.raises(ConfigError, match=r"dataset.workers: 2 workers of each of 2 ranks need .*--shm-size"):
            load(data, world_size=2)


def test_batches_of_evaluation_are_limited(folder, monkeypatch):
    assert streaming.StreamOptions(size=224).most_evaluated == 64
    data = config(folder)
    whole = list(data.eval_set(CPU).batches(4))
    monkeypatch.setattr(streaming, "_PIXELS", 4 * 32**2)
    assert same(list(data.eval_set(CPU).batches(100)), whole)


@pytest.mark.slow
def test_a_script_without_a_guard_can_use_workers(folder, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import datasets, torch\n"
        f"data = datasets.build({{'name': 'image_folder', 'root': {str(folder)!r}, 'image_size': 32, 'workers': 2}})\n"
        "loader = data.train_loader(batch_size=6, seed=0, rank=0, world_size=1, device='cpu', dtype=torch.float32)\n"
        "batches = loader.batches(0, 100)\n"
        "print(next(batches).inputs.shape)\n"  # never closed: the interpreter's end has to do it
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    assert done.stdout == "torch.Size([6, 3, 32, 32])\n" and not done.stderr and not done.returncode
