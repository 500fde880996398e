"""Small runs for tests: a whole configuration, networks that train in milliseconds, and warm processes to kill."""

from __future__ import annotations

import hashlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import datasets
from randomix import mixers
from randomix.engine import distributed
from randomix.engine.checkpoint import FORMAT, REQUIRED
from randomix.engine.distributed import World
from randomix.engine.launcher import STORE
from randomix.engine.optim import resolve_precision
from randomix.engine.runfolder import RunFolder
from randomix.engine.schema import parse
from randomix.engine.trainer import Trainer
from randomix.errors import RunError
from randomix.records import identity
from randomix.runs import build

# torch.compile before a process's first backward pass makes autograd start threads, which no fork survives
torch.zeros((), requires_grad=True).backward()


def tiny_config(output_root: Path, **sections: Any) -> dict[str, Any]:
    """A resolved configuration: 96 synthetic 8x8 images, batch 16, two epochs. ``recipe={...}`` changes a section."""
    config: dict[str, Any] = {
        "dataset": {
            "name": "fake_images",
            "root": None,
            "train_size": 96,
            "test_size": 37,
            "num_classes": 4,
            "channels": 3,
            "height": 8,
            "width": 8,
            "crop_padding": 1,
            "flip": True,
            "verify": True,
        },
        "model": {"name": "preact_resnet18", "width": 4},
        "mixer": {
            "name": "randomix",
            "candidates": ["mixup", "cutmix", "resizemix", "fmix"],
            "weights": [1, 1, 1, 1],
            "alpha": 1.0,
            "granularity": "batch",
        },
        "recipe": {"name": "tiny", "epochs": 2, "batch_size": 16, "lr": 0.05},
        "trainer": {"device": "cpu", "precision": "fp32", "threads": 1, "eval_batch_size": 16},
        "logger": {"name": "none"},
        "evaluator": {"clean": {}},
        "evaluators": ["clean"],
        "seed": 0,
        "output_root": str(output_root),
    }
    for name, value in sections.items():
        config[name] = config[name] | value if isinstance(value, Mapping) else value
    return config


def training_state(step: int, **parts: Any) -> dict[str, Any]:
    """A state with every part that a checkpoint needs; the ones that are not given are empty."""
    state = dict.fromkeys(REQUIRED) | {"format": FORMAT, "step": step, "world_size": 1, "precision": "fp32"}
    return state | {"config": "seed: 0\n", "history": [], "best": {}, "candidates": {}} | parts


class GroupNet(nn.Module):
    """Two convolutions with group normalisation: its gradients do not depend on how a batch is split."""

    num_taps = 1

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, stride=2),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
        )
        self.head = nn.Linear(8, num_classes)

    def forward(self, inputs: Tensor, tap: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
        features = inputs if tap is None else tap(0, inputs)
        return self.head(self.body(features).mean((2, 3)))


def group_net(config: Mapping[str, Any], *, sample_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A model factory for GroupNet."""
    return GroupNet(sample_shape[0], num_classes)


def train(config: Mapping[str, Any], model_factory: Any = None) -> RunFolder:
    """Train in this process and return the run's folder; errors come through."""
    import models

    assert build.run_training(config, datasets.build, model_factory or models.build) == 0
    return RunFolder(identity.run_folder(config))


def weights_digest(folder: RunFolder) -> str:
    """A digest of the final weights, bit for bit."""
    return hashlib.sha256(folder.weights.read_bytes()).hexdigest()


def fork(call: Callable[[], int], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """Run ``call`` in a forked process, which has everything imported already; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(environment or {})
        code = call()
    except RunError as error:
        print("error:", error, flush=True)
        code = error.exit_code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def wait(pids: list[int], seconds: float = 60.0) -> list[int]:
    """Exit codes (negative: killed by that signal) of forked processes; they are killed after ``seconds``."""
    codes, deadline = {}, time.monotonic() + seconds
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.01)
    return [codes[pid] for pid in pids]


def on_ranks(ranks: int, call: Callable[[World], None], folder: Path) -> None:
    """Run ``call(world)`` in forked gloo ranks."""

    def body() -> int:
        with distributed.init("cpu", 1.0) as world:
            call(world)
        return 0

    store, log, pids = tempfile.mkdtemp(dir=folder), folder / "log", []
    for rank in range(ranks):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, STORE: f"{store}/s"}
        pids.append(fork(body, log, {k: str(v) for k, v in names.items()}))
    assert wait(pids) == [0] * ranks, log.read_text()


def same_tensors(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    """Whether two state dictionaries are bit-equal."""
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def make_trainer(config, world=None, model_factory=group_net):
    """A trainer as a run would make it, on the CPU and without other ranks."""
    world = world or World()
    parsed = parse(config)
    data = datasets.build(parsed.dataset)
    torch.manual_seed(parsed.seed)
    model = model_factory(parsed.model, sample_shape=data.sample_shape, num_classes=data.num_classes)
    mixer = mixers.build(parsed.mixer, num_classes=data.num_classes, mean=data.mean, std=data.std)
    return Trainer(parsed, data, model, mixer, world, resolve_precision(parsed.trainer.precision, world.device))


def stop_once(original, at):
    """``Stopper.check`` that is asked to stop at a step, the first time."""

    def check(self, step, loss=None):
        if step == at and not check.done:
            check.done = True
            self.request("SIGUSR1")
        return original(self, step, loss)

    check.done = False
    return check
