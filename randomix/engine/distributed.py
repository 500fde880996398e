"""Several processes training one network: joining, reducing, wrapping. Everything is a no-op in a single process.

torch is imported inside the functions: the process that only launches others does not need it.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from randomix.engine.launcher import STORE
from randomix.errors import ConfigError, RunError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=_cpu)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


_worlds: list[World] = []  # the enclosing ``init`` blocks


def current_world() -> World:
    """The world of the enclosing ``init``; a single CPU process outside of one."""
    return _worlds[-1] if _worlds else World()


@contextmanager
def init(device: str = "auto", timeout_minutes: float = 10.0) -> Iterator[World]:
    """Join the other ranks for the length of a ``with`` block, if there are any: under torchrun or our ``launch``.

    device: auto | cpu | cuda. timeout_minutes: how long a rank waits for another one before the job is stuck.
    Raises ConfigError for a device that is not there, RunError when the others do not come.
    """
    rank, local_rank = int(os.environ.get("RANK", 0)), int(os.environ.get("LOCAL_RANK", 0))
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    place = _device(device, local_rank)
    world = World(rank, world_size, local_rank, place)
    _worlds.append(world)
    try:
        if world_size > 1:
            _join(world, timedelta(minutes=timeout_minutes))
        yield world
    finally:
        _worlds.pop()
        if world_size > 1:
            _part()


def _device(name: str, local_rank: int) -> torch.device:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"trainer.device: {name!r} is not one of auto, cpu, cuda")
    count = torch.cuda.device_count() if name != "cpu" else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if local_size > count:
        raise ConfigError(
            f"trainer.device={name} with {local_size} process(es), but {count} CUDA device(s) are visible"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _join(world: World, timeout: timedelta) -> None:
    import torch.distributed as dist

    try:
        if path := os.environ.get(STORE):
            store: dist.Store = dist.FileStore(path, world.world_size)
            store.set_timeout(timeout)
        else:
            store = next(iter(dist.rendezvous("env://", timeout=timeout)))[0]
        # torchrun's store outlives a restart, and with it the addresses of dead processes
        attempt = dist.PrefixStore("attempt" + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=attempt, rank=world.rank, world_size=world.world_size, timeout=timeout)
    except (RuntimeError, ValueError) as error:  # DistError is a RuntimeError
        line = str(error).strip().splitlines()[0][:200]
        raise RunError(f"rank {world.rank} could not join the {world.world_size} processes: {line}") from error


def _part() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """The sum of ``tensor`` over all ranks, as a new tensor (the same one in a single process)."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def broadcast_object(value: Any) -> Any:
    """Rank 0's ``value`` on every rank; it is pickled, between our own processes only."""
    import torch.distributed as dist

    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=_cpu())
    return values[0]


def sync_buffers(module: nn.Module) -> None:
    """Give every rank rank 0's buffers (running statistics); one broadcast for each of their types."""
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        return
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        by_type.setdefault(buffer.dtype, []).append(buffer.detach())
    for buffers in by_type.values():
        flat = torch.cat([buffer.flatten() for buffer in buffers])
        dist.broadcast(flat, src=0)
        for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


def ddp(module: nn.Module, world: World) -> nn.Module:
    """Wrap ``module`` so that gradients are averaged over the ranks; unchanged in a single process.

    Buffers are not sent at each forward: every rank keeps its own statistics until ``sync_buffers``.
    """
    if world.world_size == 1:
        return module
    from torch.nn.parallel import DistributedDataParallel

    # from torch 2.13 on broadcast_buffers is deprecated for forward_sync_buffers
    names = inspect.signature(DistributedDataParallel).parameters
    sync: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}
    sync_buffers(module)  # broadcast_buffers=False leaves out the first broadcast in some versions
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(module, device_ids=device_ids, gradient_as_bucket_view=True, **sync)
