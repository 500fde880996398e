"""How much memory this process uses and could have, on a GPU or on the CPU."""

from __future__ import annotations

import ctypes
import gc
import os
from pathlib import Path
from typing import Protocol

import torch

from randomix.engine.distributed import World
from randomix.errors import ConfigError


class Meter(Protocol):
    """Memory of this process on one device, in bytes."""

    def free(self) -> int:
        """What this process could have beyond what it uses now."""

    def reset(self) -> None:
        """Give back what is not in use, and begin to look for the peak."""

    def peak(self) -> int:
        """The most that was in use at a time since ``reset``."""


class CudaMeter:
    """Memory of a GPU, by torch's allocator."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def free(self) -> int:
        """Free on the device, and what the allocator holds without using it."""
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return torch.cuda.mem_get_info(self.device)[0] + held

    def reset(self) -> None:
        """See Meter."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        """See Meter."""
        torch.cuda.synchronize(self.device)
        return torch.cuda.max_memory_allocated(self.device)


class CpuMeter:
    """Resident memory of this process, by the kernel; Linux only. ``ranks`` processes share the machine."""

    def __init__(self, ranks: int = 1) -> None:
        self.ranks = ranks
        try:
            self.reset()
        except OSError as error:
            raise ConfigError(
                "trainer.micro_batch_size=auto: this system does not tell what memory a process uses "
                f"({error.filename}: {error.strerror}); write a number"
            ) from error

    def free(self) -> int:
        """What the machine and this process's control group leave, for each of the ranks here."""
        return min(_available(), _left_in_groups()) // self.ranks

    def reset(self) -> None:
        """See Meter."""
        gc.collect()
        if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
            libc.malloc_trim(0)  # what is freed but kept would hide the next pass
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is resident now

    def peak(self) -> int:
        """See Meter."""
        return _kib("/proc/self/status", "VmHWM")


def _kib(path: str, key: str) -> int:
    """The bytes of a line such as ``VmHWM:  2172 kB``."""
    lines = Path(path).read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{key}:")))


def _available() -> int:
    return _kib("/proc/meminfo", "MemAvailable")


def _left_in_groups(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """The least that this process's control group (version 1 or 2) and those above it leave; 2^63 - 1 without any."""
    left = [2**63 - 1]
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / controllers
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        for folder in [top / path.lstrip("/"), *(top / path.lstrip("/")).parents]:
            left += _left_in(folder, *names)
            if folder == top:  # a container sees its own group there
                break
    return max(min(left), 0)


def _left_in(folder: Path, limit: str, usage: str) -> list[int]:
    """Bytes that one group leaves; what is only cached in files can be had."""
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        cached = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return []
    return [] if most == "max" else [int(most) - used + int(cached.get("inactive_file", 0))]


def meter_for(world: World) -> Meter:
    """The meter of a rank's device."""
    if world.device.type == "cuda":
        return CudaMeter(world.device)
    return CpuMeter(int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
