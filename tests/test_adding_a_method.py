"""docs/adding_a_method.md, followed to the letter in a copy of the checkout: one file, one YAML, and it trains."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/adding_a_method.md").read_text()
SHORT = ["dataset.train_size=64", "model.width=4", "recipe.batch_size=32", "trainer.threads=1"]
pytestmark = pytest.mark.slow


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("randomix", "configs", "datasets", "models", "scripts", "tests", "train.py", "pyproject.toml"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    (code,), (settings,) = blocks("python"), blocks("yaml")
    (folder / "randomix/mixers/stripes.py").write_text(code)
    (folder / "configs/mixer/stripes.yaml").write_text(settings)
    return folder


def run(command, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    command = [sys.executable if word == "python" else word for word in command]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_commands_of_the_page(checkout):
    commands = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        printed = run([*command, *SHORT] if "train.py" in command else command, checkout)
        if "pytest" in command:
            assert int(re.search(r"(\d+) passed", printed)[1]) > 15
        if "train.py" in command:
            assert "stripes" in printed or "randomix" in printed
    records = [path.read_text() for path in (checkout / "outputs").rglob("record.json")]
    assert len(records) == 2
    assert all('"stripes"' in text for text in records)


def test_a_wrong_setting_is_named(checkout):
    command = [sys.executable, "train.py", "mixer=stripes", "mixer.widht=3", "mixer.prob=2"]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "mixer.widht" in done.stderr and "mixer.width" in done.stderr
    assert "mixer.prob=2" in done.stderr


def test_the_example_is_in_the_style_of_the_library(checkout):
    ruff = Path(sys.executable).parent / "ruff"
    if not ruff.exists():
        pytest.skip("ruff is not installed")
    for action in (["check"], ["format", "--check"]):
        run([str(ruff), *action, "randomix/mixers/stripes.py"], checkout)
