"""Write class folders as tar shards: python scripts/prepare_data.py imagenet-shards --out FOLDER [--root FOLDER].

The training images are shuffled once, by --seed; those of val keep their order. A shard has its name only when it is
whole, and the manifest is written last: after an interruption the same command continues. The same images and options
give the same bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from datasets.formats.class_folders import ImageFiles
from datasets.streams.shard_files import FORMAT
from randomix.errors import OK, ConfigError
from randomix.files import (
    append_line,
    atomic_file,
    check_space,
    read_jsonl,
    remove_orphans,
    storage_errors,
    write_atomic,
)
from randomix.rng import StepRng

_MIB = 2**20
_MEMBERS = 3 * 512  # bytes of two tar headers and the label's block
_BYTES_A_PIXEL = 0.35  # of the square of the shorter side, at quality 90: an estimate that sizes the shards


@dataclass(frozen=True)
class Plan:
    """Which samples go where: ``order`` (N,) of the files, ``ends`` (shards,) in it, and what is done to the images."""

    split: str
    order: np.ndarray
    ends: np.ndarray
    need: int  # bytes, about
    resize: int | None
    quality: int
    digest: str  # of all of this and of the files' names and sizes

    def name(self, shard: int) -> str:
        """train-000000.tar."""
        return f"{self.split}-{shard:06d}.tar"

    def members(self, shard: int) -> np.ndarray:
        """The samples of one shard."""
        return self.order[self.ends[shard - 1] if shard else 0 : self.ends[shard]]


@dataclass(frozen=True)
class Shard:
    """An entry of the manifest."""

    name: str
    samples: int
    bytes: int
    sha256: str


def main(arguments: Sequence[str], open_folders: Callable[[str | None, bool], Mapping[str, ImageFiles]]) -> int:
    """Run the command line; returns the exit code or raises a RunError.

    open_folders: the images of each split in a root, their number checked or not.
    """
    options = _parser().parse_args(arguments)
    files = open_folders(options.root, options.verify)
    out = Path(options.out)
    for images in files.values():
        if out.resolve().is_relative_to(images.folder.resolve()):
            raise ConfigError(f"--out {out}: lies in {images.folder}, among the classes; use another folder")
    with storage_errors(out / "x"):
        out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        remove_orphans(out)
        splits = ("train", "val") if options.split == "both" else (options.split,)
        plans = [make_plan(split, files[split], options) for split in splits]
        for plan in plans if not options.overwrite else ():
            _require_no_others(out, plan)
        for plan in plans:
            write_split(out, files[plan.split], plan, options.jobs)
    return OK


def _require_no_others(out: Path, plan: Plan) -> None:
    """Raise ConfigError if ``out`` holds finished shards of other images or settings: runs may go on from them."""
    try:
        finished = json.loads((out / f"{plan.split}-manifest.json").read_text()).get("plan")
    except (OSError, ValueError, AttributeError):  # none, or none that anything can be read from
        return
    if finished != plan.digest:
        raise ConfigError(
            f"--out {out}: holds finished {plan.split} shards of other images, --seed, sizes or "
            "quality; use another folder, or --overwrite"
        )


def make_plan(split: str, files: ImageFiles, options: argparse.Namespace) -> Plan:
    """Cut the files' order into shards of about ``options.size_mb`` MiB or of ``options.per_shard`` samples."""
    sizes = np.array([os.stat(files.path(index)).st_size for index in range(len(files))])
    rng = StepRng(options.seed).generator("shards.order")
    order = rng.permutation(len(files)) if split == "train" else np.arange(len(files))
    about = sizes if options.resize is None else np.minimum(sizes, int(_BYTES_A_PIXEL * options.resize**2))
    if options.per_shard:
        shard = np.arange(len(files)) // options.per_shard
    else:
        shard = np.cumsum(about[order] + _MEMBERS) // (options.size_mb * _MIB)
    ends = np.append(np.flatnonzero(np.diff(shard)) + 1, len(files))
    digest = hashlib.sha256(json.dumps([FORMAT, split, files.classes, options.resize, options.quality]).encode())
    for array in (files.names, files.labels, sizes, order, ends):
        digest.update(array.tobytes())
    need = int(about.sum()) + _MEMBERS * len(files)
    return Plan(split, order, ends, need, options.resize, options.quality, digest.hexdigest())


