"""A headless Chromium of our own, driven over the DevTools protocol, with no way out to any network."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
    "--disable-features=IsolateSandboxedIframes",  # so that a frame is seen from its page
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


class PageError(AssertionError):
    """The page's own script failed, or the browser refused what was asked."""


class Page:
    """One tab: evaluate, press, click, look."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol, and its result."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("id") != number:
                self.events.append(message)
                continue
            if "error" in message:
                raise PageError(f"{method}: {message['error']['message']}")
            return message["result"]

    def open(self, address: str) -> None:
        """Load a page and wait until its script has run."""
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=address)
        self.wait(
            f"location.href.startsWith({json.dumps(address.split(chr(35))[0])})"
            " && document.readyState === 'complete'"
        )
        self.frames()

    def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise PageError(details.get("exception", {}).get("description") or details["text"])
        return found["result"].get("value")

    def inside(self, place: int = 0) -> Callable[[str], Any]:
        """What evaluates an expression in a frame of the page, by its place among the frames."""
        self.run("1")
        frame = self.call("Page.getFrameTree")["frameTree"]["childFrames"][place]["frame"]["id"]
        contexts = [
            event["params"]["context"]["id"]
            for event in self.events
            if event["method"] == "Runtime.executionContextCreated"
            and event["params"]["context"]["auxData"]["frameId"] == frame
        ]

        def evaluated(script: str) -> Any:
            return self.call(
                "Runtime.evaluate", expression=script, contextId=contexts[-1], returnByValue=True
            )["result"].get("value")

        return evaluated

    def frames(self) -> None:
        """Wait for two frames, so that the page has been laid out and drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def wait(self, condition: str, seconds: float = 10) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise PageError(f"never came true: {condition}")
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What an element says."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str, times: int = 1) -> None:
        """A real click, by mouse events, in the middle of an element."""
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        self.mouse("mouseMoved", x, y)
        for number in range(1, times + 1):
            self.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=number)
            self.mouse("mouseReleased", x, y, button="left", clickCount=number)
        self.frames()

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """One mouse event."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key: str, shift: bool = False) -> None:
        """A key down and up; a single character is typed."""
        typed = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = typed if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=8 if shift else 0, **more)
        self.frames()

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.call("Input.insertText", text=text)
        self.frames()

    def size(self, width: int, height: int) -> None:
        """The size of the window's inside."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, **features: str) -> None:
        """Media features: prefer(prefers_color_scheme="dark")."""
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=given)

    def picture(self, path: Path) -> None:
        """A screenshot."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def complaints(self) -> list[str]:
        """Exceptions and errors of the page so far, violations of its own policy among them."""
        self.run("1")
        said = []
        for event in self.events:
            if event["method"] == "Runtime.exceptionThrown":
                said.append(json.dumps(event["params"]["exceptionDetails"])[:600])
            if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                said.append(event["params"]["entry"]["text"])
        return said

    def requests(self) -> list[str]:
        """Addresses the page asked for, its own among them."""
        self.run("1")
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def browser(program: str) -> Iterator[Callable[[], Page]]:
    """A browser with a profile of its own; gives a function that opens a new tab. Ended whatever happens."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            with ExitStack() as connections:
                port = _port(Path(profile), process)

                def tab() -> Page:
                    with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
                        (first, *_) = [one for one in json.load(answer) if one["type"] == "page"]
                    # Its pings would draw from Python's generator, whose state other tests compare.
                    socket = connect(
                        first["webSocketDebuggerUrl"], max_size=None, proxy=None, ping_interval=None
                    )
                    return Page(connections.enter_context(socket))

                yield tab
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    """The port that Chromium chose; it writes it into its profile once it listens."""
    told = profile / "DevToolsActivePort"
    for _ in range(600):
        if told.exists() and (lines := told.read_text().split()):
            return int(lines[0])
        if process.poll() is not None:
            raise PageError(f"chromium ended at once with {process.returncode}")
        time.sleep(0.05)
    raise PageError("chromium did not start listening within 30 s")
