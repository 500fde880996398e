"""Workers for the tests that start processes; a child imports them by name."""

from __future__ import annotations

from pathlib import Path

import torch

from randomix.engine.distributed import all_reduce_sum, barrier, broadcast_object, init


def hello(folder: str) -> None:
    with init("cpu", 0.3) as world:
        total = all_reduce_sum(torch.tensor([float(world.rank + 1)]))
        got = broadcast_object({"rank": world.rank})
        barrier()
        Path(folder, f"hello-{world.rank}").write_text(f"{total.item()} {got} {torch.get_num_threads()} {world}")
