"""Drives a real browser by the DevTools protocol, over a pipe, which needs no library."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PATIENCE = 90  # seconds, also on a machine that is busy with other tests
KEYS = {
    " ": ("Space", 32), "Tab": ("Tab", 9), "Enter": ("Enter", 13), "Delete": ("Delete", 46),
    "ArrowLeft": ("ArrowLeft", 37), "ArrowUp": ("ArrowUp", 38),
    "ArrowRight": ("ArrowRight", 39), "ArrowDown": ("ArrowDown", 40),
}  # fmt: skip


class Browser:
    """A headless Chromium with a profile in ``folder`` and one page; ``with Browser(folder) as browser:``."""

    def __init__(self, folder):
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        flags += [f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
        theirs_in, self._to = os.pipe()
        self._from, theirs_out = os.pipe()
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'  # Chromium reads from 3 and writes to 4
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", BROWSER, *flags],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._session, self._received = 0, None, b""
        self.problems = []  # what the page has written to the console

    def __enter__(self):
        (page,) = [each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(OSError, RuntimeError):
            self._session = None
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def call(self, method, **parameters):
        """The result of a command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _receive(self):
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._from], [], [], max(0, until - time.monotonic()))
            piece = os.read(self._from, 1 << 16) if ready else b""
            if not piece:
                raise RuntimeError("Chromium does not answer")
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(event["params"]["exceptionDetails"])
        if event.get("method") == "Log.entryAdded":
            self.problems.append(event["params"]["entry"])

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def look(self, width, height=900, dark=False, phone=False):
        """The size of the window, and what the reader prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=1, mobile=phone,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression):
        """The value of an expression of JavaScript, awaited."""
        done = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(done["exceptionDetails"])
        return done["result"].get("value")

    def wait_for(self, expression):
        """The value of the expression as soon as it is true."""
        until = time.monotonic() + PATIENCE
        while not (value := self.value(expression)):
            if time.monotonic() > until:
                raise AssertionError(f"never true: {expression}")
            time.sleep(0.03)
        return value

    def press(self, key, times=1):
        code, number = KEYS[key]
        text = {" ": " ", "Enter": "\r"}.get(key, "")
        about = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
            self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def draw(self, points, release=True):
        """Move the mouse along the points of the window, with its button down."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1)]
        moves = [*zip(kinds, points, strict=True), *[("mouseReleased", points[-1])] * release]
        for kind, (x, y) in moves:
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def touch(self, points):
        """Move a finger along the points of the window."""
        for kind, places in [
            ("touchStart", [points[0]]), *[("touchMove", [point]) for point in points[1:]], ("touchEnd", []),
        ]:  # fmt: skip
            at = [{"x": x, "y": y} for x, y in places]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=at)

    def screenshot(self, path, whole=True):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
