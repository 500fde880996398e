"""What the C library does with freed memory."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names of glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, for the next step's tensors; False where there is no glibc.

    glibc gives large blocks back to the system at once, and each step then pays for fresh pages again: thousands of
    page faults, a tenth of a CPU step (docs/performance.md). The peak of memory stays what it was, but is not
    given back before the process ends.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS; Windows has no such library
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _NEVER))
