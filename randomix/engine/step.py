"""One step of training on one rank: mix, forward, backward, update. Nothing here waits for a GPU."""

from __future__ import annotations

import contextlib
from typing import Any, cast

import torch
from torch import Tensor, nn

from randomix.engine import distributed
from randomix.engine.meters import TrainMeter
from randomix.engine.optim import Precision, WeightAverage, build_optimizer, learning_rate
from randomix.engine.protocols import Batch
from randomix.engine.schema import TrainConfig
from randomix.engine.stopper import NonFiniteGuard, Stopper, finite_probe
from randomix.errors import NonFiniteError
from randomix.losses import LOSSES
from randomix.mixers.base import Mixer
from randomix.rng import StepRng
from randomix.types import MixedForward


class TrainStep:
    """A network with all that changes it: optimiser, gradient scaler, weight average, and the guard of its weights.

    model: where it trains, in its memory format; ``network`` is the same, compiled and wrapped for several ranks.
    methods: names of the methods that the last step used, one for each micro-batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        mixer: Mixer,
        world: distributed.World,
        precision: Precision,
        steps_per_epoch: int,
    ) -> None:
        self.recipe, self.model, self.mixer, self.world, self.precision = config.recipe, model, mixer, world, precision
        self.steps_per_epoch = steps_per_epoch
        self.optimizer = build_optimizer(model, self.recipe)
        self.scaler = precision.scaler()
        self.average = WeightAverage(model, self.recipe.ema_decay) if self.recipe.ema_decay else None
        self.criterion = LOSSES[self.recipe.loss]
        self.meter = TrainMeter(world.device)
        self.guard = NonFiniteGuard(self.optimizer, world.device)
        self.rng = StepRng(config.seed, rank=world.rank)
        # The inner module is compiled, then wrapped; ``model`` stays bare for evaluation and checkpoints.
        self.network = distributed.ddp(_compiled(model) if config.trainer.compile else model, world)
        self.methods: list[str] = []
        self._parameters = list(model.parameters())
        self._sync_statistics = world.world_size > 1 and mixer.reads_statistics

    def run(self, step: int, batch: Batch, stopper: Stopper) -> bool:
        """Train on one rank's batch; True: stop after this step.

        Raises NonFiniteError on all ranks, before the update, if the loss or a gradient of any rank is not finite. On
        CUDA the device itself leaves the weights as they are, and the error comes a few steps later.
        """
        self._set_learning_rate(step)
        self._seed_torch(step)
        if self._sync_statistics:
            distributed.sync_buffers(self.model)  # the method sees rank 0's on every rank, as after a resume
        self.methods = []
        decision = stopper.check(step, self._gradients(step, batch))
        if decision.nonfinite:
            raise NonFiniteError(self.diagnosis(decision.nonfinite_step, step, batch))
        self._update()
        if self.average is not None:
            self.average.update(self.model)
        return decision.stop

    def require_finite(self, step: int) -> None:
        """Raise NonFiniteError if the device has met a bad step since it was last asked; waits for it."""
        if (bad := self.guard.poll(wait=True)) is not None:
            raise NonFiniteError(self.diagnosis(bad, step))

    def diagnosis(self, bad: int | None, step: int, batch: Batch | None = None) -> str:
        """What to tell of the bad step, which is noticed at ``step``; None: the same."""
        at = step if bad is None else bad
        samples = f", samples {batch.indices[:8].tolist()} ..." if batch is not None and at == step else ""
        return (
            f"the loss or a gradient is not finite at step {at} (epoch {at // self.steps_per_epoch + 1}), "
            f"lr {self._learning_rate(at):g}, mixer {self.mixer.name}{samples}: it was not applied, and nothing is "
            "saved after it; lower recipe.lr, add recipe.warmup_epochs, or use trainer.precision=fp32"
        )

    def _learning_rate(self, step: int) -> float:
        return learning_rate(step, self.recipe, self.steps_per_epoch)

    def _set_learning_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)

    def _seed_torch(self, step: int) -> None:
        """Dropout, and whatever else draws from torch, becomes a function of the step too.

        The generators are seeded one by one: torch.manual_seed visits every backend and takes 100 times as long.
        """
        seed = self.rng.at(step).torch_seed()
        torch.default_generator.manual_seed(seed)
        if self.world.device.type == "cuda":
            torch.cuda.default_generators[self.world.device.index].manual_seed(seed)

    def _gradients(self, step: int, batch: Batch) -> Tensor:
        """Leave the batch's gradients at the parameters; returns a scalar that is finite only if all of it is."""
        parts = self.recipe.accumulate
        chunks = zip(batch.inputs.chunk(parts), batch.labels.chunk(parts), strict=True)
        total = torch.zeros((), device=self.world.device)
        for part, (inputs, labels) in enumerate(chunks):
            with self._synchronised(part == parts - 1):
                total += self._forward_backward(step, part, inputs, labels)
        return self._probe(total)

    def _forward_backward(self, step: int, part: int, inputs: Tensor, labels: Tensor) -> Tensor:
        rng = self.rng.at(step) if part == 0 else self.rng.at(step).child(f"part{part}")
        with self.precision.autocast():
            forward = self.mixer.forward_mixed(self.network, inputs, labels, rng)
        self.meter.count(len(labels))
        self.methods.append(forward.name)
        return self._backward(forward)

    def _backward(self, forward: MixedForward) -> Tensor:
        loss = forward.loss(self.criterion)
        self.scaler.scale(loss / self.recipe.accumulate).backward()
        self.meter.add(loss.detach(), forward.logits.detach(), forward.targets)
        return loss.detach()

    def _update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def _probe(self, loss: Tensor) -> Tensor:
        """Finite only if the loss and the gradients are; gradients under a scaler overflow now and then by design."""
        if self.scaler.is_enabled():
            return loss
        return finite_probe(loss, (p.grad for p in self._parameters))

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager[Any]:
        """DDP reduces gradients in the last micro-batch only; the context spans forward and backward."""
        no_sync: Any = getattr(self.network, "no_sync", None)
        return contextlib.nullcontext() if last or no_sync is None else no_sync()


def _compiled(model: nn.Module) -> nn.Module:
    """``model`` as one graph for each place where a method mixes inside of it, and one more.

    Not split at DDP's buckets, as dynamo would do it: that costs more than late reductions.
    """
    torch._dynamo.config.optimize_ddp = False
    torch._dynamo.config.cache_size_limit = 64  # its 8 graphs are too few for two such methods in a deep network
    # a step's sizes never change; those of another place are another graph
    return cast(nn.Module, torch.compile(model, dynamic=False))
