"""The typed configuration of a run. Importing it needs no torch: mistakes are reported before anything heavy starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class RecipeConfig:
    """How a network is trained. ``batch_size`` is global: all ranks and micro-batches together."""

    name: str
    epochs: int
    batch_size: int
    lr: float
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_norms: bool = True  # weight decay on normalisation layers and biases too, as the paper's peers do
    schedule: str = "cosine"  # cosine | multistep | constant
    milestones: list[float] = field(default_factory=list)  # multistep: fractions of the epochs
    gamma: float = 0.1  # multistep: factor at each milestone
    min_lr: float = 0.0
    warmup_epochs: float = 0.0
    loss: str = "cross_entropy"  # cross_entropy | softmax_bce
    ema_decay: float | None = None
    accumulate: int = 1  # micro-batches per step; batch statistics see one micro-batch


@dataclass
class TrainerConfig:
    """How a run executes; only precision, micro_batch_size and deterministic are meant to change its result."""

    device: str = "auto"  # auto | cpu | cuda
    precision: str = "auto"  # auto | fp32 | tf32 | bf16 | fp16
    micro_batch_size: int | str | None = None  # samples a rank computes at a time | auto: all that fit; None: all
    compile: bool = False
    cuda_graph: bool = False  # replay each step as one CUDA graph: one GPU, methods that mix pixels
    nproc: int = 1  # worker processes started on this machine
    threads: int | None = None  # intra-op CPU threads of one process; None: cores / nproc
    deterministic: bool = False
    resume: str = "auto"  # auto: continue what the run folder holds | never: refuse a folder that holds a run
    eval_every_epochs: int = 1
    checkpoint_every_epochs: int = 1
    keep_last: int = 2
    eval_batch_size: int = 500
    timeout_minutes: float = 10.0  # of a collective operation, before the job is declared stuck


@dataclass
class TrainConfig:
    """One training run. ``dataset``, ``model``, ``mixer``, ``logger`` and ``evaluator`` follow their YAML files."""

    dataset: dict[str, Any]
    model: dict[str, Any]
    mixer: dict[str, Any]
    recipe: RecipeConfig
    trainer: TrainerConfig
    logger: dict[str, Any]
    evaluator: dict[str, Any]  # settings of every evaluator by name
    evaluators: list[str]  # those that run at the end
    seed: int = 0
    output_root: str = "outputs"


@dataclass
class EvalTrainerConfig:
    """How an evaluation executes."""

    device: str = "auto"
    precision: str = "fp32"  # attacks need fp32: in fp16 small gradients vanish and attacks look weaker
    eval_batch_size: int = 500
    nproc: int = 1
    threads: int | None = None
    timeout_minutes: float = 10.0


@dataclass
class EvalDatasetConfig:
    """Where the data are now; everything else about them is what the run was trained with."""

    root: str | None = None  # null: where the run found them
    corrupted_root: str | None = None  # folder of published corrupted test sets; null: as the run had it
    cache: str | None = None  # folder of decoded arrays; null: as the run had it
    shards: str | None = None  # folder or URL of the shards; null: as the run had it
    workers: int | None = None  # processes that decode; null: as the run had it


@dataclass
class EvalConfig:
    """One evaluation of a finished run."""

    checkpoint: str  # the folder of a run, or a checkpoint file in it
    evaluators: list[str]
    evaluator: dict[str, Any]
    trainer: EvalTrainerConfig
    dataset: EvalDatasetConfig = field(default_factory=EvalDatasetConfig)
    output_root: str = "outputs"


def validate(config: Mapping[str, Any], schema: type = TrainConfig, known: Known | None = None) -> list[str]:
    """Every problem of a resolved configuration, one line each: the key, its value, what is allowed, the fix.

    ``schema`` is TrainConfig or EvalConfig. ``known`` maps a section (dataset, model, ...) to the keys that each of
    its names takes; sections it lacks are not checked for unknown keys.
    """
    from randomix.engine.validation import check

    return check(config, schema, known or {})


def parse(config: Mapping[str, Any], schema: type = TrainConfig, known: Known | None = None) -> Any:
    """The configuration as an instance of ``schema``; ConfigError with all problems at once."""
    from randomix.engine.validation import build, normalise
    from randomix.errors import ConfigError

    problems = validate(config, schema, known)
    if problems:
        raise ConfigError(*problems)
    return build(normalise(config), schema)


Known = Mapping[str, Mapping[str, frozenset[str]]]
