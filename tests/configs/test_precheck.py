"""Mistakes on the command line: every one is found, in one line that names the key, the value and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from randomix.engine.cli import read_command
from randomix.engine.schema import EvalConfig, TrainConfig
from randomix.mixers import available

ROOT = Path(__file__).parents[2]
MIXERS = ", ".join(sorted(p.stem for p in (ROOT / "configs/mixer").glob("*.yaml")))
SETS = ", ".join(sorted(p.stem for p in (ROOT / "configs/dataset").glob("*.yaml")))
EVALUATORS = ", ".join(sorted(p.stem for p in (ROOT / "configs/evaluator").glob("*.yaml")))
METHODS = ", ".join(available())


def problems(*overrides: str, multirun: bool = False, name: str = "train") -> list[str]:
    schema = TrainConfig if name == "train" else EvalConfig
    return read_command(ROOT, name, schema, list(overrides), multirun).problems


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("recipe.epoch=3", "recipe.epoch: unknown key; did you mean recipe.epochs?"),
        ("epochs=3", "epochs: unknown key; did you mean recipe.epochs?"),
        ("mixr=mixup", "mixr: unknown key; did you mean mixer?"),
        ("+recipe.momentun=0.8", "recipe.momentun: unknown key; did you mean recipe.momentum?"),
        ("++mixer.lr=0.1", "mixer.lr: unknown key; did you mean recipe.lr?"),
        ("evaluator.noise.sigm=4", "evaluator.noise.sigm: unknown key; did you mean evaluator.noise.sigma?"),
        ("model.witdh=16", "model.witdh: unknown key; did you mean model.width?"),
        ("~mixer.alhpa", "~mixer.alhpa: no such key; did you mean ~mixer.alpha?"),
        ("+recipe.lr=0.2", "+recipe.lr=0.2: the key is there already; write recipe.lr=0.2"),
        ("+mixer=mixup", "+mixer=mixup: the group is there already; write mixer=mixup"),
        ("mixer=mixupp", f"mixer=mixupp: must be one of {MIXERS}; did you mean mixup?"),
        ("dataset=digit", f"dataset=digit: must be one of {SETS}; did you mean digits?"),
        ("recipe.lr=fast", "recipe.lr=fast: must be a number above 0"),
        ("recipe.lr=0", "recipe.lr=0: must be a number above 0"),
        ("recipe.epochs=1e2", "recipe.epochs=100.0: must be a whole number of at least 1; write 100"),
        ("recipe.nesterov=1", "recipe.nesterov=1: must be true or false"),
        (
            "recipe.schedule=cosin",
            "recipe.schedule=cosin: must be one of cosine, multistep, constant; did you mean cosine?",
        ),
        (
            "recipe.milestones=[0.8,0.5]",
            "recipe.milestones=[0.8,0.5]: must be a list of numbers between 0 and 1, increasing",
        ),
        (
            "recipe.schedule=multistep",
            "recipe.milestones=[]: recipe.schedule=multistep needs some, for example [0.5,0.75]",
        ),
        ("recipe.warmup_epochs=61", "recipe.warmup_epochs=61: must be at most recipe.epochs=60"),
        (
            "trainer.nproc=3",
            "recipe.batch_size=50: must be divisible by trainer.nproc=3 x recipe.accumulate=1; for example 48",
        ),
        (
            "dataset.train_size=20",
            "recipe.batch_size=50: must be at most dataset.train_size=20, or no batch is complete",
        ),
        ("seed=-1", "seed=-1: must be a whole number of at least 0 and below 2^63"),
        ("seed=true", "seed=true: must be a whole number of at least 0 and below 2^63"),
        ("seed=99999999999999999999", "seed=99999999999999999999: must be a whole number of at least 0 and below 2^63"),
        (
            "recipe.batch_size=1",
            "recipe.batch_size=1: must be at least 2 x trainer.nproc=1 x recipe.accumulate=1, "
            "as batch normalisation needs 2 images at a time; for example 2",
        ),
        ("model.width=1.5", "model.width=1.5: must be a whole number of at least 1"),
        ("mixer.alpha=0", "mixer.alpha=0: must be a number above 0"),
        ("mixer.weights=[3,1]", "mixer.weights has 2 entries but mixer.candidates has 4"),
        (
            "mixer.candidates=[mixup,cutmix]",
            "mixer.weights has 4 entries but mixer.candidates has 2; set mixer.weights=[1,1]",
        ),
        ("mixer={weights:[3,1]}", "mixer.weights has 2 entries but mixer.candidates has 4"),
        (
            "mixer.weights=[0,0,0,0]",
            "mixer.weights=[0,0,0,0]: must be null or a list of numbers of at least 0, not all 0",
        ),
        ("mixer.candidates=[]", "mixer.candidates=[]: must be a list of methods with at least one entry"),
        ("mixer.candidates.1=cutmx", f"mixer.candidates[1]=cutmx: must be one of {METHODS}; did you mean cutmix?"),
        (
            "mixer.candidates.0={name:fmix,spectrum:real}",
            "mixer.candidates[0].spectrum=real: must be one of code, paper",
        ),
        ("mixer.granularity=image", "mixer.granularity=image: must be one of batch, sample"),
        ("evaluator.noise.sigma=-0.1", "evaluator.noise.sigma=-0.1: must be a number of at least 0"),
        ("evaluators=clean", "evaluators=clean: must be a list of names"),
        ("evaluators=[clean,nose]", f"evaluators=[clean,nose]: nose must be one of {EVALUATORS}; did you mean noise?"),
        ("seed=0,1,2", "seed=0,1,2: several values need -m; for one list write 'seed=[0,1,2]'"),
        ("mixer.weights=[1,1", "mixer.weights=[1,1: cannot be read; check brackets and quotes: 'mixer.weights=[a,b]'"),
        ("verbose", "verbose: no value; write verbose=VALUE"),
        ("~logger", "logger: missing; choose one with logger=NAME"),
        ("recipe.lr=${nowhere}", "Interpolation key 'nowhere' not found"),
    ],
)
def test_one_mistake_gives_one_line(override: str, expected: str) -> None:
    assert problems(override) == [expected]


def test_each_process_needs_two_images_at_a_time() -> None:
    (found,) = problems("recipe.batch_size=6", "trainer.nproc=3", "recipe.accumulate=2")
    assert found.startswith("recipe.batch_size=6: must be at least 2 x trainer.nproc=3 x recipe.accumulate=2, as ")
    assert found.endswith("for example 12")
    (found,) = problems("recipe.batch_size=3", "trainer.nproc=2")
    assert found.endswith("for example 4")
    assert problems("recipe.batch_size=12", "trainer.nproc=3", "recipe.accumulate=2") == []


def test_all_mistakes_are_reported_at_once() -> None:
    found = problems("mixer=mixup", "mixer.alhpa=1", "recipe.lr=fast", "trainer.devic=cpu", "dataset.name=digit")
    assert found == [
        f"dataset.name=digit: must be one of {SETS}; did you mean digits?",
        "mixer.alhpa: unknown key; did you mean mixer.alpha?",
        "recipe.lr=fast: must be a number above 0",
        "trainer.devic: unknown key; did you mean trainer.device?",
    ]


def test_a_wrong_group_does_not_cause_further_complaints_about_its_keys() -> None:
    assert len(problems("mixer=fmx", "mixer.spectrum=paper", "mixer.max_soft=0.1")) == 1


def test_half_precision_needs_a_gpu() -> None:
    found = problems("trainer.device=cpu", "trainer.precision=fp16")
    assert found == ["trainer.precision=fp16: not with trainer.device=cpu; use bf16 or fp32"]


def test_a_launcher_that_is_not_installed_names_its_extra() -> None:
    (found,) = problems("hydra/launcher=slrm", multirun=True)
    assert "did you mean slurm?" in found
    assert found.endswith("some need a package: pip install 'randomix[slurm]'")


def test_an_evaluation_needs_a_checkpoint() -> None:
    assert problems(name="eval") == ["checkpoint: needs a value; write checkpoint=VALUE"]
    assert problems("checkpoint=x", "evaluators=[clean]", "evaluator.occlusion.block=3", name="eval") == []
    assert problems("checkpoint=x", "trainer.epochs=3", name="eval")[0].startswith("trainer.epochs: unknown key")


def test_an_evaluation_is_told_from_a_training_run() -> None:
    assert problems("outputs/seed-0", name="eval") == ["outputs/seed-0: no value; write checkpoint=outputs/seed-0"]
    assert problems("trainer", "checkpoint=x", name="eval") == ["trainer: no value; write trainer=VALUE"]
    text = "belongs to training; eval.py takes it from the checkpoint"
    for key in ("mixer", "experiment", "seed", "recipe"):
        assert problems("checkpoint=x", f"{key}=cutmix", name="eval") == [f"{key} {text}"]
    assert problems("checkpoint=x", "mixer.alpha=2", name="eval") == [f"mixer {text}"]
    assert problems("checkpoint=x", "dataset=digits", name="eval") == [f"dataset=digits {text}"]
    assert problems("checkpoint=x", "dataset={root:/d}", "evaluator=[clean]", "evaluators=[clean]", name="eval") == []


@pytest.mark.parametrize(
    "overrides",
    [
        ["mixer=mixup", "mixer.alpha=2"],
        ["mixer.candidates=[mixup,{name:cutmix,prob:0.5}]", "mixer.weights=[3,1]"],
        ["mixer.candidates.3={name:fmix,spectrum:code}"],
        ["mixer={alpha:0.5}"],
        ["mixer.weights=null"],
        ["evaluator.occlusion.fill=[0.5]"],
        ["~experiment"],
        ["logger=wandb", "logger.mode=online"],
        ["hydra.verbose=true"],
    ],
)
def test_right_overrides_pass(overrides: list[str]) -> None:
    assert problems(*overrides) == []


def test_a_sweep_is_expanded_as_hydra_does() -> None:
    plan = read_command(ROOT, "train", TrainConfig, ["mixer.weights=[1,1,1,1],[4,1,1,1]", "seed=range(3)"], True)
    assert plan.problems == []
    assert plan.num_jobs == 6
    assert plan.jobs[:2] == [["mixer.weights=[1,1,1,1]", "seed=0"], ["mixer.weights=[1,1,1,1]", "seed=1"]]


def test_quoted_options_and_patterns_are_options() -> None:
    plan = read_command(ROOT, "train", TrainConfig, ["mixer='mixup','cutmix'", "recipe=glob(*mnist)"], True)
    assert (plan.problems, plan.num_jobs) == ([], 2)


def test_a_problem_of_some_runs_says_of_which() -> None:
    found = problems("mixer=mixup,randomix", "mixer.weights=[1,1,1,1]", "seed=0,-1", multirun=True)
    assert found == [
        "mixer.weights: unknown key; mixer has alpha, granularity, label, name, prob "
        "(in 2 of 4 runs, first: mixer=mixup mixer.weights=[1,1,1,1] seed=0)",
        "seed=-1: must be a whole number of at least 0 and below 2^63 "
        "(in 2 of 4 runs, first: mixer=mixup mixer.weights=[1,1,1,1] seed=-1)",
    ]


def test_the_command_line_overrides_the_sweep_of_an_experiment() -> None:
    plan = read_command(ROOT, "train", TrainConfig, ["experiment=demo", "mixer=mixup", "seed=7,8"])
    assert (plan.problems, plan.multirun, plan.num_jobs) == ([], True, 2)
    assert problems("experiment=demo", "mixer=mixup,cutmx") == [
        f"mixer=cutmx: must be one of {MIXERS}; did you mean cutmix?"
    ]


def test_what_a_sweep_cannot_do() -> None:
    (interval,) = problems("recipe.lr=interval(0,1)", multirun=True)
    assert interval == "recipe.lr=interval(0,1): an interval has no list of values; use range(...) or a,b,c"
    (hydra,) = problems("hydra.job.name=a,b", multirun=True)
    assert hydra.startswith("hydra.job.name=a,b: Hydra's own settings take one value")


def test_a_huge_sweep_is_checked_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("randomix.engine.precheck.MAX_JOBS", 3)
    plan = read_command(ROOT, "train", TrainConfig, ["seed=range(100000)"], True)
    assert (plan.problems, plan.num_jobs, len(plan.jobs)) == ([], 100_000, 3)


def test_files_of_ones_own_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "mine.yaml").write_text("name: mine\nroot: null\nfolds: 3\n")
    overrides = ["dataset=mine", "dataset.fold=2"]
    plan = read_command(ROOT, "train", TrainConfig, overrides, more=str(tmp_path))
    assert plan.problems == ["dataset.fold: unknown key; did you mean dataset.folds?"]


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "bad.yaml").write_text("epochs: [1\n")
    (line,) = read_command(ROOT, "train", TrainConfig, ["recipe=bad"], more=str(tmp_path)).problems
    assert "bad.yaml" in line
    assert "\n" not in line
