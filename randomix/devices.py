"""Host data to a device without waiting for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor


def host_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of a C-ordered writable array; others are copied."""
    if not array.flags.carray:  # torch shares only what can be written
        array = np.require(array, requirements=["C", "W"])
    return torch.from_numpy(array)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, also on devices that know none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def to_device(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy a host array or tensor to ``device`` without waiting for it (pinned and asynchronous on CUDA).

    For what every step needs: torch keeps the pinned memory for the next copy, which would hold a whole data set twice.
    """
    tensor = (host_tensor(array) if isinstance(array, np.ndarray) else array).contiguous()
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
