"""Tar files of images on a disk or behind a URL, with a manifest: what each holds, checked while it is read.

``train-manifest.json`` and ``val-manifest.json`` name the classes, the shards ``train-000000.tar``, ... and their
numbers of samples. A sample is two members, ``KEY.jpg`` and ``KEY.cls``, the label in decimal digits. Shards are read
with webdataset, whose own way of opening URLs and of decoding is not used: it runs commands ("pipe:") and unpickles.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

import numpy as np

from datasets.places import prepare_command
from randomix.errors import ConfigError, DataError

FORMAT = 1
IMAGES = ("jpg", "jpeg", "png")  # suffixes of the member with the image; its content says what it is
_FSSPEC = ("s3", "gs", "gcs", "az", "abfs", "hf")  # needs the package of that file system besides fsspec
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.tar")
_TIMEOUT, _PAUSES = 60.0, (1.0, 5.0)  # seconds without a byte; before the second and third try of a remote shard
_BROKEN = (OSError, tarfile.TarError, http.client.HTTPException, EOFError)


@dataclass(frozen=True)
class Sample:
    """One image of a shard: its bytes, its label, its place ``index`` in the unpermuted sequence, and its name."""

    index: int
    label: int
    data: bytes
    name: str


@dataclass(frozen=True)
class ShardSet:
    """The shards of one split, in the manifest's order: ``names``, ``counts`` of samples and ``sizes`` in bytes."""

    place: str
    split: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    counts: np.ndarray
    sizes: np.ndarray
    resize: int | None  # the shorter side at most, in JPEGs written anew at ``quality``; None: as they were
    quality: int | None
    sha256: str  # of the shards' names, their own digests and the classes

    def __len__(self) -> int:
        return int(self.counts.sum())

    def read(self, sequence: Sequence[int], first: int, last: int) -> Iterator[tuple[int, Sample]]:
        """(position, sample) for positions first .. last - 1 of the shards in ``sequence``, one after the other.

        Only shards with such a position are opened. Raises DataError naming a shard that is not as it should be.
        """
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        position = 0
        for shard in sequence:
            count = int(self.counts[shard])
            low, high = max(first - position, 0), min(last - position, count)
            if low < high:
                for place, sample in self._samples(shard, low, high):
                    yield position + place, Sample(int(starts[shard]) + place, *sample)
            position += count

    def _samples(self, shard: int, low: int, high: int) -> Iterator[tuple[int, tuple[int, bytes, str]]]:
        """(place, (label, data, name)) for places low .. high - 1 of a shard; a broken connection is tried again."""
        url, place = join(self.place, self.names[shard]), low
        for pause in (*_PAUSES, None) if _remote(url) else (None,):
            try:
                for found in self._tries(shard, url, place, high):
                    yield found
                    place = found[0] + 1
                return
            except _BROKEN as error:
                if pause is None or (isinstance(error, urllib.error.HTTPError) and error.code < 500):
                    raise DataError(f"{shown(url)}: cannot be read ({_why(error)}); {_fix(self.split)}") from error
                time.sleep(pause)

    def _tries(self, shard: int, url: str, low: int, high: int) -> Iterator[tuple[int, tuple[int, bytes, str]]]:
        expected, place = int(self.counts[shard]), 0
        for place, members in enumerate(_members(url, int(self.sizes[shard])), 1):
            if place > expected:
                break
            if low < place <= high:
                yield place - 1, self._sample(url, members)
            if place == high < expected:
                return  # the rest belongs to somebody else
        if place != expected:
            found = "more" if place > expected else place
            raise DataError(
                f"{shown(url)}: expected {expected} samples as in the manifest, found {found}; {_fix(self.split)}"
            )

    def _sample(self, url: str, members: dict[str, Any]) -> tuple[int, bytes, str]:
        name = f"{shown(url)}: {members['__key__']}"
        data = next((members[suffix] for suffix in IMAGES if suffix in members), None)
        label = members.get("cls", b"")
        if data is None or not label.strip().isdigit() or int(label) >= len(self.classes):
            raise DataError(
                f"{name}: expected an image (.jpg) and its class (.cls), a number below "
                f"{len(self.classes)}, found {_found(members)}; {_fix(self.split)}"
            )
        return int(label), data, name


