"""Published corrupted test sets: what is read, and what is found out about damaged files before any work."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import datasets
from datasets.corrupted import published
from randomix.engine.runfolder import RunFolder
from randomix.errors import ConfigError, DataError
from randomix.records import identity
from randomix.robustness.corruptions import CORRUPTIONS
from randomix.robustness.evaluators import check_evaluators
from randomix.runs.build import run_training
from tests.datasets.corrupted_files import NAMES, clean_cifar, corrupted_cifar
from tests.support import tiny_config

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No data of this machine; every line can be said again."""
    monkeypatch.setenv("RANDOMIX_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(published, "_said", set())


@pytest.fixture
def cifar(tmp_path):
    """The settings of a toy CIFAR-10 with its CIFAR-10-C beside it, that folder, and its arrays."""
    config = clean_cifar(tmp_path)
    data = datasets.build(config)
    folder = tmp_path / "CIFAR-10-C"
    return config, folder, corrupted_cifar(folder, data.test_images, data.test_labels)


def check(config, names=NAMES, **options):
    check_evaluators(["corruptions"], {"corruptions": {"names": list(names), **options}}, datasets.build(config))


def test_the_images_of_each_severity(cifar):
    config, _, arrays = cifar
    data = datasets.build(config | {"train_size": 10})
    for name in NAMES:
        for severity in range(1, 6):
            found = data.corrupted_set(CPU, name, severity, source="official")
            (batch,) = found.batches(100)
            wanted = arrays[name].reshape(5, 20, 32, 32, 3)[severity - 1]
            assert np.array_equal((batch.inputs * 255).round().permute(0, 2, 3, 1).numpy().astype(np.uint8), wanted)
            assert np.array_equal(batch.labels, data.test_labels) and batch.indices.tolist() == list(range(20))


def save(folder, name, array):
    (folder / f"{name}.npy").unlink(missing_ok=True)
    np.save(folder / f"{name}.npy", array, allow_pickle=True)


def cut(folder, arrays):
    path = folder / "fog.npy"
    path.write_bytes(path.read_bytes()[:-1000])


def objects(folder, arrays):
    save(folder, "fog", np.array([{"a": 1}, None], dtype=object))


def unlike(folder, arrays):
    """The clean images at severity 3."""
    fog = arrays["fog"].copy()
    fog[40:60] = datasets.build({"name": "cifar10", "root": str(folder.parent), "verify": False}).test_images
    save(folder, "fog", fog)


DAMAGE = {
    "missing": (lambda folder, arrays: (folder / "fog.npy").unlink(), r"CIFAR-10-C: missing fog.npy; run: python "),
    "no labels": (lambda folder, arrays: (folder / "labels.npy").unlink(), "CIFAR-10-C: missing labels.npy; run"),
    "truncated": (cut, r"fog.npy: expected a whole .npy file of numbers, found mmap length"),
    "empty": (lambda folder, arrays: (folder / "fog.npy").write_bytes(b""), "fog.npy: expected a whole .npy file"),
    "dtype": (
        lambda folder, arrays: save(folder, "fog", arrays["fog"].astype(np.float32)),
        r"fog.npy: expected uint8 of shape \(100, 32, 32, 3\).*found float32",
    ),
    "other labels": (
        lambda folder, arrays: save(folder, "labels", (arrays["labels"] + 1) % 10),
        r"labels.npy: expected the labels of the clean test images, five times over, found \d instead of",
    ),
    "objects": (objects, "fog.npy: expected a whole .npy file of numbers, found .*[Oo]bject"),
    "a row less": (
        lambda folder, arrays: save(folder, "fog", arrays["fog"][:-1]),
        r"fog.npy: expected uint8 of shape \(100, .*five severities of the 20 test images, found .*\(99, ",
    ),
    "shuffled labels": (
        lambda folder, arrays: save(folder, "labels", np.roll(arrays["labels"], 1)),
        r"labels.npy: expected the labels.*\d+ more differences, as of another set or another order",
    ),
    "severity order": (
        lambda folder, arrays: save(folder, "labels", np.repeat(arrays["labels"][:20], 5)),
        "labels.npy: expected the labels of the clean test images",
    ),
    "clean": (unlike, "fog.npy: expected corrupted images at severity 3, found the clean test images"),
    "archive": (lambda folder, arrays: (folder / "fog.npy").write_bytes(npz(arrays)), "fog.npy: expected a .npy file"),
}


def npz(arrays):
    import io

    buffer = io.BytesIO()
    np.savez(buffer, fog=arrays["fog"])
    return buffer.getvalue()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_one_line_before_any_work(tmp_path, cifar, damage):
    config, folder, arrays = cifar
    spoil, message = DAMAGE[damage]
    spoil(folder, arrays)
    run = tiny_config(tmp_path / "out", evaluator={"corruptions": {"names": list(NAMES)}}, evaluators=["corruptions"])
    run["dataset"] = config
    with pytest.raises(DataError, match=message) as caught:
        run_training(run, datasets.build, lambda config, **shape: pytest.fail("work began"))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert not RunFolder(identity.run_folder(run)).metrics.exists()


def test_labels_of_cifar10_in_cifar100_c(tmp_path):
    config = clean_cifar(tmp_path, "cifar100")
    data = datasets.build(config)
    corrupted_cifar(tmp_path / "CIFAR-100-C", data.test_images, data.test_labels % 10)
    with pytest.raises(DataError, match=r"CIFAR-100-C/labels.npy: expected the labels of the clean test images"):
        check(config)


def test_coarse_classes_are_tested_on_the_same_files(tmp_path):
    config = clean_cifar(tmp_path, "cifar100")
    data = datasets.build(config)
    corrupted_cifar(tmp_path / "CIFAR-100-C", data.test_images, data.test_labels)
    coarse = datasets.build(config | {"labels": "coarse"})
    assert coarse.check_corrupted(NAMES, [1, 5], source="official") == NAMES
    (batch,) = coarse.corrupted_set(CPU, "fog", 2, source="official").batches(100)
    assert np.array_equal(batch.labels, coarse.test_labels) and not np.array_equal(batch.labels, data.test_labels)


def test_a_foreign_file_is_named_and_not_used(cifar, capsys):
    config, folder, _ = cifar
    np.save(folder / "fgsm.npy", np.zeros(3))
    for _ in range(2):
        check(config)
    assert capsys.readouterr().err.count(f"note: {folder}: not part of CIFAR-10-C and not used: fgsm.npy\n") == 1


def test_missing_files_are_left_out_only_if_allowed(cifar, capsys):
    config, folder, _ = cifar
    with pytest.raises(DataError, match=r"missing frost.npy, zoom_blur.npy; run: .* cifar10_c .*allow_missing=true"):
        check(config, ["fog", "frost", "zoom_blur"])
    check(config, ["fog", "frost", "zoom_blur"], allow_missing=True)
    assert f"warning: {folder}: without frost, zoom_blur" in capsys.readouterr().err
    with pytest.raises(DataError, match="none of frost is there"):
        check(config, ["frost"], allow_missing=True)


def test_where_the_files_are_looked_for(tmp_path, cifar, monkeypatch):
    config, folder, _ = cifar
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    with pytest.raises(DataError, match=f"CIFAR-10-C: not found in {tmp_path} or {tmp_path}/data; run: python "):
        check(config)
    check(config | {"corrupted_root": str(elsewhere)})
    (tmp_path / "data").mkdir()
    elsewhere.rename(tmp_path / "data" / "CIFAR-10-C")
    check(config)
    with pytest.raises(DataError, match=f"not found in {tmp_path}/none; .* --root {tmp_path}/none, or set"):
        check(config | {"corrupted_root": str(tmp_path / "none")})


def test_sets_without_published_files_and_sound(tmp_path):
    for name in ("digits", "fake_images"):
        with pytest.raises(ConfigError, match=f"no corrupted test set of {name} was published; set .*=generated"):
            check({"name": name})
        check({"name": name}, source="generated")
        with pytest.raises(ConfigError, match="no corrupted test set of"):  # not another one in its place
            datasets.build({"name": name}).corrupted_set(CPU, "fog", 1, source="official")
    sound = SimpleNamespace(name="speech_commands", input_shape=(1, 16000))
    with pytest.raises(ConfigError, match=r"is for images \(C, H, W\); .* speech_commands are \(1, 16"):
        check_evaluators(["corruptions"], {}, sound)
    two = datasets.build({"name": "fake_images", "channels": 2})
    with pytest.raises(ConfigError, match=r"grey or colour images of 8 bits; .* uint8 of shape \(32, 32, 2\)"):
        check_evaluators(["corruptions"], {"corruptions": {"source": "generated"}}, two)


def test_wrong_settings_are_named(cifar):
    config, _, _ = cifar
    for options, message in [
        ({"names": ["foog"]}, "names has 'foog', expected all, standard or some of gaussian_noise, .*mean fog"),
        ({"names": ["foog", "frosty"]}, r"names has 'foog', 'frosty', .*; did you mean fog, frost\?$"),
        ({"names": "standart"}, r"did you mean standard\?$"),
        ({"names": "most"}, "names has 'most'"),
        ({"names": ["fog", "fog"]}, "names: expected one corruption or more, each once"),
        ({"source": "mine"}, "source is 'mine', expected official or generated"),
        ({"severities": [0, 1]}, "severities is"),
        ({"severities": []}, "severities is"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_evaluators(["corruptions"], {"corruptions": options}, datasets.build(config))


def test_the_names_are_those_of_the_archives():
    from datasets.preparing.sets import ENTRIES

    for entry in ("cifar10_c", "cifar100_c"):
        assert {name.removesuffix(".npy") for name in ENTRIES[entry].required} == {*CORRUPTIONS, "labels"}
