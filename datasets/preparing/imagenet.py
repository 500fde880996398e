"""ImageNet (ILSVRC 2012) from the archives that its page gives to registered users: class folders for both splits.

train/<wnid>/ comes from a tar of one tar a class and is unpacked class by class: what was done before a kill stays, if
its files have the sizes that the archive announces (a power cut leaves empty and half ones).
val/ is one flat tar; the development kit says which class each of its images has. Olga Russakovsky et al., "ImageNet
Large Scale Visual Recognition Challenge", IJCV 2015.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from datasets.preparing import archives
from datasets.preparing.archive_tree import Limits, Refused, Tree, below
from datasets.preparing.jobs import Job, Report, obtain, seal, stamp_problem, unpack
from datasets.preparing.progress import Progress
from datasets.preparing.sets import Archive
from datasets.preparing.stamps import read_stamp
from randomix.errors import DataError
from randomix.files import check_space, storage_errors

KIT = "ILSVRC2012_devkit_t12"
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_BLOCKS = 1.03  # files take whole blocks of the disk


@dataclass(frozen=True)
class Kit:
    """The development kit: WordNet IDs by class number, training images by WordNet ID, classes of val by number."""

    wnids: Mapping[int, str]
    train_images: Mapping[str, int]
    val_classes: tuple[int, ...]


def problem(job: Job) -> str | None:
    """What is missing or differs, or None."""
    for split, archive in _splits(job).items():
        if wrong := stamp_problem(job.folder / split, _official(archive)):
            return f"{split}/: {wrong}"
    return None


def prepare(job: Job) -> None:
    """Unpack what is missing; both splits' archives are looked for before either is unpacked."""
    missing = {
        split: archive
        for split, archive in _splits(job).items()
        if stamp_problem(job.folder / split, _official(archive))
    }
    with storage_errors(job.folder):
        job.folder.mkdir(parents=True, exist_ok=True)
    for archive in missing.values():
        obtain(job, archive)
    kit = _kit(job)
    if "val" in missing:
        archive, counts = missing["val"], Counter(kit.wnids[number] for number in kit.val_classes)
        unpack(
            job,
            archive,
            job.folder / "val",
            place=_val_place(kit),
            need=_need(job, archive),
            check=lambda part: _classes_problem(part, counts),
        )
    if "train" in missing:
        _unpack_train(job, missing["train"], kit)


def report(job: Job) -> Report:
    """Both splits together."""
    stamps = [stamp for split in _splits(job) if (stamp := read_stamp(job.folder / split)) is not None]
    kept = tuple(path for archive in job.entry.archives if (path := job.find(archive)) is not None)
    return Report(job.entry, job.folder, sum(s.files for s in stamps), sum(s.bytes for s in stamps), kept)


def _splits(job: Job) -> dict[str, Archive]:
    _, val, train = job.entry.archives
    return {"val": val, "train": train}


def _official(archive: Archive) -> dict[str, str]:
    return {archive.name: f"{archive.algorithm}:{archive.digest}"}


def _need(job: Job, archive: Archive) -> int:
    path = job.find(archive)
    return round(_BLOCKS * path.stat().st_size) if path else 0


def _kit(job: Job) -> Kit:
    """The development kit, unpacked beside the splits."""
    archive, folder = job.entry.archives[0], job.folder / KIT
    if stamp_problem(folder, _official(archive)):
        unpack(job, archive, folder, place=below(KIT), need=None, check=lambda part: None)
    kit = read_kit(folder)
    for split, found in (("val", len(kit.val_classes)), ("train", sum(kit.train_images.values()))):
        if (expected := job.entry.counts[split]) != found:
            raise DataError(
                f"{folder}: expected lists of {expected} {split} images, found {found}; delete the "
                f"folder, then {job.fix}"
            )
    return kit


