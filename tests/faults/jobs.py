"""Small training runs for the tests that start processes; a child imports them by name."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from randomix.engine.distributed import (
    all_reduce_sum,
    broadcast_object,
    current_world,
    ddp,
    init,
    sync_buffers,
)
from randomix.engine.status import Status
from randomix.engine.stopper import Stopper, finite_probe
from randomix.errors import Interrupted, NonFiniteError

FAULT_STEP = 5


def hello(folder: str) -> None:
    """Every helper once; what each rank saw goes to a file."""
    with init("cpu", 0.5) as world:
        assert current_world() is world
        total = all_reduce_sum(torch.tensor([world.rank + 1]))
        got = broadcast_object({"from": world.rank})
        backend, threads = torch.distributed.get_backend(), torch.get_num_threads()
        seen = f"{total.item()} {got['from']} {world.rank}/{world.world_size} {backend} {threads}"
        Path(folder, f"hello-{world.rank}").write_text(seen)
    assert current_world().world_size == 1
    assert not torch.distributed.is_initialized()


def train(folder: str, fault: str) -> None:
    """Twelve steps of a network with batch norm on each rank; ``fault`` happens to rank 1 at FAULT_STEP."""
    with init("cpu", 0.5) as world, Stopper() as stopper:
        torch.manual_seed(world.rank)  # other weights and buffers on each rank, until ddp
        bare = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        network = ddp(bare, world)
        optimizer = torch.optim.SGD(bare.parameters(), lr=0.1, momentum=0.9)
        if world.is_main:
            Status(Path(folder, "status.json")).update("running", checkpoint="last.pt")
        for step in range(12):
            inputs = torch.randn(8, 4)
            if world.rank == 1 and step == FAULT_STEP:
                inputs = _cause(fault, inputs)
            loss = network(inputs).square().mean()
            if fault == "nan loss" and world.rank == 1 and step == FAULT_STEP:
                loss = loss * float("nan")
            loss.backward()
            before = [p.detach().clone() for p in bare.parameters()]
            decision = stopper.check(step, finite_probe(loss, (p.grad for p in bare.parameters())))
            _note(folder, world.rank, step, decision, before, bare)
            if decision.nonfinite:
                raise NonFiniteError(f"not finite at step {decision.nonfinite_step}")
            optimizer.step()
            optimizer.zero_grad()
            if decision.stop:
                raise Interrupted(f"stopped at step {step}")
        sync_buffers(bare)
        torch.save(bare.state_dict(), Path(folder, f"weights-{world.rank}.pt"))


def _cause(fault: str, inputs: torch.Tensor) -> torch.Tensor:
    if fault == "exception":
        raise ValueError("boom")
    if fault in ("SIGUSR1", "SIGTERM", "SIGKILL"):
        os.kill(os.getpid(), getattr(signal, fault))
    return inputs * float("inf") if fault == "inf input" else inputs


def _note(folder: str, rank: int, step: int, decision, weights, bare: nn.Module) -> None:
    same = all(torch.equal(a, b) for a, b in zip(weights, bare.parameters(), strict=True))
    line = f"{step} stop={decision.stop} nonfinite={decision.nonfinite} at={decision.nonfinite_step} same={same}\n"
    with open(Path(folder, f"steps-{rank}.txt"), "a") as file:
        file.write(line)


def torchrun_main(folder: str) -> None:
    """Under torchrun with a restart: rank 1 dies on the first attempt, on the second all goes well."""
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    with init("cpu", 0.5) as world:
        total = all_reduce_sum(torch.ones(()))
        Path(folder, f"attempt-{attempt}-rank-{world.rank}").write_text(f"{total.item():g}")
        if attempt == "0" and world.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        all_reduce_sum(torch.ones(()))  # wait for the other rank, in vain on the first attempt


if __name__ == "__main__":
    torchrun_main(sys.argv[1])
