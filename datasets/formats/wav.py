"""One recording as 16-bit samples, strictly: what a file announces must be there, at the rate that is expected.

16-bit mono PCM is read with the standard library, everything else (24-bit, float, WAVE_FORMAT_EXTENSIBLE, FLAC) with
soundfile. Nothing is resampled or mixed down: both change the data, and that is for its owner to decide.
"""

from __future__ import annotations

import os
import struct
import wave
from pathlib import Path
from typing import BinaryIO

import numpy as np

from randomix.errors import DataError

RIFF_ENDINGS = (".wav", ".wave")
ENDINGS = (*RIFF_ENDINGS, ".flac", ".ogg")
PADDED, CUT, CLIPPED = "padded", "cut", "clipped"
_REPLACE = "replace the file"
_PCM = 1


def read_clip(path: Path, rate: int, length: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The first ``length`` samples (length,) int16 of a mono recording at ``rate`` Hz, and what was done to it.

    Shorter ones are padded with zeros at the end (PADDED), of longer ones the rest is left out (CUT), as in FMix; float
    samples beyond full scale are CLIPPED. Raises DataError, naming the file and both numbers, for another rate, several
    channels, no samples, fewer samples than the header announces, and what is no recording at all.
    """
    samples, frames, notes = _read(path, rate, length)
    if frames > length:
        notes.append(CUT)
    elif frames < length:
        notes.append(PADDED)
        samples = np.pad(samples, (0, length - frames))
    return samples, tuple(notes)


def read_recording(path: Path, rate: int) -> np.ndarray:
    """All samples (L,) int16 of a mono recording at ``rate`` Hz; raises DataError as ``read_clip`` does."""
    return _read(path, rate, None)[0]


def _read(path: Path, rate: int, limit: int | None) -> tuple[np.ndarray, int, list[str]]:
    """Up to ``limit`` samples, the number of frames in the file, and notes."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise DataError(f"{path}: expected a recording, found an empty file of 0 bytes; {_REPLACE}")
            if path.suffix.lower() in RIFF_ENDINGS and _check_riff(file, path, size):
                return _read_pcm(file, path, rate, limit)
        return _read_soundfile(path, rate, limit)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error


def _check_riff(file: BinaryIO, path: Path, size: int) -> bool:
    """Whether a RIFF file is 16-bit PCM; raises DataError unless its chunks fill the file as they announce.

    The readers believe the header: of a file cut short they return what is left without a word.
    """
    head = file.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise DataError(f"{path}: expected a WAV file (RIFF, WAVE), found {head[:12]!r}; {_REPLACE}")
    layout, announced, end = b"", None, 12
    while size - end >= 8:
        file.seek(end)
        name, length = struct.unpack("<4sI", file.read(8))
        stop = end + 8 + length
        if name == b"data":
            announced = length
            if stop > size:
                raise _lie(path, layout, length, size - end - 8)
        elif stop > size or not (name.isascii() and name.decode().isprintable()):
            break
        elif name == b"fmt ":
            layout = file.read(min(length, 16))
        end = stop + length % 2
    if len(layout) < 16 or announced is None:
        missing = "data" if len(layout) == 16 else "fmt"
        raise DataError(f"{path}: expected a WAV file with a {missing} chunk, found none in {size} bytes; {_REPLACE}")
    if end < size:  # neither samples nor a chunk: the data chunk says too little
        raise _lie(path, layout, announced, announced + size - end)
    file.seek(0)
    kind, _, _, _, _, bits = struct.unpack("<HHIIHH", layout)
    return kind == _PCM and bits == 16


def _lie(path: Path, layout: bytes, announced: int, there: int) -> DataError:
    frame = max(1, struct.unpack("<H", layout[12:14])[0]) if len(layout) == 16 else 1
    return DataError(
        f"{path}: expected the {announced // frame} samples ({announced} bytes) of its header, found "
        f"{there // frame} ({there} bytes); the file is damaged, {_REPLACE}"
    )


def _read_pcm(file: BinaryIO, path: Path, rate: int, limit: int | None) -> tuple[np.ndarray, int, list[str]]:
    try:
        with wave.open(file) as reader:
            frames = reader.getnframes()
            _check_format(path, reader.getframerate(), reader.getnchannels(), frames, rate)
            samples = np.frombuffer(reader.readframes(frames if limit is None else min(limit, frames)), "<i2")
    except (wave.Error, EOFError) as error:
        raise DataError(f"{path}: expected a WAV file, found {error}; {_REPLACE}") from error
    return samples.astype(np.int16), frames, []


def _read_soundfile(path: Path, rate: int, limit: int | None) -> tuple[np.ndarray, int, list[str]]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: its shared library is missing
        raise DataError(
            f"{path}: expected 16-bit mono PCM, found another format, which takes the package soundfile "
            "to read; run: pip install soundfile"
        ) from error
    try:
        with soundfile.SoundFile(path) as file:
            frames = file.frames
            _check_format(path, file.samplerate, file.channels, frames, rate)
            wanted = frames if limit is None else min(limit, frames)
            waveform = file.read(wanted, dtype="float64")
    except soundfile.SoundFileError as error:
        raise DataError(f"{path}: expected a recording, found {str(error).splitlines()[0]}; {_REPLACE}") from error
    if len(waveform) != wanted:
        raise DataError(
            f"{path}: expected {wanted} samples as its header announces, found {len(waveform)}; "
            f"the file is damaged, {_REPLACE}"
        )
    if not np.isfinite(waveform).all():
        raise DataError(f"{path}: expected finite samples, found NaN or infinity; {_REPLACE}")
    levels = np.rint(waveform * 32768)
    samples = levels.clip(-32768, 32767).astype(np.int16)
    return samples, frames, [CLIPPED] if np.abs(waveform).max() > 1 else []


def _check_format(path: Path, found_rate: int, channels: int, frames: int, rate: int) -> None:
    if found_rate != rate:
        raise DataError(
            f"{path}: expected {rate} Hz, found {found_rate} Hz; resample it, for example: sox IN.wav -r {rate} OUT.wav"
        )
    if channels != 1:
        raise DataError(
            f"{path}: expected 1 channel (mono), found {channels}; mix it down, for example: sox IN.wav -c 1 OUT.wav"
        )
    if frames < 1:
        raise DataError(f"{path}: expected samples, found {frames}; {_REPLACE}")
