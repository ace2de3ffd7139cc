"""Print the built site as one PDF, and link it from the landing page.

Every page of the site is opened in a browser, where its mathematics and its explorers are drawn, and
is stripped of what only a screen needs (pdf/page.js).  Together they make one document, with a title
page and contents, which the browser prints with pdf/book.css.  As it is one document, links, outline
and structure tags come out right by themselves.  It is printed again until the page numbers that
stand in the contents and in the index are those where things are.

    python tools/make_pdf.py           needs the site in _build/html and a browser
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from html import escape
from pathlib import Path
from typing import Any

import ensure_browser
import matplotlib
import pypdf
import yaml
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
PARTS = Path(__file__).resolve().parent / "pdf"
NAME = "attention-factorized.pdf"
MOST_PRINTS = 4
MOST_SECONDS = 300  # for one step of the browser, on a busy machine

# Letters in every browser and on every machine the same: fonts that matplotlib brings along.
FONTS = {
    "STIXGeneral.ttf": ("Book Serif", "normal", "normal"),
    "STIXGeneralItalic.ttf": ("Book Serif", "italic", "normal"),
    "STIXGeneralBol.ttf": ("Book Serif", "normal", "bold"),
    "STIXGeneralBolIta.ttf": ("Book Serif", "italic", "bold"),
    "DejaVuSans.ttf": ("Book Sans", "normal", "normal"),
    "DejaVuSans-Bold.ttf": ("Book Sans", "normal", "bold"),
    "DejaVuSansMono.ttf": ("Book Mono", "normal", "normal"),
    "DejaVuSansMono-Bold.ttf": ("Book Mono", "normal", "bold"),
    "DejaVuSansMono-Oblique.ttf": ("Book Mono", "italic", "normal"),
}

# Until this holds a page is still being drawn.
DRAWN = """async () => {
  const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]');
  for (const view of views) {
    if (!view.previousElementSibling?.matches('.widget-subarea:not(:empty)')) return false;
  }
  if (window.MathJax?.startup) await MathJax.startup.promise;
  return document.readyState === 'complete';
}"""

# What is wider than the page is made smaller until it fits.
FIT = """() => {
  const wide = [];
  for (const box of document.querySelectorAll('table, div.math, pre')) {
    const room = box.parentElement.clientWidth;
    for (let size = 100; size > 60 && box.scrollWidth > room + 1; size -= 4) {
      box.style.fontSize = `${size}%`;
    }
    if (box.scrollWidth > room + 1) wide.push(box.textContent.trim().slice(0, 60));
  }
  return wide;
}"""

NUMBER = """pages => {
  for (const place of document.querySelectorAll('[data-page-of]')) {
    place.textContent = pages[place.dataset.pageOf] ?? '';
  }
}"""


def table_of_contents() -> list[tuple[str, list[str]]]:
    """The parts of the book in reading order: caption and addresses of the pages."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    parts = [
        (part["caption"], [page["file"] for page in part["chapters"]]) for part in toc["parts"]
    ]
    return [("", [toc["root"]]), *parts]


def take_apart(browser: Browser, site: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """Of every page its article, its headings and the styles of its mathematics."""
    script = (PARTS / "page.js").read_text("utf8")
    context = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})
    tabs = {name: context.new_page() for name in names}
    for name, tab in tabs.items():
        tab.goto((site / f"{name}.html").as_uri(), wait_until="commit")  # they load side by side
    pages = {}
    for name, tab in tabs.items():
        tab.wait_for_function(DRAWN, timeout=MOST_SECONDS * 1000)
        pages[name] = tab.evaluate(script, {"documents": names, "own": name})
        tab.close()
    context.close()
    return pages


def about() -> dict[str, str]:
    """Title, subtitle, author, version of the book."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    return {
        "title": config["title"],
        "subtitle": citation["title"].removeprefix(config["title"] + ": "),
        "author": config["author"],
        "version": str(citation["version"]),
    }


def font_faces() -> str:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return "\n".join(
        f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: {weight}; '
        f'src: url("{(folder / file).as_uri()}"); }}'
        for file, (family, style, weight) in FONTS.items()
    )


def page_number(target: str) -> str:
    """Filled in after each print; three digits' room is kept from the start."""
    return f'<span class="page-number" data-page-of="{escape(target)}">000</span>'


