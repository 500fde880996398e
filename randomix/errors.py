"""Exit codes, and the errors that carry one: a single line that names the key or file, the value and the fix."""

from __future__ import annotations

OK, BUG, USER, NONFINITE, OUT_OF_MEMORY, STORAGE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 75


class RunError(Exception):
    """An error that ends a run with ``exit_code``; its message is one line for the user."""

    exit_code = BUG


class ConfigError(RunError):
    """Wrong settings: one line a problem, all of them at once."""

    exit_code = USER

    @property
    def problems(self) -> tuple[str, ...]:
        """The lines."""
        return self.args

    def __str__(self) -> str:
        return "\n".join(self.args)


class DataError(RunError):
    """Missing, damaged or unexpected data files."""

    exit_code = USER


class NonFiniteError(RunError):
    """The loss became NaN or infinite; the weights were left as they were before that step."""

    exit_code = NONFINITE


class OutOfMemory(RunError):
    """Nothing that would be of use fits into memory."""

    exit_code = OUT_OF_MEMORY


class StorageError(RunError):
    """A file could not be written: full disk, missing permission."""

    exit_code = STORAGE


class Interrupted(RunError):
    """Stopped by a signal after a checkpoint; the same command continues."""

    exit_code = INTERRUPTED


_OUT_OF_MEMORY = (
    "DefaultCPUAllocator: ",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's error, a GPU's (by its name, as this imports no torch), what libraries say."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
