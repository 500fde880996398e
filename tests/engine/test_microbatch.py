"""trainer.micro_batch_size: what auto finds, that it leaves no trace, and that runs with the number are the same."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from randomix import mixers
from randomix.engine import distributed, memory, microbatch
from randomix.engine.checkpoint import read
from randomix.engine.distributed import World
from randomix.engine.launcher import STORE
from randomix.engine.microbatch import Line, Point, Probe, Work, find_micro_batch, fit_line
from randomix.engine.optim import resolve_precision
from randomix.engine.rules import micro_batch_sizes
from randomix.engine.runfolder import RunFolder
from randomix.engine.schema import validate
from randomix.engine.stopper import Stopper
from randomix.errors import ConfigError, Interrupted, OutOfMemory
from randomix.losses import LOSSES
from randomix.records import identity, record
from randomix.runs.parts import check_batch
from tests.support import fork, same_tensors, stop_once, tiny_config, train, wait, weights_digest

CPU = torch.device("cpu")


class Notebook:
    """A meter of an invented machine: ``fixed`` bytes, ``each`` for every sample of a pass; it breaks above ``breaks``.

    ``heavy``: the factor of a method that needs more than the others from 5 samples on.
    """

    def __init__(self, monkeypatch, *, free, fixed=100, each=10, breaks=10**9, heavy=()):
        self.bytes_free, self.fixed, self.sizes, self.most, original = free, fixed, [], 0, Probe._pass

        def passing(probe, size, method):
            if size > breaks:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            original(probe, size, method)
            self.sizes.append(size)
            factor = dict(heavy).get(method.name, 1) if size > 4 else 1
            self.most = max(self.most, fixed + each * size * factor)

        monkeypatch.setattr(Probe, "_pass", passing)
        monkeypatch.setattr(microbatch, "meter_for", lambda world: self)

    def free(self):
        return self.bytes_free

    def reset(self):
        self.most = self.fixed if self.sizes else 0  # gradients and inputs

    def peak(self):
        return self.most


def work(share=48, mixer="mixup", **options):
    torch.manual_seed(0)
    config = {"name": "preact_resnet18", "width": 4, "blocks": [1, 1], **options}
    model = models.build(config, sample_shape=(3, 8, 8), num_classes=4)
    method = mixers.build(mixer, num_classes=4)
    return Work(model, method, LOSSES["cross_entropy"], resolve_precision("fp32", CPU), share, (3, 8, 8), 4)


# -- what is found ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [2, 3, 12, 36, 48, 97])
@pytest.mark.parametrize("free", [150, 180, 250, 400, 700, 5000])
def test_the_largest_equal_part_that_fits(monkeypatch, share, free):
    meter = Notebook(monkeypatch, free=free)
    fitting = [n for n in range(2, share + 1) if share % n == 0 and 100 + 10 * n <= 0.9 * free]
    if not fitting:
        with pytest.raises(OutOfMemory, match=rf"not even {micro_batch_sizes(share)[0]} samples fit into 90%"):
            find_micro_batch(work(share), World())
        return
    found = find_micro_batch(work(share), World())
    assert found.size == fitting[-1]
    assert max(meter.sizes) <= max(found.size, 0.9 * free / 10, micro_batch_sizes(share)[0])  # nothing larger was tried
    assert found.line.per_sample == pytest.approx(10) or len(found.points) == 1


def test_steps_down_where_memory_breaks_earlier_than_the_line_says(monkeypatch):
    meter = Notebook(monkeypatch, free=10**6, breaks=20)
    found = find_micro_batch(work(48), World())
    assert found.size == 16
    assert max(meter.sizes) == 16
    assert "3 micro-batches a step; BatchNorm takes its statistics of 16, so that results differ" in found.describe()


def test_the_method_that_needs_most_decides(monkeypatch):
    mixer = {"name": "randomix", "candidates": ["mixup", "cutmix", "puzzlemix"], "weights": [999, 999, 1]}
    for heavy, size in (((), 48), ((("puzzlemix", 3),), 16), ((("cutmix", 2),), 24)):
        Notebook(monkeypatch, free=700, heavy=heavy, fixed=50)
        assert find_micro_batch(work(48, mixer), World()).size == size
        monkeypatch.undo()


def test_a_real_measurement_keeps_within_what_is_free(monkeypatch):
    def roomy(self, free=memory.CpuMeter.free):
        return min(free(self), 40 * 2**20)

    monkeypatch.setattr(memory.CpuMeter, "free", roomy)
    found = find_micro_batch(work(4096, width=16), World())
    used = {point.size: point.peak for point in found.points}
    assert 64 <= found.size < 4096
    assert used[found.size] <= 0.9 * 40 * 2**20
    assert found.line(2 * found.size) > 0.6 * 40 * 2**20  # twice as many would hardly have fitted


# -- it leaves no trace ---------------------------------------------------------------------------------------------


def test_everything_is_as_it_was(monkeypatch):
    Notebook(monkeypatch, free=10**6)
    for mixer in ("mixup", "manifold_mixup", "puzzlemix"):
        job = work(12, mixer)
        job.model.stages[0].eval()
        before = {k: v.clone() for k, v in job.model.state_dict().items()}
        modes, draws = [part.training for part in job.model.modules()], torch.get_rng_state()
        find_micro_batch(job, World())
        assert same_tensors(before, job.model.state_dict())
        assert modes == [part.training for part in job.model.modules()]
        assert torch.equal(draws, torch.get_rng_state())
        assert all(parameter.grad is None for parameter in job.model.parameters())


def test_also_after_an_error(monkeypatch):
    Notebook(monkeypatch, free=10**6)
    job = work(12)
    before = {k: v.clone() for k, v in job.model.state_dict().items()}
    monkeypatch.setattr(microbatch, "explore", lambda probe, budget: probe.measure(4) and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        find_micro_batch(job, World())
    assert same_tensors(before, job.model.state_dict())
    assert all(parameter.grad is None for parameter in job.model.parameters())


# -- runs -----------------------------------------------------------------------------------------------------------


def run(tmp_path, name, size=None, **sections):
    # the real network: it has running statistics, dropout would draw from torch
    config = tiny_config(tmp_path / name, model={"blocks": [1, 1]}, **sections)
    config["trainer"] = config["trainer"] | {"micro_batch_size": size}
    return config, train(config)


def test_auto_is_bit_equal_to_its_number_and_to_null_where_all_fits(tmp_path, monkeypatch):
    whole, four = (weights_digest(run(tmp_path, str(size), size)[1]) for size in (None, 4))
    assert whole != four
    for free, expected, size in ((10**6, whole, 16), (160, four, 4)):
        Notebook(monkeypatch, free=free)
        _, folder = run(tmp_path, f"free-{free}", "auto")
        assert weights_digest(folder) == expected
        assert record.read(folder.record).provenance["micro_batch_size"] == size
        assert read(folder.checkpoints / "last.pt")["micro_batch_size"] == size
        assert folder.log.read_text().count(f"trainer.micro_batch_size=auto: {size} of 16 samples at a time") == 1
        monkeypatch.undo()


def test_micro_batches_are_those_of_accumulation(tmp_path):
    _, by_size = run(tmp_path, "size", 4)
    _, by_parts = run(tmp_path, "parts", None, recipe={"accumulate": 4})
    assert weights_digest(by_size) == weights_digest(by_parts)
    assert record.read(by_size.record).config["trainer"]["micro_batch_size"] == 4


def test_a_continued_run_keeps_its_number_on_a_machine_with_more(tmp_path, monkeypatch):
    _, uninterrupted = run(tmp_path, "a", 4)
    Notebook(monkeypatch, free=160)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Stopper, "check", stop_once(Stopper.check, at=3))
        run(tmp_path, "b", "auto")
    Notebook(monkeypatch, free=10**6)
    config, folder = run(tmp_path, "b", "auto")
    assert folder.root == RunFolder(identity.run_folder(config)).root
    assert weights_digest(folder) == weights_digest(uninterrupted)


def test_two_ranks_take_what_fits_on_both(tmp_path, monkeypatch):
    def body() -> int:
        with distributed.init("cpu", 1.0) as world:
            Notebook(monkeypatch, free=10**6 if world.rank == 0 else 200)
            assert find_micro_batch(work(24), world).size == 8
            Notebook(monkeypatch, free=10**6, breaks=5 if world.rank == 0 else 10**9)
            assert find_micro_batch(work(24), world).size == 4
        return 0

    store, log = tempfile.mkdtemp(dir=tmp_path), tmp_path / "log"
    places = [{"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, STORE: f"{store}/s"} for r in (0, 1)]
    assert wait([fork(body, log, {k: str(v) for k, v in p.items()}) for p in places]) == [0, 0], log.read_text()


def test_a_run_of_two_ranks_with_auto_is_that_with_its_number(tmp_path):
    def job(size: object) -> int:
        config = tiny_config(tmp_path / str(size), recipe={"epochs": 1}, model={"blocks": [1, 1]})
        config["trainer"] |= {"micro_batch_size": size, "nproc": 2}
        train(config)
        return 0

    for size in (8, "auto"):
        store, log = tempfile.mkdtemp(dir=tmp_path), tmp_path / f"log-{size}"
        places = [
            {"RANK": r, "LOCAL_RANK": r, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, STORE: f"{store}/s"} for r in (0, 1)
        ]
        pids = [fork(lambda size=size: job(size), log, {k: str(v) for k, v in p.items()}) for p in places]
        assert wait(pids) == [0, 0], log.read_text()
    digests = [path.read_bytes() for path in tmp_path.rglob("model.safetensors")]
    assert len(digests) == 2
    assert digests[0] == digests[1]


# -- settings -------------------------------------------------------------------------------------------------------


def test_wrong_settings_are_one_line_with_what_mends_it(tmp_path):
    def problems(recipe, size, nproc=1):
        return validate(tiny_config(tmp_path, recipe=recipe, trainer={"micro_batch_size": size, "nproc": nproc}))

    assert [problems({}, size) for size in (None, 2, 16, "auto")] == [[]] * 4
    (found,) = problems({}, 5)
    assert found == (
        "trainer.micro_batch_size=5: must divide the 16 images of a process "
        "(recipe.batch_size=16 / trainer.nproc=1); for example 4"
    )
    (found,) = problems({}, 16, nproc=2)
    assert "must divide the 8 images" in found
    for size in (8, "auto"):
        (found,) = problems({"accumulate": 2}, size)
        assert found.endswith("write recipe.accumulate=1")
    for size in (1, 0, -2, 2.0, "all", True):
        (found,) = problems({}, size)
        assert "null or a whole number of at least 2, or auto" in found


def test_torchrun_s_ranks_are_checked_when_they_are_known(tmp_path):
    from randomix.engine.schema import parse

    config = parse(tiny_config(tmp_path, trainer={"micro_batch_size": 16}))
    check_batch(config, 96, 1)
    with pytest.raises(ConfigError, match=r"micro_batch_size=16: must divide the 8 samples of a rank .*\[2, 4, 8\]"):
        check_batch(config, 96, 2)


def test_the_number_names_the_run_and_null_does_not(tmp_path):
    hashes = {
        size: identity.config_hash(tiny_config(tmp_path, trainer={"micro_batch_size": size}))
        for size in (None, 4, 8, "auto")
    }
    assert hashes[None] == identity.config_hash(tiny_config(tmp_path))
    assert len(set(hashes.values())) == 4


# -- meters ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_line_is_that_of_least_squares(count):
    draws = np.random.default_rng(count)
    sizes, peaks = 2 ** np.arange(2, 2 + count), draws.integers(10**6, 10**8, count).cumsum()
    points = [Point(int(size), int(peak), 1.0, 1.0) for size, peak in zip(sizes, peaks, strict=True)]
    slope, fixed = np.polyfit(sizes[-3:], peaks[-3:], 1)
    line = fit_line(points)
    assert (line.per_sample, line.fixed) == (pytest.approx(slope), pytest.approx(fixed, abs=1))
    assert fit_line(points[:1], 10.0) == Line(10.0, (points[0].peak - 10) / 4)


def test_the_cpu_s_meter_sees_a_peak_and_forgets_it():
    meter = memory.CpuMeter()
    before = meter.peak()
    torch.ones(48 * 2**20, dtype=torch.uint8).sum()
    assert meter.peak() - before >= 47 * 2**20
    meter.reset()
    assert meter.peak() - before < 24 * 2**20
    assert memory.CpuMeter(ranks=2).free() < 0.75 * meter.free()


@pytest.mark.parametrize(
    ("files", "line", "left"),
    [
        ({"memory.max": "1000", "memory.current": "300", "memory.stat": "anon 1\ninactive_file 50"}, "0::/", 750),
        ({"a/memory.max": "max", "a/memory.current": "3", "memory.max": "90", "memory.current": "30"}, "0::/a", 60),
        ({"memory/a/memory.limit_in_bytes": "500", "memory/a/memory.usage_in_bytes": "200"}, "4:memory:/a/b", 300),
        ({}, "0::/", 2**63 - 1),
    ],
)
def test_what_control_groups_leave(tmp_path, files, line, left):
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        path.with_name("memory.stat").touch()
    (tmp_path / "cgroup").write_text(f"7:cpu:/elsewhere\n{line}\n")
    assert memory._left_in_groups(tmp_path / "cgroup", tmp_path / "root") == left


def test_where_the_kernel_tells_nothing_a_number_is_asked_for(monkeypatch):
    monkeypatch.setattr(
        Path, "write_text", lambda self, text: (_ for _ in ()).throw(PermissionError(13, os.strerror(13)))
    )
    with pytest.raises(ConfigError, match=r"trainer\.micro_batch_size=auto: .* write a number"):
        memory.CpuMeter()
