"""Host data to a device without waiting for it, and what may be done to a tensor's memory."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

# Private: a torch without it has its own way to tell, and only mixing within torch.func needs the answer.
_is_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: False)


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


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is its memory and nothing else, so that writing past torch is seen by nobody who should see it.

    False for one known to autograd (backward or forward), a wrapper of torch.func, and one that is negated lazily.
    """
    if tensor.requires_grad or tensor.is_neg() or _is_wrapped(tensor):
        return False
    return unpack_dual(tensor).tangent is None


def to_device(array: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy a host array or tensor to ``device`` without waiting for it (pinned and asynchronous on CUDA).

    For what every step needs: torch keeps the pinned memory for the next copy, which would hold a whole data set twice.
    """
    tensor = (host_tensor(array) if isinstance(array, np.ndarray) else array).contiguous()
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
