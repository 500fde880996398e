"""Forty inputs that are wrong or malicious, each put where a user would have it, and the line that comes of it.

    python tests/datasets/bad_inputs.py > docs/refused_data.md

makes the list in docs/; a test compares it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import re
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import datasets
from datasets.preparing import prepare
from datasets.preparing.sets import ENTRIES
from randomix.errors import RunError
from scripts.bench import made_sets
from tests.datasets.prepare_driver import toy_entry
from tests.datasets.sounds import fmt, riff, tone, wav_bytes

CASES: dict[str, tuple[str, Callable[[Path], None]]] = {}
ARCHIVE = "cifar-10-python.tar.gz"
OF_OTHERS = [
    (r"found [0-9a-f]{32}", "found ..."),
    (r"found: image file is truncated[^;]*", "found: ..."),
    (r"found damage \([^;]*\);", "found damage (...);"),
    (r"found Error opening .*; replace", "found ...; replace"),
]


def case(what: str, kind: str) -> Callable[[Callable[[Path], None]], None]:
    """Register a case; its function makes the input in a folder and uses it."""

    def register(attempt: Callable[[Path], None]) -> None:
        assert what not in CASES, what
        CASES[what] = kind, attempt

    return register


def build(name: str, root: Path, **options: Any) -> None:
    """The data set as train.py makes it."""
    datasets.build({"name": name, "root": str(root), **options})


def line(attempt: Callable[[Path], None], folder: Path) -> str:
    """What a user reads, with ROOT for ``folder``; raises AssertionError if nothing is refused.

    What other libraries say, and digests and sizes of what they wrote, is left out: it changes with their versions.
    """
    try:
        attempt(folder)
    except RunError as error:
        text = str(error).replace(str(folder), "ROOT").replace(str(folder.parent), "FOLDER")
        for pattern, shown in OF_OTHERS:
            text = re.sub(pattern, shown, text)
        return text
    raise AssertionError("nothing was refused")


class Pwned:
    """Runs a command that leaves a file, wherever it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.folder.parent / 'PWNED'}",)


# --- Archives and downloads ------------------------------------------------------------------------------------------


def downloaded(root: Path, data: bytes, digest: str | None = None) -> None:
    """Prepare CIFAR-10 from a mirror with ``data`` for its archive; digest: the expected one, its own by default."""
    mirror = root / "mirror"
    mirror.mkdir(parents=True)
    (mirror / ARCHIVE).write_bytes(data)
    entry = toy_entry(ENTRIES["cifar10"], {ARCHIVE: digest or hashlib.md5(data).hexdigest()})
    prepare.run(entry, root / "data", url=mirror.as_uri())


