"""Print the built site as one PDF, and link it from the landing page.

Every page of the site is opened in a browser, which draws its mathematics and its explorers, and is
stripped of what only a screen needs (pdf/page.js).  With a title page and contents they make one
document, which the browser prints in the style of pdf/book.css.  Being one document, it gets its
links, outline and tags from the browser.  It is printed twice: where things are is known after
the first time, and stands in contents and index the second time.

    python tools/make_pdf.py           needs the site in _build/html and a browser
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import browser as browsers
import matplotlib
import pdf_tags
import pypdf
import yaml
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

ROOT = Path(__file__).resolve().parent.parent
PARTS = Path(__file__).resolve().parent / "pdf"
SITE = ROOT / "_build" / "html"
WORK = ROOT / "_build" / "pdf"
NAME = "attention-factorized.pdf"

MOST_PRINTS = 4
MOST_SECONDS = 300  # for one step of the browser, on a busy machine
TEXT_WIDTH = 642  # pixels between the margins of the paper, 170 mm

# The same letters on every machine: fonts that matplotlib brings along.
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
# The reference has a section for each module and the index one for each letter: too many to list.
WITHOUT_SECTIONS = ("book/reference", "genindex")

# Until this holds a page is still being drawn.
DRAWN = """async () => {
  await document.fonts.ready;
  return document.readyState === 'complete';
}"""
NUMBER_PAGES = """pages => {
  for (const place of document.querySelectorAll('[data-page-of]')) {
    place.textContent = pages[place.dataset.pageOf];
  }
}"""

Parts = dict[str, dict[str, Any]]  # what page.js makes of each page, in reading order


# --- the document -------------------------------------------------------------------------------


def table_of_contents() -> list[tuple[str, list[str]]]:
    """The parts of the book in reading order, each with its caption and the names of its pages."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    parts = ((part["caption"], part["chapters"]) for part in toc["parts"])
    return [
        ("", [toc["root"]]),
        *((name, [page["file"] for page in pages]) for name, pages in parts),
    ]


def take_apart(browser: Browser) -> Parts:
    """The article and the headings of every page."""
    script = (PARTS / "page.js").read_text("utf8")
    names = [name for _, pages in table_of_contents() for name in pages]
    context = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})
    context.route("**/_static/scripts/*", lambda route: route.abort())  # menus and icons, all slow
    tabs = {name: context.new_page() for name in names}
    for name, tab in tabs.items():
        path = SITE / f"{name}.html"
        if not path.exists():
            sys.exit(f"pdf: {path} isn't there: run `make book` first")
        tab.goto(path.as_uri(), wait_until="commit")  # they load side by side
    parts = {}
    for name, tab in tabs.items():
        tab.wait_for_function(DRAWN, timeout=MOST_SECONDS * 1000)
        parts[name] = tab.evaluate(script, {"documents": names, "own": name})
        tab.close()
    context.close()
    return parts


