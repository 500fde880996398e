"""The search for weights: what is proposed, that it goes on where it was, its mistakes, its Pareto front."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from randomix.engine import search
from randomix.engine.cli import read_command
from randomix.engine.schema import TrainConfig
from randomix.engine.search import Search, Trial, Weights
from randomix.engine.sweeper import check_same_search
from randomix.errors import ConfigError
from randomix.mixers import available
from randomix.records import pareto, store
from randomix.records.pareto import pareto_front

pytest.importorskip("optuna")
ROOT = Path(__file__).parents[2]
NAMES = ["top1_error", "fgsm_error", "noise_error", "occlusion_error"]
COMMAND = [
    "experiment=weights_search",
    "dataset=digits",
    "model=preact_resnet18",
    "recipe=digits",
    "evaluators=[clean,fgsm,noise,occlusion]",
    f"hydra.sweeper.objectives=[{','.join(NAMES)}]",
    "output_root=runs",
    "hydra.sweeper.trials=6",
]
CLEAN = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")}


def settings(**changes: Any) -> Search:
    given = {
        "objectives": NAMES[:2],
        "trials": 16,
        "batch": 1,
        "max_weight": 3,
        "start": [],
        "sampler": "tpe",
        "seed": 0,
    }
    return Search(**given | changes)


def outcome(weights: Weights) -> Trial:
    share = weights[0] / sum(weights)
    return Trial(weights, (10 + 5 * share, 30 - 9 * share + max(weights)))


def explored(of: Search, stop: int = 1000) -> list[Trial]:
    """All trials; after ``stop`` batches the search is given up."""
    return list(itertools.islice(search.explore(of, 3, lambda batch: [outcome(w) for w in batch]), stop))[-1]


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii", "random"])
@pytest.mark.parametrize("batch", [1, 4])
def test_trials_are_different_and_the_same_each_time(sampler: str, batch: int) -> None:
    of = settings(sampler=sampler, batch=batch, start=[[1, 1, 1], [2, 2, 2], [3, 1, 0]])
    trials = explored(of)
    weights = [t.weights for t in trials]
    assert weights[:2] == [(1, 1, 1), (3, 1, 0)]  # 2:2:2 draws as 1:1:1 does
    assert len(set(weights)) == len(weights) == of.trials
    assert all(any(w) and search.reduced(w) == w and max(w) <= of.max_weight for w in weights)
    assert explored(of) == trials
    assert explored(of, stop=2) == trials[: 2 * batch]  # an interrupted one is the beginning of the whole


def test_a_longer_search_begins_with_the_shorter_one_and_seeds_differ() -> None:
    long = explored(settings(trials=20))
    assert long[:12] == explored(settings(trials=12))
    assert explored(settings(trials=20, seed=1)) != long


def test_what_is_proposed_follows_the_values() -> None:
    def reverse(batch: Sequence[Weights]) -> list[Trial]:
        return [Trial(w, tuple(-v for v in outcome(w).values or ())) for w in batch]

    other = list(search.explore(settings(), 3, reverse))[-1]
    assert [t.weights for t in other][:8] == [t.weights for t in explored(settings())][:8]  # random at first
    assert [t.weights for t in other] != [t.weights for t in explored(settings())]


def test_a_small_space_ends_and_failures_count_once() -> None:
    def launch(batch: Sequence[Weights]) -> list[Trial]:
        return [outcome(w) if w != (1, 0) else Trial(w, None) for w in batch]

    (*_, trials) = search.explore(settings(max_weight=1, trials=50), 2, launch)
    assert sorted(t.weights for t in trials) == [(0, 1), (1, 0), (1, 1)]
    assert (1, 0) not in [t.weights for t in search.front(trials)]


def test_the_front_is_that_of_the_definition() -> None:
    rng = random.Random(0)
    for size in (1, 7, 60):
        points = [tuple(rng.randrange(4) for _ in range(3)) for _ in range(size)]
        slow = []
        for i, p in enumerate(points):
            beaten = False
            for q in points:
                if q[0] <= p[0] and q[1] <= p[1] and q[2] <= p[2] and q != p:
                    beaten = True
            if not beaten:
                slow.append(i)
        assert pareto_front(points) == slow
    assert pareto_front([]) == []
    assert pareto_front([(90.11725293132329, 1.0), (90.11725293132328, 1.0)]) == [0, 1]  # equal but for rounding


def test_settings_of_a_trial_are_written_as_on_the_command_line() -> None:
    candidates = ["mixup", {"name": "fmix", "spectrum": "code"}, "cutmix"]
    assert search.overrides(candidates, (3, 1, 0)) == [
        "mixer.candidates=[mixup,{name:fmix,spectrum:code}]",
        "mixer.weights=[3,1]",
    ]


def problems(*overrides: str) -> list[str]:
    return read_command(ROOT, "train", TrainConfig, [*COMMAND, *overrides]).problems


START = "hydra.sweeper.start: "


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "mixer.weights=[1,1,1,1]",
            ["mixer.weights=[1,1,1,1]: is what is searched for; leave it out, or write it into hydra.sweeper.start"],
        ),
        (
            "recipe.lr=0.1,0.2",
            ["recipe.lr=0.1,0.2: a search takes one value of each setting; only seed may have several"],
        ),
        ("mixer=cutmix", ["mixer=cutmix: a search needs a method with at least two candidates; write mixer=randomix"]),
        (
            "mixer.candidates=[mixup,fmix]",
            [
                f"{START}[{w},1,1,1] has 4 entries but mixer.candidates has 2; write hydra.sweeper.start=[]"
                for w in (1, 2, 3, 4)
            ],
        ),
        (
            "hydra.sweeper.max_weight=3",
            [f"{START}[4,1,1,1] must be a list of whole numbers from 0 to max_weight=3, not all 0"],
        ),
        (
            "hydra.sweeper.start=[[0,0,0,0]]",
            [f"{START}[0,0,0,0] must be a list of whole numbers from 0 to max_weight=4, not all 0"],
        ),
        ("hydra.sweeper.sampler=tp", ["hydra.sweeper.sampler=tp: must be one of tpe, nsgaii, random"]),
        ("hydra.sweeper.trials=0", ["hydra.sweeper.trials=0: must be a whole number of at least 1"]),
        ("hydra.sweeper.seed=-1", ["hydra.sweeper.seed=-1: must be a whole number of at least 0 and below 2^32"]),
        (
            "hydra.sweeper.objectives=[]",
            ["hydra.sweeper.objectives=[]: must be a list of names with at least one entry"],
        ),
        (
            "hydra.sweeper.objectives=[fgsm_eror]",
            [
                "hydra.sweeper.objectives: fgsm_eror must be one of corruption_error, corruption_error_19, fgsm_error, "
                "noise_error, occlusion_error, pgd_error, top1_error; did you mean fgsm_error?"
            ],
        ),
        (
            "hydra.sweeper.objectives=[pgd_error]",
            ["evaluators=[clean,fgsm,noise,occlusion]: pgd_error is measured by pgd; add it"],
        ),
        (
            "hydra.sweeper.trails=3",
            [
                "Could not override 'hydra.sweeper.trails': To append to your config use "
                "+hydra.sweeper.trails=3: Key 'trails' is not in struct"
            ],
        ),
        ("recipe.lr=x", ["recipe.lr=x: must be a number above 0"]),
        (
            "mixer.candidates.1=cutmx",
            [f"mixer.candidates[1]=cutmx: must be one of {', '.join(available())}; did you mean cutmix?"],
        ),
    ],
)
def test_mistakes_are_found_before_the_first_run(override: str, expected: list[str]) -> None:
    assert problems(override) == expected


def test_a_right_search_is_planned() -> None:
    plan = read_command(ROOT, "train", TrainConfig, [*COMMAND, "seed=0,1"])
    assert (plan.problems, plan.multirun, plan.num_jobs) == ([], True, 12)
    assert plan.jobs[0][-3:] == ["seed=0", "mixer.candidates=[mixup,cutmix,resizemix,fmix]", "mixer.weights=[1,1,1,1]"]
    assert problems("mixer.candidates=[mixup,fmix]", "hydra.sweeper.start=[]") == []


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else there(name, *a))
    assert problems() == ["hydra/sweeper=weights: needs optuna; pip install 'randomix[search]'"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    shutil.copy(Path(__file__).with_name("search_train.py"), tmp_path / "train.py")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path / "train.py"


def run(script: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *COMMAND, *arguments]
    env = CLEAN | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env
    return subprocess.run(command, cwd=script.parent, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_an_interrupted_search_goes_on_with_the_same_trials(script: Path, tmp_path: Path) -> None:
    whole = run(script, "seed=0,1", "output_root=whole")
    assert (whole.returncode, whole.stderr) == (0, "")
    stopped = run(script, "seed=0,1", STOP="7")
    assert stopped.returncode == 75
    assert stopped.stderr == "[8/12] stopped; the same command continues\n"
    result = tmp_path / "runs" / pareto.FILE
    assert len(json.loads(result.read_text())["trials"]) == 3  # whole trials only
    again = run(script, "seed=0,1")
    assert again.returncode == 0
    assert again.stdout.count("already there") == 7
    assert again.stdout.count("trained") == 5
    assert result.read_bytes() == (tmp_path / "whole" / pareto.FILE).read_bytes()
    other = run(script, "seed=0,1", "hydra.sweeper.seed=5")
    assert other.returncode == 2 and "holds another search, of other sampler_seed" in other.stderr
    assert again.stdout[again.stdout.index("Pareto") :] == whole.stdout[whole.stdout.index("Pareto") :].replace(
        "whole/", "runs/"
    )
    check_result(json.loads(result.read_text()), tmp_path / "runs", whole.stdout)


def check_result(found: dict[str, Any], root: Path, printed: str) -> None:
    """The values are the means of the records, the front is theirs, and the terminal says the same."""
    records, warnings = store.load([root])
    assert warnings == []
    for trial in found["trials"]:
        runs = [r for r in records if r.run in trial["runs"]]
        assert [r.seed for r in runs] == [0, 1]
        candidates, weights = search.chosen(found["candidates"], trial["weights"])
        assert all(
            (r.config["mixer"]["candidates"], r.config["mixer"]["weights"]) == (candidates, weights) for r in runs
        )
        assert trial["values"] == {n: (runs[0].metric(n) + runs[1].metric(n)) / 2 for n in NAMES}
    assert [t["weights"] for t in found["trials"][:4]] == [[w, 1, 1, 1] for w in (1, 2, 3, 4)]  # Table 5
    best = pareto_front([[t["values"][n] for n in NAMES] for t in found["trials"]])
    assert [i for i, t in enumerate(found["trials"]) if t["front"]] == best
    lines = printed[printed.index("Pareto") :].splitlines()
    assert lines[0] == f"Pareto front: {len(best)} of 6 trials, the mean of 2 seeds"
    shown = {line.split()[0]: [float(v) for v in line.split()[1:]] for line in lines[3:-1]}
    for i in best:
        trial = found["trials"][i]
        text = "[" + ",".join(map(str, trial["weights"])) + "]"
        assert shown.pop(text) == [pytest.approx(trial["values"][n], abs=0.0051) for n in NAMES]
    assert not shown


@pytest.mark.slow
def test_a_failed_run_leaves_its_trial_out_and_gives_the_exit_code(script: Path) -> None:
    start = "hydra.sweeper.start=[[1,0,0,0],[0,1,1,0]]"
    done = run(script, start, "hydra.sweeper.trials=2", FAIL="mixup")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: [1/2] no such data", "error: run [1/2] failed with exit code 2"]
    assert "Pareto front: 1 of 2 trials, seed 0; 1 failed\n" in done.stdout
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    parallel = ["hydra/launcher=parallel", "hydra.sweeper.batch=2", "output_root=other"]
    elsewhere = run(script, start, "hydra.sweeper.trials=2", *parallel, FAIL="mixup")
    assert elsewhere.returncode == 2
    assert elsewhere.stderr.splitlines()[-1] == "error: run [1/2] failed with exit code 2: no such data"
    assert "Pareto front: 1 of 2 trials, seed 0; 1 failed\n" in elsewhere.stdout


@pytest.mark.slow
def test_runs_that_were_evaluated_otherwise_are_named(script: Path, tmp_path: Path) -> None:
    assert run(script, "hydra.sweeper.trials=1").returncode == 0
    (tmp_path / "runs" / pareto.FILE).unlink()  # of other objectives
    objectives = "hydra.sweeper.objectives=[top1_error,pgd_error]"
    done = run(script, "hydra.sweeper.trials=1", objectives, "evaluators=[clean,pgd]")
    assert done.returncode == 2
    error = done.stderr.splitlines()[0]
    assert error.startswith("error: [1/1] runs/digits/preact_resnet18/randomix-")
    assert "record.json: has no pgd_error, evaluated were clean, fgsm, noise, occlusion; remove the folder" in error


def test_another_search_does_not_replace_a_front(tmp_path: Path) -> None:
    settings = {"objectives": ["top1_error"], "trials": 2, "batch": 1, "max_weight": 4, "start": [], "sampler": "tpe"}

    def text(seeds: Sequence[int] = (0,), candidates: str = "ab", **changes: Any) -> str:
        return search.to_json(search.Search(**settings | {"seed": 0} | changes), list(candidates), seeds, [])

    file = tmp_path / pareto.FILE
    check_same_search(file, text())
    file.write_text(text())
    check_same_search(file, text(trials=9))  # goes on
    others = {
        "sampler_seed": text(seed=1),
        "sampler": text(sampler="random"),
        "seeds": text([1]),
        "objectives": text(objectives=["fgsm_error"]),
        "candidates": text(candidates="abc"),
    }
    for key, mine in others.items():
        with pytest.raises(ConfigError, match=f"holds another search, of other {key}; write output_root=FOLDER"):
            check_same_search(file, mine)
    file.write_text('{"candid')
    check_same_search(file, text())
