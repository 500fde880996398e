"""ImageNet from its archives: a tar of tars, a flat tar, and the development kit that says what is of which class."""

import functools
import io
import signal
from pathlib import Path

import numpy as np
import pytest

from datasets.preparing import archives, prepare
from datasets.preparing import imagenet as prepare_imagenet
from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import read_stamp
from randomix.errors import DataError
from scripts import prepare_data
from tests.datasets.prepare_driver import toy_entry
from tests.datasets.toy_archives import contents, md5, tar

LEAVES = {1: ("n02119789", 3), 2: ("n02100735", 2), 3: ("n02110185", 4)}  # number: WordNet ID, training images
TRUTH = (3, 1, 3, 2, 1)
KIT, VAL, TRAIN = "ILSVRC2012_devkit_t12.tar.gz", "ILSVRC2012_img_val.tar", "ILSVRC2012_img_train.tar"
FIELDS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")


plain = functools.partial(tar, compress=False)


def image(*key):
    return np.random.default_rng(key).bytes(1000)


def kit_files(leaves=LEAVES, truth=TRUTH):
    """meta.mat with its array of structures, an inner node after the leaves as in the official file, and the truth."""
    from scipy.io import savemat

    rows = [(number, wnid, "kit fox", "a fox", 0, np.zeros(0), 0, count) for number, (wnid, count) in leaves.items()]
    rows.append((1001, "n00001740", "entity", "what is", 3, np.array([1.0, 2.0, 3.0]), 19, 0))
    synsets = np.empty((len(rows), 1), dtype=[(field, object) for field in FIELDS])
    for place, row in enumerate(rows):
        synsets[place, 0] = row
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data"
    return {
        f"{data}/meta.mat": buffer.getvalue(),
        f"{data}/ILSVRC2012_validation_ground_truth.txt": "".join(f"{n}\n" for n in truth).encode(),
        "ILSVRC2012_devkit_t12/readme.txt": b"read me",
    }


def train_files():
    return {
        wnid: {f"{wnid}_{n}.JPEG": image(number, n) for n in range(count)} for number, (wnid, count) in LEAVES.items()
    }


def val_files():
    return {f"ILSVRC2012_val_{n:08d}.JPEG": image(9, n) for n in range(1, len(TRUTH) + 1)}


@pytest.fixture
def published(tmp_path):
    """The three archives in the data set's folder, with the entry that has their checksums."""
    data = {
        KIT: tar(kit_files()),
        VAL: plain(val_files()),
        TRAIN: plain({f"{wnid}.tar": plain(files) for wnid, files in train_files().items()}),
    }
    return put(tmp_path, data)


def put(root, data):
    (root / "imagenet").mkdir(exist_ok=True)
    for name, content in data.items():
        (root / "imagenet" / name).write_bytes(content)
    return (
        root,
        toy_entry(
            ENTRIES["imagenet"], {name: md5(content) for name, content in data.items()}, counts={"train": 9, "val": 5}
        ),
        data,
    )


def run(root, entry, **options):
    return prepare.run(entry, root, say=lambda line: None, **options)


def check(root):
    assert contents(root / "imagenet" / "train") == {
        f"{wnid}/{name}": data for wnid, files in train_files().items() for name, data in files.items()
    }
    names = zip(TRUTH, val_files().items(), strict=True)
    assert contents(root / "imagenet" / "val") == {
        f"{LEAVES[number][0]}/{name}": data for number, (name, data) in names
    }
    assert not list(root.rglob("*.part"))


def test_class_folders(published):
    root, entry, data = published
    report = run(root, entry)
    check(root)
    assert (report.files, report.bytes, len(report.kept)) == (14, 14_000, 3)
    assert read_stamp(root / "imagenet" / "val").archives == {VAL: f"md5:{md5(data[VAL])}"}
    assert run(root, entry) == report == run(root, entry, verify_only=True)
    (root / "imagenet" / "train" / "n02119789" / "n02119789_0.JPEG").unlink()
    with pytest.raises(DataError, match=r"train/: expected 3 files of 3000 bytes in n02119789/, found 2 of 2000"):
        run(root, entry, verify_only=True)
    run(root, entry)
    check(root)


