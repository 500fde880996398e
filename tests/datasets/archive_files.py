"""Archives to unpack, written member by member, and the check that a bad one leaves no trace."""

import gzip
import io
import tarfile
import zipfile

import pytest

from datasets.preparing.archives import extract
from randomix.errors import DataError

FILES = {"set/a.txt": b"alpha", "set/deep/er/b.bin": bytes(range(256)) * 40, "set/empty": b"", "set/ü.txt": b"umlaut"}
LIMITS = {"max_bytes": 10**6, "max_members": 50}


def header(name, size=0, kind=tarfile.REGTYPE, link="", mode=0o644):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname, member.mode = size, kind, link, mode
    return member


def tar_bytes(members, form=tarfile.PAX_FORMAT):
    """A tar of (TarInfo, content) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def file_pairs(files):
    return [(header(name, len(content), mode=0o4777), content) for name, content in files.items()]


def write_archive(path, files):
    """The files in the format that the name says, folders before them, in the way common tools write it."""
    name = path.name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.mkdir("set")
            for member, content in files.items():
                archive.writestr(member, content)
    else:
        data = tar_bytes(
            [(header("./", kind=tarfile.DIRTYPE), b""), (header("set", kind=tarfile.DIRTYPE), b""), *file_pairs(files)]
        )
        path.write_bytes(gzip.compress(data, 1) if name.lower().endswith("gz") else data)
    return path


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(archive, message, **changes):
    """The archive is refused in one line that names it, and nothing exists but what did before."""
    outside = archive.parent
    before = {path: path.lstat().st_mtime_ns for path in outside.rglob("*") if not path.is_dir()}
    target = outside / "out" / "target"
    with pytest.raises(DataError) as caught:
        extract(archive, target, **LIMITS | changes)
    text = str(caught.value)
    assert message in text and str(archive) in text and "\n" not in text, text
    assert {path: path.lstat().st_mtime_ns for path in outside.rglob("*") if not path.is_dir()} == before
    assert not target.exists() and not (outside / "out" / "target.part").exists()
    return text
