"""Reading one recording: what is accepted is exact, and everything else is refused by name."""

import builtins
import struct

import numpy as np
import pytest

from datasets.formats.wav import CLIPPED, CUT, PADDED, read_clip, read_recording
from randomix.errors import DataError
from tests.datasets.sounds import RATE, fmt, riff, tone, wav_bytes


def write(tmp_path, data, name="clip.wav"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("length", "notes"), [(50, ()), (49, (PADDED,)), (1, (PADDED,)), (51, (CUT,)), (90, (CUT,))])
def test_clips_have_one_length(tmp_path, length, notes):
    samples = tone(0, length)
    found, what = read_clip(write(tmp_path, wav_bytes(samples)), RATE, 50)
    assert what == notes and found.dtype == np.int16 and found.shape == (50,)
    assert np.array_equal(found[:length], samples[:50]) and not found[length:].any()


def test_recordings_are_read_whole(tmp_path):
    assert np.array_equal(read_recording(write(tmp_path, wav_bytes(tone(1, 777))), RATE), tone(1, 777))


def test_other_chunks_are_no_mistake(tmp_path):
    samples = tone(2, 40)
    odd = (b"LIST", b"INFOISFT\x05\0\0\0abcde")
    data = (b"data", samples.astype("<i2").tobytes())
    for chunks in ([(b"fmt ", fmt()), odd, data], [(b"fmt ", fmt()), data, odd], [odd, (b"fmt ", fmt()), data, odd]):
        assert np.array_equal(read_clip(write(tmp_path, riff(*chunks)), RATE, 40)[0], samples)
    extended = (b"fmt ", fmt() + b"\0\0")  # 18 bytes: allowed for PCM
    assert np.array_equal(read_clip(write(tmp_path, riff(extended, data)), RATE, 40)[0], samples)


def other_formats():
    rng = np.random.default_rng(0)
    levels = rng.integers(-32768, 32768, 40)
    low = rng.integers(0, 2, 40) * 64  # below the middle between two 16-bit values
    wide = ((levels * 256 + low).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]).tobytes()
    floats = (levels / 32768).astype("<f4").tobytes()
    guid = b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
    extensible = fmt(0xFFFE) + struct.pack("<HHIH", 22, 16, 4, 1) + guid
    return levels, {
        "24 bits": riff((b"fmt ", fmt(bits=24)), (b"data", wide)),
        "float": riff((b"fmt ", fmt(3, bits=32)), (b"fact", struct.pack("<I", 40)), (b"data", floats)),
        "extensible": riff((b"fmt ", extensible), (b"data", levels.astype("<i2").tobytes())),
    }


@pytest.mark.parametrize("kind", ["24 bits", "float", "extensible"])
def test_other_formats_give_the_same_samples(tmp_path, kind):
    levels, files = other_formats()
    samples, notes = read_clip(write(tmp_path, files[kind]), RATE, 40)
    assert np.array_equal(samples, levels) and notes == ()


def test_eight_bits_and_flac(tmp_path):
    data = np.arange(0, 256, 7, dtype=np.uint8)
    path = write(tmp_path, riff((b"fmt ", fmt(bits=8)), (b"data", data.tobytes() + b"\x80")))
    assert np.array_equal(read_clip(path, RATE, 38)[0][:37], (data.astype(int) - 128) * 256)
    import soundfile

    soundfile.write(tmp_path / "clip.flac", tone(3, 60), RATE, subtype="PCM_16")
    samples, notes = read_clip(tmp_path / "clip.flac", RATE, 64)
    assert np.array_equal(samples[:60], tone(3, 60)) and notes == (PADDED,)


def test_float_beyond_full_scale_is_clipped_and_said(tmp_path):
    values = np.array([0, 1.5, -1.5, 1.0, -1.0, 0.5], "<f4")
    path = write(tmp_path, riff((b"fmt ", fmt(3, bits=32)), (b"data", values.tobytes())))
    samples, notes = read_clip(path, RATE, 6)
    assert samples.tolist() == [0, 32767, -32768, 32767, -32768, 16384] and notes == (CLIPPED,)


