"""The browser of the browser tests and of the PDF: an installed Chromium, Chrome or Edge, else Playwright's own.

    python tools/browser.py       find one or get one, and print what it is

BOOK_BROWSER may name the path of one.  Where nothing is installed, Playwright fetches its own, and where it can't,
root's apt-get is asked for the system's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from playwright.sync_api import Browser, BrowserType, Error, sync_playwright

# The first draws no window, in a fifth less time; Debian has it.
PROGRAMS = (
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
)
CHANNELS = ("chrome", "msedge", "chromium")  # Playwright knows where the first two are installed
MOST_SECONDS = 300
ADVICE = "no browser: install Chromium, Chrome or Edge, or set BOOK_BROWSER to the path of one"


def places() -> Iterator[dict[str, str]]:
    """Where a browser may be, as Playwright is told of it."""
    named = os.environ.get("BOOK_BROWSER")
    if named:
        yield {"executable_path": named}
        return
    for program in PROGRAMS:
        if path := shutil.which(program):
            yield {"executable_path": path}
    yield from ({"channel": channel} for channel in CHANNELS)
    yield {}  # the small one that Playwright fetches for headless use


def launch(chromium: BrowserType, **options: Any) -> Browser:
    """The first browser that starts; SystemExit if none does."""
    # Chromium refuses its sandbox to root, which is who runs in containers.
    sandbox = [] if os.name == "nt" or os.geteuid() else ["--no-sandbox"]
    arguments = [*sandbox, "--font-render-hinting=none"]  # hinted letters have gaps in a PDF
    problem = ""
    for place in places():
        try:
            return chromium.launch(args=arguments, **place, **options)
        except Error as error:
            problem = problem or str(error).strip().splitlines()[0]
    sys.exit(f"{ADVICE} ({problem})")


def installers() -> Iterator[list[str]]:
    yield [sys.executable, "-m", "playwright", "install", "chromium-headless-shell"]
    if os.name != "nt" and os.geteuid() == 0 and shutil.which("apt-get"):
        yield ["apt-get", "-qq", "update"]
        for package in PROGRAMS[:2]:
            yield ["apt-get", "-qq", "-y", "install", "--no-install-recommends", package]


def ensure() -> str:
    """The version of a browser that starts, after what it takes to have one."""
    commands = installers()
    while True:
        with sync_playwright() as playwright:
            try:
                browser = launch(playwright.chromium)
                return f"{browser.browser_type.name} {browser.version}"
            except SystemExit as problem:
                command = next(commands, None)
                if command is None or os.environ.get("BOOK_BROWSER"):
                    raise
                print(f"{problem}; trying {' '.join(command)}", file=sys.stderr)
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(command, timeout=MOST_SECONDS, stdin=subprocess.DEVNULL, stdout=2)


if __name__ == "__main__":
    print(ensure())
