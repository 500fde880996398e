"""Unpacking archives so that nothing in them reaches beyond one folder, and no half tree has the final name.

An archive is read once, as a stream. Every member is checked before it is written, and this module writes files and
folders of its own: names, modes, owners and links of the archive are never handed to the operating system.
"""

from __future__ import annotations

import gzip
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from datasets.preparing.archive_tree import CHUNK, Limits, Readable, Refused, Tree, clean_name
from randomix.errors import DataError
from randomix.files import check_space, storage_errors

_MAX_HEADER = 2**16  # bytes of a long name; tarfile reads it into memory whatever the size
_BUFFER = 2**15  # of a tar; what is left of it is copied for each header
_OVERHEAD = 4096  # bytes of headers and padding a member of a tar may take
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    struct.error,
    ValueError,
    NotImplementedError,
    RecursionError,
    OverflowError,
)


def extract(
    archive: Path,
    target: Path,
    *,
    max_bytes: int,
    max_members: int,
    max_ratio: int = 200,
    need: int | None = None,
    place: Callable[[str], str] | None = None,
    finish: Callable[[Path], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Unpack a .tar, .tar.gz, .tgz, .zip or .gz into the new folder ``target``, all of it or nothing.

    need: bytes to find free first; None takes what the archive announces. place: the path below ``target`` for a
    member's (clean, relative) path; "" leaves a folder out; it raises ValueError to refuse. finish: called with the
    whole tree, still under its temporary name ``<target>.part``; it raises to drop the tree, and makes room where
    ``target`` exists. progress: called with the bytes of the archive that are done. Raises DataError for what is no
    archive, is damaged, or holds a member that must not be unpacked; StorageError for a full disk.
    """
    kind, size = archive_kind(archive), archive.stat().st_size
    limits = Limits(max_bytes, max_members, max_ratio)
    part = target.with_name(f"{target.name}.part")
    need = min(_announced(archive, kind), limits.cap(size)) if need is None else need
    with storage_errors(part, need):
        target.parent.mkdir(parents=True, exist_ok=True)
        if part.exists():
            shutil.rmtree(part)  # of a process that was killed
        check_space(target.parent, need)
        part.mkdir(mode=0o755)
        try:
            tree = Tree(part, limits, limits.cap(size), place)
            with reading(archive):
                _UNPACK[kind](archive, tree, progress or (lambda done: None))
            if finish is not None:
                finish(part)
            part.rename(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise


def archive_kind(archive: Path) -> str:
    """What the name says, "tar", "tar.gz", "zip" or "gz", if the first bytes agree; raises DataError if not."""
    name = archive.name.lower()
    kind = "tar.gz" if name.endswith((".tar.gz", ".tgz")) else name.rpartition(".")[2]
    if kind not in _UNPACK:
        raise DataError(f"{archive}: expected a name that ends in {', '.join(f'.{k}' for k in _UNPACK)} or .tgz")
    try:
        with archive.open("rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise DataError(f"{archive}: cannot be read ({error.strerror}); check its path and permissions") from error
    matches = {
        "tar.gz": head[:2] == b"\x1f\x8b",
        "gz": head[:2] == b"\x1f\x8b",
        "tar": _is_tar(head),
        "zip": head[:4] in (b"PK\x03\x04", b"PK\x05\x06"),
    }
    if not matches[kind]:
        raise DataError(f"{archive}: expected a {kind} archive, found {describe(head)}; delete it and get it again")
    return kind


def describe(head: bytes) -> str:
    """Words for the beginning of a file: its text where it is text, else its bytes."""
    if not head:
        return "an empty file"
    text = head[:40].decode("ascii", "replace").split("\n")[0].strip()
    readable = len(text) >= 4 and all(" " <= char <= "~" for char in text)
    return f'a file that starts with "{text[:24]}"' if readable else f"a file that starts with bytes {head[:8].hex()}"


class _Counted:
    """A stream that stops at ``limit`` bytes: long headers and padding can be a bomb as well."""

    def __init__(self, stream: Readable, limit: int, progress: Callable[[], None]) -> None:
        self.stream, self.left, self.progress = stream, limit, progress

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise Refused("", "headers and padding larger than all the files may be")
        self.progress()
        return data


def unpack_tar(stream: Readable, tree: Tree, progress: Callable[[], None] = lambda: None) -> None:
    """Unpack an uncompressed tar ``stream`` into ``tree``, reading it to its end."""
    header = type("_Header", (_Header,), {"ended": False})  # of its own, for the mark of this archive's end
    counted = _Counted(stream, tree.cap + _OVERHEAD * tree.limits.max_members, progress)
    with tarfile.open(fileobj=counted, mode="r|", bufsize=_BUFFER, tarinfo=header) as tar:  # type: ignore[call-overload]
        while (member := tar.next()) is not None:
            tree.announce(member.name, member.size)
            if member.isdir():
                tree.add_folder(member.name)
            elif member.isreg() and not member.issparse() and (source := tar.extractfile(member)):
                _second_opinion(member, tree.folder)
                tree.add_file(member.name, source)
            else:
                raise Refused(member.name, f"it is {_TYPES.get(member.type, 'of a kind that no data set needs')}")
            tar.members.clear()  # or the headers of 100,000 files stay in memory
    if not header.ended:  # tarfile takes damage between two members for the end
        raise tarfile.ReadError("no mark of the archive's end: it was cut off or damaged")
    while counted.read(CHUNK):
        pass  # to the checksum of the compression


def tar_sizes(stream: IO[bytes]) -> dict[str, int]:
    """Size by clean path of every file that an uncompressed, seekable tar announces; its data are skipped."""
    header = type("_Header", (_Header,), {})
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=header) as tar:
        return {clean_name(member.name): member.size for member in tar if not member.isdir()}


class _Header(tarfile.TarInfo):
    """Headers as tarfile reads them, with a bound on those that it holds in memory."""

    ended = False

    @classmethod
    def frombuf(cls, buf, encoding, errors):  # type: ignore[no-untyped-def]
        if len(buf) == tarfile.BLOCKSIZE and not buf.strip(b"\0"):
            cls.ended = True
        header = super().frombuf(buf, encoding, errors)
        plain = header.isreg() or header.isdir() or header.type in _TYPES
        if header.size < 0 or (not plain and header.size > _MAX_HEADER):
            raise Refused(header.name, f"its header announces {header.size} bytes")
        return header


def _second_opinion(member: tarfile.TarInfo, folder: Path) -> None:
    """The standard library's own filter, where it has one (Python 3.11.4)."""
    data_filter = getattr(tarfile, "data_filter", None)
    if data_filter is not None:
        try:
            data_filter(member, str(folder))
        except tarfile.FilterError as error:
            raise Refused(member.name, str(error)) from error


_TYPES = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def _unpack_tar_file(archive: Path, tree: Tree, progress: Callable[[int], None]) -> None:
    with archive.open("rb") as file:
        unpack_tar(file, tree, lambda: progress(file.tell()))


def _unpack_tar_gz(archive: Path, tree: Tree, progress: Callable[[int], None]) -> None:
    with archive.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
        unpack_tar(stream, tree, lambda: progress(file.tell()))


def _unpack_gz(archive: Path, tree: Tree, progress: Callable[[int], None]) -> None:
    with archive.open("rb") as file, gzip.GzipFile(fileobj=file) as stream:
        tree.announce(archive.name, 0)
        tree.add_file(archive.stem, _Counted(stream, tree.cap + CHUNK, lambda: progress(file.tell())))


def _unpack_zip(archive: Path, tree: Tree, progress: Callable[[int], None]) -> None:
    """All headers are checked before the first byte is written: a zip has them in one place."""
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        total = 0
        for member in members:
            _check_zip_member(member)
            tree.announce(member.filename, member.file_size + total)
            total += member.file_size
        done = 0
        for member in members:
            if member.is_dir():
                tree.add_folder(member.filename)
            else:
                with file.open(member) as source:
                    tree.add_file(member.filename, source)
            progress(done := done + member.compress_size)


def _check_zip_member(member: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where the archive comes from a system without modes
    reason = None
    if member.flag_bits & 0x41:
        reason = "it is encrypted"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "it is a symbolic link" if kind == stat.S_IFLNK else "it is neither a file nor a folder"
    elif "\0" in member.orig_filename:
        reason = "its name is empty or has characters that no file needs"
    elif member.compress_type not in _ZIP_METHODS:
        reason = f"its compression method {member.compress_type} is not deflate"
    if reason:
        raise Refused(member.orig_filename, reason)


_UNPACK = {"tar": _unpack_tar_file, "tar.gz": _unpack_tar_gz, "zip": _unpack_zip, "gz": _unpack_gz}


def _announced(archive: Path, kind: str) -> int:
    """The bytes that the archive will take at least."""
    if kind != "zip":
        return archive.stat().st_size
    with reading(archive), zipfile.ZipFile(archive) as file:
        return sum(member.file_size for member in file.infolist())


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@contextmanager
def reading(archive: Path | str) -> Iterator[None]:
    """Turn what a damaged or malicious archive raises into a DataError of one line that names it."""
    try:
        yield
    except Refused as error:
        raise DataError(f"{archive}: refused for {error}; get the official archive") from error
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{archive}: expected a whole archive, found damage ({reason}); delete it and get it again"
        ) from error