def write_split(out: Path, files: ImageFiles, plan: Plan, jobs: int) -> None:
    """Write the shards that are not there yet, then the manifest. Raises DataError for an image it has to decode."""
    progress = out / f".{plan.split}-progress.jsonl"
    done = {s.name: s for s in _written(out, plan, progress)}
    todo = [number for number in range(len(plan.ends)) if plan.name(number) not in done]
    if not done:
        write_atomic(progress, json.dumps({"plan": plan.digest}) + "\n")
    total, left = len(plan.ends), len(todo)
    with storage_errors(out / plan.name(0), plan.need * left // total):
        check_space(out, plan.need * left // total)
    with _pool(min(jobs, left)) as pool:
        parts = ((out / plan.name(number), plan.members(number)) for number in todo)
        futures = [
            pool.submit(write_shard, path, files.subset(members), members, plan.resize, plan.quality)
            for path, members in parts
        ]
        try:
            for future in futures:
                shard = future.result()
                done[shard.name] = shard
                append_line(progress, json.dumps(asdict(shard)))
                print(
                    f"{shard.name}: {shard.samples} images, {shard.bytes / _MIB:.1f} MiB ({len(done)} of {total})",
                    flush=True,
                )
        finally:
            pool.shutdown(cancel_futures=True)  # not hundreds of shards more after an error or Ctrl-C
    shards = [asdict(done[plan.name(number)]) for number in range(total)]
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "split": plan.split,
        "samples": len(files),
        "classes": files.classes,
        "plan": plan.digest,
        "resize": plan.resize,
        "quality": plan.quality if plan.resize else None,
        "shards": shards,
    }
    write_atomic(out / f"{plan.split}-manifest.json", json.dumps(manifest, indent=1))
    print(
        f"{out}: {plan.split}: {len(files)} images in {total} shards, {sum(s['bytes'] for s in shards) / _MIB:.1f} MiB"
    )


def write_shard(path: Path, files: ImageFiles, keys: np.ndarray, resize: int | None, quality: int) -> Shard:
    """Write the images ``files`` with their ``keys`` under a temporary name, then rename it to ``path``."""
    from webdataset.writer import TarWriter

    with atomic_file(path) as file:
        with TarWriter(file, encoder=False, mtime=0, user="", group="") as tar:
            for place, key in enumerate(keys.tolist()):
                data = files.read(place) if resize is None else _shrunk(files, place, resize, quality)
                tar.write({"__key__": f"{key:08d}", "jpg": data, "cls": str(files.labels[place]).encode()})
        file.flush()
        with open(file.name, "rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
            size = written.tell()
    return Shard(path.name, len(keys), size, digest)


def _written(out: Path, plan: Plan, progress: Path) -> Iterator[Shard]:
    """The shards of an earlier run with the same plan that are still there."""
    first, *entries = read_jsonl(progress) or [{}]
    if first.get("plan") != plan.digest:
        return
    for shard in (Shard(**entry) for entry in entries):
        path = out / shard.name
        if path.is_file() and path.stat().st_size == shard.bytes:
            yield shard


def _shrunk(files: ImageFiles, index: int, resize: int, quality: int) -> bytes:
    """A JPEG with its shorter side at most ``resize``; the bytes as they are if it is no larger."""
    from PIL import Image

    from datasets.formats.decoding import image_errors, open_image, to_rgb

    data = files.read(index)
    with image_errors(files.path(index)):
        image = open_image(data)
        short = min(image.size)
        if short <= resize:
            to_rgb(image)  # damaged ones are found here, not in training
            return data
        size = tuple(max(resize, round(side * resize / short)) for side in image.size)
        target = io.BytesIO()
        to_rgb(image).resize(size, Image.Resampling.BICUBIC).save(target, "JPEG", quality=quality)
    return target.getvalue()


class _Here(Executor):
    """Runs what is submitted, in this process."""

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.result = lambda timeout=None: function(*args, **kwargs)  # type: ignore[method-assign]
        return future


def _pool(jobs: int) -> contextlib.AbstractContextManager[Executor]:
    if jobs <= 1:
        return _Here()
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prepare_data.py imagenet-shards", description="Write ImageNet as tar shards."
    )
    parser.add_argument(
        "--root", metavar="DIR", help="with train and val in it or in DIR/imagenet; default: $RANDOMIX_DATA, else data"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="where the shards go")
    parser.add_argument("--split", choices=("train", "val", "both"), default="both")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--size-mb", type=_positive, default=256, metavar="MIB", help="of a shard (default 256)")
    sizes.add_argument("--per-shard", type=_positive, metavar="N", help="images of a shard, instead of its size")
    parser.add_argument(
        "--resize",
        type=_positive,
        metavar="PX",
        help="shrink the shorter side to PX (256: 150 GB become 25); default: the files' own bytes",
    )
    parser.add_argument("--quality", type=_positive, default=90, help="of the JPEGs that --resize writes (default 90)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the training images (default 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace finished shards of other settings")
    parser.add_argument("--jobs", type=_positive, default=min(16, os.cpu_count() or 1), help="processes that write")
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="--no-verify takes other images in class folders than ImageNet's",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, found {text}")
    return int(text)
