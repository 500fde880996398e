"""The arrows between packages point one way, and what must answer quickly loads no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import randomix

ROOT = Path(__file__).resolve().parents[1]
LAYERS = {  # package: what it may import of ours
    "datasets.formats": {"datasets.formats", "randomix.errors"},
    "datasets.preparing": {
        "datasets.preparing",
        "datasets.integrity",
        "datasets.places",
        "randomix.errors",
        "randomix.files",
    },
    "datasets.sound": {
        "datasets.sound",
        "datasets.formats",
        "datasets.integrity",
        "datasets.resident",
        "datasets.cache",
        "datasets.options",
        "randomix.devices",
        "randomix.engine.protocols",
        "randomix.errors",
        "randomix.rng",
    },
    "datasets.streams": {
        "datasets.streams",
        "datasets.corrupted",
        "datasets.formats",
        "datasets.options",
        "datasets.places",
        "datasets.subsets",
        "randomix.devices",
        "randomix.engine.protocols",
        "randomix.errors",
        "randomix.files",
        "randomix.rng",
        "randomix.robustness.corruptions",
    },
    "randomix.engine": {
        "randomix.engine",
        "randomix.records",
        "randomix.mixers",
        "randomix.losses",
        "randomix.rng",
        "randomix.types",
        "randomix.errors",
        "randomix.files",
        "randomix.networks",
    },
    "randomix.robustness": {"randomix.robustness", "randomix.engine", "randomix.errors", "randomix.networks"},
    "randomix.runs": {
        "randomix.runs",
        "randomix.robustness",
        "randomix.engine",
        "randomix.records",
        "randomix.mixers",
        "randomix.errors",
        "randomix.files",
    },
    "randomix.records": {"randomix.records", "randomix.errors", "randomix.files"},
    "randomix.errors": set(),
    "randomix.files": {"randomix.errors"},
    "randomix.masks": {"randomix.masks", "randomix.devices"},
    "randomix.partition": {"randomix.partition"},
    "randomix.devices": set(),
    "randomix.rng": {"randomix.seeding"},
    "randomix.seeding": set(),
    "randomix.functional": {
        "randomix.functional",
        "randomix.masks",
        "randomix.saliency",
        "randomix.labelling",
        "randomix.partition",
        "randomix.transport",
        "randomix.types",
        "randomix.devices",
    },
    "randomix.losses": {"randomix.losses"},
    "randomix.mixers": {
        "randomix.mixers",
        "randomix.functional",
        "randomix.masks",
        "randomix.partition",
        "randomix.types",
        "randomix.rng",
        "randomix.devices",
        "randomix.networks",
    },
    "randomix.labelling": {"randomix.labelling_cuda"},
    "randomix.labelling_cuda": set(),
    "randomix.transport": {"randomix.devices", "randomix.masks"},
    "randomix.saliency": {"randomix.devices"},
    "randomix.networks": {"randomix.types"},
    "models": {"models", "randomix.types", "randomix.errors"},
    "datasets": {
        "datasets",
        "randomix.devices",
        "randomix.errors",
        "randomix.engine.protocols",
        "randomix.rng",
        "randomix.files",
        "randomix.robustness.corruptions",  # test sets are made with them
    },
}


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("randomix", "models", "datasets")}


def files_of(package: str) -> list[Path]:
    path = ROOT / package.replace(".", "/")
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert found
    return found


@pytest.mark.parametrize("package", LAYERS)
def test_arrows_point_one_way(package):
    for file in files_of(package):
        for name in imported(file):
            allowed = any(name == target or name.startswith(target + ".") for target in LAYERS[package])
            assert allowed, f"{file}: {name}"


def test_the_library_imports_neither_networks_nor_data():
    for file in files_of("randomix"):
        assert not {n for n in imported(file) if n.split(".")[0] in ("models", "datasets")}, file


def test_no_method_is_named_outside_its_own_file():
    import randomix.mixers

    methods = set(randomix.mixers.available()) - {"randomix"}  # the project's own name too
    places = [f for f in files_of("randomix.engine") + files_of("randomix.robustness") + files_of("randomix.runs")]
    for file in places:
        words = {n.value for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Constant)}
        assert not methods & {w for w in words if isinstance(w, str)}, file


@pytest.mark.parametrize(
    "module",
    [
        "randomix",
        "randomix.mixers",
        "randomix.runs.build",
        "randomix.engine.schema",
        "randomix.engine.cli",
        "randomix.records.tables",
        "randomix.records.page",
        "models",
        "datasets",
    ],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'sklearn', 'matplotlib', 'wandb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_and_functions_fit_on_a_screen():
    for file in [f for p in ("randomix", "models", "datasets", "scripts") for f in sorted((ROOT / p).rglob("*.py"))]:
        text = file.read_text()
        assert text.count("\n") <= 350, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{file}:{node.lineno} {node.name}"


def test_public_names_are_known_to_type_checkers():
    """The names that __getattr__ imports are those that the block for type checkers imports, from the same modules."""
    tree = ast.parse((ROOT / "randomix" / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname: node.module for node in block.body for alias in node.names if alias.asname == alias.name}
    modules = {name: "randomix" for name in randomix._MODULES}
    assert typed == randomix._EXPORTS | modules
    assert set(randomix.__all__) == {*typed, "__version__"}
    for name in typed:
        assert getattr(randomix, name) is not None
    with pytest.raises(AttributeError, match="'randomix' has no attribute 'Mixdown'"):
        _ = randomix.Mixdown
