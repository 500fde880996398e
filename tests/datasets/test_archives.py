"""Unpacking: every kind of archive comes out as it went in, and nothing that is wrong or malicious leaves a trace."""

import gzip
import io
import os
import shutil
import stat
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datasets.preparing import archives
from datasets.preparing.archive_tree import below, clean_name
from datasets.preparing.archives import extract
from randomix.errors import DataError, StorageError
from tests.datasets.archive_files import FILES, LIMITS, contents, file_pairs, header, refused, tar_bytes, write_archive


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.zip", "X.TAR.GZ"])
def test_comes_out_as_it_went_in(tmp_path, name):
    archive, seen = write_archive(tmp_path / name, FILES), []
    extract(archive, tmp_path / "deep" / "out", **LIMITS, progress=seen.append)
    assert contents(tmp_path / "deep" / "out") == FILES
    assert seen == sorted(seen) and 0 < seen[-1] <= archive.stat().st_size
    extract(archive, tmp_path / "stripped", **LIMITS, place=below("set"))
    assert contents(tmp_path / "stripped") == {key[4:]: value for key, value in FILES.items()}
    for path in (tmp_path / "deep" / "out").rglob("*"):
        mode = path.stat().st_mode
        assert stat.S_IMODE(mode) == (0o755 if path.is_dir() else 0o644) and path.owner() == Path(tmp_path).owner()
    assert not list(tmp_path.rglob("*.part"))


def test_one_compressed_file(tmp_path):
    (tmp_path / "numbers.txt.gz").write_bytes(gzip.compress(b"1 2 3"))
    extract(tmp_path / "numbers.txt.gz", tmp_path / "out", **LIMITS)
    assert contents(tmp_path / "out") == {"numbers.txt": b"1 2 3"}
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(3_000_000)))
    refused(tmp_path / "bomb.gz", "goes on where the archive may give 1000000 bytes in all")


BAD_NAMES = {
    "../escape": "leads out of the folder",
    "set/../../escape": "leads out",
    "..": "leads out",
    "/tmp/escape": "absolute",
    "//escape": "absolute",
    "C:/escape": "absolute",
    "set\\..\\escape": "not written with /",
    "set/new\nline": "characters that no file needs",
    "set/\x1b[31m": "characters",
    "a" * 300: "too long",
    "/".join(["d" * 100] * 12): "too long",
}


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_elsewhere(tmp_path, kind, name):
    archive = tmp_path / f"x.{kind}"
    write_archive(archive, {"set/a.txt": b"fine", name: b"escaped"})
    assert "member" in refused(archive, BAD_NAMES[name])
    assert not (tmp_path / "escape").exists() and not Path("/tmp/escape").exists()


MEMBERS = {
    "symbolic link": (header("set/link", kind=tarfile.SYMTYPE, link="../../outside"), "a symbolic link"),
    "absolute symbolic link": (header("set/link", kind=tarfile.SYMTYPE, link="/etc/passwd"), "a symbolic link"),
    "inner symbolic link": (header("set/link", kind=tarfile.SYMTYPE, link="a.txt"), "a symbolic link"),
    "hard link": (header("set/link", kind=tarfile.LNKTYPE, link="set/a.txt"), "a hard link"),
    "outer hard link": (header("set/link", kind=tarfile.LNKTYPE, link="../secret"), "a hard link"),
    "character device": (header("set/null", kind=tarfile.CHRTYPE), "a device"),
    "block device": (header("set/disk", kind=tarfile.BLKTYPE), "a device"),
    "pipe": (header("set/pipe", kind=tarfile.FIFOTYPE), "a pipe"),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("kind", MEMBERS)
def test_tar_members_that_are_no_files(tmp_path, kind, compress):
    (tmp_path / "secret").write_text("untouched")
    (tmp_path / "outside").mkdir()
    member, message = MEMBERS[kind]
    data = tar_bytes([*file_pairs({"set/a.txt": b"fine"}), (member, b""), *file_pairs({"set/link/x": b"through"})])
    archive = tmp_path / ("x.tar.gz" if compress else "x.tar")
    archive.write_bytes(gzip.compress(data) if compress else data)
    assert "set/" in refused(archive, message)
    assert not list((tmp_path / "outside").iterdir()) and (tmp_path / "secret").read_text() == "untouched"


def sparse_header():
    """An old GNU sparse file of 4 KiB in one block."""
    raw = bytearray(header("set/sparse", 512).tobuf(tarfile.GNU_FORMAT))
    raw[156:157] = tarfile.GNUTYPE_SPARSE
    raw[386:410] = b"00000000000\0" + b"00000001000\0"
    raw[483:495] = b"00000010000\0"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw) + bytes(512)


