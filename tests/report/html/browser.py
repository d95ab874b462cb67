"""A Chromium of this machine, without a display and without a network; and why there is none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRED = "PE_SIM_REQUIRE_BROWSER"
ARGUMENTS = (
    "--no-sandbox",  # CI runs as root, where a sandbox cannot be had; the pages are our own
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def executable() -> str | None:
    """The path of a Chromium, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def executable_or_skip() -> str:
    """The path of a Chromium; without one the test is skipped, and fails where a browser is required."""
    found = executable()
    if found is None and os.environ.get(REQUIRED):
        pytest.fail(f"there is no Chromium, and {REQUIRED} is set", pytrace=False)
    if found is None:
        pytest.skip("there is no Chromium (on Debian and Ubuntu: apt install chromium)")
    return found


@contextmanager
def started() -> Iterator[Browser]:
    """A browser that is closed afterwards."""
    path = executable_or_skip()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


class Opened:
    """A page with all that it said and asked for."""

    def __init__(self, browser: Browser, path: Path, *, scripts: bool = True, width: int = 1200) -> None:
        self.context = browser.new_context(
            offline=True, java_script_enabled=scripts, viewport={"width": width, "height": 900}
        )
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page: Page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self._dialog(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def _dialog(self, message: str) -> None:
        self.said.append(f"dialog: {message}")

    def close(self) -> None:
        """Nothing was said, and nothing asked for but the page itself."""
        said, asked = list(self.said), [url for url in self.asked if not url.startswith("data:")]
        self.context.close()
        assert said == []
        assert len(asked) == 1
        assert asked[0].startswith("file://")
