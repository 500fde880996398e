"""What a run asks of torch in its process."""

from __future__ import annotations

import os

import torch

from randomix.engine.allocator import keep_freed_memory
from randomix.engine.optim import Precision

_THREADS = torch.get_num_threads()  # what the process began with: a sweep's next run starts from there again


def set_up_torch(precision: Precision, threads: int | None = None, deterministic: bool = False) -> None:
    """Threads, memory, determinism and float32 arithmetic of this process; threads=None: as many as it began with."""
    torch.set_num_threads(threads or _THREADS)
    if precision.device.type == "cpu":
        keep_freed_memory()
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = precision.device.type == "cuda" and not deterministic
    # float32 means 23 bits of mantissa unless TF32's 10 were asked for; torch's own default is TF32 in convolutions.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision.name == "tf32"