def tar_gz(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> bytes:
    """An archive with one good member and this one."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        readme = tarfile.TarInfo("cifar-10-batches-py/readme.html")
        for member, data in ((readme, b"good"), (tarfile.TarInfo(name), content)):
            member.size = len(data)
            if data is content:
                member.type, member.linkname = kind, link
                member.size = size or (len(data) if kind == tarfile.REGTYPE else 0)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


GOOD = tar_gz("cifar-10-batches-py/data_batch_1", bytes(20_000))
MEMBERS = {
    "a member ../outside": tar_gz("../outside"),
    "an absolute member": tar_gz("/tmp/outside"),
    "a symbolic link": tar_gz("cifar-10-batches-py/link", kind=tarfile.SYMTYPE, link="/etc"),
    "a hard link": tar_gz("cifar-10-batches-py/link", kind=tarfile.LNKTYPE, link="/etc/passwd"),
    "a device": tar_gz("cifar-10-batches-py/null", kind=tarfile.CHRTYPE),
    "a fifo": tar_gz("cifar-10-batches-py/pipe", kind=tarfile.FIFOTYPE),
    "the same member twice": tar_gz("cifar-10-batches-py/readme.html", b"other"),
    "a bomb: 64 MiB of zeros in 64 KiB": tar_gz("cifar-10-batches-py/zeros", bytes(2**26)),
    "an archive cut in the middle": GOOD[: len(GOOD) // 2],
    "a page of HTML in place of the archive": b"<!DOCTYPE html><html><body>Sign in</body></html>" * 40,
    "an empty file in place of the archive": b"",
    "an archive without the files it should have": GOOD,
}
for what, data in MEMBERS.items():
    case(what, "archive")(lambda root, data=data: downloaded(root, data))


@case("an archive with another MD5", "archive")
def _(root: Path) -> None:
    downloaded(root, GOOD, "c58f30108f718f92721af3b95e74349a")


@case("an address that does not answer", "archive")
def _(root: Path) -> None:
    prepare.run(ENTRIES["cifar10"], root, url=(root / "nowhere").as_uri())


@case("a zip member ../outside", "archive")
def _(root: Path) -> None:
    (root / "mirror").mkdir(parents=True)
    with zipfile.ZipFile(root / "mirror" / "tiny-imagenet-200.zip", "w") as archive:
        archive.writestr("../outside", "x")
    digest = hashlib.md5((root / "mirror" / "tiny-imagenet-200.zip").read_bytes()).hexdigest()
    entry = toy_entry(ENTRIES["tiny_imagenet"], {"tiny-imagenet-200.zip": digest})
    prepare.run(entry, root / "data", url=(root / "mirror").as_uri())


# --- CIFAR -----------------------------------------------------------------------------------------------------------


def cifar(root: Path, file: str, change: Callable[[dict[str, Any]], Any], verify: bool = False) -> None:
    """CIFAR-10 with one changed file; what ``change`` returns is pickled."""
    made_sets.cifar10(root, 50)
    path = root / "cifar-10-batches-py" / file
    changed = change(pickle.loads(path.read_bytes()))
    path.write_bytes(changed if isinstance(changed, bytes) else pickle.dumps(changed, protocol=2))
    build("cifar10", root, verify=verify)


@case("no data at all", "CIFAR")
def _(root: Path) -> None:
    root.mkdir(parents=True)
    build("cifar10", root)


@case("batches that are not the official ones", "CIFAR")
def _(root: Path) -> None:
    cifar(root, "data_batch_3", lambda batch: batch, verify=True)


CHANGES: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "a pickle cut in the middle": ("test_batch", lambda b: pickle.dumps(b, 2)[:9000]),
    "a label of 10": ("data_batch_2", lambda b: b | {"labels": [10] * 10}),
    "fewer labels than images": ("data_batch_2", lambda b: b | {"labels": [1] * 9}),
    "images of 3,071 bytes": ("data_batch_1", lambda b: b | {"data": b["data"][:, 1:]}),
    "images of numbers with fractions": ("data_batch_1", lambda b: b | {"data": b["data"].astype(float)}),
    "images that are Python objects": ("data_batch_1", lambda b: b | {"data": b["data"].astype(object)}),
    "a batch without labels": ("data_batch_4", lambda b: {"data": b["data"]}),
}
for what, (file, change) in CHANGES.items():
    case(what, "CIFAR")(lambda root, file=file, change=change: cifar(root, file, change))


@case("a pickle that runs a command", "CIFAR")
def _(root: Path) -> None:
    cifar(root, "data_batch_1", lambda batch: batch | {"labels": Pwned(root)})


# --- Tiny-ImageNet ---------------------------------------------------------------------------------------------------


def tiny(root: Path, change: Callable[[Path], Any], verify: bool = False) -> None:
    """Two classes of Tiny-ImageNet after ``change(folder)``."""
    made_sets.tiny_imagenet(root, 2, 3)
    change(root / "tiny-imagenet-200")
    build("tiny_imagenet", root, verify=verify)


def first(folder: Path, pattern: str) -> Path:
    """The first file of a pattern."""
    return sorted(folder.glob(pattern))[0]


def cut(path: Path) -> None:
    """Leave the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(path: Path) -> None:
    """The picture, smaller."""
    from PIL import Image

    with Image.open(path) as image:
        small = image.resize((32, 32))
    small.save(path)


def empty(folder: Path) -> None:
    """No file in the folder any more."""
    for path in folder.iterdir():
        path.unlink()


TINY: dict[str, tuple[bool, Callable[[Path], Any]]] = {
    "two classes where there should be 200": (True, lambda f: None),
    "val/ without its annotations": (False, lambda f: (f / "val" / "val_annotations.txt").unlink()),
    "an annotated image that is not there": (False, lambda f: first(f, "val/images/*").unlink()),
    "a class without images": (False, lambda f: empty(first(f, "train/*") / "images")),
    "a JPEG cut in the middle": (False, lambda f: cut(first(f, "train/*/images/*"))),
    "a text in place of a JPEG": (False, lambda f: first(f, "train/*/images/*").write_text("not a picture")),
    "an image of 32 x 32": (False, lambda f: other_size(first(f, "train/*/images/*"))),
}
for what, (verify, change) in TINY.items():
    case(what, "Tiny-ImageNet")(lambda root, verify=verify, change=change: tiny(root, change, verify))


# --- ImageNet --------------------------------------------------------------------------------------------------------


def imagenet(root: Path, change: Callable[[Path], Any], verify: bool = False) -> None:
    """Two class folders of ImageNet after ``change(folder)``, read as far as a first batch."""
    import torch

    made_sets.imagenet(root, 2, 3, height=40, width=48)
    change(root / "imagenet")
    config = {"name": "imagenet", "root": str(root), "verify": verify, "image_size": 32, "workers": 0}
    data = datasets.build(config)
    device = torch.device("cpu")
    loader = data.train_loader(batch_size=6, seed=0, rank=0, world_size=1, device=device, dtype=torch.float32)
    next(loader.batches(0, 1))


IMAGENET: dict[str, tuple[bool, Callable[[Path], Any]]] = {
    "two classes where there should be 1,000": (True, lambda f: None),
    "a class of train/ that val/ lacks": (
        False,
        lambda f: shutil.copytree(first(f, "train/*"), f / "train" / "n99999999"),
    ),
    "an empty class folder": (False, lambda f: empty(first(f, "train/*"))),
    "a JPEG cut in the middle, while training": (False, lambda f: cut(first(f, "train/*/*"))),
}
for what, (verify, change) in IMAGENET.items():
    case(what, "ImageNet")(lambda root, verify=verify, change=change: imagenet(root, change, verify))


@case("shards from a command", "ImageNet")
def _(root: Path) -> None:
    build("imagenet", root, shards=f"pipe:touch {root.parent / 'PWNED'}", verify=False)


# --- Sound -----------------------------------------------------------------------------------------------------------


def speech(root: Path, clip: bytes | None = None, change: Callable[[Path], Any] | None = None) -> None:
    """Speech Commands with one clip in place of another."""
    made_sets.speech_commands(root, 5)
    folder = root / "SpeechCommands" / "speech_commands_v0.02"
    if clip is not None:
        (folder / "yes" / "00000004_nohash_0.wav").write_bytes(clip)
    if change is not None:
        change(folder)
    build("speech_commands", root, verify=False)


CLIPS = {
    "a stereo recording": wav_bytes(tone(0, 32_000), channels=2),
    "a recording at 8 kHz": wav_bytes(tone(0, 8_000), rate=8_000),
    "a WAV file of 0 bytes": b"",
    "a WAV file without sound": wav_bytes(np.zeros(0, np.int16)),
    "a header that announces more sound than there is": wav_bytes(tone(0))[:20_000],
    "an MP3 named .wav": b"ID3\x04" + bytes(4000),
    "a WAV file in a format that nobody knows": riff((b"fmt ", fmt(kind=0x9999, bits=8)), (b"data", bytes(16_000))),
}
for what, clip in CLIPS.items():
    case(what, "sound")(lambda root, clip=clip: speech(root, clip))


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


@case("a listed recording that is not there", "sound")
def _(root: Path) -> None:
    speech(root, change=lambda folder: _append(folder / "testing_list.txt", "yes/ffffffff_nohash_0.wav\n"))


@case("a list that points outside", "sound")
def _(root: Path) -> None:
    speech(root, change=lambda folder: _append(folder / "testing_list.txt", "../../../outside.wav\n"))


# --- The list in docs/ -----------------------------------------------------------------------------------------------


def collected() -> list[tuple[str, str, str]]:
    """(kind, what, line) of every case, paths shortened."""
    rows = []
    for what, (kind, attempt) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            rows.append((kind, what, line(attempt, Path(folder) / "root")))
    return rows


def markdown() -> str:
    """docs/refused_data.md."""
    rows = collected()
    lines = [
        "# What is refused, and what is said",
        "",
        f"{len(rows)} inputs that are damaged, misplaced or malicious. Each is made and used by a test "
        "(`tests/datasets/bad_inputs.py`), which",
        "checks that it ends in one line, that nothing of it is run and nothing is written outside of its folder.",
        "ROOT is the folder of the data.",
        "",
        "| Kind | Input | What train.py or prepare_data.py says |",
        "|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {k} | {w} | {t.replace('|', chr(92) + '|')} |" for k, w, t in rows)]) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
