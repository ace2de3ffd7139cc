"""The built files themselves, without a browser: links, weight, addresses."""

from __future__ import annotations

import gzip
import posixpath
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from conftest import NOTEBOOKS, PAGES, ROOT

MOST_BYTES = 1_000_000  # of a page's HTML, compressed as servers do


class Addresses(HTMLParser):
    """The ids of a page, what it links to, and what it loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids |= {values[name] for name in ("id", "name") if values.get(name)}
        if tag in ("a", "area") and values.get("href"):
            self.links.append(values["href"])
        elif values.get("href") or values.get("src"):
            self.loads.append(values.get("href") or values["src"])


@cache
def addresses(path: Path) -> Addresses:
    return Addresses(path.read_text("utf8"))


@pytest.mark.parametrize("name", PAGES)
def test_every_link_within_the_site_leads_somewhere(site: Path, name: str) -> None:
    page = addresses(site / f"{name}.html")
    broken = []
    for link in page.links + page.loads:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        path = posixpath.normpath(
            posixpath.join(posixpath.dirname(f"{name}.html"), unquote(parts.path))
        )
        target = site / path if parts.path else site / f"{name}.html"
        if not target.is_file():
            broken.append(f"{link}: no such file")
        elif parts.fragment and target.suffix == ".html":
            ids = addresses(target).ids
            if unquote(parts.fragment) not in ids:
                broken.append(f"{link}: no such place on that page")
    assert broken == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_loaded_from_elsewhere(site: Path, name: str) -> None:
    loads = addresses(site / f"{name}.html").loads
    assert loads
    assert [load for load in loads if urlsplit(load).netloc] == []


@pytest.mark.parametrize("name", PAGES)
def test_page_is_light(site: Path, name: str) -> None:
    assert len(gzip.compress((site / f"{name}.html").read_bytes())) <= MOST_BYTES


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_can_be_downloaded(site: Path, name: str) -> None:
    path = site / f"{name}.html"
    (link,) = {link for link in addresses(path).links if link.endswith(".ipynb")}
    assert (path.parent / link).read_bytes() == (ROOT / f"{name}.ipynb").read_bytes()
