"""A headless Chromium, spoken to over pipes in the DevTools protocol."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Chromium reads from descriptor 3 and writes to 4.
_START = "import os,sys; a=sys.argv[1:]; os.dup2(int(a[0]),3); os.dup2(int(a[1]),4)"
_START += "; os.execv(a[2], a[2:])"
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"),
)
_KEYS = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36} | {
    f"Arrow{way}": 37 + code for code, way in enumerate(("Left", "Up", "Right", "Down"))
}
_SECONDS = 10


def find_chromium():
    """The path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One browser with one tab.

    `requests` are the addresses that a page asked for, `problems` what it reported as
    errors, both since the last `open`.
    """

    def __init__(self, executable, folder):
        to_browser, self._out = _pipe()
        self._in, from_browser = _pipe()
        start = [sys.executable, "-S", "-E", "-c", _START]
        descriptors = [to_browser, from_browser]
        profile = f"--user-data-dir={folder}"
        with open(Path(folder, "stderr.txt"), "wb") as stderr:
            self.process = subprocess.Popen(
                [*start, *map(str, descriptors), executable, *_OPTIONS, profile],
                pass_fds=descriptors,
                stdout=stderr,
                stderr=stderr,
            )
        for descriptor in descriptors:
            os.close(descriptor)
        self._n_calls, self._buffer, self._session = 0, b"", None
        self.requests, self.problems = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def close(self):
        self.process.terminate()
        self.process.wait(_SECONDS)
        os.close(self._out)
        os.close(self._in)

    def call(self, method, **params):
        self._n_calls += 1
        message = {"id": self._n_calls, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._n_calls:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _next(self):
        while b"\0" not in self._buffer:
            content = os.read(self._in, 2**20)
            assert content, "Chromium ended"
            self._buffer += content
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, params = event["method"], event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(params)

    def open(self, path, width=1280, height=900, dark=False):
        """Opens a file, and waits until its script is done."""
        self.requests.clear()
        self.problems.clear()
        self.resize(width, height)
        self.set_dark(dark)
        self.call("Page.navigate", url=Path(path).absolute().as_uri())
        self.wait("document.body && document.body.dataset.ready")

    def resize(self, width, height=900):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1},
            mobile=False,
        )

    def set_dark(self, dark):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def evaluate(self, expression):
        """What an expression of JavaScript gives."""
        asked = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        stop = time.monotonic() + _SECONDS
        while not self.evaluate(expression):
            assert time.monotonic() < stop, (expression, self.problems)
            time.sleep(0.01)

    def press(self, key):
        named = {"key": key, "windowsVirtualKeyCode": _KEYS[key]}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **named)
        if key in ("Enter", " "):
            text = "\r" if key == "Enter" else key
            self.call("Input.dispatchKeyEvent", type="char", text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def names(self, role):
        """The names that a screen reader says of what has a role."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            node.get("name", {}).get("value", "")
            for node in nodes
            if not node.get("ignored") and node["role"]["value"] == role
        ]

    def screenshot(self, path, whole=True):
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(shot["data"]))


def _pipe():
    """The ends of a pipe, both above the descriptors that are given away."""
    ends = []
    for descriptor in os.pipe():
        ends.append(fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(descriptor)
    return ends
