"""The recipes: values of the paper and of the repositories as literals, what they set beside, what goes with them."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from randomix.engine.cli import read_command
from randomix.engine.optim import learning_rate
from randomix.engine.schema import TrainConfig, parse
from randomix.engine.validation import normalise
from randomix.records.identity import run_folder

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "recipe"
SMALL = "dataset=cifar100"
SOUND = "dataset=speech_commands model=preact_resnet18_1d"
# name: what goes with it; epochs, batch, lr, weight decay, Nesterov; schedule; loss; crop padding (None: the data's)
PAPER = {
    "cifar": (SMALL, (200, 256, 0.1, 5e-4, False), "cosine", "cross_entropy", None),
    "tiny_imagenet": ("dataset=tiny_imagenet", (200, 256, 0.1, 5e-4, False), "cosine", "cross_entropy", None),
    "imagenet": (
        "dataset=imagenet model=resnet50 mixer=randomix_imagenet trainer.nproc=8",
        (100, 2048, 0.8, 4e-5, False),
        "cosine",
        "cross_entropy",
        None,
    ),
    "speech_commands": (SOUND, (300, 256, 0.05, 5e-4, False), "cosine", "cross_entropy", None),
}
PUZZLE = SMALL + " model=preact_resnet18_puzzlemix mixer="
WRN = SMALL + " model=wrn_28_10 mixer="
# schedule: {epoch, counted from 0: learning rate from it on}; some scripts set the rate after the epoch, one too late
AUTHORS: dict[str, Any] = {
    "mixup_authors": (
        SMALL + " mixer=mixup",
        (200, 128, 0.1, 1e-4, False),
        {101: 0.01, 151: 0.001},
        "cross_entropy",
        None,
    ),
    "fmix_authors": (
        WRN + "fmix_as_published",
        (200, 128, 0.1, 1e-4, False),
        {100: 0.01, 150: 0.001},
        "cross_entropy",
        None,
    ),
    "cutout_authors": (
        WRN + "cutout_cifar100 model.dropout=0.3",
        (200, 128, 0.1, 5e-4, True),
        {61: 0.02, 121: 0.004, 161: 0.0008},
        "cross_entropy",
        None,
    ),
    "saliencymix_authors": (
        WRN + "saliencymix_as_published model.dropout=0.3",
        (200, 128, 0.1, 5e-4, True),
        {61: 0.02, 121: 0.004, 161: 0.0008},
        "cross_entropy",
        None,
    ),
    "cutmix_authors": (
        SMALL + " mixer=cutmix mixer.prob=0.5",
        (300, 64, 0.25, 1e-4, True),
        {150: 0.025, 225: 0.0025},
        "cross_entropy",
        None,
    ),
    "resizemix_authors": (
        SMALL + " model=wrn_28_10_puzzlemix model.final_norm_momentum=0.1 mixer=resizemix",
        (200, 256, 0.2, 5e-4, False),
        "cosine",
        "cross_entropy",
        None,
    ),
    "manifold_mixup_authors": (
        PUZZLE + "manifold_mixup",
        (2000, 100, 0.1, 1e-4, True),
        {500: 0.01, 1000: 0.001, 1500: 0.0001},
        "softmax_bce",
        2,
    ),
    "patchup_authors": (
        PUZZLE + "patchup_as_published",
        (2000, 100, 0.1, 1e-4, True),
        {500: 0.01, 1000: 0.001, 1500: 0.0001},
        "softmax_bce",
        2,
    ),
    "puzzlemix_authors": (
        PUZZLE + "puzzlemix_as_published",
        (1200, 100, 0.1, 1e-4, True),
        {400: 0.01, 800: 0.001},
        "softmax_bce",
        2,
    ),
    "comixup_authors": (
        PUZZLE + "comixup_as_published",
        (300, 100, 0.2, 1e-4, True),
        {100: 0.02, 200: 0.002},
        "softmax_bce",
        2,
    ),
    "openmixup_cifar": (SMALL, (200, 100, 0.1, 1e-4, False), "cosine", "cross_entropy", None),
}
ALL = PAPER | AUTHORS


@cache
def compose(*overrides: str) -> dict[str, Any]:
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("train", list(overrides)), resolve=True)


def problems(*overrides: str, multirun: bool = False) -> list[str]:
    return read_command(ROOT, "train", TrainConfig, list(overrides), multirun).problems


def test_every_recipe_is_here() -> None:
    assert {p.stem for p in FOLDER.glob("*.yaml")} == set(ALL) | {"digits", "fashion_mnist"}


@pytest.mark.parametrize("name", ALL)
def test_values(name: str) -> None:
    beside, values, schedule, loss, padding = ALL[name]
    arguments = [f"recipe={name}", *beside.split()]
    assert problems(*arguments) == []
    config = compose(*arguments)
    recipe = parse(config).recipe
    found = (recipe.epochs, recipe.batch_size, recipe.lr, recipe.weight_decay, recipe.nesterov)
    assert (recipe.name, found, recipe.loss, recipe.momentum) == (name, values, loss, 0.9)
    assert recipe.decay_norms and recipe.accumulate == 1 and recipe.ema_decay is None
    own = yaml.safe_load((ROOT / f"configs/dataset/{config['dataset']['name']}.yaml").read_text()).get("crop_padding")
    assert config["dataset"].get("crop_padding") == (own if padding is None else padding)
    if isinstance(schedule, str):
        assert recipe.schedule == schedule
        return
    steps = 50_000 // recipe.batch_size
    expected = [max(e for e in [0, *schedule] if e <= epoch) for epoch in range(recipe.epochs)]
    for epoch, start in enumerate(expected):
        for step in (epoch * steps, (epoch + 1) * steps - 1):
            rate = learning_rate(step, recipe, steps)
            assert math.isclose(rate, schedule.get(start, recipe.lr), rel_tol=1e-9), epoch


def test_resizemix_warms_up_and_ends_above_zero() -> None:
    recipe = parse(compose("recipe=resizemix_authors")).recipe
    rates = [learning_rate(step, recipe, 195) for step in range(200 * 195)]
    assert max(rates) == 0.2
    assert rates.index(0.2) == 5 * 195 - 1
    assert 1e-5 <= rates[-1] < 1.01e-5


def test_the_mixer_of_imagenet() -> None:
    mixer = compose(*["recipe=imagenet", *PAPER["imagenet"][0].split()])["mixer"]
    assert mixer["candidates"] == ["mixup", "cutmix", "resizemix", "fmix"]
    assert (mixer["weights"], mixer["alpha"]) == ([3, 1, 1, 1], 0.2)


@pytest.mark.parametrize("name", [n for n in AUTHORS if n.endswith("authors")])
def test_every_repository_is_named_with_its_commit_and_what_completes_it(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert re.search(r"as [\w-]+/[\w-]+ \([0-9a-f]{7}, ", head)
    beside = AUTHORS[name][0].split()
    for override in beside[1:]:
        assert override in head or override == "mixer=cutout_cifar100", override
    named = set(re.findall(r"\b(?:mixer|model|recipe)(?:\.\w+)?=[\w.,\[\]-]*[\w\]]", head)) - set(beside)
    for override in sorted(named):
        key = override.partition("=")[0]
        chosen = [o for o in beside if o.partition("=")[0] != key and not o.startswith(f"{key}.")]
        assert problems(f"recipe={name}", *chosen, override) == [], override


def test_the_command_line_wins_over_what_a_recipe_sets_for_the_data() -> None:
    chosen = ("recipe=puzzlemix_authors", "dataset=cifar100")
    assert compose(*chosen)["dataset"]["crop_padding"] == 2
    assert compose(*chosen, "dataset.crop_padding=4")["dataset"]["crop_padding"] == 4
    assert compose(*reversed(chosen))["dataset"]["crop_padding"] == 2
    assert problems(*chosen, "dataset.crop_padding=4") == []
    assert problems("recipe=cifar,puzzlemix_authors", "dataset=cifar100", "seed=0,1", multirun=True) == []


def test_the_run_folder_knows_the_padding_and_not_the_recipes_name() -> None:
    def folder(*overrides: str) -> Path:
        return run_folder(normalise(compose(*overrides)))

    chosen = ("recipe=puzzlemix_authors", "dataset=cifar100")
    assert folder(*chosen) == folder(*chosen, "dataset.crop_padding=2") == folder(*chosen, "recipe.name=mine")
    assert folder(*chosen) != folder(*chosen, "dataset.crop_padding=4")


def test_data_that_a_recipe_does_not_fit_are_named_in_one_line() -> None:
    chosen = ("recipe=puzzlemix_authors", *SOUND.split())
    expected = (
        "recipe=puzzlemix_authors: sets dataset.crop_padding, which dataset=speech_commands lacks; "
        "take another recipe, or write ~dataset.crop_padding"
    )
    assert problems(*chosen) == [expected]
    assert problems(*chosen, "~dataset.crop_padding") == []
    (wrong,) = problems("recipe=cifar", *SOUND.split(), "+dataset.crop_padding=2")
    assert wrong.startswith("dataset.crop_padding: unknown key")


def test_batches_of_a_gpu_stay_the_same_on_fewer_gpus() -> None:
    """What imagenet.yaml says: BatchNorm sees batch_size / (ranks x accumulate) = 256 images."""
    beside = [o for o in PAPER["imagenet"][0].split() if "nproc" not in o]
    for ranks, accumulate in ((8, 1), (4, 2), (2, 4), (1, 8)):
        chosen = ["recipe=imagenet", *beside, f"trainer.nproc={ranks}", f"recipe.accumulate={accumulate}"]
        assert problems(*chosen) == []
        assert compose(*chosen)["recipe"]["batch_size"] // (ranks * accumulate) == 256
