"""Many recordings as one array: decoded once by several threads, kept in a verified cache and mapped from there."""

from __future__ import annotations

import hashlib
import os
import sys
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from datasets.cache import cached_arrays
from datasets.formats.wav import CLIPPED, CUT, PADDED, read_clip, read_recording
from datasets.integrity import array_digest
from randomix.errors import DataError, StorageError

VERSION = 1  # of what decoding makes of a file
MAX_WARNINGS = 10
_NOTES = (PADDED, CUT, CLIPPED)
_TASK = 256  # files a thread takes at once
_THREADS = 8


@dataclass(frozen=True)
class Recordings:
    """What was decoded: clips (M, L) int16, mapped from a file, of the files where ``kept`` (F,), in their order.

    background: longer recordings (T,) int16 each; sha256: of all of these; notes: how many clips were padded, ...
    """

    clips: np.ndarray
    kept: np.ndarray
    background: tuple[np.ndarray, ...]
    sha256: str
    notes: dict[str, int]


@dataclass(frozen=True)
class ClipSet:
    """Samples (N, L, 1) int16 for ``datasets.resident``: ``rows`` of ``clips``, then ``extra``; labels (N,) int64."""

    clips: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    extra: np.ndarray
    dtype: np.dtype = field(default=np.dtype(np.int16), init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, L, 1)."""
        return (len(self), self.clips.shape[1], 1)

    def __len__(self) -> int:
        return len(self.rows) + len(self.extra)

    def __getitem__(self, part: slice) -> np.ndarray:
        """The clips from ``part.start`` to ``part.stop``."""
        start, stop, _ = part.indices(len(self))
        inside = len(self.rows)
        own = self.clips[self.rows[start : min(stop, inside)]]
        return np.concatenate([own, self.extra[max(start - inside, 0) : max(stop - inside, 0)]])[..., None]


def load_clips(
    folder: Path,
    names: Sequence[str],
    background: Sequence[str],
    *,
    rate: int,
    length: int,
    cache: str | None,
    skip: bool,
    max_bad_share: float,
) -> Recordings:
    """Decode the files ``names`` of ``folder`` to clips of ``length`` samples, or map what was decoded before.

    Raises DataError for the first bad file, with ``skip`` only if more than ``max_bad_share`` of them are bad, or one
    of ``background``. cache: a folder, None for .randomix-cache beside ``folder``; what is there is used while names,
    sizes and times of all files are the same.
    """
    source = {
        "version": VERSION,
        "rate": rate,
        "length": length,
        "skip": skip,
        "files": _tree_digest(folder, names),
        "background": _tree_digest(folder, background),
    }

    base = Path(cache).expanduser() if cache else Path(os.path.abspath(folder)).parent / ".randomix-cache"
    place = base / f"{folder.name}-{rate}-{length}-{zlib.crc32(str(folder.resolve()).encode()):08x}"

    def make() -> dict[str, np.ndarray]:
        print(f"{folder.name}: decoding {len(names)} recordings into {place}, once", file=sys.stderr)
        return _decode(folder, names, background, rate, length, skip)

    try:
        arrays = cached_arrays(place, source, make, need=2 * length * len(names))
    except StorageError as error:
        raise StorageError(f"{error}; set dataset.cache=FOLDER to one where recordings can be kept decoded") from error
    kept = np.asarray(arrays["kept"])
    if bad := int((~kept).sum()):
        share = f"{bad} of {len(names)} recordings cannot be used"
        if bad > max_bad_share * len(names):
            first = names[int(np.argmin(kept))]
            raise DataError(
                f"{folder}: {share}, more than dataset.max_bad_share={max_bad_share:g} allows, the first: "
                f"{first}; dataset.on_bad_sample=error says what is wrong with it"
            )
        print(f"warning: {folder}: {share} and are left out because dataset.on_bad_sample=skip", file=sys.stderr)
    flat, ends = arrays["background"], np.cumsum(arrays["background_lengths"])
    return Recordings(
        clips=arrays["clips"],
        kept=kept,
        background=tuple(np.split(flat, ends[:-1])) if len(ends) else (),
        sha256=array_digest(arrays["digest"], kept),
        notes={**dict(zip(_NOTES, map(int, arrays["notes"]), strict=True)), "left_out": bad},
    )


def _tree_digest(folder: Path, names: Sequence[str]) -> str:
    """A digest of the files' names, sizes and times."""
    digest = hashlib.sha256()
    try:
        for name in names:
            state = os.stat(folder / name)
            digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    except OSError as error:
        raise DataError(f"{folder / name}: cannot be read ({error.strerror}); check its permissions") from error
    return digest.hexdigest()


def _decode(
    folder: Path, names: Sequence[str], background: Sequence[str], rate: int, length: int, skip: bool
) -> dict[str, np.ndarray]:
    """The arrays of the cache. One array of all clips, which the threads fill, is all that is held."""
    clips = np.zeros((len(names), length), np.int16)
    kept = np.ones(len(names), bool)
    notes = dict.fromkeys(_NOTES, 0)

    def decode(start: int) -> list[tuple[int, tuple[str, ...] | DataError]]:
        done: list[tuple[int, tuple[str, ...] | DataError]] = []
        for index in range(start, min(start + _TASK, len(names))):
            try:
                clips[index], what = read_clip(folder / names[index], rate, length)
                done.append((index, what))
            except DataError as error:
                done.append((index, error))
                if not skip:
                    break
        return done

    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for done in pool.map(decode, range(0, len(names), _TASK)):
            for index, what in done:
                if isinstance(what, DataError):
                    kept[index] = False
                    _report(what, int((~kept).sum()), skip, pool)
                else:
                    for note in what:
                        notes[note] += 1
    recordings = [read_recording(folder / name, rate) for name in background]
    for place, index in enumerate(np.flatnonzero(kept)):  # close the gaps where the clips are: no second array
        if place != index:
            clips[place] = clips[index]
    clips = clips[: int(kept.sum())]
    digest = array_digest(clips, *recordings)
    return {
        "clips": clips,
        "kept": kept,
        "notes": np.array([notes[note] for note in _NOTES]),
        "background": np.concatenate(recordings) if recordings else np.zeros(0, np.int16),
        "background_lengths": np.array([len(recording) for recording in recordings], np.int64),
        "digest": np.frombuffer(bytes.fromhex(digest), np.uint8),
    }


def _report(error: DataError, number: int, skip: bool, pool: ThreadPoolExecutor) -> None:
    """Raise the error of a file, or with ``skip`` print it, up to MAX_WARNINGS times."""
    if not skip:
        pool.shutdown(cancel_futures=True)
        raise error
    if number <= MAX_WARNINGS:
        print(f"warning: left out: {error}", file=sys.stderr)