def read_kit(folder: Path) -> Kit:
    """Read the lists of an unpacked development kit; raises DataError. Class numbers are those without children."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    meta, truth = folder / "data" / "meta.mat", folder / "data" / "ILSVRC2012_validation_ground_truth.txt"
    try:
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        leaves = [row for row in synsets if int(row["num_children"]) == 0]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
        images = {str(row["WNID"]): int(row["num_train_images"]) for row in leaves}
        classes = tuple(int(line) for line in truth.read_text().split())
    except (OSError, ValueError, TypeError, LookupError, NotImplementedError, MatReadError, zlib.error) as error:
        raise DataError(
            f"{folder}: expected the lists of {KIT}, found {' '.join(str(error).split())}; delete the "
            "folder and get the archive again"
        ) from error
    unknown = [number for number in classes if number not in wnids]
    if unknown or not all(re.fullmatch(r"n\d{8}", wnid) for wnid in wnids.values()):
        found = unknown[0] if unknown else "names that are not WordNet IDs"
        raise DataError(
            f"{folder}: expected classes that {meta.name} lists, found {found}; delete the folder and get "
            "the archive again"
        )
    return Kit(wnids, images, classes)


def _val_place(kit: Kit) -> Callable[[str], str]:
    def place(path: str) -> str:
        match = _VAL_IMAGE.fullmatch(path)
        number = int(match[1]) if match else 0
        if path and not 1 <= number <= len(kit.val_classes):
            raise ValueError(f"expected images ILSVRC2012_val_00000001.JPEG to {len(kit.val_classes)}")
        return f"{kit.wnids[kit.val_classes[number - 1]]}/{path}" if path else ""

    return place


def _unpack_train(job: Job, archive: Archive, kit: Kit) -> None:
    """Unpack the tar of tars into train.part/<wnid>/, then give it its name. Classes that are whole are kept."""
    path, target = obtain(job, archive), job.folder / "train"
    part = target.with_name("train.part")
    job.say(f"{job.entry.name}: unpacking {path} into {target}, class by class")
    with storage_errors(part, _need(job, archive)):
        part.mkdir(mode=0o755, exist_ok=True)
        for entry in os.scandir(part):
            if entry.name not in kit.train_images:  # half a class of a process that was killed
                _remove(Path(entry.path))
        share = 1 - sum(1 for _ in os.scandir(part)) / max(1, len(kit.wnids))
        check_space(part, round(_need(job, archive) * share))
        sizes: dict[str, dict[str, int]] = {}
        with archives.reading(path), tarfile.open(path, "r:") as tar, Progress(path.name, archive.size) as progress:
            for member in tar:
                wnid = _class_of(member, kit)
                sizes[wnid] = _unpack_class(tar, member, part / wnid, kit.train_images[wnid])
                progress(member.offset)
        if other := next((wnid for wnid in sorted(sizes) if _sizes(part / wnid) != sizes[wnid]), None):
            raise DataError(
                f"{part / other}: expected the files and sizes that {path.name} announces, found others "
                f"after it was unpacked; check the disk, then {job.fix}"
            )
        seal(part, target, job, archive, _classes_problem(part, kit.train_images))
        part.rename(target)


def _class_of(member: tarfile.TarInfo, kit: Kit) -> str:
    match = _CLASS_TAR.fullmatch(member.name.removeprefix("./"))
    if match is None or match[1] not in kit.train_images or not member.isreg() or member.issparse():
        raise Refused(member.name, "expected one tar for each class")
    return match[1]


def _unpack_class(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, images: int) -> dict[str, int]:
    """Unpack the tar of one class, unless ``folder`` has its files in their sizes; returns those that it announces."""
    source = tar.extractfile(member)
    assert source is not None
    if folder.is_dir() and _sizes(folder) == (sizes := archives.tar_sizes(source)):
        return sizes
    source.seek(0)
    temporary = folder.with_name(f"{folder.name}.part")
    _remove(folder)
    temporary.mkdir(mode=0o755)
    tree = Tree(temporary, Limits(member.size, images + 1), member.size, _flat)
    try:
        archives.unpack_tar(source, tree)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.rename(folder)
    source.seek(0)
    return archives.tar_sizes(source)


def _sizes(folder: Path) -> dict[str, int]:
    """Size by name of what ``folder`` holds."""
    return {entry.name: entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder)}


def _remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flat(path: str) -> str:
    if "/" in path:
        raise ValueError("expected the images of one class, found a folder")
    return path


def _classes_problem(part: Path, expected: Mapping[str, int]) -> str | None:
    """Whether every class has its number of images, and there is no other."""
    found = {entry.name: sum(1 for _ in os.scandir(entry.path)) for entry in os.scandir(part)}
    for wnid in sorted(expected.keys() | found.keys()):
        if expected.get(wnid, 0) != found.get(wnid, 0):
            return f"expected {expected.get(wnid, 0)} images of {wnid}, found {found.get(wnid, 0)}"
    return None
