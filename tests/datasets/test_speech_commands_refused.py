"""Folders that are not Speech Commands: each is refused in one line that says what is wrong."""

import pytest

from randomix.errors import DataError
from tests.datasets.sounds import make_speech_commands, tone, wav_bytes
from tests.datasets.speech_sets import SOME, build


def wrong(change):
    """A folder with one thing changed."""

    def make(folder):
        make_speech_commands(folder, SOME, takes=3)
        change(folder)

    return make


def append(name, text):
    return wrong(lambda folder: (folder / name).write_text((folder / name).read_text() + text))


def remove(pattern):
    return wrong(lambda folder: [path.unlink() for path in sorted(folder.glob(pattern))])


BAD = {
    "no list": (remove("testing_list.txt"), {}, r"testing_list.txt: expected the official list, found no file; run: "),
    "empty list": (wrong(lambda f: (f / "testing_list.txt").write_text("\n\n")), {}, r"found an empty one"),
    "listed file is missing": (
        remove("yes/00000001*"),
        {},
        r"testing_list.txt: expected all 12 listed files .* found 11; missing is 'yes/0",
    ),
    "twice": (append("testing_list.txt", "yes/00000001_nohash_0.wav\n"), {}, r"expected every file once, found yes/0"),
    "in both": (
        append("testing_list.txt", "./yes/00000000_nohash_0.wav\n"),
        {},
        r"testing_list.txt: expected files of no other split, found yes/00000000_nohash_0.wav in validation_list",
    ),
    "path": (append("testing_list.txt", "../yes/x.wav\n"), {}, r"missing is '../yes/x.wav'"),
    "binary list": (wrong(lambda f: (f / "testing_list.txt").write_bytes(b"\xff\xfe\x00")), {}, "cannot be read"),
    "no training clip": (remove("stop/00000002*"), {}, r"training clips of every class, found none of stop; run:"),
    "no unknown": (remove("[bz]e*/00000002*"), {}, r"found none of unknown"),
    "no words": (
        wrong(lambda f: [p.rename(f / "_background_noise_" / p.name) for p in f.iterdir() if p.name in SOME]),
        {},
        r"expected a folder of .wav files a word, found none",
    ),
    "no background": (
        remove("_background_noise_/*.wav"),
        {"background_prob": 0, "silence_share": 0.3},
        r"_background_noise_: expected recordings of 10 s or more at 16000 Hz, .* dataset.silence=zeros",
    ),
    "nothing to mix": (
        remove("_background_noise_/*.wav"),
        {"silence": "zeros"},
        r"part for train; .*dataset.background_prob=0",
    ),
    "background at 8 kHz": (
        wrong(lambda f: (f / "_background_noise_/pink_noise.wav").write_bytes(wav_bytes(tone(0), rate=8000))),
        {"on_bad_sample": "skip"},
        r"pink_noise.wav: expected 16000 Hz, found 8000 Hz",
    ),
    "stereo": (
        wrong(lambda f: (f / "yes/00000002_nohash_0.wav").write_bytes(wav_bytes(tone(0), channels=2))),
        {},
        r"yes/00000002_nohash_0.wav: expected 1 channel",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused(tmp_path, name):
    make, options, message = BAD[name]
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message) as caught:
        build(tmp_path / "set", **options)
    assert "\n" not in str(caught.value)


def test_a_missing_set_says_how_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"speech_commands: not found in .*prepare_data.py speech_commands --root"):
        build(tmp_path)
    make_speech_commands(tmp_path / "SpeechCommands" / "speech_commands_v0.02", SOME, takes=3)
    assert build(tmp_path, classes=35).num_train == 12
    with pytest.raises(DataError, match="not found"):
        build(tmp_path, version="v0.01")