def contents(pages: dict[str, dict[str, Any]]) -> str:
    """Parts, chapters and their sections, each with a link and its page."""
    lines = []
    for caption, names in table_of_contents():
        if caption:
            lines.append(f'<p class="contents-part">{escape(caption)}</p>')
        for name in names:
            # The reference has a section for each module, the index one for each letter.
            short = name in ("book/reference", "genindex")
            for heading in pages[name]["headings"]:
                if heading["level"] == 1 or not short:
                    target = name if heading["level"] == 1 else heading["id"]
                    lines.append(
                        f'<p class="contents-{heading["level"]}"><a href="#{escape(target)}">'
                        f'<span class="entry">{heading["html"]}</span>{page_number(target)}</a></p>'
                    )
    return "\n".join(lines)


def css_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def compose(site: Path, pages: dict[str, dict[str, Any]]) -> str:
    """The whole book as one HTML document."""
    book = about()
    rules: dict[str, None] = {}  # the same glyph is styled alike on every page; order counts
    heads, bodies = [], []
    for number, (name, page) in enumerate(pages.items()):
        rules |= dict.fromkeys(page["math"])
        title = page["headings"][0]["text"]
        heads.append(
            f"@page chapter{number} {{ @top-left {{ content: {css_string(title)}; }} }}\n"
            f"#chapter{number} {{ page: chapter{number}; }}"
        )
        body = page["html"]
        bodies.append(
            f'<article class="bd-article page-{name.replace("/", "-")}" id="chapter{number}">'
            f'<div id="{escape(name)}">{body}</div></article>'
        )
    sheets = [site / "_static" / name for name in ("pygments.css", "book.css", "print.css")]
    styles = [font_faces(), *(sheet.read_text("utf8") for sheet in sheets)]
    styles += [(PARTS / "book.css").read_text("utf8"), *heads, *rules]
    front = (PARTS / "front.html").read_text("utf8")
    for key, value in book.items():
        front = front.replace(f"{{{key}}}", escape(value))
    return "\n".join(
        [
            '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">',
            f"<title>{escape(book['title'])}</title>",
            f"<style>{''.join(styles)}</style></head><body>",
            front,
            f'<nav class="contents"><h1>Contents</h1>{contents(pages)}</nav>',
            *bodies,
            "</body></html>",
        ]
    )


def destinations(path: Path) -> dict[str, int]:
    """On which page of the PDF, counted from 1, each linked place is."""
    reader = pypdf.PdfReader(path)
    numbers = {page.indirect_reference.idnum: i for i, page in enumerate(reader.pages, 1)}
    return {
        name.removeprefix("/"): numbers[target.page.idnum]
        for name, target in reader.named_destinations.items()
    }


def print_until_settled(page: Page, path: Path) -> dict[str, int]:
    """Print until the page numbers in the text are those of the places in the PDF."""
    settled: dict[str, int] = {}
    for _ in range(MOST_PRINTS):
        page.pdf(path=path, prefer_css_page_size=True, print_background=True, tagged=True, outline=True)
        found = destinations(path)
        if found == settled:
            return found
        page.evaluate(NUMBER, found)
        settled = found
    sys.exit("pdf: page numbers don't settle")


def make(site: Path) -> Path:
    names = [name for _, names in table_of_contents() for name in names]
    folder = ROOT / "_build" / "pdf"
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "raw.pdf"
    with sync_playwright() as playwright:
        sandbox = [] if os.name == "nt" or os.geteuid() else ["--no-sandbox"]
        browser = playwright.chromium.launch(
            executable_path=ensure_browser.ensure(), args=sandbox
        )
        pages = take_apart(browser, site, names)
        source = folder / "book.html"
        source.write_text(compose(site, pages), "utf8")
        page = browser.new_page(viewport={"width": 582, "height": 900}, color_scheme="light")
        page.emulate_media(media="print")
        page.goto(source.as_uri())
        page.evaluate("document.fonts.ready.then(() => null)")
        print(page.evaluate(FIT))
        print_until_settled(page, raw)
        browser.close()
    return raw


if __name__ == "__main__":
    import time
    t = time.time()
    print(make(ROOT / "_build" / "html"), time.time() - t)
