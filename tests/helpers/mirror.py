"""A server on this machine that answers as a test wants it: correctly, or wrongly in every way."""

import socket
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


class Mirror:
    """Answers for each file with what ``answers`` has under its name, a function of (mirror, handler)."""

    def __init__(self):
        mirror = self
        self.answers = {}
        self.requests = []
        self.closing = Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.lstrip("/")
                mirror.requests.append(name)
                with suppress(OSError):  # who asked has gone
                    mirror.answers.get(name, missing)(mirror, self)

            def log_message(self, *arguments):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *what):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def send(handler, data, length=None, kind="application/gzip"):
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(data)
    handler.wfile.flush()


def whole(data):
    return lambda mirror, handler: send(handler, data, len(data))


def without_length(data):
    return lambda mirror, handler: send(handler, data)


def cut_off(data):
    """The connection ends in the middle of what was promised."""
    return lambda mirror, handler: send(handler, data[: len(data) // 2], len(data))


def changed(data):
    return whole(data[:-1] + bytes([data[-1] ^ 1]))


def page(data):
    """What a network says that one has to log in to; with a status that tells nothing."""
    text = b"<!DOCTYPE html><html><body>Welcome to our wireless network</body></html>"
    return lambda mirror, handler: send(handler, text, len(text), "text/html")


def long_page(data):
    text = b"\n<html>" + bytes(len(data))
    return lambda mirror, handler: send(handler, text, len(text), "text/html")


def redirected(url):
    def answer(mirror, handler):
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.end_headers()

    return answer


def in_a_circle(data):
    return lambda mirror, handler: redirected(handler.path)(mirror, handler)


def silent(data):
    """Nothing comes, not even a header."""
    return lambda mirror, handler: mirror.closing.wait()


def stuck(data):
    """The first half comes, and then nothing."""

    def answer(mirror, handler):
        send(handler, data[: len(data) // 2], len(data))
        mirror.closing.wait()

    return answer


def dripping(data):
    """A byte at a time, each long before any timeout of a socket."""

    def answer(mirror, handler):
        send(handler, b"", len(data))
        drip(mirror, handler, data)

    return answer


def dripping_headers(data):
    return lambda mirror, handler: drip(mirror, handler, b"HTTP/1.1 200 OK\r\nX-Long: " + bytes(4000))


def drip(mirror, handler, data):
    for byte in data:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if mirror.closing.wait(0.05):
            return


def missing(mirror, handler):
    handler.send_error(404)


def failing(data):
    return lambda mirror, handler: handler.send_error(503)


def no_http(data):
    return lambda mirror, handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n" + data)


def refusing():
    """The URL of a port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"
