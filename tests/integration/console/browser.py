"""A headless Chromium, driven through chromedriver's own HTTP protocol (W3C WebDriver)."""

import base64
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

_DRIVER: Final = shutil.which("chromedriver")
IS_INSTALLED: Final = _DRIVER is not None and shutil.which("chromium") is not None
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"
_STARTS: Final = 3
_ARGUMENTS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1200,900",
]


class Browser:
    """One window; elements are found by CSS selector and waited for."""

    def __init__(self, session_url: str) -> None:
        self._url = session_url

    def open(self, url: str) -> None:
        self._post("url", url=url)

    def fill(self, selector: str, text: str) -> None:
        """Type a text over what is there, or choose a file by its path."""
        element = self._find(selector)
        if self._ask(f"element/{element}/property/type") != "file":
            self._post(f"element/{element}/clear")
        self._post(f"element/{element}/value", text=text)

    def click(self, selector: str) -> None:
        self._post(f"element/{self._find(selector)}/click")

    def read(self, selector: str) -> str:
        """The text that a person sees."""
        text: str = self._ask(f"element/{self._find(selector)}/text")
        return text

    def run(self, script: str) -> Any:
        return self._post("execute/sync", script=script, args=[])

    def await_true(self, script: str, *, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not self.run(f"return {script}"):
            assert time.monotonic() < end, f"{script} is not true:\n{self.read('body')}"
            time.sleep(0.1)

    def save_screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("screenshot")))

    def _find(self, selector: str) -> str:
        found = self._post("element", using="css selector", value=selector)
        element: str = found[_ELEMENT]
        return element

    def _ask(self, path: str) -> Any:
        return _value(requests.get(f"{self._url}/{path}", timeout=20))

    def _post(self, path: str, **body: Any) -> Any:
        return _value(requests.post(f"{self._url}/{path}", json=body, timeout=20))


@contextmanager
def running_browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in a folder; ended with the block."""
    driver, port = _start_driver()
    with driver:
        try:
            root = f"http://127.0.0.1:{port}/session"
            arguments = [*_ARGUMENTS, f"--user-data-dir={profile}"]
            options = {"goog:chromeOptions": {"args": arguments}, "timeouts": {"implicit": 5000}}
            answer = requests.post(
                root, json={"capabilities": {"alwaysMatch": options}}, timeout=30
            )
            session = f"{root}/{_value(answer)['sessionId']}"
            try:
                yield Browser(session)
            finally:
                requests.delete(session, timeout=10)
        finally:
            driver.terminate()


def _start_driver() -> "tuple[subprocess.Popen[str], int]":
    """A driver and its port; once in a while one ends at once on a busy machine."""
    assert _DRIVER is not None
    said: list[str] = []
    for _ in range(_STARTS):
        driver = subprocess.Popen(
            [_DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert driver.stdout is not None
        for line in driver.stdout:
            said.append(line)
            if "started successfully on port" in line:
                return driver, int(line.split()[-1].rstrip("."))
        driver.wait()
    raise AssertionError(f"chromedriver ended at once: {''.join(said)}")


def _value(answer: requests.Response) -> Any:
    value = answer.json()["value"]
    assert answer.ok, value
    return value
