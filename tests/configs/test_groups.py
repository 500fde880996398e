"""The files of configs/: every one composes, validates, and agrees with the code it sets."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest
import yaml

from randomix.engine.cli import read_command
from randomix.engine.rules import RULES, rule_for
from randomix.engine.schema import (
    EvalConfig,
    EvalDatasetConfig,
    EvalTrainerConfig,
    RecipeConfig,
    TrainConfig,
    TrainerConfig,
    parse,
    validate,
)
from randomix.engine.validation import mixer_arguments, normalise
from randomix.records.identity import run_folder

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
GROUPS = ("dataset", "model", "mixer", "recipe", "trainer", "logger", "evaluator", "experiment")
OPTIONS = [(g, p.stem) for g in GROUPS for p in sorted((CONFIGS / g).glob("*.yaml"))]
EXPERIMENTS = [option for group, option in OPTIONS if group == "experiment"]


def compose(*overrides: str, name: str = "train") -> dict:
    """The resolved configuration of a single run."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(name, list(overrides)), resolve=True)


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if not o[1].startswith("table")])
def test_every_option_composes_and_validates(group: str, option: str) -> None:
    """But for the tables' experiments: test_experiments.py composes and validates each of their runs."""
    suitable = ["dataset=cifar10"] if option.endswith("_authors") else []  # whose normalisation some of them set
    plan = read_command(ROOT, "train", TrainConfig, [f"{group}={option}", *suitable])
    if group == "evaluator":  # the others are then not there
        plan.problems = [p for p in plan.problems if not p.startswith("evaluators=")]
    assert plan.problems == []


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_its_claim(experiment: str) -> None:
    head = (CONFIGS / "experiment" / f"{experiment}.yaml").read_text().partition("defaults:")[0]
    for word in ("Shows:", "Command:", "Cost:", "Expected:"):
        assert word in head
    command = re.search(r"Command:\s+python train.py (.*)", head)
    assert command and f"experiment={experiment}" in command[1].split()


def test_the_demo_is_twelve_runs() -> None:
    plan = read_command(ROOT, "train", TrainConfig, ["experiment=demo"])
    assert plan.multirun
    assert plan.num_jobs == 12
    assert ["mixer=cutmix", "seed=1", "experiment=demo"] in plan.jobs
    config = compose("experiment=demo")
    assert (config["dataset"]["train_size"], config["model"]["width"]) == (200, 16)
    assert config["output_root"] == "outputs/demo"


def test_files_agree_with_the_dataclasses() -> None:
    config = compose()
    assert TrainerConfig(**config["trainer"]) == TrainerConfig()
    for path in (CONFIGS / "recipe").glob("*.yaml"):
        recipe = compose(f"recipe={path.stem}")["recipe"]
        assert set(recipe) == {f.name for f in dataclasses.fields(RecipeConfig)}
        assert recipe["name"] == path.stem
    evaluation = compose("checkpoint=x", name="eval")
    assert EvalTrainerConfig(**evaluation["trainer"]) == EvalTrainerConfig()
    assert set(evaluation) == {f.name for f in dataclasses.fields(EvalConfig)}
    assert evaluation["evaluator"] == config["evaluator"]


def test_evaluators_added_later_are_neutral_at_their_defaults() -> None:
    from randomix.records.identity import NEUTRAL

    settings = normalise(compose()["evaluator"], "evaluator")
    assert set(settings) - set(NEUTRAL["evaluator"]) == {"clean", "noise", "occlusion"}  # those of the first records
    assert {name: settings[name] for name in NEUTRAL["evaluator"]} == NEUTRAL["evaluator"]


def test_the_recipes_of_the_paper() -> None:
    for name in ("cifar", "tiny_imagenet"):
        recipe = parse(compose(f"recipe={name}")).recipe
        assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.schedule) == (200, 256, 0.1, "cosine")
        assert (recipe.momentum, recipe.weight_decay, recipe.nesterov) == (0.9, 5e-4, False)


def test_every_setting_has_a_rule_of_its_type() -> None:
    schemas = [("recipe", RecipeConfig), ("trainer", TrainerConfig), ("trainer", EvalTrainerConfig)]
    for section, schema in [*schemas, ("dataset", EvalDatasetConfig)]:
        hints = typing.get_type_hints(schema)
        assert {k: RULES[section][k].hint for k in hints} == hints
    hints = typing.get_type_hints(TrainConfig) | typing.get_type_hints(EvalConfig)
    plain = {k: h for k, h in hints.items() if h in (int, str, list[str])}
    assert {k: rule_for(k).hint for k in plain} == plain
    config = compose()
    for section in ("dataset", "model", "mixer", "logger", *(f"evaluator.{e}" for e in config["evaluator"])):
        for path in (CONFIGS / section.replace(".", "/")).glob("*.yaml"):
            settings = yaml.safe_load(path.read_text()) or {}
            for key in settings:
                rule = rule_for(f"{section}.{key}", settings.get("name"))
                assert key == "candidates" or rule, f"{path.name}: {key}"