WHOLE = wav_bytes(np.arange(1000))
FLOATS = np.zeros(100, "<f4")
FLOATS[2] = np.nan
BAD = {
    "nothing": (b"", "found an empty file of 0 bytes"),
    "no frames": (wav_bytes(np.zeros(0)), "expected samples, found 0"),
    "half a header": (WHOLE[:20], r"expected a WAV file with a fmt chunk, found none in 20 bytes"),
    "header only": (WHOLE[:44], r"expected the 1000 samples \(2000 bytes\) of its header, found 0 \(0 bytes\)"),
    "truncated": (WHOLE[:1001], r"expected the 1000 samples \(2000 bytes\) of its header, found 478 \(957 bytes\)"),
    "one byte short": (WHOLE[:-1], r"expected the 1000 samples .*, found 999 \(1999 bytes\)"),
    "streamed header": (
        WHOLE[:40] + b"\xff\xff\xff\xff" + WHOLE[44:],
        r"expected the 2147483647 samples .*, found 1000 \(2000 bytes\)",
    ),
    "header says less": (
        WHOLE[:40] + struct.pack("<I", 1000) + WHOLE[44:],
        r"expected the 500 samples .*, found 1000 \(2000 bytes\)",
    ),
    "rate": (wav_bytes(np.arange(1000), rate=8000), r"expected 16000 Hz, found 8000 Hz; resample it"),
    "stereo": (wav_bytes(np.arange(1000), channels=2), r"expected 1 channel \(mono\), found 2; mix it down"),
    "an HTML page": (b"<!DOCTYPE html><html><body>404", r"expected a WAV file \(RIFF, WAVE\), found b'<!DOCTYPE ht'"),
    "a text": (b"RIF", r"expected a WAV file \(RIFF, WAVE\), found b'RIF'"),
    "an AVI file": (b"RIFF\0\0\0\0AVI LIST", r"expected a WAV file \(RIFF, WAVE\)"),
    "no data chunk": (riff((b"fmt ", fmt())), "with a data chunk, found none"),
    "no format chunk": (riff((b"data", bytes(20))), "with a fmt chunk, found none"),
    "24-bit stereo": (riff((b"fmt ", fmt(channels=2, bits=24)), (b"data", bytes(60))), r"found 2; mix it down"),
    "24-bit truncated": (
        riff((b"fmt ", fmt(bits=24)), (b"data", bytes(60)))[:-30],
        r"the 20 samples \(60 bytes\) .*, found 10",
    ),
    "24-bit, 8 kHz": (riff((b"fmt ", fmt(rate=8000, bits=24)), (b"data", bytes(60))), r"found 8000 Hz"),
    "not a number": (riff((b"fmt ", fmt(3, bits=32)), (b"data", FLOATS.tobytes())), "finite samples, found NaN"),
    "unknown coding": (riff((b"fmt ", fmt(0x4321)), (b"data", bytes(60))), "expected a recording, found"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(tmp_path, name):
    data, message = BAD[name]
    path = write(tmp_path, data)
    for read in (
        lambda: read_clip(path, RATE, 16_000),
        lambda: read_clip(path, RATE, 5),
        lambda: read_recording(path, RATE),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: expected ") and "\n" not in str(caught.value)


def test_damaged_flac_missing_file_and_folder(tmp_path):
    import soundfile

    soundfile.write(tmp_path / "whole.flac", tone(3, 9000), RATE, subtype="PCM_16")
    data = (tmp_path / "whole.flac").read_bytes()
    with pytest.raises(DataError, match=r"cut.flac: expected"):
        read_recording(write(tmp_path, data[: len(data) // 2], "cut.flac"), RATE)
    with pytest.raises(DataError, match=r"not.flac: expected a recording, found"):
        read_recording(write(tmp_path, b"no flac at all", "not.flac"), RATE)
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_clip(path, RATE, 10)


def test_without_soundfile_the_error_names_it(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "soundfile":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert len(read_clip(write(tmp_path, WHOLE), RATE, 1000)[0]) == 1000  # not needed for the official files
    with pytest.raises(DataError, match=r"clip.wav: .* takes the package soundfile .*run: pip install soundfile"):
        read_clip(write(tmp_path, other_formats()[1]["24 bits"]), RATE, 40)
