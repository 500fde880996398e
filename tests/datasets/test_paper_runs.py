"""Every data set of the paper with its network, narrow: two epochs by overrides, on one and two ranks, and resumed.

The files are in the official formats, made here; their content is random, so nothing is said about accuracy.
"""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

import datasets
import models
from datasets.imagenet import open_folders
from datasets.streams import make_shards
from randomix.engine.launcher import STORE
from randomix.engine.runfolder import RunFolder
from randomix.engine.stopper import Stopper
from randomix.errors import USER, ConfigError
from randomix.records import identity, record
from randomix.runs.build import run_training
from tests.datasets.pictures import cut
from tests.support import fork, stop_once, train, wait, weights_digest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from bench import made_sets  # noqa: E402

pytestmark = pytest.mark.slow
NARROW = ["model.width=4"]
IMAGENET = [
    "dataset=imagenet",
    "dataset.image_size=32",
    "dataset.resize=36",
    "model=resnet50",
    "model.blocks=[1,1,1,1]",
    "model.width_per_group=8",
    "recipe=imagenet",
    "mixer=randomix_3111",
]


def imagenet(root: Path) -> None:
    """Class folders for 4 steps of an epoch."""
    made_sets.imagenet(root, classes=2, per_class=16, height=40, width=48)


def shards(root: Path) -> None:
    """The same images, only in shards."""
    imagenet(root)
    call = ["--root", str(root), "--out", str(root / "shards"), "--no-verify", "--jobs", "1", "--per-shard", "5"]
    assert make_shards.main(call, open_folders) == 0
    shutil.rmtree(root / "imagenet")


PAPER = {  # what is in the folder, then the overrides
    "cifar10": (
        partial(made_sets.cifar10, train=80),
        ["dataset=cifar10", "model=preact_resnet18", *NARROW, "recipe=cifar"],
    ),
    "cifar100": (
        partial(made_sets.cifar100, train=100),
        [
            "dataset=cifar100",
            "model=wrn_28_10",
            "model.depth=10",
            "model.widen_factor=1",
            *NARROW,
            "recipe=cifar",
            "mixer=randomix_4111",
        ],
    ),
    "tiny_imagenet": (
        partial(made_sets.tiny_imagenet, classes=4, per_class=10),
        ["dataset=tiny_imagenet", "model=preact_resnet18", *NARROW, "recipe=tiny_imagenet"],
    ),
    "imagenet": (imagenet, [*IMAGENET, "dataset.workers=0"]),
    "imagenet_shards": (shards, [*IMAGENET, "dataset.workers=1"]),
    "speech_commands": (
        partial(made_sets.speech_commands, per_word=8),
        [
            "dataset=speech_commands",
            "model=preact_resnet18_1d",
            *NARROW,
            "recipe=speech_commands",
            "evaluators=[clean,validation,noise,occlusion,fgsm]",
        ],
    ),
    "speech_commands_log_mel": (
        partial(made_sets.speech_commands, per_word=8),
        [
            "dataset=speech_commands",
            "dataset.features=log_mel",
            "model=preact_resnet18",
            *NARROW,
            "recipe=speech_commands",
            "evaluators=[clean,validation]",
        ],
    ),
}
COMMON = [
    "dataset.verify=false",
    "recipe.epochs=2",
    "recipe.batch_size=8",
    "recipe.lr=0.01",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.threads=1",
    "trainer.eval_batch_size=16",
]


def config_for(overrides: list[str], root: Path, output: Path) -> dict:
    """The resolved configuration of a command line."""
    import hydra
    from omegaconf import OmegaConf

    lines = [*overrides, *COMMON, f"dataset.root={root}", f"output_root={output}"]
    with hydra.initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("train", lines), resolve=True)


def on_two_ranks(config: dict, folder: Path) -> list[int]:
    """The run on two gloo ranks, forked."""
    store, pids = tempfile.mkdtemp(dir=folder), []
    for rank in range(2):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, STORE: f"{store}/s"}
        environment = {k: str(v) for k, v in names.items()}
        pids.append(fork(lambda: run_training(config, datasets.build, models.build), folder / "log", environment))
    return wait(pids, 120)


@pytest.fixture(scope="module", params=PAPER)
def prepared(request, tmp_path_factory):
    """A folder with the files, and the overrides."""
    root = tmp_path_factory.mktemp(request.param)
    make, overrides = PAPER[request.param]
    make(root)
    return root, overrides + [f"dataset.shards={p}" for p in root.glob("shards")]


def test_two_epochs_then_the_same_after_a_stop(prepared, tmp_path, monkeypatch, capfd):
    root, overrides = prepared
    straight = train(config_for(overrides, root, tmp_path / "straight"))
    found = record.read(straight.record)
    assert len(found.history) == 2 and found.data["train_samples"] > 0
    assert str(root) not in straight.record.read_text()
    config = config_for(overrides, root, tmp_path / "resumed")
    monkeypatch.setattr(Stopper, "check", stop_once(Stopper.check, at=5))  # in the middle of the second epoch, or so
    with pytest.raises(Exception, match="the same command continues"):
        run_training(config, datasets.build, models.build)
    if "imagenet_shards" in root.name:  # shards are dealt to ranks and workers
        assert on_two_ranks(config, tmp_path) == [2, 2]
        assert "continue with trainer.nproc=1 (or torchrun --nproc_per_node 1)" in capfd.readouterr().out
        with pytest.raises(ConfigError, match="workers"):
            train({**config, "dataset": {**config["dataset"], "workers": 2}})
    resumed = train(config)
    assert weights_digest(resumed) == weights_digest(straight)


def test_two_ranks_count_every_sample_once(prepared, tmp_path):
    root, overrides = prepared
    config = config_for(overrides, root, tmp_path)
    if "workers" in config["dataset"]:
        config["dataset"]["workers"] = 0  # each rank's fork server would take seconds to start
    assert on_two_ranks(config, tmp_path) == [0, 0], (tmp_path / "log").read_text()
    found = record.read(RunFolder(identity.run_folder(config)).record)
    assert found.counts["clean"]["total"] == found.data["test_samples"]


def test_a_damaged_image_ends_both_ranks(tmp_path, capfd):
    imagenet(tmp_path)
    cut(next((tmp_path / "imagenet" / "train").glob("*/*_3.JPEG")))  # of one rank's share of an epoch
    config = config_for([*IMAGENET, "dataset.workers=0", "trainer.nproc=2"], tmp_path, tmp_path / "runs")
    assert run_training(config, datasets.build, models.build) == USER
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")]
    assert "_3.JPEG: expected a whole image" in line and line.endswith("or set dataset.on_bad_sample=skip")