def test_a_rule_holds_in_its_section_only() -> None:
    for foreign in ("evaluator.pgd.block", "logger.scale", "mode", "dataset.alpha", "evaluator.mode", "recipe.width"):
        assert rule_for(foreign) is None
    assert rule_for("mixer.candidates[2].alpha") is rule_for("mixer.alpha") is not None
    assert rule_for("mixer.candidates[0].candidates[1].spectrum") is rule_for("mixer.spectrum") is not None
    normal = normalise({"mixer": {"candidates": ["mixup", {"name": "fmix", "alpha": 1}]}, "dataset": {"alpha": 1}})
    assert type(normal["mixer"]["candidates"][1]["alpha"]) is float  # else one run had two folders
    assert type(normal["dataset"]["alpha"]) is int


OWN = """
class Mine:
    def __init__(self, *, share: float = 0.5, times: "int | None" = None, soft: bool = False, prob: float = 1,
                 word: Optional[str] = None, anything: Sequence[float] = (), scale: int = 1) -> None: ...
"""


def test_a_method_of_ones_own_is_checked_by_its_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from randomix import mixers

    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.setattr(mixers, "__path__", [str(tmp_path)])
    config = compose()

    def found(**settings: object) -> list[str]:
        return validate(config | {"mixer": {"name": "mine", **settings}})

    assert found(share="a") == ["mixer.share=a: must be a number"]
    assert found(times=1.0) == ["mixer.times=1.0: must be null or a whole number; write 1"]
    assert found(soft=1) == ["mixer.soft=1: must be true or false"]
    assert found(word=3) == ["mixer.word=3: must be null or a text"]
    assert found(prob=2) == ["mixer.prob=2: must be a number from 0 to 1"]  # as in every method
    assert found(share=1, times=None, soft=True, word="x", anything="?", scale=3) == []
    normal = normalise({"mixer": {"name": "mine", "share": 1, "times": 1}})["mixer"]
    assert (type(normal["share"]), type(normal["times"])) == (float, int)


def test_keep_last_is_a_number_of_files_or_all() -> None:
    assert [v for v in range(-3, 4) if rule_for("trainer.keep_last").accepts(v)] == [-1, 1, 2, 3]


def test_choices_agree_with_the_code() -> None:
    from models.preact_resnet import SHORTCUTS
    from randomix.masks import SPECTRA
    from randomix.mixers import fmix, saliencymix
    from randomix.mixers.base import GRANULARITIES
    from randomix.robustness.occlusion import KINDS, PLACEMENTS

    chosen = {"shortcut": SHORTCUTS, "spectrum": SPECTRA, "label_lam": fmix.LABEL_LAMS, "kind": KINDS}
    chosen |= {"granularity": GRANULARITIES, "placement": PLACEMENTS, "saliency": saliencymix.SALIENCIES}
    found = {k: rule.choices for section in RULES.values() for k, rule in section.items() if k in chosen}
    assert {k: sorted(v) for k, v in found.items()} == {k: sorted(v) for k, v in chosen.items()}


@pytest.mark.parametrize("option", [option for group, option in OPTIONS if group == "mixer"])
def test_every_method_can_be_built_from_its_file(option: str) -> None:
    import inspect

    from randomix import mixers

    config = compose(f"mixer={option}")["mixer"]
    mixers.build(config, num_classes=10)
    accepted = set(inspect.signature(mixers.get(config["name"])).parameters) - {"num_classes"}
    assert mixer_arguments(config["name"]) == accepted  # read from the source, without importing it


def test_the_run_folder_is_a_function_of_what_determines_the_result() -> None:
    def folder(*overrides: str) -> Path:
        return run_folder(normalise(compose(*overrides)))

    base = folder()
    assert folder() == base
    assert folder("recipe.lr=0.10", "mixer.alpha=1", "mixer.weights=[1.0,1,1,1]") == base  # 1 is 1.0
    assert folder("trainer.nproc=2", "trainer.device=cpu", "trainer.keep_last=7", "dataset.root=/data") == base
    assert folder("seed=1") == base.with_name("seed-1")
    assert folder("output_root=elsewhere") == Path("elsewhere") / base.relative_to("outputs")
    others = [folder(o) for o in ("recipe.lr=0.2", "model.width=16", "mixer.weights=[3,1,1,1]", "dataset.flip=true")]
    assert len({base, *others}) == 5


def test_settings_can_be_checked_without_hydra() -> None:
    config = compose()
    assert validate(config) == []
    assert isinstance(parse(config).recipe.lr, float)
    config["recipe"]["lr"] = 1
    assert isinstance(parse(config).recipe.lr, float)
    config["recipe"] = None
    assert validate(config) == ["recipe=null: must be a group of settings; choose one with recipe=NAME"]
    assert "recipe: missing; choose one with recipe=NAME" in validate({k: config[k] for k in ("seed", "mixer")})
    for value in (float("nan"), float("inf"), None, [], {}, "1", True):
        config["recipe"] = compose()["recipe"] | {"lr": value}
        assert len(validate(config)) == 1
