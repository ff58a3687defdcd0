"""A web server for one page, on this machine alone."""

import json
import secrets
import socketserver
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from cnn.demo.viewer import Answer, Sent, Viewer
from cnn.support.errors import (
    ArgumentError,
    CheckpointError,
    DataError,
    DeviceLost,
    OutOfMemory,
    ShapeError,
)
from cnn.support.text import printable, short

LOOPBACK = "127.0.0.1"
HOSTS = LOOPBACK, "localhost"  # a page elsewhere whose name leads here (DNS rebinding) sends its own name
MOST_BYTES = 32 << 20  # of a picture that is sent
MOST_DISCARDED = 8 * MOST_BYTES  # of a larger one, so that the browser gets the answer
PATIENCE = 60  # seconds for the next bytes of a request

REFUSALS = (ArgumentError, CheckpointError, DataError, DeviceLost, OutOfMemory, ShapeError)

PAGES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the address contains the token
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is answered with an error message."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Server(ThreadingHTTPServer):
    """Serves the page of a viewer on a free port; requests without the token in ``address`` are refused.

    Requests are read in threads of their own. The network is used in a single thread, by one request after
    the other.
    """

    daemon_threads = True
    allow_reuse_address = False  # a free port needs none

    def __init__(self, viewer: Viewer) -> None:
        super().__init__((LOOPBACK, 0), _Handler)
        self.viewer = viewer
        self.token = secrets.token_urlsafe(24)
        folder = files("cnn.demo").joinpath("static")
        self.pages = {
            path: (folder.joinpath(name).read_bytes(), kind) for path, (name, kind) in PAGES.items()
        }
        self._worker, self._is_closed = ThreadPoolExecutor(1, "network"), False

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's would also look up the machine's name
        self.server_name, self.server_port = LOOPBACK, self.server_address[1]

    @property
    def address(self) -> str:
        """The address of the page, with the token."""
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def compute(self, function: Callable[..., Answer], *arguments: Any) -> Answer:
        """The result of ``function`` in the thread of the network."""
        try:
            return self._worker.submit(function, *arguments).result()
        except (RuntimeError, CancelledError):
            if self._is_closed:
                raise Refused(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "the server was stopped: start cnn demo again, and open the address that it prints",
                ) from None
            raise

    def server_close(self) -> None:
        self._is_closed = True
        super().server_close()
        self._worker.shutdown(cancel_futures=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):  # the browser has gone
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of a connection, one after the other."""

    server: Server
    server_version, sys_version = "xpcnn", ""
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._handle(self._get)

    def do_POST(self) -> None:
        self._handle(self._post)

    def _other(self) -> None:
        self._handle(lambda path: self._refuse_method())

    do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _other  # noqa: N815

    def _handle(self, answer: Callable[[str], None]) -> None:
        """Answer a request that comes from the page, and refuse all others."""
        try:
            answer(self._require_ours())
        except Refused as refusal:
            self.send_error(refusal.status, str(refusal))

    def _require_ours(self) -> str:
        """The path after the token; raises Refused without the right host, origin and token."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host.rpartition(":")[0] not in HOSTS or origin not in (None, f"http://{host}"):
            raise Refused(HTTPStatus.FORBIDDEN, "only the page that `cnn demo` has opened is answered")
        token, slash, path = urlsplit(self.path).path.lstrip("/").partition("/")
        if not secrets.compare_digest(token.encode(), self.server.token.encode()) or not slash:
            raise Refused(
                HTTPStatus.FORBIDDEN, "open the address that `cnn demo` has printed: this one lacks its token"
            )
        return path

    def _get(self, path: str) -> None:
        if path in self.server.pages:
            self._answer(HTTPStatus.OK, *self.server.pages[path])
        elif path == "about":
            self._answer_with(lambda: self.server.viewer.about() | {"most": MOST_BYTES})
        elif path == "filters":
            self._answer_with(self.server.viewer.filters)
        elif path in self._of_a_picture:
            self._refuse_method()
        else:
            raise Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _post(self, path: str) -> None:
        if path not in self._of_a_picture:
            self._refuse_method()
        self._answer_with(self._of_a_picture[path], self._picture())

    @property
    def _of_a_picture(self) -> dict[str, Callable[..., Answer]]:
        viewer = self.server.viewer
        return {"look": viewer.look, "saliency": viewer.saliency, "occlusion": viewer.occlusion}

    def _refuse_method(self) -> NoReturn:
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} is not possible at this address")

    def _picture(self) -> Sent | int:
        """The picture that was sent, or the number of a test image."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        data = self._body()
        if "test" not in query:
            name = short(printable(query.get("name", "")), 100).replace("/", "_") or "the picture"
            return Sent(name, data, "drawn" in query)
        if not _is_number(query["test"]):
            shown = short(printable(query["test"]), 40)
            raise Refused(HTTPStatus.BAD_REQUEST, f"test is {shown!r}, expected the number of a test image")
        return int(query["test"])

    def _body(self) -> bytes:
        text = self.headers.get("Content-Length", "")
        if not _is_number(text):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a request with a picture must say its length")
        length = int(text)
        if length > MOST_BYTES:
            self._discard(min(length, MOST_DISCARDED))
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the picture has {length:,} bytes: expected at most {MOST_BYTES:,}, scale it down",
            )
        data = self.rfile.read(length)
        if len(data) < length:
            raise ConnectionResetError
        return data

    def _discard(self, length: int) -> None:
        while length > 0 and (piece := self.rfile.read(min(length, 1 << 16))):
            length -= len(piece)

    def _answer_with(self, function: Callable[..., Answer], *arguments: Any) -> None:
        """Answer with the result of ``function``, or with the message of its error."""
        try:
            found = self.server.compute(function, *arguments)
        except REFUSALS as error:
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        except MemoryError:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY, "the picture does not fit into memory: scale it down"
            ) from None
        self._answer_json(HTTPStatus.OK, found)

    def _answer_json(self, status: HTTPStatus | int, value: Any) -> None:
        self._answer(status, json.dumps(value).encode(), "application/json; charset=utf-8")

    def _answer(self, status: HTTPStatus | int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with an error message and close the connection; the standard library calls this, too."""
        self.close_connection = True
        with suppress(ConnectionError):
            self._answer_json(code, {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing, because each request contains the token."""


def _is_number(text: str) -> bool:
    """Whether the text is a whole number of a sensible length, without a sign."""
    return text.isascii() and text.isdecimal() and len(text) <= 18
