"""Trees that were unpacked from official archives: a stamp inside says from which, and what they held then.

The stamp lets a loader tell an intact official tree without the archive, by names and sizes alone: it finds what is
missing, added, cut or half copied, and takes no content into account.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from randomix.files import write_atomic

STAMP = ".prepared.json"


@dataclass(frozen=True)
class Stamp:
    """archives: their digests by file name, as "md5:..."; tree: SHA-256 over the sorted relative names and sizes.

    folders: number of files and of bytes below each top-level folder; "." are the files beside them. Names that start
    with a dot at the top level are not counted.
    """

    name: str
    archives: dict[str, str]
    files: int
    bytes: int
    tree: str
    folders: dict[str, list[int]]


def make_stamp(folder: Path, name: str, archives: dict[str, str]) -> Stamp:
    """What ``folder`` holds now; raises OSError if it cannot be read."""
    entries = sorted(_walk(folder))
    folders: dict[str, list[int]] = {}
    digest = hashlib.sha256()
    for path, size in entries:
        digest.update(f"{path}\0{size}\n".encode(errors="surrogateescape"))
        counts = folders.setdefault(path.partition("/")[0] if "/" in path else ".", [0, 0])
        counts[0] += 1
        counts[1] += size
    return Stamp(name, archives, len(entries), sum(size for _, size in entries), digest.hexdigest(), folders)


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Put the stamp into the tree that it describes."""
    write_atomic(folder / STAMP, json.dumps(asdict(stamp), indent=1))


def read_stamp(folder: Path) -> Stamp | None:
    """The stamp of ``folder``; None if there is none or it is not one of ours."""
    try:
        stamp = Stamp(**json.loads((folder / STAMP).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    kinds = {"name": str, "archives": dict, "files": int, "bytes": int, "tree": str, "folders": dict}
    ours = all(isinstance(getattr(stamp, key), kind) for key, kind in kinds.items())
    return stamp if ours and all(isinstance(pair, list) and len(pair) == 2 for pair in stamp.folders.values()) else None


def check_tree(folder: Path, stamp: Stamp) -> str | None:
    """None if ``folder`` holds what ``stamp`` says, else in which of its parts it differs and how.

    Reads names and sizes only: about 5 s for a million files on a local disk.
    """
    try:
        found = make_stamp(folder, stamp.name, stamp.archives)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror})"
    if found.tree == stamp.tree:
        return None
    for part in sorted(stamp.folders.keys() | found.folders.keys()):
        expected, there = stamp.folders.get(part, [0, 0]), found.folders.get(part, [0, 0])
        if expected != there:
            where = "its top level" if part == "." else f"{part}/"
            return (
                f"expected {expected[0]} files of {expected[1]} bytes in {where}, found {there[0]} of {there[1]} bytes"
            )
    return "files were renamed or changed their sizes"


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file below ``folder``, links not followed."""
    stack = [("", os.fspath(folder))]
    while stack:
        prefix, path = stack.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                if not prefix and entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    stack.append((f"{prefix}{entry.name}/", entry.path))
                else:
                    yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False).st_size
