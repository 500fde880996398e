"""The suites gpu, graphs, scaling and startup: their smallest settings run; what they count is right."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from scripts import benchmark

    monkeypatch.setattr("bench.measure.keep_freed_memory", lambda: True)  # not for the rest of the test process
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))  # graphs, but no compiler
    return benchmark


def run(benchmark, folder: Path, suite: str, *options: str) -> tuple[dict, str]:
    small = ["--width", "1", "--batch", "4", "--steps", "1", "--rounds", "1", "--out", str(folder), "--name", "small"]
    assert benchmark.main([suite, *small, *options]) == 0
    return json.loads((folder / "small.json").read_text()), (folder / "small.md").read_text()


def test_throughput_has_ceilings_profiles_waits_and_a_plot(benchmark, monkeypatch, tmp_path) -> None:
    from bench import ceilings, gpu
    from randomix.runs import setup

    monkeypatch.setattr(setup, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(ceilings, "GEMM_SIDE", {"cpu": 64})
    monkeypatch.setattr(ceilings, "COPY_BYTES", {"cpu": 2**16})
    waits = gpu.waits
    monkeypatch.setattr(gpu, "waits", lambda device, methods, **k: waits(device, ["cutmix", "puzzlemix"], **k))
    monkeypatch.delitem(gpu.NETWORKS, "wrn_28_10")
    content, text = run(benchmark, tmp_path, "gpu", "--precision", "fp32")
    rows = [row for row in content["rows"] if "failed" not in row]
    assert {(row["network"], row["mode"]) for row in rows} == {
        (n, m) for n in gpu.NETWORKS for m in ("eager", "compile")
    }
    assert {row["mode"]: (row["graphs"], row["recompiles"]) for row in rows} == {"eager": (0, 0), "compile": (1, 0)}
    for row in rows:
        peak = content["ceilings"]["compute"]["fp32"]
        assert row["share_of_compute"] == pytest.approx(row["flops"] * row["images_per_second"] / row["batch"] / peak)
        assert any("convolution_backward" in kernel["name"] for kernel in row["profile"]["top"])
        assert row["profile"]["launches"] > 100
    assert content["waits"] == {"cutmix": None, "puzzlemix": None}
    assert set(content["left_out"]) == {"cuda_graph", "compile + cuda_graph"}
    assert text.count("## One step of ") == 2
    plot = (tmp_path / "small.png").read_bytes()
    assert plot.startswith(b"\x89PNG")
    assert len(plot) < 200_000


def test_on_a_gpu_all_modes_and_precisions_are_planned(benchmark, monkeypatch) -> None:
    from bench import gpu

    monkeypatch.setattr(gpu, "why_not", lambda mode, device: None)
    monkeypatch.setattr(gpu, "resolve_precision", lambda name, device: gpu.Precision("bf16", torch.bfloat16, device))
    found = list(gpu.cases("preact_resnet18", "cuda", None, None, "auto"))
    points = {(c.setting.precision, c.setting.batch) for c in found}
    assert points == {("bf16", b) for b in (128, 256, 512, 1024)} | {("fp16", 512), ("tf32", 512)}
    assert {c.mode for c in found} == set(gpu.MODES)
    assert all(c.setting.cuda_graph == ("cuda_graph" in c.mode) for c in found)
    assert all(c.setting.torch_device == torch.device("cuda", 0) for c in found)
    assert found[0].config == {"name": "preact_resnet18"}


def test_running_out_of_memory_is_a_row(benchmark, monkeypatch) -> None:
    from bench import gpu
    from randomix.runs import setup

    monkeypatch.setattr(setup, "keep_freed_memory", lambda: True)
    case = next(gpu.cases("preact_resnet18", "cpu", 1, 4, "fp32"))

    def fails(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr(gpu.loops, "make_trainer", fails)
    assert gpu.run(case, 1, 1)["failed"] == "CUDA out of memory. Tried to allocate 2 GiB"


def test_work_counts_flops_and_bytes(benchmark) -> None:
    from bench import ceilings

    with torch.device("meta"):
        flops, moved = ceilings.work(nn.Linear(64, 32, bias=False), (64,), 16, torch.float32)
    product = 2 * 16 * 64 * 32
    assert flops == 2 * product  # forward, and the gradient of the weights; that of the inputs is not asked for
    tensors = {"inputs": 16 * 64, "weights": 64 * 32, "outputs": 16 * 32}
    assert moved >= 4 * (2 * sum(tensors.values()))
    assert moved <= 4 * (2 * sum(tensors.values()) + 4 * tensors["outputs"] + tensors["weights"])


def test_copies_count_read_and_written_bytes(benchmark, monkeypatch) -> None:
    from bench import ceilings
    from bench.measure import Sample

    monkeypatch.setattr(ceilings, "timed", lambda run: (run(), Sample(9.0, 0.5))[1])
    assert ceilings.copy(torch.device("cpu"), 1000) == 2 * 1000 / 0.5
    precision = ceilings.Precision("fp32", torch.float32, torch.device("cpu"))
    assert ceilings.gemm(precision, 10) == 2 * 10**3 / 0.5
    assert ceilings.convolution(precision, (2, 4, 8)) == 2 * 9 * 4 * 4 * 2 * 8 * 8 / 0.5
    monkeypatch.setattr(ceilings, "gemm", lambda _: 3.0)
    monkeypatch.setattr(ceilings, "convolution", lambda _: 4.0)
    assert ceilings.compute(precision) == 4.0


def test_graphs_are_counted_by_kind_of_method(benchmark, monkeypatch, tmp_path) -> None:
    from bench import graphs

    some = SimpleNamespace(build=graphs.mixers.build, available=lambda: ["baseline", "cutmix", "manifold_mixup"])
    monkeypatch.setattr(graphs, "mixers", some)
    monkeypatch.setattr(graphs, "STEPS", 8)
    content, text = run(benchmark, tmp_path, "graphs", "--size", "8")
    rows = content["rows"]
    assert (rows["all pixel methods"]["graphs"], rows["all pixel methods"]["later"]) == (1, 0)
    assert rows["all pixel methods"]["recompile_error"] is None
    assert content["pixel"] == ["baseline", "cutmix"]
    assert 1 < rows["manifold_mixup"]["graphs"] <= 4
    assert all(verdict["holds"] for verdict in content["targets"])
    assert "T8 graphs of manifold_mixup" in text


def test_a_recompilation_is_noticed(benchmark, tmp_path, monkeypatch) -> None:
    from bench import graphs

    def changing(trainer, steps):  # a network that is another one at each step
        def step() -> None:
            trainer.model.stride = getattr(trainer.model, "stride", 0) + 1
            run_()

        run_ = whole(trainer, steps)
        forward = trainer.model.forward
        if not hasattr(trainer.model, "stride"):
            trainer.model.stride = 0
            trainer.model.forward = lambda *a, **k: forward(*a, **k) * (1 + trainer.model.stride)
        return step

    whole = graphs.ours
    monkeypatch.setattr(graphs, "ours", changing)
    from bench.loops import Setting, fake_data

    setting = Setting(width=1, batch=4, steps=1, size=8, compile=True, precision="fp32")
    row = graphs._pixel(setting, fake_data(setting), ["baseline", "mixup"])
    assert row["recompile_error"] is not None


def test_ranks_share_the_work(benchmark, tmp_path, monkeypatch) -> None:
    from bench import scaling
    from bench.loops import Setting

    whole = scaling._of_ranks
    asked: list[tuple[int, int]] = []

    def noted(setting: Setting, ranks: int, threads: int, rounds: int) -> dict:
        asked.append((ranks, setting.batch))
        return {
            "images_per_second": 30.0 * ranks,
            "images_per_cpu_second": 40.0 - 10 * ranks,
            "gradient_bytes": 4e6,
            "batch": setting.batch,
            "wall_milliseconds": [1, 2, 3],
            "cpu_milliseconds": [1, 2, 3],
            "waits": [[0.1, rank / 8, 0.9] for rank in range(ranks)],
        }

    monkeypatch.setattr(scaling, "_of_ranks", noted)
    content, text = run(benchmark, tmp_path, "scaling", "--size", "8", "--precision", "fp32")
    assert asked == [(1, 4), (2, 4), (2, 8)]
    assert [row["wall_efficiency"] for row in content["rows"].values()] == [1.0] * 3
    assert [row["cpu_efficiency"] for row in content["rows"].values()] == pytest.approx([1, 2 / 3, 2 / 3])
    assert "| 2 | weak | 8 | 60 | 1.000 | 20 | 0.667 |" in text
    assert text.count("| 4.00 | 0.0% to 12.5% |\n") == 2
    found = whole(Setting(width=1, batch=4, steps=1, size=8, precision="fp32"), 2, 1, 1)
    assert found["batch"] == 4
    assert found["gradient_bytes"] > 0
    assert all(waits is None or 0 <= waits[1] <= 1 for waits in found["waits"])
    assert found["images_per_second"] == pytest.approx(4 / found["wall_milliseconds"][1] * 1e3)


def test_startup_knows_who_imports_torch(benchmark, monkeypatch, tmp_path) -> None:
    from bench import startup

    (tmp_path / "torch.py").touch()
    imports = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import torch"
    cases = {"wrong key": startup.CASES["wrong key"], "imports": (["-c", imports], 0)}
    monkeypatch.setattr(startup, "CASES", cases)
    monkeypatch.setattr(startup, "LIGHT", ("wrong key",))
    content, text = run(benchmark, tmp_path, "startup")
    assert {name: row["imports_torch"] for name, row in content["rows"].items()} == {
        "wrong key": False,
        "imports": True,
    }
    assert "wrong key CPU seconds" in text


def test_startup_runs_what_is_slow_less_often(benchmark, monkeypatch) -> None:
    from bench import startup
    from bench.measure import Sample

    asked: list[str] = []
    monkeypatch.setattr(startup, "_run", lambda name: asked.append(name) or Sample(1.0, 1.0))
    monkeypatch.setattr(startup, "_imports_torch", lambda name: name not in startup.LIGHT)
    rows = startup.measure(5, lambda text: None).body["rows"]
    assert {name: asked.count(name) for name in startup.CASES} == {n: startup.SLOW.get(n, 6) for n in startup.CASES}
    assert {name for name, row in rows.items() if not row["imports_torch"]} == set(startup.LIGHT)


def test_startup_ends_at_the_first_step(benchmark) -> None:
    from bench import startup

    assert startup._run("first step of training").cpu > 0.5


def test_startup_refuses_another_exit_code(benchmark, monkeypatch) -> None:
    from bench import startup

    monkeypatch.setattr(startup, "CASES", {"wrong": (["-c", "print('said'); raise SystemExit(4)"], 2)})
    with pytest.raises(RuntimeError, match="wrong ended with code 4 instead of 2: said"):
        startup._run("wrong")
