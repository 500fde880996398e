"""Grids: what is read, one line for each damage, and records matched to cells strictly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from randomix.records import grid as module
from randomix.records.grid import Grid, match
from tests.records.fakes_grid import EVALUATION, grid, record, run, write_grid

CELL = "table4/mixup/fgsm_error"


def read(folder: Path, content: Any) -> tuple[Grid | None, list[str]]:
    (folder / "paper.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return module.read(folder / "paper.json")


def one(folder: Path) -> Grid:
    found, lines = read(folder, grid(runs=[run("mixup", 4, ["top1_error", "fgsm_error", "occlusion_error"])]))
    assert found is not None and not lines
    return found


def test_a_whole_grid_is_read(tmp_path: Path) -> None:
    found, lines = module.read(write_grid(tmp_path, grid("demo")))
    assert lines == [] and found.scale == "demo" and found.stand_ins["speech_commands"] == "Fake words"
    assert sum(len(r.cells) for r in found.runs) == 163 and len(found.runs) == 56
    first = found.runs[0]
    assert first.seeds == (0, 1, 2) and first.gpu_hours == 1.25 and first.evaluation == EVALUATION


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('{"scale": ', "damaged: not JSON"),
        ("[]", "foreign: no grid (it has no keys 'scale' and 'runs')"),
        ({"schema": 1}, "foreign: no grid"),
        ({"scale": "huge", "runs": []}, "damaged: scale must be one of paper, demo, smoke, got 'huge'"),
        ({"scale": "demo", "runs": []}, "damaged: stand_ins is empty, but at scale demo something stands in"),
        ({"scale": "paper", "stand_ins": ["x"], "runs": []}, "damaged: stand_ins must map data sets to words"),
        ({"scale": "paper", "runs": []}, None),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(tmp_path: Path, content: Any, line: str | None) -> None:
    found, lines = read(tmp_path, content)
    if line is None:
        assert found is not None and lines == []
    else:
        assert found is None and len(lines) == 1 and "paper.json: " in lines[0] and line in lines[0]


def test_an_unreadable_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "paper.json").write_bytes(b"\xff\xfe\x00")
    assert module.read(tmp_path / "paper.json") == (None, [f"{tmp_path / 'paper.json'}: damaged: not JSON text"])
    assert "cannot be read" in module.read(tmp_path / "none.json")[1][0]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda r: r.pop("dataset"), "left out: dataset must be a string, got None"),
        (lambda r: r.update(config_hash="../x"), "left out: config_hash must be eight hexadecimal digits, got '../x'"),
        (lambda r: r.update(seeds=[0, True]), "left out: seeds must be a list of integers"),
        (lambda r: r.update(seeds=[]), "left out: seeds must be a list of integers"),
        (lambda r: r.update(cells="table1"), "left out: cells must be a list of ids"),
        (lambda r: r.update(gpu_hours="2"), "left out: gpu_hours must be a number or null"),
        (lambda r: r.update(command="a\nb"), "left out: command must be one line"),
        (lambda r: r.update(evaluation={"fgsm": 8}), "left out: evaluation must map evaluators to their settings"),
        (lambda r: r.update(evaluators=[1]), "left out: evaluators must be a list of names"),
        (lambda r: r["cells"].append("table7/mixup/top1"), "'table7/mixup/top1' is no cell of the paper's tables"),
        (lambda r: r["cells"].append("table4/baseline/top1_error"), "filled by runs[0] already, which counts"),
    ],
)
def test_a_damaged_run_is_one_line_and_the_others_count(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], line: str
) -> None:
    content = grid(runs=[run("baseline", 4, ["top1_error"]), copy.deepcopy(run("mixup", 4, ["top1_error"]))])
    change(content["runs"][1])
    found, lines = read(tmp_path, content)
    assert len(lines) == 1 and "paper.json: runs[1]" in lines[0] and line in lines[0]
    assert found.runs[0].cells == ("table4/baseline/top1_error",) and len(found.runs) == (
        1 if "left out" in line else 2
    )


def test_an_entry_that_is_no_object(tmp_path: Path) -> None:
    found, lines = read(tmp_path, grid(runs=[7]))
    assert found.runs == () and lines[0].endswith("runs[0]: left out: must be an object, got 7")


def test_a_record_fills_the_cells_of_its_run_only(tmp_path: Path) -> None:
    found = one(tmp_path)
    other = record("mixup", 4, 1, 30.0, recipe={"note": "another"})
    cells = match(found, [record("mixup", 4, 0, 20.0, extra={"fgsm_error": 60.0}), other, record("cutmix", 4)])
    assert cells[CELL].statistic("fgsm_error").values == [60.0]
    assert cells["table4/mixup/top1_error"].statistic("top1_error").values == [20.0]
    assert match(found, [other])[CELL].group is None and match(found, [other])[CELL].statistic("fgsm_error") is None


def test_an_evaluator_with_other_settings_does_not_count(tmp_path: Path) -> None:
    """FGSM of 4/255 is another test than one of 8/255; the clean error of that run counts."""
    found = one(tmp_path)
    weaker = record(
        "mixup",
        4,
        0,
        20.0,
        extra={"fgsm_error": 60.0, "occlusion_error": 40.0},
        evaluator=EVALUATION | {"fgsm": {"eps_255": 4.0}},
    )
    cells = match(found, [weaker])
    assert cells[CELL].statistic("fgsm_error") is None
    assert cells["table4/mixup/occlusion_error"].statistic("occlusion_error").values == [40.0]
    assert cells["table4/mixup/top1_error"].statistic("top1_error").values == [20.0]
    later = record("mixup", 4, 0, 20.0, extra={"fgsm_error": 61.0}, kind="eval", checkpoint="last.pt")
    assert match(found, [weaker, later])[CELL].statistic("fgsm_error").values == [61.0]


def test_neutral_settings_are_equal(tmp_path: Path) -> None:
    """The grid states FGSM's default, the record is from before it was stated, or the other way round."""
    found = one(tmp_path)
    silent = record("mixup", 4, 0, extra={"fgsm_error": 60.0}, evaluator=EVALUATION | {"fgsm": {}})
    assert match(found, [silent])[CELL].statistic("fgsm_error").values == [60.0]


def test_a_record_whose_hash_does_not_fit_fills_nothing(tmp_path: Path) -> None:
    import dataclasses

    true = record("mixup", 4, 0, 20.0)
    edited = dataclasses.replace(true, config={**true.config, "model": {"name": "preact_resnet18", "width": 64}})
    assert edited.config_hash == true.config_hash
    cells = match(one(tmp_path), [edited])
    assert cells["table4/mixup/top1_error"].group is None