def test_tar_headers_that_lie(tmp_path):
    good = tar_bytes(file_pairs({"set/a.txt": b"fine"}))[:1024]
    end = bytes(1024)
    huge_pax = header("pax", 2**34, kind=tarfile.XHDTYPE).tobuf(tarfile.GNU_FORMAT)
    huge_name = header("name", 2**34, kind=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT)
    negative = header("set/negative", -512).tobuf(tarfile.GNU_FORMAT)
    pax = header("set/pax", 5)
    pax.pax_headers = {"size": "-1024"}  # changes the size of the member
    pax_size = tar_bytes([(pax, b"12345")])
    for number, (data, message) in enumerate(
        (
            (good + huge_pax + end, "announces 17179869184 bytes"),
            (good + huge_name + end, "announces 17179869184 bytes"),
            (good + negative + end, "announces -512 bytes"),
            (pax_size, ""),
            (good + sparse_header() + end, "a sparse file"),
            (good + header("set/big", 2**40).tobuf(tarfile.GNU_FORMAT) + end, "announces 1099511627776 bytes where"),
        )
    ):
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(data)
        refused(archive, message)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_given_twice(tmp_path, kind):
    pairs = (
        [("set/a", b"1"), ("set/a", b"2")],
        [("set/a", b"1"), ("set/./a", b"2")],
        [("set/a", b"1"), ("set/A", b"2")],
        [("set/A/x", b"1"), ("set/a/y", b"2")],
        [("set/\u00e9", b"1"), ("set/e\u0301", b"2")],
        [("set/a", b"1"), ("set/a/b", b"2")],
        [("set/a/b", b"1"), ("set/a", b"2")],
    )
    for number, members in enumerate(pairs):
        archive = tmp_path / f"{number}.{kind}"
        if kind == "tar":
            archive.write_bytes(tar_bytes([(header(name, len(data)), data) for name, data in members]))
        else:
            with zipfile.ZipFile(archive, "w") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a duplicate name
                for name, data in members:
                    file.writestr(name, data)
        refused(archive, "as well")


def zip_with(path, mode=0, flags=0, method=zipfile.ZIP_STORED, name="set/x"):
    member = zipfile.ZipInfo(name)
    member.external_attr, member.compress_type = mode << 16, method
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("set/a.txt", b"fine")
        file.writestr(member, b"../../outside")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.rindex(signature) + offset
        data[place] |= flags
    path.write_bytes(data)
    return path


def test_zip_members_that_are_no_plain_files(tmp_path):
    refused(zip_with(tmp_path / "link.zip", mode=stat.S_IFLNK | 0o777), "a symbolic link")
    refused(zip_with(tmp_path / "pipe.zip", mode=stat.S_IFIFO | 0o644), "neither a file nor a folder")
    refused(zip_with(tmp_path / "device.zip", mode=stat.S_IFCHR | 0o644), "neither a file nor a folder")
    refused(zip_with(tmp_path / "secret.zip", flags=1), "encrypted")
    refused(zip_with(tmp_path / "lzma.zip", method=zipfile.ZIP_LZMA), "compression method 14 is not deflate")
    extract(zip_with(tmp_path / "fine.zip", mode=stat.S_IFREG | 0o4777), tmp_path / "fine", **LIMITS)
    assert stat.S_IMODE((tmp_path / "fine/set/x").stat().st_mode) == 0o644


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_bombs(tmp_path, kind):
    many = write_archive(tmp_path / f"many.{kind}", {f"set/{number}": b"" for number in range(60)})
    refused(many, "expected at most 50 members")
    large = write_archive(tmp_path / f"large.{kind}", {f"set/{n}": bytes(400_000) for n in range(3)})
    refused(large, "where the archive may give 1000000 bytes")
    if kind != "tar":
        ratio = write_archive(tmp_path / f"ratio.{kind}", {"set/zeros": bytes(30_000_000)})
        text = refused(ratio, "where the archive may give", max_bytes=10**9)
        assert f"may give {200 * ratio.stat().st_size + 2**20} bytes" in text


def test_what_is_written_counts_more_than_what_is_announced(tmp_path):
    """A member whose header says little and whose data go on: caught while it is written."""
    from datasets.preparing.archive_tree import Limits, Refused, Tree

    tree = Tree(tmp_path, Limits(1000, 5), cap=1000)
    tree.announce("x", 10)
    with pytest.raises(Refused, match="goes on where the archive may give 1000 bytes"):
        tree.add_file("x", io.BytesIO(bytes(5000)))
    data = bytearray(write_archive(tmp_path / "lie.zip", {"set/x": bytes(200_000)}).read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 10)  # the central directory's size of the unpacked file
    (tmp_path / "lie.zip").write_bytes(data)
    refused(tmp_path / "lie.zip", "damage")


def test_overlapping_members_of_a_zip_bomb(tmp_path):
    """Many entries of the directory that point to the same data: their announced sizes add up."""
    base = write_archive(tmp_path / "x.zip", {"set/x": np.random.default_rng(0).bytes(90_000)}).read_bytes()
    start, end = base.rindex(b"PK\x01\x02"), base.index(b"PK\x05\x06")
    entries = b"".join(base[start:end].replace(b"set/x", b"set/%c" % (97 + n)) for n in range(20))
    tail = bytearray(base[end:])
    tail[8:16] = struct.pack("<HHI", 20, 20, len(entries))
    tail[16:20] = struct.pack("<I", start)
    (tmp_path / "x.zip").write_bytes(base[:start] + entries + bytes(tail))
    refused(tmp_path / "x.zip", "where the archive may give 1000000 bytes")


