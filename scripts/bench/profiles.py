"""What the time of one step goes into, by torch's profiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

TOP = 12
_ANNOTATIONS = ("Optimizer.", "ProfilerStep", "## ", "Torch-Compiled Region")  # on a GPU's time line, but no kernels


def of_step(step: Callable[[], None], device: torch.device) -> dict[str, Any]:
    """The kernels of one step by their time, and how many were launched; on a CPU the operations.

    busy_ms: time of all kernels together; wall_ms: of the step under the profiler, which slows the host down.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    step()
    with profile(activities=activities) as found:
        step()
        if on_gpu:
            torch.cuda.synchronize()
    spent: dict[str, list[float]] = {}
    first, last = float("inf"), 0.0
    for event in found.events():
        first, last = min(first, event.time_range.start), max(last, event.time_range.end)
        kernel = event.device_type == torch.autograd.DeviceType.CUDA
        annotates = getattr(event, "is_user_annotation", False) or event.name.startswith(_ANNOTATIONS)
        if kernel == on_gpu and not annotates and (on_gpu or event.name.startswith("aten::")):
            took = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            spent.setdefault(event.name, []).append(took)
    busy = sum(map(sum, spent.values()))
    top = sorted(spent.items(), key=lambda item: -sum(item[1]))[:TOP]
    return {
        "launches": sum(map(len, spent.values())),
        "busy_ms": busy / 1e3,
        "wall_ms": (last - first) / 1e3,
        "top": [{"name": n, "calls": len(t), "ms": sum(t) / 1e3, "share": sum(t) / (busy or 1.0)} for n, t in top],
    }
