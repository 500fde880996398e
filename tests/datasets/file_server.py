"""A server for tests on this machine: files from memory, with ranges, and with every fault that a test asks for."""

import contextlib
import http.server
import threading
import time
from dataclasses import dataclass, field


@dataclass
class Served:
    """A file. statuses: answered first, one a request. cut: bytes after which a connection ends, one entry a request.

    pause: seconds after each chunk of 64 KiB. ranges: honour Range. version: ETag and Last-Modified; None: neither.
    """

    data: bytes
    statuses: list = field(default_factory=list)
    cut: list = field(default_factory=list)
    pause: float = 0.0
    ranges: bool = True
    length: bool = True
    version: str | None = "1"
    content_type: str = "application/octet-stream"
    redirect: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        files, log = self.server.files, self.server.log
        log.append((self.path, self.headers.get("Range"), dict(self.headers)))
        file = files.get(self.path.partition("?")[0])
        if file is None:
            self.send_error(404)
            return
        if file.statuses:
            self.send_error(file.statuses.pop(0))
            return
        if file.redirect:
            self.send_response(302)
            self.send_header("Location", file.redirect)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_file(file)

    def send_file(self, file):
        tag = f'"{file.version}"'
        start = self.range_start(file, tag)
        if start >= len(file.data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(file.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = file.data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
        if file.version is not None:
            self.send_header("ETag", tag)
        if file.length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", file.content_type)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        body = body[: file.cut.pop(0)] if file.cut else body
        with contextlib.suppress(OSError):  # the client was killed
            for position in range(0, len(body), 2**16):
                self.wfile.write(body[position : position + 2**16])
                if file.pause:
                    self.wfile.flush()
                    time.sleep(file.pause)

    def range_start(self, file, tag):
        asked, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if not asked or not file.ranges or (condition and condition != tag):
            return 0
        return int(asked.removeprefix("bytes=").rstrip("-"))

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def serving(files):
    """Serve {"/name": Served or bytes}; gives the address and the list of (path, Range, headers) of the requests."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files = {path: Served(file) if isinstance(file, bytes) else file for path, file in files.items()}
        server.log = []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", server
        finally:
            server.shutdown()
