"""scripts/find_batch.py: what it prints and refuses, and the memory of a sample in the networks' table."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["model.width=4", "model.blocks=[1,1]", "recipe.batch_size=48", "trainer.device=cpu", "trainer.threads=1"]


@pytest.fixture
def find_batch(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import find_batch

    return find_batch


def test_what_fits_is_a_table_and_a_line(find_batch, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_batch.main([*SMALL, "trainer.precision=fp32"]) == 0
    output = capsys.readouterr().out
    rows = re.findall(r"^\| (\d+) \| ([\d,]+) \| [\d.]+ \|$", output, re.M)
    assert [int(size) for size, _ in rows] == [4, 8, 16, 32, 48]
    assert re.search(
        r"^fitted: -?[\d.,]+ MiB \+ [\d.]+ MiB a sample; free: [\d,]+ MiB, of which 90% are used$", output, re.M
    )
    assert "trainer.micro_batch_size=auto: 48 of 48 samples at a time" in output
    assert not list(tmp_path.iterdir())  # nothing is written


def test_several_processes_share_the_batch_and_a_sweep_is_its_first_run(find_batch, capsys):
    assert find_batch.main([*SMALL, "trainer.nproc=2", "-m", "mixer=mixup,cutmix"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^the first of 2 runs: .*mixer=mixup", output, re.M)
    assert "24 of 24 samples at a time" in output


def test_wrong_settings_are_those_of_train_py(find_batch, capsys):
    assert find_batch.main(["recipe.batch_sise=3", "trainer.micro_batch_size=7"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("error: recipe.batch_sise")
    assert any("trainer.micro_batch_size=7: must divide" in line for line in errors)
    assert errors[-1].startswith("nothing was measured")
    assert find_batch.main(["dataset=cifar10", "dataset.root=/nowhere"]) == 2
    assert "error: " in capsys.readouterr().err


def test_memory_that_does_not_suffice_has_its_exit_code(find_batch, capsys, monkeypatch):
    from randomix.engine.memory import CpuMeter

    monkeypatch.setattr(CpuMeter, "free", lambda self: 1000)
    assert find_batch.main(SMALL) == 4
    assert re.search(r"error: trainer\.micro_batch_size=auto: not even 2 samples fit", capsys.readouterr().err)


def test_a_sample_takes_less_where_stages_are_checkpointed(find_batch):
    from bench import cases, sample_memory

    assert sys.modules["bench"].__path__[0] == str(ROOT / "scripts" / "bench")
    options = {"width": 16, "blocks": [2, 2], "stem_stride": 1, "stem_kernel": 3}
    case = cases.case("long", "preact_resnet18_1d", (1, 1024), 4, 4, 0.0, 0.0, **options)
    found = sample_memory.per_sample(case, 1, torch.device("cpu"))
    assert list(found) == ["fp32", "bf16"]
    for (name, memory), width in zip(found.items(), (4, 2), strict=True):
        place = 16 * 1024 * width / 2**20  # one map of features
        assert memory["plain"] == pytest.approx(21 * place, rel=0.05), name  # 2 of the stem, 4 a block, 3 at work
        assert memory["checkpointed"] == pytest.approx(12 * place, rel=0.05), name  # 1 a block but for the one at work
        assert memory["time_ratio"] > 0
    lines = sample_memory.table({"long": found})
    assert lines[-1].startswith("| long | ")
    assert lines[-1].count("|") == lines[-3].count("|")
