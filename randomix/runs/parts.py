"""What a run is made of on one rank: data, network, method and trainer, checked against each other."""

from __future__ import annotations

import torch
from torch import nn

from randomix import mixers
from randomix.engine.distributed import World
from randomix.engine.microbatch import Work
from randomix.engine.optim import resolve_precision
from randomix.engine.protocols import Data, DataFactory, ModelFactory
from randomix.engine.rules import micro_batch_sizes
from randomix.engine.schema import TrainConfig
from randomix.engine.trainer import Trainer
from randomix.errors import ConfigError, DataError
from randomix.mixers.base import Mixer
from randomix.robustness.evaluators import check_evaluators
from randomix.runs.setup import set_up_torch


def build_parts(
    config: TrainConfig, world: World, data_factory: DataFactory, model_factory: ModelFactory
) -> tuple[Data, Trainer]:
    """Everything that training needs; what cannot work together is found here: ConfigError, DataError."""
    settings = config.trainer
    precision = resolve_precision(settings.precision, world.device)
    set_up_torch(precision, settings.threads, settings.deterministic)
    data = data_factory(config.dataset)
    check_batch(config, data.num_train, world.world_size)
    check_evaluators(config.evaluators, config.evaluator, data)
    torch.manual_seed(config.seed)  # the initial weights
    model = model_factory(config.model, sample_shape=data.sample_shape, num_classes=data.num_classes)
    mixer = _build_mixer(config, data, model)
    trainer = Trainer(config, data, model, mixer, world, precision)
    if isinstance(settings.micro_batch_size, int):
        set_micro_batch(trainer, settings.micro_batch_size)
    return data, trainer


def set_micro_batch(trainer: Trainer, size: int) -> None:
    """Let a rank compute ``size`` samples at a time; the steps stay those of the recipe."""
    recipe = trainer.recipe
    recipe.accumulate = recipe.batch_size // trainer.world.world_size // size


def work_of(trainer: Trainer, data: Data, ranks: int) -> Work:
    """What a rank computes in a step where ``ranks`` share the batch."""
    recipe, config = trainer.recipe, trainer.config
    return Work(
        trainer.model,
        trainer.mixer,
        trainer.criterion,
        trainer.precision,
        recipe.batch_size // ranks,
        data.sample_shape,
        data.num_classes,
        config.seed,
    )


def check_batch(config: TrainConfig, num_train: int, world_size: int) -> None:
    """Raise DataError or ConfigError unless the ranks can share each batch in equal parts: under torchrun known now."""
    batch, accumulate, size = config.recipe.batch_size, config.recipe.accumulate, config.trainer.micro_batch_size
    if batch > num_train:
        raise DataError(
            f"recipe.batch_size={batch} is larger than the {num_train} training samples of "
            f"{config.dataset['name']}: lower it to {num_train} or less"
        )
    shares = world_size * accumulate
    if batch % shares:
        near = max(batch // shares, 1) * shares
        raise ConfigError(
            f"recipe.batch_size={batch} must be divisible by {world_size} rank(s) x "
            f"recipe.accumulate={accumulate}: for example {near}"
        )
    sizes = micro_batch_sizes(batch // world_size)
    if (size == "auto" and not sizes) or (isinstance(size, int) and size not in sizes):
        raise ConfigError(
            f"trainer.micro_batch_size={size}: must divide the {batch // world_size} samples of a rank "
            f"(recipe.batch_size={batch}, {world_size} rank(s)): one of {sizes}"
        )


def _build_mixer(config: TrainConfig, data: Data, model: nn.Module) -> Mixer:
    """The method, which must be able to mix these samples and find what it needs in the network."""
    try:
        mixer = mixers.build(config.mixer, num_classes=data.num_classes, mean=data.mean, std=data.std)
        mixer.check_shape(data.sample_shape)
        mixer.check_network(model, data.sample_shape)
    except ValueError as error:
        raise ConfigError(f"mixer={config.mixer['name']}: {error}") from error
    return mixer.allow_inplace()  # a loader makes each batch for one step only
