"""The suite ``mixers``: what its JSON and Markdown hold, and that its ratios come from the samples."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
METHODS = {"cutmix", "cutout", "fmix", "mixup", "randomix", "resizemix"}


@pytest.fixture
def bench(monkeypatch):
    """The modules of the suite; scripts/benchmark.py finds their package in the folder in which it lies."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from bench import authors, operations, operations_report, rivals
    from bench.measure import Sample

    return SimpleNamespace(
        authors=authors, operations=operations, report=operations_report, rivals=rivals, Sample=Sample
    )


@pytest.fixture
def benchmark(bench, monkeypatch):
    from scripts import benchmark

    monkeypatch.setattr("bench.measure.keep_freed_memory", lambda: True)  # not for the rest of the test process
    return benchmark


def _only(monkeypatch, bench, *libraries: str) -> None:
    """As if of all libraries only these were installed."""
    monkeypatch.setattr(bench.rivals, "_has", lambda library: library in libraries)


def test_every_size_gives_its_table(benchmark, bench, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(bench.operations, "SAMPLE_SECONDS", 1e-4)
    monkeypatch.setattr(bench.operations, "SIZES", (8, 1024))
    monkeypatch.setattr(bench.operations, "BATCHES", (2, 4))
    _only(monkeypatch, bench, "torchvision")
    assert benchmark.main(["mixers", "--rounds", "2", "--out", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "mixers-cpu.json").read_text())
    found = [(point["shape"], point["batch"], point["layout"]) for point in content["points"]]
    assert found == [
        ("3x8x8", 2, "channels_last"),
        ("3x8x8", 2, "NCHW"),
        ("3x8x8", 4, "channels_last"),
        ("3x8x8", 4, "NCHW"),
        ("1x1024", 2, "NCHW"),
        ("1x1024", 4, "NCHW"),
    ]
    for point in content["points"]:
        image = point["shape"] == "3x8x8"
        methods = point["methods"]
        assert set(methods) - {"copy of the batch"} == METHODS | ({"saliencymix"} if image else set())
        assert set(methods["mixup"]) == {"ours", "torchvision", "authors' form"}
        assert set(methods["cutmix"]) == {"ours", "authors' form"} | ({"torchvision"} if image else set())
        row = methods["mixup"]["torchvision"]
        assert row["rounds"] == 2
        for clock in ("cpu", "wall"):
            assert len(row[clock]["milliseconds"]) == len(row[clock]["ratio"]) == 3
            assert 0 < row[clock]["ratio"][0] <= row[clock]["ratio"][1] <= row[clock]["ratio"][2]
        assert methods["randomix"]["ours"]["operations_a_sample"] % 4 == 0
    assert content["provenance"]["versions"]["torchvision"]
    assert content["keeps_freed_memory"]
    text = (tmp_path / "mixers-cpu.md").read_text()
    assert "## 3x8x8, batch 4, NCHW" in text
    assert text in capsys.readouterr().out


def test_an_odd_batch_is_refused(benchmark, capsys) -> None:
    assert benchmark.main(["mixers", "--batch", "3"]) == 2
    assert capsys.readouterr().err == "benchmark.py: --batch is 3, expected an even number: timm mixes no other batch\n"


def _table(bench, monkeypatch, times: dict[str, list[float]], repeats: dict[str, int], **shape):
    """A table of CutMix with these seconds a sample; by the wall everything takes a second."""
    _only(monkeypatch, bench, "torchvision", "timm")
    monkeypatch.setattr(bench.rivals, "versions", dict)
    point = bench.operations.Point(**{"size": 32, "batch": 128, "layout": "NCHW"} | shape)
    samples = {("cutmix", who): [bench.Sample(1.0, s) for s in seconds] for who, seconds in times.items()}
    samples["copy of the batch", "ours"] = [bench.Sample(1.0, 1.0)]
    counts = {("cutmix", who): count for who, count in repeats.items()} | {("copy of the batch", "ours"): 1}
    return bench.operations.Measured(point, samples, counts)


def test_ratios_are_theirs_over_ours_round_by_round(bench, monkeypatch) -> None:
    times = {"ours": [0.1, 0.2, 0.4, 9.0], "torchvision": [0.3, 0.2, 0.2]}
    times |= {"ours, in place": [0.1, 0.2, 0.4, 9.0], "timm": [0.02, 0.04, 0.08, 1.8]}
    measured = _table(bench, monkeypatch, times, {"ours": 10, "ours, in place": 5, "torchvision": 5, "timm": 2})
    table = bench.report.Table([measured], 4, "cpu", False)
    content = table.as_dict(threads=1)
    cases = content["points"][0]["methods"]["cutmix"]
    assert cases["ours"]["cpu"]["milliseconds"][1] == pytest.approx(30)  # median of 10, 20, 40, 900
    assert cases["torchvision"]["cpu"]["milliseconds"] == pytest.approx([40, 40, 50])
    assert cases["torchvision"]["cpu"]["ratio"] == pytest.approx([1.5, 2, 4])  # of 6, 2, 1: the fourth has no partner
    assert cases["torchvision"]["rounds"] == 3
    assert cases["timm"]["cpu"]["ratio"] == pytest.approx([0.5, 0.5, 0.5])
    assert cases["timm"]["wall"]["ratio"] == pytest.approx([2.5, 2.5, 2.5])
    assert "ratio" not in cases["ours"]["cpu"] | cases["ours, in place"]["cpu"]
    text = table.markdown(content)
    row = "| cutmix | 30.000 | 60.000 | 100.000 | 2.00 [1.50, 4.00] | **0.50 [0.50, 0.50]** |"
    assert row in text.splitlines()
    assert (
        "| cutmix | 2.00 [1.50, 4.00] torchvision, 128 NCHW |" in text.splitlines()
    )  # timm overwrites: not with these
    assert "| cutmix | **0.50 [0.50, 0.50]** timm, 128 NCHW |" in text.splitlines()


def test_the_summary_takes_the_smallest_ratio_of_batches_and_layouts(bench, monkeypatch) -> None:
    slow = {"ours": [1.0], "torchvision": [3.0], "timm, copy": [2.0]}
    fast = {"ours": [1.0], "torchvision": [0.9], "timm, copy": [2.0]}
    once = dict.fromkeys(slow, 1)
    points = [
        _table(bench, monkeypatch, slow, once),
        _table(bench, monkeypatch, fast, once, batch=256, layout="channels_last"),
        _table(bench, monkeypatch, slow, once, size=64),
    ]
    table = bench.report.Table(points, 1, "cpu", True)
    lines = table.markdown(table.as_dict(threads=1)).splitlines()
    worst = "**0.90 [0.90, 0.90]** torchvision, 256 channels_last"
    assert f"| cutmix | {worst} | 2.00 [2.00, 2.00] timm, copy, 128 NCHW |" in lines


def test_what_is_not_installed_is_said(bench, monkeypatch) -> None:
    measured = _table(bench, monkeypatch, {"ours": [1.0]}, {"ours": 1})
    table = bench.report.Table([measured], 1, "cpu", True)
    text = table.markdown(table.as_dict(threads=1))
    assert "- Not installed, so left out: kornia (`pip install -e '.[bench]'`)." in text
    assert "left out: timm" not in text


@pytest.mark.parametrize("shape", [(3, 12, 12), (1, 40)])
def test_authors_forms_keep_the_batch_and_its_shape(bench, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    inputs, labels = torch.rand(16, *shape), torch.arange(16)
    kept = inputs.clone()
    for name, form in bench.authors.forms().items():
        if name == "saliencymix":
            continue  # needs OpenCV: below
        mixed, given, *_ = form(inputs, labels)
        assert mixed.shape == inputs.shape, name
        assert torch.equal(inputs, kept), name
        assert not torch.equal(mixed, inputs), name
        assert given is labels, name


@pytest.mark.parametrize("method", ["cutmix", "resizemix", "fmix", "mixup"])
def test_forms_mix_by_the_lam_that_they_return(bench, method: str) -> None:
    own = torch.arange(8.0)
    inputs = own[:, None, None, None].expand(8, 1, 16, 16)
    mixed, labels, partners, lam = bench.authors.forms()[method](inputs, own.long())
    assert mixed.mean((1, 2, 3)).numpy() == pytest.approx((lam * labels + (1 - lam) * partners).numpy(), abs=0.02)


@pytest.mark.parametrize("library", ["torchvision", "timm", "kornia", "OpenCV"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1024)])
def test_rivals_mix_what_they_are_given(bench, library: str, shape: tuple[int, ...]) -> None:
    if not bench.rivals._has(library):
        pytest.skip(f"{library} is not installed")
    torch.manual_seed(0)
    for method in METHODS | {"saliencymix"}:
        for name, rival in bench.rivals.of(method, shape, 10, torch.device("cpu")).items():
            if name.removesuffix(", copy") != (bench.rivals.AUTHORS if library == "OpenCV" else library):
                continue
            inputs, labels = torch.rand(8, *shape), torch.arange(8)
            given = inputs.clone()
            mixed = rival.run(inputs, labels)[0]
            assert mixed.numel() == given.numel(), (method, name)
            assert not torch.equal(mixed.view_as(given), given), (method, name)
            assert torch.equal(inputs, given) != rival.in_place, (method, name)


def test_an_overwritten_batch_is_put_right_before_each_sample(bench) -> None:
    inputs, labels = torch.rand(4, 3, 8, 8), torch.arange(4)
    given, seen = inputs.clone(), []

    def erase(batch, _):
        seen.append(batch.clone())
        return batch.zero_()

    case = bench.operations._case(bench.rivals.Rival(erase, in_place=True), inputs, labels, 1)
    for _ in range(2):
        bench.operations._sample(case, 2)
    assert [torch.equal(batch, inputs) for batch in seen] == [True, False, True, False]
    assert torch.equal(inputs, given)


def test_a_composite_takes_its_candidates_in_turn(bench) -> None:
    from randomix import StepRng, mixers

    mixer = mixers.build("randomix", num_classes=2)
    steps, turns = bench.operations._steps(mixer)
    names = [mixer(torch.rand(2, 3, 8, 8), torch.arange(2), StepRng(0, next(steps))).name for _ in range(12)]
    assert turns == 4
    assert names[:4] == names[4:8] == names[8:]
    assert sorted(names[:4]) == ["cutmix", "fmix", "mixup", "resizemix"]


def test_what_needs_the_network_is_timed_without_it(bench) -> None:
    found = bench.operations.network_cases(bench.operations.Point(32, 2, "channels_last"), torch.device("cpu"))
    ours = {method for method, who in found if who == "ours"}
    blocks = {f"puzzlemix, {n} x {n} blocks" for n in (2, 4, 8, 16)}
    assert ours == {"comixup", "manifold_mixup of 64 channels", "patchup of 64 channels"} | blocks
    graph_cuts = importlib.util.find_spec("gco") is not None
    assert {method for method, who in found if who != "ours"} == ours - {"comixup"} - (set() if graph_cuts else blocks)
    for case in found.values():
        case.run()
