"""Writing files so that a crash, a kill or a full disk never leaves a half one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from randomix.errors import StorageError

_ORPHAN = re.compile(r"\..+\.tmp\.(\d+)")
_MIB = 2**20


@contextmanager
def atomic_file(
    path: Path, need: int = 0, verify: Callable[[Path], None] | None = None, durable: bool = True
) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends without an error, and not before.

    need: expected size in bytes; a disk without that much free space is refused before anything is written.
    verify: called with the complete temporary file before it gets its name; it raises to keep the old file.
    durable: also after a power cut; False saves two waits for the disk for what can be made again.
    Raises StorageError for what the operating system refuses. No temporary file is left behind.
    """
    path = Path(path)
    temporary = temporary_name(path)
    with storage_errors(path, need):
        check_space(path.parent, need)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            if verify is not None:
                verify(temporary)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # gone after a success; nothing more to do on a dead disk
                temporary.unlink(missing_ok=True)
        if durable:
            sync_folder(path.parent)


def write_atomic(path: Path, data: bytes | str, *, durable: bool = True, parents: bool = False) -> None:
    """Replace ``path`` by ``data`` (text as UTF-8): readers see the old or the new content, if ``durable`` also after
    a power cut. parents: make the folders of ``path``.
    """
    data = data.encode() if isinstance(data, str) else data
    if parents:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path, need=len(data), durable=durable) as file:
        file.write(data)


def link_atomic(source: Path, path: Path) -> None:
    """Make ``path`` a second name of ``source``, in one step; a copy where the file system has no hard links."""
    temporary = temporary_name(path)
    with storage_errors(path):
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
                raise
            with open(source, "rb") as reader, atomic_file(path, need=source.stat().st_size) as file:
                shutil.copyfileobj(reader, file, 4 * _MIB)
            return
        try:
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)  # rename does nothing when both names already are the same file
        sync_folder(path.parent)


def append_line(path: Path, text: str) -> None:
    """Append one line; the half line that a crash may have left at the end is cut off first."""
    if "\n" in text:
        raise ValueError(f"one line expected, got {text.count(chr(10)) + 1}: {text[:60]!r}")
    path = Path(path)
    with storage_errors(path), open(path, "a+b", buffering=0) as file:
        _cut_half_line(file)
        line = text.encode() + b"\n"
        if file.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a half last line is left out. No file: an empty list."""
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1] if line.strip()]  # complete lines end in a newline


def remove_orphans(folder: Path) -> list[Path]:
    """Delete the temporary files that killed processes of this machine left in ``folder``; return their paths."""
    orphans = []
    for path in Path(folder).glob(".*.tmp.*"):
        match = _ORPHAN.fullmatch(path.name)
        if match and path.is_file() and not _alive(int(match.group(1))):
            path.unlink(missing_ok=True)
            orphans.append(path)
    return orphans


def probe_writable(folder: Path, fix: str = "choose a folder that can be written") -> None:
    """Make ``folder`` and write to it, before any work; raises StorageError, with what to do, if that fails."""
    folder = Path(folder)
    probe = temporary_name(folder / "probe")
    try:
        with storage_errors(folder):  # the name of the probe would say nothing to anybody
            folder.mkdir(parents=True, exist_ok=True)
            try:
                probe.write_bytes(b"writable")
            finally:
                probe.unlink(missing_ok=True)
    except StorageError as error:
        raise StorageError(f"{error}; {fix}") from error


def check_space(folder: Path, need: int) -> None:
    """Raise the operating system's ENOSPC when ``folder`` has less than ``need`` bytes free."""
    if need > shutil.disk_usage(folder).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def temporary_name(path: Path) -> Path:
    """Where this process prepares ``path``: the same folder, so that the final rename is one step."""
    return path.with_name(f".{path.name}.tmp.{os.getpid()}")


def sync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):  # some network file systems cannot sync a folder
            raise
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path, need: int = 0) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError of one line; ``need`` is the size of the file in bytes."""
    try:
        yield
    except OSError as error:
        folder = Path(path).parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            have = _free(folder)
            message = f"disk full at {folder}: need {_size(need)}, have {_size(have)}; free some space"
        else:
            message = f"cannot write {path}: {error.strerror or error}"
        raise StorageError(message) from error


def _cut_half_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    end = size
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        end = start + newline + 1 if newline >= 0 else start
        if newline >= 0:
            break
    if end != size:
        file.truncate(end)


def _size(count: int) -> str:
    return f"{count / _MIB:.1f} MiB" if count >= _MIB / 10 else f"{count / 1024:.1f} KiB"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
