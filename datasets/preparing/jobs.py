"""One call that prepares a data set, and the steps that every kind of set is made of."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from datasets.places import prepare_command
from datasets.preparing import archives, download
from datasets.preparing.progress import Progress, size_words
from datasets.preparing.sets import Archive, Entry
from datasets.preparing.stamps import check_tree, make_stamp, read_stamp, write_stamp
from randomix.errors import DataError


@dataclass(frozen=True)
class Report:
    """A data set that is ready: its folder, the space it takes, and the archives that were kept beside it."""

    entry: Entry
    folder: Path
    files: int
    bytes: int
    kept: tuple[Path, ...] = ()

    def __str__(self) -> str:
        text = f"{self.entry.name}: ready in {self.folder} ({self.files} files, {size_words(self.bytes)})"
        if not self.kept:
            return text
        size = size_words(sum(path.stat().st_size for path in self.kept))
        return f"{text}; {' '.join(map(str, self.kept))} ({size}) can be deleted"


@dataclass(frozen=True)
class Job:
    """One call of ``run``. url: the address before the archives' names, in place of the published ones."""

    entry: Entry
    root: Path
    url: str | None
    say: Callable[[str], None]
    shown_root: str | None

    @property
    def folder(self) -> Path:
        """Where the result goes; a link to another disk is followed, so that temporary names are on that disk."""
        path = self.root / self.entry.folder
        return path.resolve() if path.is_symlink() else path

    @property
    def fix(self) -> str:
        """The words that end a message."""
        return prepare_command(self.entry.command or self.entry.name, self.shown_root)

    def find(self, archive: Archive) -> Path | None:
        """The archive, if it lies in the root or, where data sets keep their own there, in the set's folder."""
        places = [self.root] if self.entry.kind == "tree" else [self.folder, self.root]
        return next((path for place in places if (path := place / archive.name).is_file()), None)


def obtain(job: Job, archive: Archive) -> Path:
    """The archive, checked: the one that lies there, or a download. Another file of its name is set aside."""
    path = job.find(archive)
    if path is not None:
        found = download.known_digest(path, archive.algorithm)
        if found == archive.digest:
            return path
        with path.open("rb") as file:
            what = archives.describe(file.read(64))
        wrong = (
            f"{path}: expected {archive.algorithm} {archive.digest}, found {found} "
            f"({path.stat().st_size} bytes, {what})"
        )
        if not (job.url or archive.prefix):
            raise DataError(f"{wrong}; get it again from {job.entry.page}, then {job.fix}")
        job.say(f"{wrong}; moved to {set_aside(path).name}")
    prefix = job.url or archive.prefix
    if not prefix:
        size = f" ({size_words(archive.size)})" if archive.size else ""
        raise DataError(
            f"{archive.name}{size}: not found in {job.folder} or {job.root}, and it needs an account; get "
            f"it from {job.entry.page}, put it there, then {job.fix}"
        )
    target = (job.root if job.entry.kind == "tree" else job.folder) / archive.name
    address = f"{prefix.rstrip('/')}/{archive.name}"
    job.say(f"{job.entry.name}: downloading {download.shown(address)}")
    download.fetch(address, target, digest=archive.digest, algorithm=archive.algorithm, size=archive.size)
    return target


def unpack(
    job: Job,
    archive: Archive,
    target: Path,
    *,
    place: Callable[[str], str] | None,
    need: int | None,
    check: Callable[[Path], str | None],
) -> None:
    """Unpack a checked archive into ``target`` with a stamp; a ``target`` that is there makes room in the end."""
    path = obtain(job, archive)
    job.say(f"{job.entry.name}: unpacking {path} into {target}")

    def finish(part: Path) -> None:
        seal(part, target, job, archive, check(part))

    with Progress(path.name, path.stat().st_size) as progress:
        archives.extract(
            path,
            target,
            max_bytes=job.entry.max_bytes,
            max_members=job.entry.max_members,
            need=need,
            place=place,
            finish=finish,
            progress=progress,
        )


def seal(part: Path, target: Path, job: Job, archive: Archive, wrong: str | None) -> None:
    """Stamp the whole tree ``part`` and make room for it at ``target``; raises DataError if something is ``wrong``."""
    if wrong:
        raise DataError(f"{archive.name}: {wrong}; get the official archive")
    official = f"{archive.algorithm}:{archive.digest}"
    write_stamp(part, make_stamp(part, job.entry.name, {archive.name: official}))
    if target.exists():
        if read_stamp(target) is not None:
            shutil.rmtree(target)  # ours, and damaged: this is the same again
        else:
            job.say(f"{target} was not made by this program; moved to {set_aside(target).name}")


def set_aside(path: Path) -> Path:
    """Give a file or folder that is in the way, and may be somebody's, the next free name NAME.old-N."""
    free = (path.with_name(f"{path.name}.old-{number}") for number in itertools.count(1))
    return path.rename(next(name for name in free if not name.exists()))


def stamp_problem(folder: Path, official: dict[str, str]) -> str | None:
    """Why ``folder`` is no intact tree of these archives, or None."""
    if not folder.is_dir():
        return "not there"
    stamp = read_stamp(folder)
    if stamp is None:
        return "no stamp of this program"
    if stamp.archives != official:
        return f"made from other archives ({', '.join(stamp.archives.values())})"
    return check_tree(folder, stamp)
