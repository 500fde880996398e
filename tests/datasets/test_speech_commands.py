"""Speech Commands in the official layout: splits by the lists, labels, silence, the cache, and every refusal."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import datasets
from datasets import speech_commands
from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import make_stamp, write_stamp
from datasets.sound import clips as sound_clips
from datasets.sound.background import noise_of, silence
from datasets.speech_commands import COMMANDS, COUNTS, WORDS
from randomix.errors import ConfigError, DataError, StorageError
from tests.datasets.sounds import RATE, make_speech_commands, tone, wav_bytes, word_sound
from tests.datasets.speech_sets import SOME, build, contents, expected


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "set"


def test_every_word_is_a_class_and_the_lists_split_them(folder):
    splits = make_speech_commands(folder, SOME, takes=4)
    data = build(folder, classes=35)
    assert data.class_names == tuple(sorted(SOME)) and data.splits == ("test", "validation")
    assert data.sample_shape == data.input_shape == (1, 16_000) and data.num_train == 24 and data.num_test == 12
    for split, clips in (("train", data.train), *data.held_out.items()):
        assert sorted(contents(clips)) == expected(splits[split], data.class_names)


@pytest.mark.parametrize("prefix", ["./", ""])
@pytest.mark.parametrize("end", ["\r\n", "\n"])
def test_lists_of_other_systems(folder, prefix, end):
    splits = make_speech_commands(folder, SOME, takes=3)
    for split, name in (("validation", "validation_list.txt"), ("test", "testing_list.txt")):
        (folder / name).write_bytes("".join(f"{prefix}{n}{end}" for n in splits[split]).encode() + end.encode())
    data = build(folder, classes=35)
    assert {split: len(clips) for split, clips in data.held_out.items()} == {"test": 12, "validation": 12}
    assert sorted(contents(data.train)) == expected(splits["train"], data.class_names)


@pytest.mark.parametrize("kind", ["background", "zeros"])
def test_twelve_classes_and_silence(folder, kind):
    splits = make_speech_commands(folder, SOME, takes=5)
    data = build(folder, silence=kind, silence_share=0.25)
    assert data.class_names == (*COMMANDS, "unknown", "silence")
    counts = {"train": (36, 9), "validation": (12, 3), "test": (12, 3)}
    noises = [tone(1000 + i, 10 * RATE) // 8 for i in range(2)]
    tenths = {"train": (0, 8), "validation": (8, 9), "test": (9, 10)}
    for split, clips in (("train", data.train), *data.held_out.items()):
        words, silent = counts[split]
        assert len(clips) == words + silent and (clips.labels[words:] == 11).all()
        assert sorted(contents(clips)[:words]) == expected(splits[split], data.class_names)
        for clip in clips[words : words + silent][..., 0]:
            if kind == "zeros":
                assert not clip.any()
                continue
            low, high = (10 * RATE * t // 10 for t in tenths[split])
            assert any(is_cut_from(clip, noise[low:high]) for noise in noises), "a window of this split's part"
    again = build(folder, silence=kind, silence_share=0.25)
    assert contents(again.train) == contents(data.train)


def is_cut_from(clip, noise):
    """Whether a clip is a window of ``noise`` at some volume up to 1: by correlation with every window."""
    size = 2 ** int(np.ceil(np.log2(len(noise) + len(clip))))
    product = np.fft.irfft(np.fft.rfft(noise, size) * np.conj(np.fft.rfft(clip, size)), size)
    start = int(product[: len(noise) - len(clip) + 1].argmax())
    window = noise[start : start + len(clip)].astype(float)
    volume = (clip @ window) / (window @ window)
    return 0 <= volume <= 1 and np.abs(clip - volume * window).max() <= 0.6


def test_parts_of_the_background_do_not_overlap():
    recordings = [np.arange(10_000, dtype=np.int16), np.arange(10_000, 20_037, dtype=np.int16)]
    seen = {split: noise_of(recordings, split, 100) for split in ("train", "validation", "test")}
    values = [set(noise.samples.tolist()) for noise in seen.values()]
    assert not (values[0] & values[1] or values[0] & values[2] or values[1] & values[2])
    assert len(set.union(*values)) == 20_037
    for noise in seen.values():
        starts = noise.starts(np.arange(len(noise)))
        assert len(set(starts.tolist())) == len(noise) == len(noise.samples) - 2 * 99
        for start in starts:  # no window reaches from one recording into the next
            assert np.array_equal(np.diff(noise.samples[start : start + 100]), np.ones(99))
    few, more = silence(seen["test"], 3, "x"), silence(seen["test"], 9, "x")
    assert np.array_equal(few, more[:3]) and not np.array_equal(more, silence(seen["test"], 9, "y"))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_unknown_share(folder, share):
    make_speech_commands(folder, (*COMMANDS, "bed", "cat", "zero"), takes=6)
    data = build(folder, unknown_share=share, silence_share=0)
    counts = np.bincount(data.train.labels, minlength=12)
    assert counts.tolist() == [4] * 10 + [round(share * 12), 0]
    assert np.bincount(data.held_out["test"].labels, minlength=11)[10] == round(share * 3)
    whole = contents(build(folder, silence_share=0).train)
    assert set(contents(data.train)) <= set(whole)
    if share == 0.5:  # of each word alike
        sounds = [{word_sound(w, t).tobytes() for t in range(6)} for w in (10, 11, 12)]
        kept = [clip for label, clip in contents(data.train) if label == 10]
        assert [sum(clip in own for clip in kept) for own in sounds] == [2, 2, 2]


def test_official_numbers():
    assert len(WORDS["v0.01"]) == 30 and len(WORDS["v0.02"]) == 35 and set(COMMANDS) < set(WORDS["v0.01"])
    assert sum(COUNTS["v0.02"].values()) == 105_829 and sum(COUNTS["v0.01"].values()) == 64_721
    with_silence = {v: [n + int(0.1 * n) for n in counts.values()] for v, counts in COUNTS.items()}
    assert with_silence == {"v0.01": [56_196, 7_477, 7_518], "v0.02": [93_327, 10_979, 12_105]}  # FMix's


def test_verification_demands_the_official_set(folder, monkeypatch, capsys):
    make_speech_commands(folder, WORDS["v0.01"], takes=3)
    with pytest.raises(
        DataError,
        match=r"train clips: expected 51088, found 30; .*recordings of background noise: "
        r"expected 6, found 2; run: .*dataset.verify=false",
    ):
        build(folder, verify=True, version="v0.01")
    assert capsys.readouterr().err == ""
    data = build(folder, version="v0.01", classes=35)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["warning", "set"]  # decoded once
    assert data.num_classes == 30 and data.describe()["verified"] is False
    assert "not the official one" in data.describe()["source"]
    monkeypatch.setitem(speech_commands.COUNTS, "v0.01", {"train": 30, "validation": 30, "test": 30})
    monkeypatch.setattr(speech_commands, "RECORDINGS", 2)
    data = build(folder, verify=True, version="v0.01")
    assert capsys.readouterr().err == "" and data.describe()["source"] == "Google Speech Commands v0.01"
    assert data.describe()["verified"] == "words, counts and speakers"
    with pytest.raises(
        DataError, match=r"missing words: expected none, found backward, follow, forward, learn, visual;"
    ):
        build(folder, verify=True)
    shared = "bed/00000000_nohash_1.wav"  # the speaker of the validation clips, in training
    (folder / "bed" / "00000002_nohash_0.wav").rename(folder / shared)
    with pytest.raises(DataError, match="speakers in two splits: expected 0, found 1"):
        build(folder, verify=True, version="v0.01")


def test_the_stamp_of_the_official_archive_is_compared(folder, monkeypatch):
    make_speech_commands(folder, WORDS["v0.02"], takes=3)
    monkeypatch.setitem(speech_commands.COUNTS, "v0.02", {"train": 35, "validation": 35, "test": 35})
    monkeypatch.setattr(speech_commands, "RECORDINGS", 2)
    write_stamp(folder, make_stamp(folder, "speech_commands", ENTRIES["speech_commands"].digests))
    verified = build(folder, verify=True).describe()["verified"]
    assert verified == "names and sizes of all files as in the official archive"
    (folder / "bed" / "00000002_nohash_1.wav").write_bytes(wav_bytes(tone(0, 15_999)))
    with pytest.raises(DataError, match=r"v0.02: expected 3 files of 96132 bytes in bed/, found 3 of 96130"):
        build(folder, verify=True)
    assert build(folder).describe()["verified"] is False


def test_bad_clips_can_be_left_out_counted_and_bounded(folder, capsys):
    splits = make_speech_commands(folder, SOME, takes=8)
    bad = splits["train"][5:65:5]
    for name in bad:
        path = folder / name
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(
        DataError, match=f"{min(bad)}: expected the 16000 samples"
    ):  # the first in the order of the files
        build(folder, classes=35)
    with pytest.raises(DataError, match=r"12 of 96 recordings cannot be used, more than dataset.max_bad_share=0.1"):
        build(folder, classes=35, on_bad_sample="skip", max_bad_share=0.1)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: left out: ")]
    assert len(lines) == 10 and all(any(name in line for name in bad) for line in lines)
    data = build(folder, classes=35, on_bad_sample="skip", max_bad_share=0.125)
    assert "12 of 96 recordings cannot be used and are left out" in capsys.readouterr().err
    assert data.describe()["clips"] == {"padded": 0, "cut": 0, "clipped": 0, "left_out": 12}
    good = [name for name in splits["train"] if name not in bad]
    assert sorted(contents(data.train)) == expected(good, data.class_names)
    for split in ("test", "validation"):
        assert sorted(contents(data.held_out[split])) == expected(splits[split], data.class_names)


def test_short_and_long_clips_are_counted(folder):
    make_speech_commands(folder, SOME, takes=3, make=lambda word, take: tone(word, 15_000 + 1_000 * (take % 3)))
    data = build(folder, classes=35)
    assert data.describe()["clips"] == {"padded": 12, "cut": 12, "clipped": 0, "left_out": 0}
    assert not data.held_out["validation"][0:12][:, 15_000:].any()


def test_the_cache_is_used_checked_and_made_anew(folder, tmp_path, monkeypatch):
    make_speech_commands(folder, SOME, takes=3)
    cache = tmp_path / "cache"
    decoded = []
    real = sound_clips.read_clip
    monkeypatch.setattr(sound_clips, "read_clip", lambda path, *rest: decoded.append(path.name) or real(path, *rest))
    first = build(folder, cache=str(cache))
    assert (
        len(decoded) == 36 and isinstance(first.train.clips, np.memmap) and not (tmp_path / ".randomix-cache").exists()
    )
    for options in ({}, {"features": "log_mel"}, {"classes": 35}, {"silence": "zeros", "time_shift_ms": 0.0}):
        build(folder, cache=str(cache), **options)
    assert len(decoded) == 36
    assert build(folder, cache=str(cache)).describe() == first.describe()
    clips = contents(first.train)
    (stored,) = cache.glob("*/clips.npy")
    data = bytearray(stored.read_bytes())
    data[-5] ^= 1
    stored.write_bytes(data)
    assert contents(build(folder, cache=str(cache)).train) == clips and len(decoded) == 72
    path = folder / "yes" / "00000002_nohash_0.wav"
    path.write_bytes(wav_bytes(tone(5)))
    changed = build(folder, cache=str(cache))
    assert len(decoded) == 108 and changed.describe()["sha256"] != first.describe()["sha256"]
    assert (0, tone(5).tobytes()) in contents(changed.train)


def test_where_nothing_can_be_written_the_error_names_the_option(folder, tmp_path):
    make_speech_commands(folder, SOME, takes=3)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"; set dataset.cache=FOLDER"):
        build(folder, cache=str(tmp_path / "file"))


def test_synthetic_speech_says_so(folder, capsys):
    make_speech_commands(folder, SOME, takes=3)
    source = "spoken words synthesised by espeak-ng (not Google Speech Commands)"
    (folder / "SYNTHETIC.json").write_text(json.dumps({"source": source, "generator": {"seed": 0}}))
    with pytest.raises(DataError, match=r"expected Google Speech Commands, found synthetic speech \(SYNTHETIC.json\)"):
        build(folder, verify=True)
    data = build(folder)
    assert [line for line in capsys.readouterr().err.splitlines() if "decoding" not in line] == [
        f"note: {folder}: {source}"
    ]
    description = data.describe()
    assert description["synthetic"] is True and description["source"] == source
    assert description["generator"] == {"seed": 0} and str(folder) not in json.dumps(description)
    (folder / "SYNTHETIC.json").write_text("{")
    with pytest.raises(DataError, match=r"SYNTHETIC.json: expected the mark"):
        build(folder)


def test_description_is_plain_and_without_paths(folder):
    make_speech_commands(folder, SOME, takes=3)
    description = build(folder).describe()
    assert json.loads(json.dumps(description)) == description and str(folder) not in json.dumps(description)
    assert description["synthetic"] is False and len(description["sha256"]) == 64
    assert [description[f"{s}_samples"] for s in ("train", "validation", "test")] == [13, 13, 13]


def test_wrong_options():
    options = {
        "classes": 10,
        "features": "mfcc",
        "silence_share": 1.0,
        "volume": 3,
        "time_shift_ms": -1,
        "root": 3,
        "verify": "yes",
        "version": 0.02,
        "max_bad_share": True,
    }
    with pytest.raises(ConfigError) as caught:
        datasets.build({"name": "speech_commands", **options})
    keys = (
        "volume",
        "root",
        "features",
        "time_shift_ms",
        "max_bad_share",
        "version",
        "classes",
        "silence_share",
        "verify",
    )
    assert [line.split()[0] for line in caught.value.problems] == [f"dataset.{key}" for key in keys]


def test_the_configuration_lists_every_option():
    from omegaconf import OmegaConf

    for name in ("speech_commands", "audio_folder"):
        path = Path(datasets.__file__).parents[1] / "configs" / "dataset" / f"{name}.yaml"
        config = OmegaConf.to_container(OmegaConf.load(path))
        module = sys.modules.get(f"datasets.{name}") or __import__(f"datasets.{name}", fromlist=["x"])
        known = {**datasets.sound.options.DEFAULTS, **module._DEFAULTS}
        assert config == {"name": name, **known}
