"""Downloads that continue where they were cut off, by the standard library: pooch and torchvision start over.

A file has its name only when its length and digest are right. Until then it is ``NAME.part``, and ``NAME.part.json``
remembers which version of the remote file it is a part of.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from datasets.preparing.archives import describe
from datasets.preparing.progress import Progress
from randomix.errors import DataError
from randomix.files import check_space, storage_errors, sync_folder, write_atomic

_CHUNK = 2**18
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # status codes after which another try may succeed
_LONGEST_PAUSE = 60.0
_AGENT = "randomix-prepare-data"
_opener = urllib.request.OpenerDirector()  # http and https only, also after a redirection
for _handler in (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
):
    _opener.add_handler(_handler())


def fetch(
    url: str,
    target: Path,
    *,
    digest: str,
    algorithm: str = "sha256",
    size: int | None = None,
    timeout: float = 30.0,
    retries: int = 4,
    pause: float = 1.0,
) -> None:
    """Download ``url`` (http, https or file) to ``target``; what is there of it already is not fetched again.

    digest: hexadecimal, of the whole file. size: its bytes, if known: another file is then refused before it is
    fetched. timeout: seconds without a byte. retries: tries without any progress after the first, ``pause``, then twice
    as many, ... seconds apart. Nothing locks: one process a target. Raises DataError for what the server does not
    give or gives wrong, StorageError for a full disk.
    """
    check_url(url)
    with storage_errors(target, size or 0):
        target.parent.mkdir(parents=True, exist_ok=True)
        _Download(url, target, size, digest, algorithm, timeout).run(retries, pause)


def check_url(url: str) -> None:
    """Raise DataError, which does not repeat it, for what is no address that ``fetch`` takes."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname if parts.port != 0 else None
    except ValueError:  # brackets, port
        parts, host = urllib.parse.urlsplit(""), None
    odd = any(not "!" <= char <= "~" for char in url)
    if odd or parts.scheme not in ("http", "https", "file") or (parts.scheme != "file" and not host):
        raise DataError(
            f"--url {parts.scheme}...: expected an address that starts with http://, https:// or file://, "
            "without blanks (%20)"
        )


