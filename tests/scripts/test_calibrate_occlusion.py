"""The setting of occlusion nearest to the paper's Baseline, on a tiny run."""

from __future__ import annotations

import json

import pytest

import datasets
from randomix.robustness.evaluators import run_evaluators
from scripts import calibrate_occlusion
from tests.support import tiny_config, train

KNOWN = [("clipped", 4, 30.0), ("clipped", 8, 45.0), ("inside", 4, 40.0), ("inside", 8, 60.0)]
POINTS = [dict(zip(("placement", "block", "error"), known, strict=True)) for known in KNOWN]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("runs"))
    return train(config | {"mixer": {"name": "baseline"}})


def test_fourteen_settings_of_a_run(run, tmp_path, capsys):
    out = tmp_path / "new" / "calibration.json"
    arguments = [str(run.root), "--device", "cpu", "--repeats", "2", "--target", "70"]
    assert calibrate_occlusion.main([*arguments, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert [(p["placement"], p["block"]) for p in found["settings"]] == [
        (placement, block) for placement in ("clipped", "inside") for block in range(1, 8)
    ]
    _, epoch, data, model = calibrate_occlusion.load(run.root, None)
    assert (found["epoch"], found["samples"], found["target"]) == (epoch, 37, 70.0) == (2, 37, 70.0)
    assert isinstance(data, type(datasets.build(tiny_config(tmp_path)["dataset"])))
    for point in found["settings"]:
        settings = {"occlusion": {"placement": point["placement"], "block": point["block"], "repeats": 2}}
        alone = run_evaluators(model, data.eval_set("cpu"), names=["occlusion"], settings=settings, batch_size=16)
        assert alone["counts"]["occlusion"]["correct1"] == point["correct1"]
        assert alone["metrics"]["occlusion_error"] == pytest.approx(point["error"])
        assert alone["metrics"]["occlusion_error_std"] == pytest.approx(point["error_std"])
    best = min(found["settings"], key=lambda p: abs(p["error"] - 70))
    assert (best["placement"], best["block"]) == (found["nearest"]["placement"], found["nearest"]["block"])
    text = capsys.readouterr().out
    chosen = f"evaluator.occlusion.placement={best['placement']} evaluator.occlusion.block={best['block']}"
    assert text.splitlines()[-2:] == [chosen, str(out)]
    assert calibrate_occlusion.main([*arguments, "--out", str(tmp_path / "b.json"), "--batch-size", "3"]) == 0
    again = json.loads((tmp_path / "b.json").read_text())
    assert again["settings"] == found["settings"]


def test_two_names_of_a_block_are_one_line(run, tmp_path, capsys):
    """4 pixels are half of 8: their numbers are the same, and stand in the table once."""
    out = tmp_path / "calibration.json"
    arguments = ["--device", "cpu", "--repeats", "1", "--blocks", "4", "0.5", "2", "--out", str(out)]
    assert calibrate_occlusion.main([str(run.root), *arguments]) == 0
    found = [(p["placement"], p["block"]) for p in json.loads(out.read_text())["settings"]]
    assert found == [("clipped", 4), ("clipped", 2), ("inside", 4), ("inside", 2)]
    _, *table = [line.split() for line in capsys.readouterr().out.splitlines()[:3]]
    assert [line[0] for line in table] == ["4", "2"] and [len(line) for line in table] == [3, 3]


@pytest.mark.parametrize(
    ("target", "expected"), [(42.5, ("clipped", 8)), (41, ("inside", 4)), (99, ("inside", 8)), (35.0, ("clipped", 4))]
)
def test_the_nearest_is_named(target, expected):
    best = calibrate_occlusion.nearest(POINTS, target)
    assert (best["placement"], best["block"]) == expected
    error = next(p["error"] for p in POINTS if (p["placement"], p["block"]) == expected)
    assert best["difference"] == error - target


def test_the_paper_is_the_default_target(run):
    options = calibrate_occlusion._parser().parse_args([str(run.root)])
    assert (options.target, options.repeats, len(options.blocks)) == (42.5, 5, 7)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--blocks", "9"], "evaluator.occlusion_sweep: occlusion block is 9 pixels, expected 1 to 8"),
        (["--blocks", "4", "4"], "evaluator.occlusion_sweep.blocks has 4 twice"),
        (["--repeats", "0"], "evaluator.occlusion_sweep.repeats is 0"),
        (["--target", "nan"], "--target is nan, expected an error of 0 to 100 percent"),
        (["--seed", "-1"], "--seed is -1, expected at least 0"),
        (["--batch-size", "0"], "--batch-size is 0, expected at least 1"),
        (["--out", "/dev/null/x.json", "--blocks", "2"], "cannot write /dev/null: File exists; choose a folder"),
    ],
)
def test_wrong_arguments_give_one_line(run, capsys, arguments, line):
    assert calibrate_occlusion.main([str(run.root), "--device", "cpu", *arguments]) == 2
    (printed,) = capsys.readouterr().err.splitlines()
    assert printed.startswith("calibrate_occlusion.py: ") and line in printed


def test_no_run_is_one_line(tmp_path, capsys):
    assert calibrate_occlusion.main([str(tmp_path)]) == 2
    assert "there is no file" in capsys.readouterr().err