def open_manifest(place: str, split: str) -> ShardSet:
    """The shards of ``split`` in a folder or below a URL; raises DataError for what is missing or not as it should be.

    Local shards have to have the manifest's sizes.
    """
    check_place(place)
    url = join(place, f"{split}-manifest.json")
    try:
        with open_url(url) as file:
            manifest = json.loads(file.read())
        names, counts, sizes, digests = zip(
            *((str(s["name"]), int(s["samples"]), int(s["bytes"]), str(s["sha256"])) for s in manifest["shards"]),
            strict=True,
        )
        classes = tuple(map(str, manifest["classes"]))
        written = [manifest.get(key) for key in ("resize", "quality")]
        valid = manifest["format"] == FORMAT and min(counts) > 0 and all(map(_SHARD.fullmatch, names))
        valid = valid and all(value is None or type(value) is int for value in written)
    except _BROKEN as error:
        raise DataError(
            f"{shown(url)}: cannot be read ({_why(error)}); set dataset.shards to where the shards are, or "
            f"make them: {prepare_command('imagenet-shards')} --out FOLDER"
        ) from error
    except (ValueError, KeyError, TypeError):
        valid = False
    if not valid:
        raise DataError(f"{shown(url)}: expected a manifest of shards, found something else; {_fix(split)}")
    for name, size in zip(names, sizes, strict=True) if not _remote(place) else ():
        path = Path(_local(join(place, name)))
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            raise DataError(
                f"{path}: expected {size} bytes, found {'no file' if found is None else found}; {_fix(split)}"
            )
    digest = hashlib.sha256(json.dumps([names, digests, classes]).encode()).hexdigest()
    arrays = (np.array(counts, np.int64), np.array(sizes, np.int64))
    return ShardSet(place, split, classes, names, *arrays, *written, digest)


def check_place(place: str) -> None:
    """Raise ConfigError unless ``place`` is a folder or a URL of a kind that is only read."""
    scheme, colon, rest = place.partition(":")
    scheme = scheme.lower() if colon and "/" not in scheme else ""
    if scheme not in ("", "file") and not _plain(scheme, rest):
        raise ConfigError(
            "dataset.shards is a URL with a user, a password, a query or a fragment, expected only "
            "scheme://host/path: keys belong in the environment, where the storage's package looks"
        )
    if scheme not in ("", "file", "http", "https", *_FSSPEC) or "::" in place:
        raise ConfigError(
            f"dataset.shards is {shown(place)!r}, expected a folder or a URL that begins with "
            f"{', '.join(f'{s}://' for s in ('http', 'https', *_FSSPEC))}; commands are never run"
        )


def _plain(scheme: str, rest: str) -> bool:
    """Whether a URL holds nothing that might be a secret; "@" names a container in abfs:// and a version in hf://."""
    host, _, path = rest.lstrip("/").partition("/")
    allowed = {"abfs": "@", "az": "@"}.get(scheme, ""), "@" if scheme in _FSSPEC else ""
    found = [set("@?#[]") & set(host) - set(allowed[0]), set("@?#") & set(path) - set(allowed[1])]
    if any(found):
        return False
    port = scheme in ("http", "https") and host.rpartition(":")[2].isdigit()
    known = scheme in ("http", "https", *_FSSPEC) and not rest.startswith(":")  # others are refused as what they are
    return port or ":" not in host or not known


def join(place: str, name: str) -> str:
    """The address of a file of a folder or URL."""
    return f"{place.rstrip('/')}/{name}"


def shown(url: str) -> str:
    """A URL without the password that it may contain."""
    return re.sub(r"//[^/@]*@", "//", url)


def open_url(url: str) -> IO[bytes]:
    """A file or URL for reading from its beginning; raises what the operating system or the network raises."""
    scheme = urlsplit(url).scheme
    if not _remote(url):
        return open(_local(url), "rb")
    if scheme in ("http", "https"):
        return urllib.request.urlopen(url, timeout=_TIMEOUT)
    import fsspec  # comes with torch

    try:
        return fsspec.open(url, "rb").open()
    except ImportError as error:
        raise DataError(f"{shown(url)}: {' '.join(str(error).split())}; pip install it, or use https://") from error


class _Whole:
    """A stream that does not end early without a word, which tarfile would take for the end of the archive."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read(count)
        self._left -= len(data)
        if not data and self._left > 0:
            raise OSError(f"it ends {self._left} bytes early")
        return data


def _members(url: str, size: int) -> Iterator[dict[str, Any]]:
    """The samples of a shard of ``size`` bytes, each with its members by suffix."""
    from webdataset import tariterators

    with open_url(url) as stream:
        files = tariterators.tar_file_expander([{"url": url, "stream": _Whole(stream, size)}])
        try:
            yield from tariterators.group_by_keys(files)
        except ValueError as error:  # two members of one name
            raise DataError(f"{shown(url)}: {error.args[0]}; {_fix('')}") from error


def _remote(url: str) -> bool:
    return urlsplit(url).scheme not in ("", "file")


def _local(url: str) -> str:
    return os.path.expanduser(url.removeprefix("file://"))


def _why(error: BaseException) -> str:
    first = error.args[0] if error.args else ""
    return getattr(error, "strerror", None) or " ".join(str(first or error).split()) or type(error).__name__


def _found(members: dict[str, Any]) -> str:
    suffixes = sorted(key for key in members if not key.startswith("__"))
    label = f", class {members['cls'][:20]!r}" if "cls" in members else ""
    return f"{' '.join(f'.{s}' for s in suffixes) or 'neither'}{label}"


def _fix(split: str) -> str:
    again = f"{prepare_command('imagenet-shards')} --out FOLDER" + (f" --split {split}" if split else "")
    return f"copy it again, or delete it and write it again with the options of the first time: {again}"
