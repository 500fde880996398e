"""Archives of a few bytes in the layouts of the official ones."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from datasets.preparing.sets import ENTRIES
from datasets.preparing.stamps import STAMP
from tests.datasets.prepare_driver import toy_entry

CIFAR = {
    f"cifar-10-batches-py/{name}": np.random.default_rng(seed).bytes(60_000)
    for seed, name in enumerate(
        (
            "data_batch_1",
            "data_batch_2",
            "data_batch_3",
            "data_batch_4",
            "data_batch_5",
            "test_batch",
            "batches.meta",
            "readme.html",
        )
    )
}


def tar(files, compress=True):
    """A .tar(.gz) of {path: bytes}, folders first, as GNU tar writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            member = tarfile.TarInfo(folder)
            member.type, member.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(member)
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1) if compress else buffer.getvalue()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def md5(data):
    return hashlib.md5(data).hexdigest()


def cifar(data):
    return toy_entry(ENTRIES["cifar10"], {"cifar-10-python.tar.gz": md5(data)})


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != STAMP
    }
