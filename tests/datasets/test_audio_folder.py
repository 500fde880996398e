"""Your own recordings: any rate and length, classes that must agree, background of your own."""

import json
import shutil

import numpy as np
import pytest
import torch

import datasets
from randomix.errors import ConfigError, DataError
from tests.datasets.sounds import tone, wav_bytes

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mine"
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("bark", "meow")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                sound = tone(100 * label + number + len(split), 1_200)
                (root / split / name / f"{number}.wav").write_bytes(wav_bytes(sound, rate=8_000))
    return root


def build(root, **options):
    return datasets.build({"name": "audio_folder", "root": str(root), "sample_rate": 8_000, "seconds": 0.15, **options})


def test_folders_are_classes(folder):
    (folder / "train" / "bark" / "notes.txt").write_text("ignored")
    (folder / "train" / ".hidden").mkdir()
    data = build(folder)
    assert data.class_names == ("bark", "meow") and data.splits == ("test",) and data.input_shape == (1, 1_200)
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4 and data.noise is None and data.shift == 800
    for index in range(8):
        assert np.array_equal(data.train[index : index + 1][0, :, 0], tone(100 * (index // 4) + index % 4 + 5, 1_200))
    batch = next(data.eval_set(CPU).batches(4))
    assert torch.equal(batch.inputs[3, 0], torch.from_numpy(tone(105, 1_200) / np.float32(32768)))
    assert batch.labels.tolist() == [0, 0, 1, 1]
    description = data.describe()
    assert description["source"] == "folder of recordings" and description["synthetic"] is False
    assert json.loads(json.dumps(description)) == description and str(folder) not in json.dumps(description)


def test_features_follow_rate_and_length(folder):
    data = build(folder, features="log_mel")
    assert data.sample_shape == (1, 32, 3)
    (batch,) = data.train_loader(batch_size=8, seed=0, rank=0, world_size=1, device=CPU, dtype=torch.float32).batches(
        0, 1
    )
    assert batch.inputs.shape == (8, 1, 32, 3) and batch.inputs.isfinite().all()
    assert build(folder, seconds=0.2).describe()["clips"]["padded"] == 12
    assert build(folder, seconds=0.1).describe()["clips"]["cut"] == 12
    assert build(folder, seconds=1.0 / 8_000).input_shape == (1, 1)


def test_a_validation_folder_and_other_names(folder):
    (folder / "test").rename(folder / "validation")
    with pytest.raises(DataError, match=r"mine/test: expected a folder with one folder a class"):
        build(folder)
    assert build(folder, test_folder="validation").splits == ("test",)
    (folder / "train").rename(folder / "lessons")
    for other in ("lessons", "./lessons/"):
        with pytest.raises(ConfigError, match=r"dataset.train_folder=lessons and .* are one folder"):
            build(folder, test_folder=other, train_folder="lessons")
    assert build(folder, train_folder="lessons", test_folder="./validation").splits == ("test",)
    shutil.copytree(folder / "validation", folder / "test")
    data = build(folder, train_folder="lessons")
    assert data.splits == ("test", "validation") and len(data.held_out["validation"]) == 4


def test_background_of_your_own(folder):
    with pytest.raises(DataError, match=r"_background_noise_: expected recordings .* dataset.background_prob=0"):
        build(folder, background_prob=0.5)
    (folder / "_background_noise_").mkdir()
    (folder / "_background_noise_" / "street.wav").write_bytes(wav_bytes(tone(7, 1_199), rate=8_000))
    with pytest.raises(DataError, match="expected recordings of 1200 samples or more, found at most 1199"):
        build(folder, background_prob=0.5)
    (folder / "_background_noise_" / "street.wav").write_bytes(wav_bytes(tone(7, 3_000), rate=8_000))
    noise = build(folder, background_prob=0.5).noise
    assert len(noise) == 1_801 and np.array_equal(noise.samples, tone(7, 3_000))


def test_flac_beside_wav(folder):
    import soundfile

    soundfile.write(folder / "test" / "bark" / "0.FLAC", tone(1, 1_200), 8_000, format="FLAC", subtype="PCM_16")
    data = build(folder)
    assert data.num_test == 5 and any(np.array_equal(clip[:, 0], tone(1, 1_200)) for clip in data.held_out["test"][0:5])


def test_classes_must_agree(folder):
    (folder / "test" / "moo").mkdir()
    with pytest.raises(DataError, match=r"mine/test: expected the 2 classes of train, found also moo; make them agree"):
        build(folder)
    (folder / "test" / "moo").rmdir()
    (folder / "train" / "moo").mkdir()
    with pytest.raises(DataError, match=r"train/moo: expected recordings \(.wav, .*\), found none"):
        build(folder)
    (folder / "train" / "moo" / "0.wav").write_bytes(wav_bytes(tone(0, 1_200), rate=8_000))
    with pytest.raises(DataError, match=r"mine/test: expected the 3 classes of train, found no moo; make them agree"):
        build(folder)


def test_one_class_is_none(folder):
    for split in ("train", "test"):
        (folder / split / "meow").rename(folder / f"{split}-meow")
    with pytest.raises(DataError, match=r"mine/train: expected folders of 2 classes or more, found 1"):
        build(folder)


def test_bad_recordings(folder):
    (folder / "test" / "bark" / "1.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"test/bark/1.wav: expected a recording, found an empty file"):
        build(folder)
    data = build(folder, on_bad_sample="skip", max_bad_share=0.5)
    assert data.num_test == 3 and data.held_out["test"].labels.tolist() == [0, 1, 1] and data.num_train == 8
    assert np.array_equal(data.held_out["test"][2:3][0, :, 0], tone(105, 1_200))
    (folder / "train" / "bark" / "1.wav").write_bytes(b"")
    data = build(folder, on_bad_sample="skip", max_bad_share=0.5)
    assert np.array_equal(data.held_out["test"][0:1][0, :, 0], tone(4, 1_200)) and data.num_train == 7
    (folder / "test" / "bark" / "0.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"expected recordings of every class in test, found only bad ones of bark"):
        build(folder, on_bad_sample="skip", max_bad_share=0.5)


def test_wrong_options(folder):
    with pytest.raises(
        ConfigError, match=r"dataset.root is null, expected the folder of your recordings, with train and"
    ):
        datasets.build({"name": "audio_folder"})
    with pytest.raises(ConfigError, match=r"dataset.silence is not an option of audio_folder"):
        build(folder, silence="zeros")
    with pytest.raises(ConfigError, match=r"dataset.sample_rate is 44.1, expected a number of Hz >= 1000"):
        build(folder, sample_rate=44.1)
    with pytest.raises(ConfigError, match=r"dataset.seconds gives clips of 800 samples at 8000 Hz"):
        build(folder, features="log_mel", seconds=0.1)
    with pytest.raises(ConfigError, match=r"dataset.seconds is 1e-05, less than one sample at 8000 Hz"):
        build(folder, seconds=1e-5)
