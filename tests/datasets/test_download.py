"""Downloads: continued, checked, tried again, given up, against a server on this machine."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from datasets.preparing import download
from datasets.preparing.download import fetch, known_digest, remember, shown
from randomix.errors import DataError, StorageError
from tests.datasets.file_server import Served, serving

DATA = np.random.default_rng(0).bytes(700_000)
OTHER = np.random.default_rng(1).bytes(700_000)
MD5 = hashlib.md5(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setattr(download, "_opener", download._opener)
    for handler in download._opener.handlers:
        if hasattr(handler, "proxies"):
            monkeypatch.setattr(handler, "proxies", {})


def get(address, target, **options):
    fetch(f"{address}/x.tar", target, **{"digest": MD5, "algorithm": "md5", "pause": 0.01, "timeout": 5.0} | options)


def failure(address, target, error=DataError, **options):
    """The one line of a download that fails; nothing has the final name."""
    with pytest.raises(error) as caught:
        get(address, target, **options)
    assert "\n" not in str(caught.value) and not target.exists()
    return str(caught.value)


def ranges(server):
    return [asked for _, asked, _ in server.log]


def test_whole_file_and_nothing_else(tmp_path):
    target = tmp_path / "new" / "x.tar"
    with serving({"/x.tar": DATA}) as (address, server):
        get(address, target, size=len(DATA))
    assert target.read_bytes() == DATA and ranges(server) == [None]
    assert sorted(path.name for path in target.parent.iterdir()) == [".x.tar.checked", "x.tar"]


@pytest.mark.parametrize("version", ["1", None])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_broken_connections_continue_where_they_broke(tmp_path, version, size):
    file = Served(DATA, cut=[300_000, 100, 200_000, 0], statuses=[503], version=version)
    with serving({"/x.tar": file}) as (address, server):
        get(address, tmp_path / "x.tar", size=size, retries=2)
    assert (tmp_path / "x.tar").read_bytes() == DATA
    assert ranges(server) == [None, None, "bytes=300000-", "bytes=300100-", "bytes=500100-", "bytes=500100-"]


def test_a_later_call_continues(tmp_path):
    target = tmp_path / "x.tar"
    with serving({"/x.tar": Served(DATA, cut=[300_000, 0])}) as (address, server):
        text = failure(address, target, retries=1)
        assert "the download failed (it ended after 300000 of 700000 bytes)" in text and "same command" in text
        assert (tmp_path / "x.tar.part").read_bytes() == DATA[:300_000]
        server.log.clear()
        get(address, target)
    assert ranges(server) == ["bytes=300000-"] and server.log[0][2]["If-Range"] == '"1"'
    assert target.read_bytes() == DATA and not list(tmp_path.glob("*.part*"))


def part(tmp_path, data, version):
    (tmp_path / "x.tar.part").write_bytes(data)
    (tmp_path / "x.tar.part.json").write_text(json.dumps(version))


def test_the_remote_file_changed_in_between(tmp_path):
    """By tag, by size, without either (then the digest tells), and on a server that knows no ranges."""
    for number, (version, file) in enumerate(
        (
            ({"etag": '"0"', "size": "700000"}, Served(DATA)),
            ({"size": "800000"}, Served(DATA, version=None)),
            ({"size": "700000"}, Served(DATA, version=None)),
            ({"etag": '"1"', "size": "700000"}, Served(DATA, ranges=False)),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        part(folder, OTHER[:400_000], version)
        with serving({"/x.tar": file}) as (address, server):
            get(address, folder / "x.tar")
        assert (folder / "x.tar").read_bytes() == DATA, number
        assert ranges(server)[0] == "bytes=400000-" and len(server.log) <= 2


def test_a_part_that_nothing_is_known_about_or_that_is_too_long(tmp_path):
    (tmp_path / "x.tar.part").write_bytes(OTHER[:400_000])
    with serving({"/x.tar": DATA}) as (address, server):
        get(address, tmp_path / "x.tar")
    assert ranges(server) == [None]
    (tmp_path / "x.tar").unlink()
    part(tmp_path, OTHER + OTHER, {"etag": '"1"'})
    with serving({"/x.tar": DATA}) as (address, server):
        get(address, tmp_path / "x.tar")
    assert ranges(server) == [f"bytes={2 * len(OTHER)}-", None] and (tmp_path / "x.tar").read_bytes() == DATA
    (tmp_path / "x.tar").unlink()
    part(tmp_path, DATA, {"etag": '"1"'})  # killed between the last byte and the rename
    with serving({"/x.tar": DATA}) as (address, server):
        get(address, tmp_path / "x.tar", size=len(DATA))
    assert ranges(server) == [] and (tmp_path / "x.tar").read_bytes() == DATA


def test_wrong_digest(tmp_path):
    with serving({"/x.tar": OTHER}) as (address, server):
        text = failure(address, tmp_path / "x.tar")
    found = hashlib.md5(OTHER).hexdigest()
    assert f"expected md5 {MD5}, found {found} (700000 bytes, a file that starts with bytes {OTHER[:8].hex()})" in text
    assert len(server.log) == 1 and not list(tmp_path.iterdir())


def test_a_page_instead_of_the_file(tmp_path):
    page = Served(b"<!DOCTYPE html><title>log in</title>", content_type="text/html; charset=utf-8")
    with serving({"/x.tar": page}) as (address, _):
        text = failure(address, tmp_path / "x.tar", size=len(DATA))
        assert "expected a file of 700000 bytes, the server offers 36 bytes of text/html" in text
        assert 'starts with "<!DOCTYPE html>' in failure(address, tmp_path / "x.tar")
        part(tmp_path, DATA[:400_000], {"etag": '"0"', "size": "700000"})
        page.length = False
        failure(address, tmp_path / "x.tar", size=len(DATA))
    assert (tmp_path / "x.tar.part").stat().st_size == 400_000  # a login page costs nothing of what is there


def test_answers_that_end_it(tmp_path):
    with serving({"/x.tar": Served(DATA, statuses=[403])}) as (address, server):
        assert "HTTP 403 Forbidden; use --url with a mirror" in failure(address, tmp_path / "x.tar")
        assert "HTTP 404 Not Found" in failure(address + "/nowhere", tmp_path / "x.tar")
        assert len(server.log) == 2
    with serving({"/x.tar": Served(DATA, statuses=[500, 502, 503, 429])}) as (address, server):
        assert "HTTP Error 503" in failure(address, tmp_path / "x.tar", retries=2)
        assert len(server.log) == 3
    assert "Connection refused" in failure(address, tmp_path / "x.tar", retries=1)  # the server is gone
    for url in (
        "ftp://127.0.0.1",
        "data:,x",
        "http:///x",
        "http://u:p@[x/",
        "http://h:99999999/",
        "http://h/a b",
        "x",
        "",
    ):
        assert "expected an address that starts with http://, https:// or file://" in failure(url, tmp_path / "x.tar")


def test_a_server_that_says_nothing_runs_into_the_timeout(tmp_path):
    with serving({"/x.tar": Served(DATA, pause=0.5)}) as (address, server):
        assert "timed out" in failure(address, tmp_path / "x.tar", timeout=0.1, retries=0)
        get(address, tmp_path / "x.tar", timeout=0.1, retries=1)  # 64 KiB a try are progress
    assert len(server.log) > 2


def test_secrets_are_sent_and_never_shown(tmp_path):
    with serving({"/x.tar": Served(OTHER, statuses=[401])}) as (address, server):
        private = address.replace("//", "//me:s3cret%40@")
        text = failure(private, tmp_path / "x.tar", digest=MD5)
        text += failure(private, tmp_path / "x.tar", digest=MD5)
        assert server.log[0][2]["Authorization"] == "Basic bWU6czNjcmV0QA=="
        assert server.log[0][0] == "/x.tar" and "s3cret" not in text and "me:" not in text
    assert shown("https://u:p@host:81/a/b?token=abc#d") == "https://host:81/a/b"


def test_redirections_carry_the_range_and_no_password(tmp_path):
    with (
        serving({"/x.tar": Served(DATA, cut=[300_000])}) as (other, target),
        serving({"/x.tar": Served(b"", redirect=f"{other}/x.tar")}) as (address, _),
    ):
        get(address.replace("//", "//me:s3cret@"), tmp_path / "x.tar")
        assert ranges(target) == [None, "bytes=300000-"]
        assert not any("Authorization" in headers for _, _, headers in target.log)
    with serving({"/x.tar": Served(b"", redirect="file:///etc/passwd")}) as (address, _):
        failure(address, tmp_path / "y.tar")


def test_local_files(tmp_path):
    source = tmp_path / "mirror" / "x.tar"
    source.parent.mkdir()
    source.write_bytes(DATA)
    get(source.parent.as_uri(), tmp_path / "x.tar", size=len(DATA))
    assert (tmp_path / "x.tar").read_bytes() == DATA
    assert "cannot be read (No such file or directory)" in failure((tmp_path / "no").as_uri(), tmp_path / "y.tar")
    status = source.stat()
    part(tmp_path, DATA[:1000], {"size": str(status.st_size), "modified": str(status.st_mtime_ns)})
    (tmp_path / "x.tar").unlink()
    get(source.parent.as_uri(), tmp_path / "x.tar")
    assert (tmp_path / "x.tar").read_bytes() == DATA


def test_full_disk_is_found_before_the_first_byte(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=500_000))
    with serving({"/x.tar": DATA}) as (address, _):
        text = failure(address, tmp_path / "x.tar", error=StorageError, size=len(DATA))
        assert "disk full" in text and "need 0.7 MiB, have 0.5 MiB" in text
        assert not (tmp_path / "x.tar.part").exists()
        part(tmp_path, DATA[:400_000], {"etag": '"1"', "size": "700000"})
        get(address, tmp_path / "x.tar", size=len(DATA))  # the rest fits


def test_a_digest_is_computed_once_for_a_file(tmp_path, monkeypatch):
    path = tmp_path / "x.tar"
    path.write_bytes(DATA)
    assert known_digest(path, "md5") == MD5
    remember(path, "remembered", "md5")
    assert (
        known_digest(path, "md5") == "remembered" and known_digest(path, "sha256") == hashlib.sha256(DATA).hexdigest()
    )
    path.write_bytes(OTHER)
    assert known_digest(path, "md5") == hashlib.md5(OTHER).hexdigest()
    (tmp_path / ".x.tar.checked").write_text("[]")
    assert known_digest(path, "md5") == hashlib.md5(OTHER).hexdigest()


def test_progress_on_a_terminal_and_in_a_log(tmp_path, capsys, monkeypatch):
    from datasets.preparing.progress import Progress, size_words

    with Progress("x.tar", 1000, every=0.0) as progress:
        progress(250)
    assert capsys.readouterr().err.startswith("x.tar: 250 B of 1000 B (25 %), ")
    assert [size_words(n) for n in (0, 2048, 170_498_071, 3.5 * 2**30)] == ["0 B", "2.0 KiB", "162.6 MiB", "3.5 GiB"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Progress("x.tar", None) as progress:
        progress(250)
    assert "\n250 B" not in capsys.readouterr().err
