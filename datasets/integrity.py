"""Checksums, so that no file is used before it is known to be the right one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from randomix.errors import DataError


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file's bytes; raises DataError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def array_digest(*arrays: np.ndarray, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of the arrays' dtypes, shapes and little-endian contents, in order."""
    digest = hashlib.new(algorithm)
    for array in arrays:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str}{little.shape}".encode())
        digest.update(little.data)
    return digest.hexdigest()


def expect_digest(name: str, found: str, expected: str, algorithm: str, fix: str) -> None:
    """Raise DataError naming the file, both digests and the fix unless they agree."""
    if found != expected:
        raise DataError(f"{name}: expected {algorithm} {expected}, found {found}; {fix}")
