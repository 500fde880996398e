"""The experiments of Tables 1 to 6 and the grid made of them: what each run is, against the paper's text."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from grid import document  # noqa: E402
from grid.plan import Experiments, Run, experiments, plan  # noqa: E402
from grid.scales import load  # noqa: E402
from randomix.records.grid import read  # noqa: E402
from randomix.records.identity import config_hash  # noqa: E402
from randomix.records.paper import cell_ids  # noqa: E402


@pytest.fixture(scope="module")
def grids() -> dict[str, list[Run]]:
    names = ("paper", "demo")
    return dict(zip(names, plan(ROOT, *(load(name, ROOT / "configs") for name in names)), strict=True))


@pytest.fixture(scope="module")
def paper(grids) -> list[Run]:
    return grids["paper"]


@pytest.fixture(scope="module")
def demo(grids) -> list[Run]:
    return grids["demo"]


def at(runs: list[Run], cell: str) -> Run:
    """The run of a cell."""
    (found,) = [run for run in runs if cell in run.cells]
    return found


@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_every_cell_with_a_number_is_filled_by_exactly_one_run(scale: str, grids) -> None:
    runs = grids[scale]
    cells = [cell for run in runs for cell in run.cells]
    assert sorted(cells) == sorted(cell_ids())
    assert len({run.key for run in runs}) == len(runs) == 90


@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_the_committed_grid_is_fresh_and_sound(scale: str, grids) -> None:
    path, runs = ROOT / "results" / "grid" / f"{scale}.json", grids[scale]
    stale = "not what the experiments say: python scripts/reproduce.py write_grid=true"
    assert path.read_text() == document.text(load(scale, ROOT / "configs"), runs), stale
    grid, lines = read(path)
    assert lines == []
    assert [run.config_hash for run in grid.runs] == [run.key[2] for run in runs]


def test_the_recipes_are_those_of_section_4(paper: list[Run]) -> None:
    want = {  # epochs, batch, learning rate, weight decay
        "cifar10": (200, 256, 0.1, 5e-4),
        "cifar100": (200, 256, 0.1, 5e-4),
        "tiny_imagenet": (200, 256, 0.1, 5e-4),
        "imagenet": (100, 2048, 0.8, 4e-5),
        "speech_commands": (300, 256, 0.05, 5e-4),
    }
    for run in paper:
        if any("authors-" in cell for cell in run.cells):
            continue
        recipe = run.config["recipe"]
        got = recipe["epochs"], recipe["batch_size"], recipe["lr"], recipe["weight_decay"]
        assert got == want[run.config["dataset"]["name"]], run.overrides
        assert (recipe["momentum"], recipe["nesterov"], recipe["schedule"]) == (0.9, False, "cosine")
        alpha = 0.2 if run.config["dataset"]["name"] == "imagenet" else 1.0
        assert run.config["mixer"].get("alpha", alpha) == alpha


@pytest.mark.parametrize(
    ("cell", "weights"),
    [
        ("table1/randomix/cifar10-preact_resnet18", [1, 1, 1, 1]),
        ("table1/randomix/cifar10-wrn_28_10", [3, 1, 1, 1]),
        ("table1/randomix/cifar100-wrn_28_10", [4, 1, 1, 1]),  # 84.84 is 100 - 15.16
        ("table2/randomix/imagenet-top1", [3, 1, 1, 1]),
        ("table3/randomix/top1", [1, 1, 1, 1]),
        ("table5/randomix-2111/fgsm_error", [2, 1, 1, 1]),
        ("table6/MCRF/top1", [1, 1, 1, 1]),
    ],
)
def test_weights(paper: list[Run], cell: str, weights: list[int]) -> None:
    mixer = at(paper, cell).config["mixer"]
    assert mixer["weights"] == weights
    assert mixer["candidates"] == ["mixup", "cutmix", "resizemix", "fmix"]


def test_what_tables_share_is_run_once(paper: list[Run]) -> None:
    for row in ("baseline", "mixup", "cutmix", "fmix", "resizemix"):
        assert at(paper, f"table4/{row}/fgsm_error") is at(paper, f"table1/{row}/cifar100-wrn_28_10")
    assert at(paper, "table4/randomix/top1_error") is at(paper, "table5/randomix-4111/corruption_error")
    assert at(paper, "table6/M/top1") is at(paper, "table2/mixup/tiny_imagenet-top5")
    assert at(paper, "table6/MCRF/top1") is at(paper, "table2/randomix/tiny_imagenet-top1")
    assert at(paper, "table4/mixup/fgsm_error").config["evaluators"] == ["clean", "fgsm", "corruptions", "occlusion"]


def test_the_authors_halves_differ_as_their_code_does(paper: list[Run]) -> None:
    def config(row: str, column: str = "cifar100-wrn_28_10") -> dict:
        return at(paper, f"table1/authors-{row}/{column}").config

    assert config("fmix")["mixer"]["spectrum"] == "code" and config("fmix")["recipe"]["weight_decay"] == 1e-4
    assert config("saliencymix")["mixer"]["prob"] == 0.5 and config("saliencymix")["model"]["dropout"] == 0.3
    assert config("cutout")["mixer"]["length"] == 8 and config("cutout", "cifar10-wrn_28_10")["mixer"]["length"] == 16
    assert config("resizemix")["recipe"]["warmup_epochs"] == 5 and config("resizemix")["model"]["conv_bias"]
    for row in ("manifold_mixup", "patchup"):
        wide, narrow = config(row), config(row, "cifar10-preact_resnet18")
        assert (wide["recipe"]["epochs"], narrow["recipe"]["epochs"]) == (400, 2000)
        assert wide["dataset"]["mean"] != narrow["dataset"]["mean"]
        assert wide["recipe"]["loss"] == "softmax_bce" and wide["dataset"]["crop_padding"] == 2
    assert config("puzzlemix")["recipe"]["milestones"] == [0.5, 0.75]
    assert config("comixup", "cifar100-preact_resnet18")["mixer"]["precedence"] == "code"


@pytest.mark.parametrize(
    ("scale", "number"), [("paper", i) for i in range(0, 90, 6)] + [("demo", i) for i in range(3, 90, 6)]
)
def test_the_fast_composer_and_hydra_agree(scale: str, number: int, grids) -> None:
    import hydra
    from omegaconf import OmegaConf

    from randomix.engine.validation import normalise

    run = grids[scale][number]
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose("train", list(run.overrides)), resolve=True)
    assert normalise(config) == run.config
    assert config_hash(normalise(config)) == run.key[2]


def test_no_experiment_that_is_swept_over_methods_sets_some(paper: list[Run]) -> None:
    import yaml

    for name in experiments(ROOT):
        content = yaml.safe_load((ROOT / "configs" / "experiment" / f"{name}.yaml").read_text())
        swept = "mixer" in content["hydra"]["sweeper"]["params"]
        assert not (swept and "mixer" in content), name  # the composer takes a method's file as it is
        assert content["output_root"] == "outputs/tables/paper"


def test_every_experiment_sweeps_its_runs_and_seeds() -> None:
    import yaml

    for path in (ROOT / "configs" / "experiment").glob("table*.yaml"):
        hydra = yaml.safe_load(path.read_text())["hydra"]
        assert path.stem in experiments(ROOT)
        assert (hydra["mode"], set(hydra), set(hydra["sweeper"])) == ("MULTIRUN", {"mode", "sweeper"}, {"params"})
        seeds = str(hydra["sweeper"]["params"]["seed"]).split(",")
        assert seeds == [str(i) for i in range(len(seeds))], path.stem


def test_a_wrong_setting_is_found(tmp_path: Path) -> None:
    from randomix.errors import ConfigError

    with Experiments(ROOT) as composer, pytest.raises(ConfigError, match="epochs=none"):
        composer.compose(["experiment=table6_candidates", "recipe.epochs=none"])


def test_small_grids_are_small_and_apart(demo: list[Run], paper: list[Run]) -> None:
    assert not {run.key for run in demo} & {run.key for run in paper}
    assert {run.config["output_root"] for run in demo} == {"outputs/tables/demo"}
    places = {"digits", "fashion_mnist", "speech_commands"}
    assert {run.config["dataset"]["name"] for run in demo} == places
    assert all(run.config["dataset"].get("train_size", 0) <= 500 for run in demo)
    for run in demo:
        if "corruptions" in run.config["evaluators"]:
            assert run.config["evaluator"]["corruptions"]["source"] == "generated"
