"""A headless Chromium, driven over the WebDriver protocol with plain HTTP."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from servers import free_ports

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
)


def missing() -> str | None:
    """Why there is no browser to drive, or None where there is one."""
    if not any(map(shutil.which, _BROWSERS)):
        return f"none of {', '.join(_BROWSERS)} is installed (Debian: apt-get install chromium chromium-driver)"
    if not shutil.which("chromedriver"):
        return "chromedriver is not installed (Debian: apt-get install chromium-driver)"
    return None


class Browser:
    """One session."""

    def __init__(self, driver: str) -> None:
        self._base = driver
        binary = next(filter(None, map(shutil.which, _BROWSERS)))
        options = {
            "goog:chromeOptions": {"binary": binary, "args": list(_FLAGS)},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        session = self._post("/session", {"capabilities": {"alwaysMatch": options}})
        self._base = f"{driver}/session/{session['sessionId']}"

    def open(self, page: Path) -> None:
        """Load a file; returns when it has loaded."""
        self._post("/url", {"url": page.absolute().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """The result of a function's body, run in the page (outside of its Content-Security-Policy)."""
        return self._post("/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, script: str, timeout_s: float = 20.0) -> Any:
        """The first true result of ``script``."""
        ends = time.monotonic() + timeout_s
        while not (result := self.run(script)):
            assert time.monotonic() < ends, f"never true: {script}"
            time.sleep(0.02)
        return result

    def devtools(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look_like(self, width: int, height: int = 900, *, scheme: str = "light", media: str = "screen") -> None:
        """A window's width and height in CSS pixels, light or dark, on the screen or printed."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=features)

    def javascript(self, *, on: bool) -> None:
        """Whether pages that are opened from now on may run scripts."""
        self.devtools("Emulation.setScriptExecutionDisabled", value=not on)

    def click(self, selector: str) -> None:
        """Click the first element that the selector finds, as a mouse does."""
        self._post(f"/element/{self._find(selector)}/click", {})

    def type(self, selector: str, keys: str) -> None:
        """Type into it."""
        self._post(f"/element/{self._find(selector)}/value", {"text": keys})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """What was logged since it was last asked: ``browser`` (the console), ``performance`` (DevTools events)."""
        entries: list[dict[str, Any]] = self._post("/se/log", {"type": kind})
        return entries

    def requests(self) -> list[str]:
        """Every address that was asked for since it was last asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if not each["request"]["url"].startswith("data:")]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A picture of the page, to look at."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(b64decode(shot["data"]))

    def close(self) -> None:
        """End the session."""
        self._call("DELETE", "", None)

    def _find(self, selector: str) -> str:
        found = self._post("/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return self._call("POST", path, json.dumps(body).encode())

    def _call(self, method: str, path: str, body: bytes | None) -> Any:
        request = urllib.request.Request(self._base + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[:2000]}") from None


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile; it and its driver are ended afterwards."""
    port = free_ports()
    with tempfile.TemporaryFile() as log:
        command = [shutil.which("chromedriver") or "chromedriver", f"--port={port}"]
        driver = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/status")
            opened = Browser(f"http://127.0.0.1:{port}")
            try:
                yield opened
            finally:
                opened.close()
        finally:
            driver.terminate()
            driver.wait(timeout=30)


def _wait_until_ready(address: str) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            assert time.monotonic() < ends, "chromedriver does not answer"
            time.sleep(0.05)