def shown(url: str) -> str:
    """``url`` for messages: without user, password and query, which may be secret."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True)
class _Remote:
    """An open answer: the stream, the position of its first byte, the whole length, and what names the version."""

    stream: IO[bytes]
    start: int
    total: int | None
    version: dict[str, str]
    content_type: str = ""


class _TryAgain(Exception):
    """The connection broke or the server is busy; ``after``: seconds it asks for."""

    def __init__(self, reason: object, after: float = 0.0) -> None:
        super().__init__(" ".join(str(reason).split()) or type(reason).__name__)
        self.after = after


class _StartOver(Exception):
    """What is there is not a part of what the server has now."""


class _Download:
    """One file on its way: its part on the disk, that part's digest so far, and the version it belongs to."""

    def __init__(self, url: str, target: Path, size: int | None, digest: str, algorithm: str, timeout: float) -> None:
        self.url, self.target, self.size, self.expected, self.algorithm = url, target, size, digest, algorithm
        self.timeout = timeout
        self.part = target.with_name(f"{target.name}.part")
        self.note = target.with_name(f"{target.name}.part.json")
        self.position, self.hash, self.version = 0, hashlib.new(algorithm, usedforsecurity=False), self._read_note()
        if self.version and self.part.is_file():
            with self.part.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self.hash.update(chunk)
                    self.position += len(chunk)
        self.spliced = self.position > 0

    def run(self, retries: int, pause: float) -> None:
        failures = starts = 0
        with Progress(self.target.name, self.size, start=self.position) as progress:
            while True:
                before = self.position
                try:
                    self._receive(progress)
                    if self._accept():
                        return
                except _StartOver:
                    self._reset()
                    starts += 1
                    if starts > retries:
                        raise DataError(
                            f"{shown(self.url)}: expected the file, found answers for parts of it that "
                            "do not fit together; use --url with a mirror"
                        ) from None
                except _TryAgain as error:
                    failures = 1 if self.position > before else failures + 1
                    if failures > retries:
                        raise DataError(
                            f"{shown(self.url)}: the download failed ({error}), {failures} times in a row; "
                            "run the same command again to continue, or use --url with a "
                            "mirror"
                        ) from error
                    time.sleep(max(error.after, min(pause * 2 ** (failures - 1), _LONGEST_PAUSE)))

    def _receive(self, progress: Progress) -> None:
        """Append what the server has beyond the part. Raises _TryAgain if that ends early."""
        if self.size is not None and self.position == self.size:
            return  # cut off between the last byte and the check
        remote = _open(self.url, self.position, self.version, self.timeout)
        with contextlib.closing(remote.stream):
            self._check(remote)
            if remote.start == 0:
                self._reset()
            self.spliced = remote.start > 0
            self.version = self.version | remote.version
            write_atomic(self.note, json.dumps(self.version), durable=False)
            expected = self.size if remote.total is None else remote.total
            check_space(self.part.parent, max(0, (expected or 0) - self.position))
            with self.part.open("ab", buffering=0) as file:
                while (expected is None or self.position <= expected) and (chunk := _read(remote.stream)):
                    file.write(chunk)
                    self.hash.update(chunk)
                    self.position += len(chunk)
                    progress(self.position)
        if remote.total is not None and self.position < remote.total:
            raise _TryAgain(f"it ended after {self.position} of {remote.total} bytes")

    def _check(self, remote: _Remote) -> None:
        """Raise _StartOver for the rest of another version, DataError for something else than the file."""
        page = remote.total is None and remote.content_type == "text/html"  # a login page must not cost what is there
        if self.size is not None and (page or remote.total not in (None, self.size)):
            found = f"{remote.total or 'an unknown number of'} bytes of {remote.content_type or 'an unknown type'}"
            raise DataError(
                f"{shown(self.url)}: expected a file of {self.size} bytes, the server offers {found}; "
                f"use --url with a mirror that has {self.target.name}"
            )
        same = all(remote.version[key] == self.version[key] for key in remote.version.keys() & self.version.keys())
        if remote.start and (remote.start != self.position or not same):
            raise _StartOver

    def _accept(self) -> bool:
        """Give the file its name if it is right. False: fetch it anew, as parts of two versions were joined."""
        found = self.hash.hexdigest()
        if found != self.expected:
            head = self.part.open("rb").read(64) if self.part.exists() else b""
            length, spliced = self.position, self.spliced
            self._reset()
            if spliced:
                return False
            raise DataError(
                f"{shown(self.url)}: expected {self.algorithm} {self.expected}, found {found} "
                f"({length} bytes, {describe(head)}); it was deleted: run the same command again, "
                "or use --url with a mirror"
            )
        descriptor = os.open(self.part, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        self.part.replace(self.target)
        sync_folder(self.target.parent)
        self.note.unlink(missing_ok=True)
        remember(self.target, found, self.algorithm)
        return True

    def _reset(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.position, self.hash = 0, hashlib.new(self.algorithm, usedforsecurity=False)
        self.version, self.spliced = {}, False

    def _read_note(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            note = json.loads(self.note.read_text())
            if isinstance(note, dict) and all(isinstance(value, str) for value in note.values()):
                return note
        return {}


def _open(url: str, start: int, version: dict[str, str], timeout: float) -> _Remote:
    """The bytes of ``url`` from ``start`` on, or from 0 where that version cannot be continued."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        return _open_file(parts, start, version)
    request = _request(parts, start, version)
    try:
        response = _opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:
            raise _StartOver from error
        if error.code in _TEMPORARY:
            raise _TryAgain(error, _seconds(error.headers.get("Retry-After"))) from error
        raise DataError(
            f"{shown(url)}: HTTP {error.code} {error.reason}; use --url with a mirror that has it, or put "
            "the file in place yourself"
        ) from error
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DataError(
                f"{shown(url)}: {reason.verify_message}; mend the certificates of this machine, or use "
                "--url with a mirror"
            ) from error
        raise _TryAgain(reason) from error
    return _answer(response)


def _request(parts: urllib.parse.SplitResult, start: int, version: dict[str, str]) -> urllib.request.Request:
    user, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host, fragment="")))
    request.add_header("User-Agent", _AGENT)
    request.add_header("Accept-Encoding", "identity")
    if user:  # not sent on to where a redirection leads
        token = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    if start:
        request.add_header("Range", f"bytes={start}-")
        tag = version.get("etag", "")
        if condition := tag if tag.startswith('"') else version.get("modified", ""):  # weak tags are not allowed here
            request.add_header("If-Range", condition)
    return request


def _answer(response: Any) -> _Remote:
    """What a successful answer says about itself; one without a valid Content-Range starts at 0."""
    headers = response.headers
    length = headers.get("Content-Length") or ""
    start, total = 0, int(length) if length.isdigit() else None
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range") or "")
        if match is None:
            response.close()
            raise _StartOver
        start, total = int(match[1]), int(match[2])
    version = {"etag": headers.get("ETag"), "modified": headers.get("Last-Modified"), "size": total}
    return _Remote(
        response,
        start,
        total,
        {key: str(value) for key, value in version.items() if value is not None},
        (headers.get("Content-Type") or "").split(";")[0][:40],
    )


def _open_file(parts: urllib.parse.SplitResult, start: int, version: dict[str, str]) -> _Remote:
    path = urllib.request.url2pathname(parts.path)
    try:
        stream = open(path, "rb")  # noqa: SIM115  # closed by who reads it
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct --url") from error
    status = os.fstat(stream.fileno())
    found = {"size": str(status.st_size), "modified": str(status.st_mtime_ns)}
    start = start if found == version else 0
    stream.seek(start)
    return _Remote(stream, start, status.st_size, found)


def _read(stream: IO[bytes]) -> bytes:
    """The next bytes as soon as there are any."""
    try:
        return getattr(stream, "read1", stream.read)(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TryAgain(error) from error


def _seconds(header: str | None) -> float:
    return min(float(header), _LONGEST_PAUSE) if header and header.isdigit() else 0.0


def remember(path: Path, digest: str, algorithm: str) -> None:
    """Note beside a file that its digest was computed, so that 138 GiB are not read again for the same answer."""
    status = path.stat()
    note = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, algorithm: digest}
    with contextlib.suppress(OSError):  # a folder that cannot be written: it is computed again
        path.with_name(f".{path.name}.checked").write_text(json.dumps(note))


def known_digest(path: Path, algorithm: str) -> str:
    """The digest of a file: as remembered if size and time are still the same, else computed and remembered."""
    from datasets.integrity import file_digest

    status = path.stat()
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no note, or not one of ours
        note = json.loads(path.with_name(f".{path.name}.checked").read_text())
        if [note.get(key) for key in ("size", "mtime_ns")] == [
            status.st_size,
            status.st_mtime_ns,
        ] and algorithm in note:
            return str(note[algorithm])
    remember(path, found := file_digest(path, algorithm), algorithm)
    return found
