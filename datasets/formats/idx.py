"""The IDX format of MNIST and its relatives: a big-endian header (magic, sizes), then unsigned bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from randomix.errors import DataError

_MAX_BYTES = 2**31  # refuses headers that ask for more memory than any set of this format has
_FIX = "delete it and download it again"


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read a uint8 array of ``ndim`` dimensions from an IDX file, gzip-compressed if its name ends in .gz.

    Raises DataError, naming the file, for a wrong magic number or number of dimensions, a size that differs from
    the header's, and broken compression. Never reads more than the header announces.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, path, ndim)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected complete gzip data, found {error}; {_FIX}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _parse(file: IO[bytes], path: Path, ndim: int) -> np.ndarray:
    header = file.read(4 + 4 * ndim)
    expected = bytes([0, 0, 0x08, ndim])  # 0x08: unsigned bytes
    if header[:4] != expected:
        raise DataError(f"{path}: expected IDX magic {expected.hex()}, found {header[:4].hex() or 'nothing'}; {_FIX}")
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path}: expected a header of {4 + 4 * ndim} bytes, found {len(header)}; {_FIX}")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    if not 0 < size <= _MAX_BYTES:
        raise DataError(f"{path}: expected sizes of 1 to {_MAX_BYTES} bytes, found {shape} in the header; {_FIX}")
    body = file.read(size + 1)
    if len(body) != size:
        found = "more" if len(body) > size else f"{len(body)} bytes"
        raise DataError(f"{path}: expected {size} bytes after the header for {shape}, found {found}; {_FIX}")
    return np.frombuffer(body, np.uint8).reshape(shape)