def test_interrupted_between_classes(published, monkeypatch):
    """Classes that were done stay; one that was half done, or is empty after a power cut, is done again."""
    root, entry, _ = published
    unpack_tar, seen = archives.unpack_tar, []

    def stop_at_the_third(stream, tree, *arguments):
        if tree.folder.parent.name == "train.part":
            seen.append(tree.folder.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        unpack_tar(stream, tree, *arguments)

    monkeypatch.setattr(archives, "unpack_tar", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(root, entry)
    part = root / "imagenet" / "train.part"
    assert sorted(path.name for path in part.iterdir()) == ["n02100735", "n02119789"]
    assert not (root / "imagenet" / "train").exists() and (root / "imagenet" / "val").is_dir()
    (part / "n02119789" / "n02119789_1.JPEG").write_bytes(b"")
    (part / "n02110185.part").mkdir()  # as kill -9 leaves it
    (part / "n02110185.part" / "half.JPEG").write_bytes(b"half")
    run(root, entry)
    assert seen[3:] == ["n02119789.part", "n02110185.part"]
    check(root)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def cut(folder):
    (path := sorted(folder.iterdir())[1]).write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    "damage",
    [
        empty,
        cut,
        lambda folder: sorted(folder.iterdir())[0].unlink(),
        lambda folder: sorted(folder.iterdir())[0].rename(folder / "n02119789_x.JPEG"),
        lambda folder: (folder / "more.JPEG").write_bytes(b"x"),
        lambda folder: (empty(folder), folder.rmdir(), folder.write_bytes(b"")),
        lambda folder: folder.rename(folder.with_name("n00000009")),
    ],
    ids=["emptied", "cut", "missing", "renamed", "added", "a file", "another class"],
)
def test_classes_as_a_power_cut_leaves_them(published, monkeypatch, damage):
    """The same command does the damaged class again, and no other one, and only then gives the tree its stamp."""
    root, entry, _ = published
    part = root / "imagenet" / "train.part"
    run(root, entry)
    part.with_name("train").rename(part)
    damage(part / "n02119789")
    unpack_tar, done = archives.unpack_tar, []
    monkeypatch.setattr(
        archives, "unpack_tar", lambda *arguments: (done.append(arguments[1].folder.name), unpack_tar(*arguments))
    )
    run(root, entry)
    assert done == ["n02119789.part"]
    check(root)
    assert run(root, entry, verify_only=True).files == 14


def test_never_stamped_with_other_sizes(published, monkeypatch):
    """A file of a class that was done loses half of its content before the last class is."""
    root, entry, _ = published
    unpack_tar = archives.unpack_tar

    def cut_the_first(stream, tree, *arguments):
        unpack_tar(stream, tree, *arguments)
        if tree.folder.name == "n02110185.part":
            cut(tree.folder.with_name("n02119789"))

    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack_tar", cut_the_first)
        with pytest.raises(DataError, match=r"n02119789: expected the files and sizes that .* check the disk, then"):
            run(root, entry)
    assert not (root / "imagenet" / "train").exists() and not list(root.rglob("train.part/.prepared.json"))
    run(root, entry)
    check(root)


def test_missing_and_other_archives(tmp_path, published):
    root, entry, data = published
    (root / "imagenet" / TRAIN).rename(root / TRAIN)  # the root itself is looked in as well
    (root / "imagenet" / VAL).unlink()
    with pytest.raises(
        DataError, match=rf"{VAL}: not found in .*account; get it from https://image-net.org.*then run: "
    ):
        run(root, entry)
    (root / VAL).write_bytes(b"<html>403</html>")
    with pytest.raises(DataError, match=r"img_val.tar: expected md5 .*16 bytes, a file that starts with \"<html>403"):
        run(root, entry)
    assert not (root / "imagenet" / "train").exists()
    (root / VAL).write_bytes(data[VAL])
    run(root, entry)
    check(root)


def changed(root, name, content):
    """The message for archives one of which is another, with the right checksum."""
    _, _, data = put(
        root,
        {
            KIT: tar(kit_files()),
            VAL: plain(val_files()),
            TRAIN: plain({f"{w}.tar": plain(files) for w, files in train_files().items()}),
        },
    )
    _, entry, _ = put(root, data | {name: content})
    with pytest.raises(DataError) as caught:
        run(root, entry)
    assert "\n" not in str(caught.value) and not list((root / "imagenet").glob("*.part/*.part"))
    return str(caught.value)


def test_archives_are_deleted_once_both_splits_are_whole(published, monkeypatch, capsys):
    root, entry, data = published
    lines = []
    (root / "imagenet" / TRAIN).write_bytes(data[TRAIN][:-1] + b"x")
    with pytest.raises(DataError, match=rf"{TRAIN}: expected md5"):
        run(root, entry, keep_archive=False)
    assert {KIT, VAL, TRAIN} <= {path.name for path in (root / "imagenet").iterdir()}
    (root / "imagenet" / TRAIN).write_bytes(data[TRAIN])
    (root / VAL).write_bytes(data[VAL])  # a second copy
    (root / KIT).write_bytes(b"mine")
    (root / "mine.tar").write_bytes(b"mine")
    run(root, entry, keep_archive=False)
    check(root)
    assert sorted(path.name for path in (root / "imagenet").iterdir()) == ["ILSVRC2012_devkit_t12", "train", "val"]
    assert sorted(path.name for path in root.iterdir() if path.is_file() and path.name[0] != ".") == [KIT, "mine.tar"]
    prepare.run(entry, root, keep_archive=False, say=lines.append)
    assert [line.partition(" found ")[0] for line in lines] == [f"{root / KIT}: kept; expected md5 {md5(data[KIT])},"]
    (root / KIT).unlink()
    monkeypatch.setitem(ENTRIES, "imagenet", entry)
    monkeypatch.setattr(signal, "signal", lambda *arguments: None)
    put(root, data)
    arguments = ["imagenet", "--root", str(root), "--no-keep-archive"]
    assert prepare_data.main([*arguments, "--verify"]) == 0 and (root / "imagenet" / TRAIN).exists()
    assert prepare_data.main(arguments) == 0 and not list((root / "imagenet").glob("*.tar*"))
    assert "can be deleted" not in capsys.readouterr().out.splitlines()[-1]
    assert prepare_data.main(arguments) == 0 == prepare_data.main([*arguments, "--verify"])


def test_content_that_does_not_fit(tmp_path):
    classes = {f"{wnid}.tar": plain(files) for wnid, files in train_files().items()}
    cases = {
        "truth": (KIT, tar(kit_files(truth=(1, 2, 3))), "expected lists of 5 val images, found 3"),
        "count": (KIT, tar(kit_files(LEAVES | {3: ("n02110185", 5)})), "expected lists of 9 train images, found 10"),
        "class": (KIT, tar(kit_files(truth=(1, 2, 3, 1001, 1))), "expected classes that meta.mat lists, found 1001"),
        "name": (KIT, tar(kit_files(LEAVES | {3: ("../../x", 4)})), "names that are not WordNet IDs"),
        "mat": (
            KIT,
            tar(kit_files() | {"ILSVRC2012_devkit_t12/data/meta.mat": b"MATLAB 5.0"}),
            "expected the lists of",
        ),
        "val": (VAL, plain(val_files() | {"ILSVRC2012_val_00000006.JPEG": b"x"}), "00000001.JPEG to 5"),
        "fewer": (VAL, plain(dict(list(val_files().items())[1:])), "images of n02110185, found 1"),
        "no class": (TRAIN, plain(classes | {"readme.txt": b""}), "expected one tar for each class"),
        "unknown": (TRAIN, plain(classes | {"n00000001.tar": b""}), "expected one tar for each class"),
        "missing": (TRAIN, plain({k: classes[k] for k in list(classes)[:2]}), "images of n02110185, found 0"),
        "escape": (TRAIN, plain(classes | {"n02119789.tar": plain({"../x": b""})}), "leads out"),
        "folder": (TRAIN, plain(classes | {"n02119789.tar": plain({"a/x": b""})}), "found a folder"),
        "many": (TRAIN, plain(classes | {"n02119789.tar": plain(dict.fromkeys("abcdefg", b""))}), "at most 4 members"),
        "page": (TRAIN, b"<html>" * 200, "damage"),
        "cut": (TRAIN, plain(classes)[:9000], "damage"),
    }
    for case, (name, content, message) in cases.items():
        (root := tmp_path / case).mkdir()
        text = changed(root, name, content)
        assert message in text, (case, text)
        assert not list(tmp_path.glob("x")) and not list(root.glob("x"))


def test_the_kit_gives_what_torchvision_reads(tmp_path):
    """Class numbers are those without children; image n of val has the class in line n."""
    for name, content in kit_files().items():
        (path := tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    kit = prepare_imagenet.read_kit(tmp_path / Path(next(iter(kit_files()))).parts[0])
    assert kit.wnids == {number: wnid for number, (wnid, _) in LEAVES.items()} and kit.val_classes == TRUTH
    assert kit.train_images == dict(LEAVES.values())
