"""Find a browser for the browser tests, or get one; print its path.

In this order: the path in BOOK_BROWSER, an installed Chromium, Chrome or Edge, Playwright's own
Chromium, a download of it, the system's package where that is allowed.  Without any of them it
fails with one sentence that says what to install.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
)
NAMES += ("microsoft-edge",)
FIXED_PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
)
DOWNLOAD_LIMIT = 120  # seconds; without a route to its server Playwright would try for long
PACKAGE_LIMIT = 600
ADVICE = (
    "no browser for the browser tests: install Chromium or Google Chrome, "
    "or set BOOK_BROWSER to the path of one"
)


def installed() -> str | None:
    """A browser that is already there, or None."""
    chosen = os.environ.get("BOOK_BROWSER")
    if chosen:
        if not shutil.which(chosen):
            sys.exit(f"BOOK_BROWSER is {chosen!r}, which is no program that can be run")
        return chosen
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    found = found or next((path for path in FIXED_PLACES if Path(path).exists()), None)
    return found or playwrights_own()


def playwrights_own() -> str | None:
    """The path where Playwright keeps its Chromium, if it is there."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def attempt(command: list[str], limit: float) -> None:
    """Run a command that may fail; whether it helped is seen by looking for the browser again."""
    print(f"browser: trying {' '.join(command)}", file=sys.stderr)
    try:
        subprocess.run(
            command, timeout=limit, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        print(f"browser: {error}", file=sys.stderr)


def package_commands() -> list[list[str]]:
    """How to install the system's Chromium, where that is possible without asking for a password."""
    if not shutil.which("apt-get"):
        return []
    if os.geteuid() == 0:
        prefix = []
    elif (
        shutil.which("sudo")
        and subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0
    ):
        prefix = ["sudo", "-n"]
    else:
        return []
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-y"]
    return [
        [*prefix, *quiet, "update"],
        [*prefix, *quiet, "install", "--no-install-recommends", "chromium"],
    ]


def ensure() -> str:
    """The path of a browser; SystemExit with advice if none can be had."""
    browser = installed()
    if browser is None:
        attempt([sys.executable, "-m", "playwright", "install", "chromium"], DOWNLOAD_LIMIT)
        browser = installed()
    if browser is None:
        for command in package_commands():
            attempt(command, PACKAGE_LIMIT)
        browser = installed()
    if browser is None:
        sys.exit(ADVICE)
    return browser


if __name__ == "__main__":
    print(ensure())
