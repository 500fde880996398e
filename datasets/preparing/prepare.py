"""Getting a data set ready: download, check, unpack, verify, each step continued where an earlier call was cut off.

One process a data set works, under a lock in the root folder; the others wait and find it done. Every file and folder
gets its name last: what has its name is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from datasets.places import data_root
from datasets.preparing import download, imagenet
from datasets.preparing.archive_tree import CHUNK, below
from datasets.preparing.jobs import Job, Report, obtain, set_aside, stamp_problem, unpack
from datasets.preparing.sets import Archive, Entry
from datasets.preparing.stamps import read_stamp
from randomix.errors import DataError
from randomix.files import storage_errors


def run(
    entry: Entry,
    root: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    keep_archive: bool = True,
    verify_only: bool = False,
    say: Callable[[str], None] | None = None,
) -> Report:
    """Prepare a data set below ``data_root(root)``; returns at once if it is there and whole.

    entry: of sets.ENTRIES, or one of your own. url: a mirror. keep_archive: leave the archives there; False deletes
    them once all that they hold was verified. verify_only: change nothing. say: takes the lines of progress (default:
    stderr). Raises DataError, StorageError; KeyboardInterrupt leaves what the next call continues.
    """
    if url is not None:
        download.check_url(url)
    job = Job(entry, data_root(root), url, say or _say, str(root) if root else None)
    problem, prepare, report = _kind(entry)
    wrong = problem(job)
    if wrong and verify_only:
        raise DataError(f"{job.folder}: {wrong}; {job.fix}")
    if wrong:
        with storage_errors(job.root):
            job.root.mkdir(parents=True, exist_ok=True)
            with _locked(job):
                if problem(job):
                    prepare(job)
                if wrong := problem(job):  # written a moment ago
                    raise DataError(f"{job.folder}: {wrong} after it was unpacked; check the disk, then {job.fix}")
    elif verify_only:
        _verify_archives(job)
    if not (keep_archive or verify_only):
        _remove_archives(job)
    return report(job)


def _structure_problem(entry: Entry, folder: Path) -> str | None:
    """What ``folder`` lacks of the layout that ``entry`` promises."""
    for name in entry.required:
        if not (folder / name).is_file():
            return f"expected the file {name}, found none"
    for wanted, what in ((entry.subfolders, "folders"), (entry.counts, "files")):
        for key, expected in wanted.items():
            if (found := _count(folder / key, what == "folders")) != expected:
                return f"expected {expected} {what} in {key}, found {found}"
    return None


def _tree_problem(job: Job) -> str | None:
    return stamp_problem(job.folder, job.entry.digests)


def _prepare_tree(job: Job) -> None:
    entry = job.entry
    place = below(entry.strip) if entry.strip else None
    unpack(
        job,
        entry.archives[0],
        job.folder,
        place=place,
        need=entry.unpacked,
        check=lambda part: _structure_problem(entry, part),
    )


def _trees_problem(job: Job) -> str | None:
    """The first folder that differs from its archive."""
    for archive, folder in _folders(job):
        if wrong := stamp_problem(folder, {archive.name: f"{archive.algorithm}:{archive.digest}"}):
            return f"{folder.name}/: {wrong}"
    return None


def _prepare_trees(job: Job) -> None:
    """What is whole already is left as it is."""
    with storage_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    for archive, folder in _folders(job):
        if stamp_problem(folder, {archive.name: f"{archive.algorithm}:{archive.digest}"}):
            check = replace(job.entry, subfolders={".": job.entry.subfolders[folder.name]})
            unpack(job, archive, folder, place=None, need=archive.size, check=partial(_structure_problem, check))


def _trees_report(job: Job) -> Report:
    stamps = [stamp for _, folder in _folders(job) if (stamp := read_stamp(folder)) is not None]
    kept = tuple(path for archive in job.entry.archives if (path := job.find(archive)) is not None)
    return Report(job.entry, job.folder, sum(s.files for s in stamps), sum(s.bytes for s in stamps), kept)


def _folders(job: Job) -> list[tuple[Archive, Path]]:
    """Each archive with its folder, which has its name."""
    return [(archive, job.folder / archive.name.partition(".")[0]) for archive in job.entry.archives]


def _tree_report(job: Job) -> Report:
    stamp = read_stamp(job.folder)
    assert stamp is not None
    kept = tuple(path for archive in job.entry.archives if (path := job.find(archive)) is not None)
    return Report(job.entry, job.root / job.entry.folder, stamp.files, stamp.bytes, kept)


def _files_problem(job: Job) -> str | None:
    for archive in job.entry.archives:
        path = _either(job.folder, archive)
        if path is None:
            return f"{archive.name}: not there"
        if not _is_right(path, archive, job.entry.max_bytes):
            return f"{path.name}: expected {archive.algorithm} {archive.digest}, found another"
    return None


def _prepare_files(job: Job) -> None:
    for archive in job.entry.archives:
        path = _either(job.folder, archive)
        if path is not None and path.name != archive.name and not _is_right(path, archive, job.entry.max_bytes):
            job.say(f"{path}: expected MD5 {archive.content}, found another; moved to {set_aside(path).name}")
            path = None
        if path is None or not _is_right(path, archive, job.entry.max_bytes):
            obtain(job, archive)


def _files_report(job: Job) -> Report:
    paths = [path for archive in job.entry.archives if (path := _either(job.folder, archive)) is not None]
    return Report(job.entry, job.folder, len(paths), sum(path.stat().st_size for path in paths))


def _either(folder: Path, archive: Archive) -> Path | None:
    """The file, unpacked or not."""
    names = (archive.name.removesuffix(".gz"), archive.name) if archive.content else (archive.name,)
    return next((path for name in names if (path := folder / name).is_file()), None)


def _is_right(path: Path, archive: Archive, max_bytes: int) -> bool:
    """Whether a file is the published one, or has its content under another gzip header (Debian's), or without one."""
    if path.name == archive.name and download.known_digest(path, archive.algorithm) == archive.digest:
        return True
    if not archive.content:
        return False
    digest, left = hashlib.md5(usedforsecurity=False), max_bytes
    try:
        with gzip.open(path) if path.name == archive.name else path.open("rb") as file:
            while left > 0 and (chunk := file.read(CHUNK)):
                digest.update(chunk)
                left -= len(chunk)
    except (OSError, EOFError, zlib.error):
        return False
    return digest.hexdigest() == archive.content


def _kind(entry: Entry) -> tuple[Callable[[Job], str | None], Callable[[Job], None], Callable[[Job], Report]]:
    """What a kind of data set needs: the check that it is there, the way to get it, the report."""
    if entry.kind == "imagenet":
        return imagenet.problem, imagenet.prepare, imagenet.report
    if entry.kind == "files":
        return _files_problem, _prepare_files, _files_report
    if entry.kind == "trees":
        return _trees_problem, _prepare_trees, _trees_report
    return _tree_problem, _prepare_tree, _tree_report


def _verify_archives(job: Job) -> None:
    """Read the archives that were kept as well."""
    for archive in job.entry.archives if job.entry.kind != "files" else ():
        path = job.find(archive)
        if path is not None and (found := download.known_digest(path, archive.algorithm)) != archive.digest:
            raise DataError(
                f"{path}: expected {archive.algorithm} {archive.digest}, found {found}; delete it "
                "(the unpacked files are right)"
            )


def _remove_archives(job: Job) -> None:
    """Delete the published archives of a set that is unpacked and whole; another file of such a name stays."""
    if job.entry.kind == "files":
        job.say(f"{job.entry.name}: kept its archives, which are read as they are")
        return
    with storage_errors(job.root):
        for archive in job.entry.archives:
            while (path := job.find(archive)) is not None:
                if (found := download.known_digest(path, archive.algorithm)) != archive.digest:
                    job.say(f"{path}: kept; expected {archive.algorithm} {archive.digest}, found {found}")
                    break
                path.unlink()
                path.with_name(f".{path.name}.checked").unlink(missing_ok=True)


def _count(folder: Path, folders: bool) -> int:
    """How many folders, or files, ``folder`` holds, names with a dot in front left out."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.is_dir() == folders for entry in entries if not entry.name.startswith("."))
    except OSError:
        return 0


@contextmanager
def _locked(job: Job) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(job.root / f".{job.entry.name}.prepare.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        job.say(f"{job.entry.name}: another process prepares it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