def test_damage_and_other_files(tmp_path):
    noise = {"set/x": np.random.default_rng(0).bytes(50_000), "set/y": b"last"}
    for kind in ("tar", "tar.gz", "tgz", "zip"):
        whole = write_archive(tmp_path / f"whole.{kind}", noise).read_bytes()
        half = len(whole) // 2
        flipped = whole[:half] + bytes([whole[half] ^ 255]) + whole[half + 1 :]
        cases = {
            "empty": (b"", "found an empty file"),
            "cut": (whole[:half], "damage"),
            "page": (b"<!DOCTYPE html>\n<html>503", 'starts with "<!DOCTYPE html>"'),
            "bytes": (b"\0\1\2\3" * 200, "starts with bytes 0001020300010203"),
            "flipped": (flipped, "damage"),
        }
        for case, (data, message) in cases.items():
            if (kind, case) != ("tar", "flipped"):  # plain tar has no checksum of the data; the digest is for that
                archive = tmp_path / f"{case}.{kind}"
                archive.write_bytes(data)
                refused(archive, message)
    tail = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "boundary.tar").write_bytes(tail[: tail.rindex(b"last") - 512])  # cut between two members
    refused(tmp_path / "boundary.tar", "no mark of the archive's end")
    (tmp_path / "inner.tar.gz").write_bytes(gzip.compress(b"<html>not a tar</html>" * 50))
    refused(tmp_path / "inner.tar.gz", "damage")
    padded = bytearray(gzip.compress(tail + bytes(300_000)))
    padded[-8] ^= 255  # the checksum, long after the end of the last member
    (tmp_path / "sum.tar.gz").write_bytes(padded)
    refused(tmp_path / "sum.tar.gz", "damage (CRC check failed")
    with pytest.raises(DataError, match="cannot be read"):
        extract(tmp_path / "nothing.zip", tmp_path / "out", **LIMITS)
    with pytest.raises(DataError, match=r"expected a name that ends in \.tar, .*\.zip"):
        extract(tmp_path / "x.rar", tmp_path / "out", **LIMITS)


def test_a_header_damaged_in_the_middle_is_not_taken_for_the_end(tmp_path):
    data = bytearray(tar_bytes(file_pairs({f"set/{n}": b"content" for n in range(5)})))
    data[2 * 1024 + 10] ^= 255  # the third header
    (tmp_path / "x.tar").write_bytes(data)
    refused(tmp_path / "x.tar", "damage")


def test_full_disk_is_found_first(tmp_path, monkeypatch):
    archive = write_archive(tmp_path / "x.zip", FILES)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    with pytest.raises(StorageError, match=r"disk full at .*need 10\.0 KiB, have 4\.9 KiB; free some space"):
        extract(archive, tmp_path / "out", **LIMITS)
    with pytest.raises(StorageError, match=r"need 3000\.0 MiB"):
        extract(archive, tmp_path / "out", **LIMITS, need=3000 * 2**20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zip"]
    extract(archive, tmp_path / "out", **LIMITS, need=100)
    assert contents(tmp_path / "out") == FILES


def test_half_a_tree_never_has_the_name(tmp_path, monkeypatch):
    """Leftovers of a killed process go; a failure in the end, or on a disk that fills up, leaves nothing."""
    archive, target = write_archive(tmp_path / "x.tar.gz", FILES), tmp_path / "out"
    (tmp_path / "out.part" / "set").mkdir(parents=True)
    (tmp_path / "out.part" / "set" / "old").write_text("from before")

    def fail(part):
        assert contents(part) == FILES and not target.exists()
        raise DataError("not what was expected")

    with pytest.raises(DataError, match="not what was expected"):
        extract(archive, target, **LIMITS, finish=fail)
    assert not target.exists() and not (tmp_path / "out.part").exists()
    real_open = os.open

    def full(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise OSError(28, "No space left on device")
        return real_open(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(StorageError, match="disk full"):
        extract(archive, target, **LIMITS)
    assert not target.exists() and not (tmp_path / "out.part").exists()


def test_a_target_that_is_there_is_not_overwritten(tmp_path):
    archive, target = write_archive(tmp_path / "x.zip", FILES), tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("keep")
    with pytest.raises(StorageError):
        extract(archive, target, **LIMITS)
    assert contents(target) == {"mine": b"keep"} and not (tmp_path / "out.part").exists()


def test_clean_names():
    assert [clean_name(n) for n in ("a/b", "./a//b/", ".", "a/./b", "...", "a..b")] == [
        "a/b",
        "a/b",
        "",
        "a/b",
        "...",
        "a..b",
    ]
    with pytest.raises(ValueError, match="characters"):
        clean_name("a\udc80")
    assert archives.describe(b"PK\x03\x04") == "a file that starts with bytes 504b0304"