def about() -> dict[str, str]:
    """Title, subtitle, author and version of the book."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    title = config["title"]
    subtitle = citation["title"].removeprefix(f"{title}: ").capitalize()
    author, version = config["author"], str(citation["version"])
    return {"title": title, "subtitle": subtitle, "author": author, "version": version}


def compose(parts: Parts) -> str:
    """The whole book as one HTML document."""
    front = (PARTS / "front.html").read_text("utf8")
    for key, value in about().items():
        front = front.replace(f"{{{key}}}", escape(value))
    articles = (
        f'<article class="bd-article page-{name.replace("/", "-")}" id="{escape(name)}">'
        f"{part['html']}</article>"
        for name, part in parts.items()
    )
    return "\n".join(
        [
            '<!doctype html><html lang="en" data-theme="light"><head><meta charset="utf-8">',
            f"<title>{escape(about()['title'])}</title>",
            f"<style>{styles(parts)}</style></head><body>",
            front,
            '<nav class="contents"><h1 data-spoken="Contents">Contents</h1>',
            *contents(parts),
            "</nav>",
            *articles,
            "</body></html>",
        ]
    )


def contents(parts: Parts) -> Iterator[str]:
    """Parts, chapters and their sections, each with a link and the number of its page."""
    for caption, names in table_of_contents():
        if caption:
            yield f'<p class="contents-part">{escape(caption)}</p>'
        for name in names:
            for heading in parts[name]["headings"]:
                level, target = heading["level"], escape(heading["id"])
                if level == 1 or name not in WITHOUT_SECTIONS:
                    # Room for three digits is kept from the start.
                    number = f'<span class="page-number" data-page-of="{target}">000</span>'
                    entry = f'<span class="entry">{heading["html"]}</span>'
                    yield f'<p class="contents-{level}"><a href="#{target}">{entry}{number}</a></p>'


def styles(parts: Parts) -> str:
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    faces = (
        f'@font-face {{ font-family: "{family}"; font-style: {style}; font-weight: {weight}; '
        f'src: url("{(fonts / file).as_uri()}"); }}'
        for file, (family, style, weight) in FONTS.items()
    )
    shared = (
        SITE / "_static" / name for name in ("pygments.css", "katex.css", "book.css", "print.css")
    )
    sheets = (sheet.read_text("utf8") for sheet in (*shared, PARTS / "book.css"))
    heads = (
        f"@page chapter{number} {{ @top-left {{ content: {css_string(title)}; }} }}\n"
        f"article:nth-of-type({number}) {{ page: chapter{number}; }}"
        for number, title in enumerate((part["headings"][0]["text"] for part in parts.values()), 1)
    )
    return "\n".join([*faces, *sheets, *heads])


def css_string(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


# --- the PDF ------------------------------------------------------------------------------------


def print_book(page: Page, path: Path) -> dict[str, int]:
    """Print until the numbers that stand in contents and index are those of the pages."""
    known: dict[str, int] = {}
    for count in range(MOST_PRINTS):
        # Tags take time, and the first time they are for nothing.
        tags = {"tagged": count > 0, "outline": count > 0}
        page.pdf(path=path, prefer_css_page_size=True, print_background=True, **tags)
        found = destinations(pypdf.PdfReader(path))
        if found == known:
            return found
        page.evaluate(NUMBER_PAGES, found)
        known = found
    sys.exit("pdf: the page numbers don't settle")


def destinations(reader: pypdf.PdfReader) -> dict[str, int]:
    """On which page, counted from 1, each place is that a link leads to."""
    numbers = {page.indirect_reference.idnum: i for i, page in enumerate(reader.pages, 1)}
    places = reader.named_destinations.items()
    return {name.removeprefix("/"): numbers[place.page.idnum] for name, place in places}


def outline_entries(item: DictionaryObject) -> Iterator[DictionaryObject]:
    """The entries of the outline below ``item``, in reading order."""
    child = item.get("/First")
    while child is not None:
        child = child.get_object()
        yield child
        yield from outline_entries(child)
        child = child.get("/Next")


def finish(raw: Path, path: Path, headings: list[str]) -> None:
    """Tidy the tags and the outline, and say in the file what it is."""
    reader = pypdf.PdfReader(raw)
    pdf_tags.fold(reader)
    root = reader.trailer["/Root"]
    # Chromium says a heading twice that it has moved to the next page.
    for entry, heading in zip(outline_entries(root["/Outlines"]), headings, strict=True):
        entry[NameObject("/Title")] = TextStringObject(heading)
    writer = pypdf.PdfWriter(clone_from=reader)
    book = about()
    writer.metadata = {
        "/Title": book["title"],
        "/Author": book["author"],
        "/Subject": book["subtitle"],
    }
    writer.page_mode = "/UseOutlines"
    writer.write(path)


def link_from_landing_page(pages: int, size: int) -> None:
    """Fill the place that the landing page keeps for the link, in both of its copies."""
    toc_root = table_of_contents()[0][1][0]
    for name, up in (("index", ""), (toc_root, "../" * toc_root.count("/"))):
        page = SITE / f"{name}.html"
        text, count = re.subn(
            r'(<p class="af-pdf">).*?(</p>)',
            rf'\1<a href="{up}{NAME}">The whole book as a PDF</a> '
            rf"({pages} pages A4, {size / 1e6:.0f} MB)\2",
            page.read_text("utf8"),
        )
        if count != 1:
            sys.exit(f"pdf: {page.name} has no place for the link")
        written = page.with_suffix(".tmp")  # whoever reads meanwhile finds a whole page
        written.write_text(text, "utf8")
        written.replace(page)


def make() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    source, raw, path = WORK / "book.html", WORK / "raw.pdf", SITE / NAME
    with sync_playwright() as playwright:
        browser = browsers.launch(playwright.chromium)
        source.write_text(compose(take_apart(browser)), "utf8")
        page = browser.new_page(viewport={"width": TEXT_WIDTH, "height": 900}, color_scheme="light")
        page.set_default_timeout(MOST_SECONDS * 1000)
        page.emulate_media(media="print")
        page.goto(source.as_uri())
        layout = page.evaluate((PARTS / "layout.js").read_text("utf8"))
        for problem in ("wide", "dangling", "ambiguous"):
            if layout[problem]:
                sys.exit(f"pdf: {problem}: {layout[problem]}")
        print_book(page, raw)
        browser.close()
    finish(raw, path, layout["headings"])
    link_from_landing_page(len(pypdf.PdfReader(path).pages), path.stat().st_size)
    print(f"The PDF is at {path}")


if __name__ == "__main__":
    make()
