"""Two ranks of one network: what they share, when they reduce, and that compiling inside of the wrapper keeps it."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

import models
from randomix.engine import distributed
from randomix.engine.distributed import World
from randomix.engine.stopper import Stopper
from tests.support import group_net, make_trainer, on_ranks, same_tensors, tiny_config


def quiet():
    """A stopper that hears no signal."""
    stopper = Stopper()
    stopper.close()
    return stopper


def run_steps(running, count):
    running.model.train()
    stopper = quiet()
    for step, batch in enumerate(running.loader.batches(0, count)):
        running.step(step, batch, stopper)


def counted_reductions(network):
    """Sizes of the gradients that are reduced, one for each bucket and time."""
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    sizes = []

    def hook(state, bucket):
        sizes.append(bucket.buffer().numel())
        return allreduce_hook(None, bucket)

    network.register_comm_hook(None, hook)
    return sizes


def kept(folder, what):
    return [torch.load(folder / f"{what}-{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_ranks_begin_with_rank_0_s_weights_and_keep_their_own_statistics_until_asked(tmp_path):
    def unlike(config, *, sample_shape, num_classes):
        model = models.build(config, sample_shape=sample_shape, num_classes=num_classes)
        torch.manual_seed(distributed.current_world().rank + 7)
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape))
        return model

    def work(world: World) -> None:
        running = make_trainer(tiny_config(tmp_path), world, unlike)
        for what in ("first", "trained", "asked"):
            if what == "trained":
                for name, buffer in running.model.named_buffers():
                    if "tracked" in name:
                        buffer.fill_(100 * world.rank)
                run_steps(running, 2)
            elif what == "asked":
                distributed.sync_buffers(running.model)
            torch.save(running.model.state_dict(), tmp_path / f"{what}-{world.rank}.pt")

    on_ranks(2, work, tmp_path)
    assert same_tensors(*kept(tmp_path, "first"))
    a, b = kept(tmp_path, "trained")
    unequal = {name for name in a if not torch.equal(a[name], b[name])}
    assert unequal == {name for name in a if "running" in name or "tracked" in name}  # each has seen its share
    assert {int(b[name]) for name in b if "tracked" in name} == {102}  # no forward took rank 0's
    asked = kept(tmp_path, "asked")
    assert same_tensors(*asked)
    assert same_tensors(asked[0], a)


@pytest.mark.parametrize("parts", [1, 4])
def test_micro_batches_are_reduced_once_a_step_to_the_mean_of_the_ranks(tmp_path, monkeypatch, parts):
    config = tiny_config(tmp_path, recipe={"accumulate": parts})

    def gradients(world: World) -> tuple[list[torch.Tensor], list[int]]:
        running = make_trainer(config, world, group_net)
        sizes = counted_reductions(running.network) if isinstance(running.network, DistributedDataParallel) else []
        running.optimizer.zero_grad = lambda **_: None  # keep them to look at
        run_steps(running, 1)
        return [p.grad.clone() for p in running.model.parameters()], sizes

    def work(world: World) -> None:
        found, sizes = gradients(world)
        assert sizes == [sum(g.numel() for g in found)]  # one bucket, once
        torch.save(found, tmp_path / f"gradients-{world.rank}.pt")

    on_ranks(2, work, tmp_path)
    monkeypatch.setattr(distributed, "ddp", lambda module, world: module)
    alone = [gradients(World(rank, 2))[0] for rank in (0, 1)]
    for together, other, *shares in zip(*kept(tmp_path, "gradients"), *alone, strict=True):
        assert torch.equal(together, other)
        torch.testing.assert_close(together, sum(shares) / 2, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(*shares, rtol=1e-3)


def test_a_compiled_network_is_wrapped_unsplit_and_trains_the_same_weights(tmp_path):
    from torch._dynamo.testing import CompileCounter

    def trained(world: World, **trainer: bool) -> torch.nn.Module:
        running = make_trainer(tiny_config(tmp_path, trainer=trainer, recipe={"accumulate": 2}), world, models.build)
        assert isinstance(running.network, DistributedDataParallel)
        if trainer:
            assert isinstance(running.network.module, torch._dynamo.OptimizedModule)
            assert running.network.module._orig_mod is running.model
            assert not torch._dynamo.config.optimize_ddp
        run_steps(running, 6)
        return running.model

    def work(world: World) -> None:
        eager, counter, compiler = trained(world), CompileCounter(), torch.compile
        torch.compile = lambda model, **options: compiler(model, backend=counter, **options)  # in this process alone
        with torch._dynamo.config.patch(error_on_recompile=True):
            assert same_tensors(eager.state_dict(), trained(world, compile=True).state_dict())
        assert counter.frame_count == 1
        weights = {name: parameter.detach() for name, parameter in eager.named_parameters()}
        torch.save(weights, tmp_path / f"weights-{world.rank}.pt")

    on_ranks(2, work, tmp_path)
    assert same_tensors(*kept(tmp_path, "weights"))
