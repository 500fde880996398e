"""Every command of the README runs; long ones are shortened by overrides that are put behind them."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line.strip()]
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHORT = ["dataset.train_size=64", "model.width=4", "recipe.epochs=1", "recipe.batch_size=32", "trainer.threads=1"]
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
ABSENT = {f"dataset={name}" for name in ("cifar100", "tiny_imagenet", "imagenet", "speech_commands", "image_folder")}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The checkout as links, so that what commands write lands elsewhere."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("train.py", "eval.py", "configs", "datasets", "models", "randomix", "scripts", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    for name in ("Makefile", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(command, folder, code=0):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def shortened(command, folder):
    """A command of the README, and what makes it small."""
    if command[:2] == ["python", "eval.py"]:
        (seed,) = re.findall(r"seed-\d+", command[2])
        (found,) = [p.parent for p in (folder / "outputs/digits").rglob("record.json") if seed in str(p)]
        return ["python", "eval.py", f"checkpoint={found}", *command[3:]]
    if "train.py" not in command or "--help" in command:
        return command
    extra = list(SHORT)
    if "experiment=fashion_mnist_preact_resnet18" in command:
        extra += ["output_root=outputs/f", "mixer=randomix", "seed=0"]
    return [*command, *extra]


def test_commands_of_the_readme(checkout):
    """In their order, as a reader would."""
    assert len(COMMANDS) > 15
    for command in COMMANDS:
        if command[0] == "make":
            assert run([command[0], "-n", *command[1:]], checkout)
        elif command[0] == "pip":
            assert command == ["pip", "install", "."]  # the environment of the tests has it
        elif "scripts/prepare_data.py" in command:
            assert command[2] in run([*command[:2], "--list"], checkout)  # no network here
        elif ABSENT & set(command):  # sets that are not here: the settings are right, and that is all that can be said
            assert run([*command[:2], "--cfg", "job", *command[2:]], checkout)
        elif any("fashion_mnist" in word for word in command) and not FASHION_MNIST.exists():
            with_cfg = [*command[:2], "--cfg", "job", *[w for w in command[2:] if w != "-m"]]
            assert "fashion_mnist" in run(with_cfg, checkout)
        else:
            run(shortened(command, checkout), checkout)


def test_the_printed_mistakes(checkout):
    (session,) = re.findall(r"```text\n\$ (.*?)```", README, re.DOTALL)
    command, *expected = session.strip().splitlines()
    printed = run(shlex.split(command), checkout, code=2)
    for line in expected:
        assert line in printed.splitlines()


def test_the_library_example():
    """As printed, on a signal, an image and a volume."""
    import torch
    from torch import nn

    example = EXAMPLES[0]
    code_lines = [line for line in example.splitlines() if line.strip()]
    assert len(code_lines) <= 8
    for shape in [(7, 3, 9), (7, 3, 8, 6), (7, 3, 4, 5, 6)]:
        model = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
        loader = [(torch.rand(shape), torch.arange(7))] * 3
        scope = {"loader": loader, "model": model}
        exec(example, scope)
        assert torch.isfinite(scope["loss"])
        assert model[1].weight.grad is not None


def test_the_example_with_a_network():
    """As printed, with a network of torchvision; each method of it is drawn."""
    import torch
    from torchvision.models import resnet18

    scope = {"model": resnet18(num_classes=10), "loader": [(torch.rand(6, 3, 32, 32), torch.arange(6))] * 12}
    (example,) = EXAMPLES[1:]
    used: set[str] = set()
    exec(
        example.replace("    loss.backward()", "    loss.backward()\n    used.add(mixed.name)"), scope | {"used": used}
    )
    assert used == {"cutmix", "manifold_mixup", "puzzlemix"}
    assert scope["model"].conv1.weight.grad.isfinite().all()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_table_is_that_of_the_records():
    """The demo's table in the README is the one in results/tables, so it cannot go stale."""
    (shown,) = re.findall(r"<!-- demo table: begin -->\n(.*?)<!-- demo table: end -->", README, re.DOTALL)
    tables = [
        f.read_text().replace("](../records/", "](results/records/") for f in (ROOT / "results/tables").glob("*.md")
    ]
    assert "| Baseline |" in shown
    assert any(shown.strip() in table for table in tables)
