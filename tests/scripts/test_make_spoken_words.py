"""Synthesised words: the official layout, speakers in one split, the same files every time, and marked as synthetic."""

import shutil
from collections import Counter

import numpy as np
import pytest

import datasets
from datasets.formats.wav import read_clip, read_recording
from datasets.speech_commands import WORDS
from scripts import make_spoken_words as script

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
TEN = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """Ten words and two others by ten voices; the recordings of noise are made shorter."""
    patch = pytest.MonkeyPatch()
    patch.setattr(script, "BACKGROUND_SECONDS", 10)
    out = tmp_path_factory.mktemp("spoken") / "set"
    assert script.main([str(out), "--per-class", "11", "--speakers", "10", "--words", *TEN, "cat", "bed"]) == 0
    yield out
    patch.undo()


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@espeak
def test_layout_and_splits(spoken):
    clips = sorted(spoken.glob("[a-z]*/*.wav"))
    assert len(clips) == 132 and not (spoken.parent / "set.part").exists()
    assert Counter(path.parent.name for path in clips) == dict.fromkeys([*TEN, "bed", "cat"], 11)
    lists = {name: (spoken / f"{name}_list.txt").read_text().splitlines() for name in ("validation", "testing")}
    assert [len(lines) for lines in lists.values()] == [12, 12]
    names = {f"{path.parent.name}/{path.name}" for path in clips}
    split = {name: key for key, lines in lists.items() for name in lines}
    assert set(split) <= names
    speakers = {}
    for name in names:
        speakers.setdefault(name.split("/")[1].split("_nohash_")[0], set()).add(split.get(name, "training"))
    assert len(speakers) == 10 and all(len(splits) == 1 for splits in speakers.values())
    assert len(list((spoken / "_background_noise_").glob("*.wav"))) == 6


@espeak
def test_clips_are_one_second_of_sound_and_differ(spoken):
    sounds = [read_clip(path, 16_000, 16_000) for path in sorted(spoken.glob("[a-z]*/*.wav"))]
    assert all(notes == () for _, notes in sounds)
    assert len({sound.tobytes() for sound, _ in sounds}) == len(sounds)
    for sound, _ in sounds:
        level = np.abs(sound.astype(float)) / 32768
        assert 0.05 < level.max() < 1 and level.std() < 0.35
    for path in (spoken / "_background_noise_").glob("*.wav"):
        noise = read_recording(path, 16_000) / 32768
        assert len(noise) == 160_000 and 0.1 < noise.std() < 0.25, path.name


@espeak
def test_it_is_read_as_synthetic(spoken, capsys):
    data = datasets.build({"name": "speech_commands", "root": str(spoken), "verify": False})
    notes = [line for line in capsys.readouterr().err.splitlines() if "decoding" not in line]
    assert notes == [f"note: {spoken}: spoken words synthesised by espeak-ng (not Google Speech Commands)"]
    assert data.describe()["synthetic"] is True and data.class_names == (*TEN, "unknown", "silence")
    assert (data.num_train, data.num_test) == (108 + 10, 12 + 1)


@espeak
def test_again_it_is_there_and_other_content_is_refused(spoken, capsys):
    before = files_of(spoken)
    arguments = [str(spoken), "--per-class", "11", "--speakers", "10", "--words", *TEN, "cat", "bed"]
    assert script.main(arguments) == 0 and "already there" in capsys.readouterr().out
    assert script.main([*arguments, "--seed", "1"]) == 2
    assert f"{spoken}: expected an empty or a new folder, found other content" in capsys.readouterr().err
    assert files_of(spoken) == before


@espeak
def test_a_killed_run_continues_to_the_same_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(script, "BACKGROUND_SECONDS", 1)
    small = ["--per-class", "8", "--speakers", "10", "--words", "yes", "no"]
    assert script.main([str(tmp_path / "whole"), *small]) == 0
    real, calls = script.clip, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(script, "clip", killed)
    with pytest.raises(KeyboardInterrupt):
        script.main([str(tmp_path / "again"), *small])
    assert not (tmp_path / "again").exists()
    done = len(list((tmp_path / "again.part").glob("*/*_nohash_*.wav")))
    assert 0 < done < 16
    monkeypatch.setattr(script, "clip", lambda *arguments: calls.append(arguments) or real(*arguments))
    calls.clear()
    assert script.main([str(tmp_path / "again"), *small]) == 0
    assert len(calls) == 16 - done and files_of(tmp_path / "again") == files_of(tmp_path / "whole")
    monkeypatch.setattr(script, "clip", killed)
    (tmp_path / "other.part").mkdir()
    (tmp_path / "other.part" / "thesis.txt").write_text("mine")
    assert script.main([str(tmp_path / "other"), *small]) == 2 and (tmp_path / "other.part" / "thesis.txt").exists()
    assert "other.part: expected what an interrupted run left" in capsys.readouterr().err


def test_voices_are_fixed_by_the_seed_and_differ():
    people = script.speakers(0, 40)
    assert people == script.speakers(0, 40) and people[:20] == script.speakers(0, 20)
    assert len({p.name for p in people}) == 40 and script.speakers(1, 40) != people
    assert Counter(p.split for p in people) == {"training": 32, "validation": 4, "testing": 4}


def test_wrong_arguments_and_no_espeak(tmp_path, monkeypatch, capsys):
    for arguments in (
        ["--words", "../up"],
        ["--per-class", "7"],
        ["--speakers", "9"],
        ["--seed", "-1"],
        ["--seed", "x"],
    ):
        with pytest.raises(SystemExit) as caught:
            script.main([str(tmp_path / "x"), *arguments])
        assert caught.value.code == 2
    capsys.readouterr()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.main([str(tmp_path / "x")]) == 2
    assert "espeak-ng: expected to be installed" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_words_are_those_of_the_set():
    assert WORDS["v0.02"] == script.WORDS
