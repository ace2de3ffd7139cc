"""A real browser over the built site, with the network cut: what is not the site's is refused and counted."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import browser as browsers  # noqa: E402

# Another folder can be named, to try the tests on a copy that was broken on purpose.
SITE = Path(os.environ.get("BOOK_SITE", ROOT / "_build" / "html"))
# Pages come from the table of contents and not from the folder: a page that was not built is an error.
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
LISTED = [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
DOCUMENTS = [TOC["root"], *LISTED]
NOTEBOOKS = [name for name in DOCUMENTS if (ROOT / f"{name}.ipynb").exists()]
CHAPTER = next(name for name in NOTEBOOKS if name.startswith("notebooks/"))
PAGES = [*dict.fromkeys(["index", *DOCUMENTS, "search", "genindex"])]

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

MOST_MILLISECONDS = 120_000  # for one step of the browser, on a busy machine

# Until this holds, a page is still being drawn.
SETTLED = """async () => {
  await document.fonts.ready;
  return document.readyState === 'complete';
}"""


def explorers_in_notebook(name: str) -> int:
    """How many explorers a page has to show: views of a widget with the class af-explorer."""
    path = ROOT / f"{TOC['root'] if name == 'index' else name}.ipynb"
    if not path.exists():
        return 0
    notebook = json.loads(path.read_text("utf8"))
    models = notebook["metadata"].get("widgets", {}).get(WIDGET_STATE, {"state": {}})["state"]
    views = [
        output["data"][WIDGET_VIEW]["model_id"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if WIDGET_VIEW in output.get("data", {})
    ]
    return sum("af-explorer" in models[view]["state"].get("_dom_classes", []) for view in views)


@dataclass
class Visit:
    """One open page, and everything that went wrong on it."""

    page: Page
    base: str
    problems: list[str] = field(default_factory=list)

    def open(self, name: str, query: str = "") -> Page:
        self.page.goto(f"{self.base}/{name}.html{query}")
        self.page.wait_for_function(SETTLED)
        return self.page

    def guard(self, route: Route) -> None:
        url = route.request.url
        if url.startswith((f"{self.base}/", "data:", "blob:")):
            route.continue_()
        else:
            self.problems.append(f"request off the site: {url}")
            route.abort()

    def listen(self) -> None:
        self.page.route("**/*", self.guard)
        self.page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        self.page.on("console", self.heard)

    def heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console error: {message.text}")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site() -> Path:
    assert (SITE / "index.html").exists(), f"{SITE} has no index.html: run `make book` first"
    return SITE


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = browsers.launch(playwright.chromium)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def server(site: Path) -> Iterator[str]:
    """The address of a local server of the site."""
    handler = partial(QuietHandler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def visit(
    browser: Browser, server: str, site: Path, request: pytest.FixtureRequest
) -> Iterator[Visit]:
    """A fresh page on the served site; on its files where the test asks for ``file``,

    without JavaScript where it asks for ``no script``.
    """
    scheme = getattr(request, "param", "http")
    base = site.resolve().as_uri() if scheme == "file" else server
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        java_script_enabled=scheme != "no script",
        reduced_motion="reduce",
    )
    context.set_default_timeout(MOST_MILLISECONDS)
    visit = Visit(context.new_page(), base)
    visit.listen()
    yield visit
    context.close()
