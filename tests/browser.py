"""A real browser: headless Chromium, spoken to over two pipes in the DevTools protocol."""

from __future__ import annotations

import base64
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_S = 60.0
# The browser reads from descriptor 3 and writes to 4, which may be in use for what is to get there.
PLACE = """
import fcntl, os, sys
high = [fcntl.fcntl(int(text), fcntl.F_DUPFD_CLOEXEC, 10) for text in sys.argv[1:3]]
for place, descriptor in enumerate(high, 3):
    os.dup2(descriptor, place)
os.execv(sys.argv[3], sys.argv[3:])
"""

Json = dict[str, Any]


class Browser:
    """One page. told: what its console said, what failed, and what a policy refused.  asked: addresses it wanted."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._buffer = b""
        self._asked = 0
        self.told: list[str] = []
        self.asked: list[str] = []
        self._loaded = False
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Json:
        """A command, and its answer."""
        self._asked += 1
        command: Json = {"id": self._asked, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._commands, msgspec.json.encode(command) + b"\0")
        while True:
            message = self._next()
            if message.get("id") == self._asked:
                assert "error" not in message, (method, message)
                result: Json = message["result"]
                return result

    def open(self, path: Path, width: int, height: int = 900, *, dark: bool = False, phone: bool = False) -> None:
        """Show a file in a window of that size, and wait until it is there."""
        self.told.clear()
        self.asked.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        self.call("Page.navigate", url=path.absolute().as_uri())
        while not self._loaded:
            self._next()

    def run(self, expression: str) -> Any:
        """What JavaScript says."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def expect(self, expression: str) -> None:
        """Wait until JavaScript says that something is so."""
        until = time.monotonic() + PATIENCE_S
        while not self.run(expression):
            assert time.monotonic() < until, f"not so: {expression}"

    def move(self, x: float, y: float) -> None:
        """Move the mouse to a point of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, clip: Json | None = None) -> None:
        """Save the whole page, or a part of it, as PNG."""
        more = {"clip": {"scale": 1, **clip}} if clip else {}
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True, **more)
        path.write_bytes(base64.b64decode(taken["data"]))

    def _next(self) -> Json:
        until = time.monotonic() + PATIENCE_S
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            data = os.read(self._answers, 1 << 20) if ready else b""
            assert data, "the browser says nothing any more"
            self._buffer += data
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Json = msgspec.json.decode(text)
        self._hear(message.get("method", ""), message.get("params", {}))
        return message

    def _hear(self, method: str, told: Json) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled":
                self.told.append(f"{told['type']}: {told['args']}")
            case "Runtime.exceptionThrown":
                self.told.append(f"exception: {told['exceptionDetails']}")
            case "Log.entryAdded":
                self.told.append(f"{told['entry']['level']}: {told['entry']['text']}")
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in a folder. The test is skipped where none is installed."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser is installed ({', '.join(NAMES)})")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    placed = [sys.executable, "-c", PLACE, str(theirs_in), str(theirs_out)]
    process = subprocess.Popen(
        [*placed, program, *ARGUMENTS, f"--user-data-dir={folder}", "about:blank"],
        pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        browser = Browser(ours_out, ours_in)
        yield browser
        browser._session = ""
        browser.call("Browser.close")
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours_out)
        os.close(ours_in)
