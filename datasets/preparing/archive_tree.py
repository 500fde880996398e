"""The folder that an archive is unpacked into: which names, sizes and counts may come in, whatever the format."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK = 2**20
_DRIVE = re.compile(r"[A-Za-z]:")


class Readable(Protocol):
    """What an archive is read from."""

    def read(self, size: int = -1, /) -> bytes: ...  # noqa: D102


class Refused(Exception):
    """A member that must not be unpacked, and why."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"member {member[:120]!r}: {reason}")


@dataclass(frozen=True)
class Limits:
    """What an archive may unpack to. max_ratio: bytes out for each byte in, above the first MiB."""

    max_bytes: int
    max_members: int
    max_ratio: int = 200

    def cap(self, archive_bytes: int) -> int:
        """The bytes that an archive of this size may give."""
        return min(self.max_bytes, self.max_ratio * archive_bytes + 2**20)


def clean_name(name: str) -> str:
    """A member's path without "." parts, "" for the top folder; raises ValueError if it could lead elsewhere."""
    if not name or any(ord(char) < 32 or ord(char) == 127 or 0xD800 <= ord(char) < 0xE000 for char in name):
        raise ValueError("its name is empty or has characters that no file needs")
    if name.startswith("/") or "\\" in name or _DRIVE.match(name):
        raise ValueError("its path is absolute or not written with /")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError("its path leads out of the folder")
    if len(name.encode()) > 1024 or any(len(part.encode()) > 255 for part in parts):
        raise ValueError("its path is too long")
    return "/".join(parts)


def below(folder: str) -> Callable[[str], str]:
    """A ``place`` for archives that hold everything in one ``folder``, which is left out of the paths."""

    def place(path: str) -> str:
        if path not in ("", folder) and not path.startswith(f"{folder}/"):
            raise ValueError(f"it is not in the archive's folder {folder}/")
        return path[len(folder) + 1 :]

    return place


class Tree:
    """The folder that is being filled: checks names, counts and sizes whatever the kind of archive."""

    def __init__(self, folder: Path, limits: Limits, cap: int, place: Callable[[str], str] | None = None) -> None:
        self.folder, self.limits, self.cap, self.place = folder, limits, cap, place
        self.written = self.members = 0
        self._known: dict[str, tuple[bool, str]] = {}  # path without case: is it a folder, and how it is written

    def announce(self, member: str, size: int) -> None:
        """Refuse a member by its header alone."""
        self._path(member)
        self.members += 1
        if self.members > self.limits.max_members:
            raise Refused(member, f"expected at most {self.limits.max_members} members")
        if not 0 <= size <= self.cap - self.written:
            raise Refused(member, self._too_much(size))

    def add_folder(self, member: str) -> None:
        """Make a folder, and those above it; one that is there already is fine."""
        if path := self._path(member):
            self._enter(member, path, is_folder=True)

    def add_file(self, member: str, source: Readable) -> None:
        """Write a new file from ``source``, which is counted: what a header announces is not believed."""
        path = self._path(member)
        if not path:
            raise Refused(member, "a file in place of the top folder")
        self._enter(member, path, is_folder=False)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(self.folder / path, flags, 0o644), "wb", buffering=0) as file:
            while chunk := source.read(CHUNK):
                self.written += len(chunk)
                if self.written > self.cap:
                    raise Refused(member, self._too_much(0))
                file.write(chunk)

    def _path(self, member: str) -> str:
        try:
            path = clean_name(member)
            return clean_name(self.place(path) or ".") if self.place else path
        except ValueError as error:
            raise Refused(member, str(error)) from error

    def _enter(self, member: str, path: str, is_folder: bool) -> None:
        """Note ``path`` and make its folders; refuse names that are one file where case or accents do not count."""
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            current, folder = "/".join(parts[:depth]), depth < len(parts) or is_folder
            key = unicodedata.normalize("NFC", current).casefold()
            if (known := self._known.get(key)) is None:
                self._known[key] = (folder, current)
                if folder:
                    (self.folder / current).mkdir(mode=0o755)
            elif known != (True, current) or not folder:
                raise Refused(member, f"the archive holds {known[1]!r} as well")

    def _too_much(self, announced: int) -> str:
        what = f"announces {announced} bytes" if announced else "goes on"
        return f"{what} where the archive may give {self.cap} bytes in all"
