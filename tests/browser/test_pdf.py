"""The book as one PDF: complete, linked, numbered, and with nothing of the screen left in it."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from collections import Counter
from functools import cache
from urllib.parse import urlsplit

from conftest import CHAPTER, DOCUMENTS, ROOT, SITE, TOC
from pypdf import PageObject, PdfReader
from pypdf.generic import DictionaryObject, IndirectObject
from pypdfium2 import PdfDocument

from helpers.page import claims

PDF = SITE / "attention-factorized.pdf"
LEAST_PAGES = 150
MOST_BYTES = 15_000_000
TITLE = "Attention, Factorized"
NOT_LISTED = ("The helpers", "Index")  # the contents leave out the sections of these two
FONTS = re.compile(r"(STIXGeneral|DejaVuSans|DejaVuSansMono|KaTeX_\w+)(-\w+)?")

Place = tuple[str, int]  # a title and the page that it is on, counted from 1


@cache
def reader() -> PdfReader:
    if not PDF.exists():  # made here, so that the other tests go on meanwhile
        subprocess.run([sys.executable, ROOT / "tools" / "make_pdf.py"], check=True)
    return PdfReader(PDF)


@cache
def texts() -> list[str]:
    """The text of each page, with single spaces and without ligatures (a font may have ﬁ as one letter)."""
    assert reader().pages
    pages = (page.get_textpage().get_text_range() for page in PdfDocument(PDF))
    pages = (unicodedata.normalize("NFKC", page) for page in pages)
    return [re.sub(r"[ \u2060]+", " ", page.replace("\r\n", "\n")) for page in pages]


def without_spaces(text: str) -> str:
    """Letters that are set one by one, as in a heading, are taken for words."""
    return "".join(text.split())


@cache
def page_numbers() -> dict[int, int]:
    return {page.indirect_reference.idnum: i for i, page in enumerate(reader().pages, 1)}


def page_of(place: DictionaryObject) -> int:
    return page_numbers()[place.raw_get("/Page").idnum]


@cache
def outline() -> list[tuple[Place, list[Place]]]:
    """Chapters with their sections."""
    chapters: list[tuple[Place, list[Place]]] = []
    for entry in reader().outline:
        if isinstance(entry, list):
            sections = [item for item in entry if not isinstance(item, list)]
            chapters[-1][1].extend((item.title, page_of(item)) for item in sections)
        else:
            chapters.append(((entry.title, page_of(entry)), []))
    return chapters


@cache
def article(name: str) -> str:
    """What a built page says itself, without the theme around it."""
    text = (SITE / f"{name}.html").read_text("utf8")
    return text[text.index('<article class="bd-article"') : text.index("</article>")]


def links(page: PageObject) -> list[DictionaryObject]:
    annotations = [entry.get_object() for entry in page.get("/Annots", [])]
    return [entry for entry in annotations if entry["/Subtype"] == "/Link"]


def address(link: DictionaryObject) -> str | None:
    """Where a link leads out of the PDF; None for one that stays inside."""
    return link.get("/A", {}).get("/URI")


def goal(link: DictionaryObject) -> str:
    """The name of the place that a link inside the PDF leads to."""
    return str(link.get("/Dest") or link["/A"]["/D"])


# --- what is there --------------------------------------------------------------------------------


def test_size() -> None:
    assert len(reader().pages) >= LEAST_PAGES
    assert PDF.stat().st_size <= MOST_BYTES
    sizes = {
        tuple(round(float(side) / 72 * 25.4) for side in page.mediabox[2:])
        for page in reader().pages
    }
    assert sizes == {(210, 297)}


def test_outline_has_every_chapter_in_reading_order() -> None:
    pages = [(SITE / f"{name}.html").read_text("utf8") for name in DOCUMENTS]
    titles = [re.search(r"<title>(.*?) &#8212; ", page)[1] for page in pages]
    found = [title for (title, _), _ in outline()]
    assert found == ["Contents", "Introduction", *titles[1:]]
    starts = [page for (_, page), _ in outline()]
    assert starts == sorted(set(starts)), "two chapters begin on one page"


def test_outline_has_every_section() -> None:
    # What a page computes on demand has headings of its own, and isn't printed.
    printed = r'<h2(?! class="af-part")[ >]'
    wanted = {name: len(re.findall(printed, article(name))) for name in DOCUMENTS}
    found = {
        name: len(sections) for name, (_, sections) in zip(DOCUMENTS, outline()[1:], strict=True)
    }
    assert found == wanted
    assert sum(found.values()) > 50


def test_every_claim_is_in_the_ledger_and_in_its_chapter() -> None:
    starts = {title: page for (title, page), _ in outline()} | {"": len(texts()) + 1}
    first = starts["The claim ledger"]
    last = min(page for page in starts.values() if page > first)
    ledger = " ".join("\n".join(texts()[first - 1 : last - 1]).split())
    chapters = "\n".join([*texts()[: first - 1], *texts()[last - 1 :]])  # and their evidence
    for claim in claims.ledger().values():
        card = f"{claim.id} {claims.SYMBOLS[claim.verdict]} {claim.verdict}"
        assert card in chapters, f"no verdict card of {claim.id}"
        assert f"{card} {claim.kind}" in ledger, f"{claim.id} isn't in the ledger"


def test_proofs_solutions_and_explorers_are_there() -> None:
    text = "\n".join(texts())
    pages = "".join(article(name) for name in DOCUMENTS)
    solutions = len(re.findall(r'class="cell tag_[\w -]*tag_solution', pages))
    solutions += len(re.findall(r'class="cell tag_solution', pages))
    assert text.count("\nSolution\n") == solutions > 0
    proofs = len(re.findall(r'<span class="sd-summary-text">Proof', pages))
    assert len(re.findall(r"\nProof", text)) >= proofs > 0
    explorers = pages.count('class="af-explorer"')
    assert len(re.findall(r"[Hh]ere with [\w ]+ =", text)) == explorers > 0


# --- what isn't -----------------------------------------------------------------------------------


def test_nothing_of_the_screen_is_left() -> None:
    for number, text in enumerate(texts(), 1):
        for left in (
            "Show code cell",
            "Hide code cell",
            "Show the solution",
            "Click to show",
            "of 56 claims",
        ):
            assert left not in text, f"{left!r} on page {number}"


def test_no_source_is_left_where_mathematics_and_numbers_belong() -> None:
    # How to read and the reference tell of glue; chapters, evidence and ledger, between them, use it.
    starts = dict(zip(DOCUMENTS, (page for (_, page), _ in outline()[1:]), strict=True))
    for number in range(starts[CHAPTER], starts["book/reference"]):
        found = re.findall(
            r"\{(?:glue|cite|term|prf|ref|numref)[:}]\S*|\$[^$\n]+\$|\\\(|\\begin",
            texts()[number - 1],
        )
        assert found == [], f"page {number}"


def test_every_page_has_its_number_and_something_on_it() -> None:
    chapter = {page: title for (title, page), _ in outline()}
    title = ""
    for number, text in enumerate(texts(), 1):
        title = chapter.get(number, title)
        head = without_spaces(f"{title}{number}" if number > 1 else "")
        assert without_spaces(text).startswith(head), f"page {number}"
        body = without_spaces(text).removeprefix(head)
        assert len(body) > 40 or "/XObject" in reader().pages[number - 1]["/Resources"], (
            f"page {number}"
        )


# --- links and numbers ----------------------------------------------------------------------------


def test_links_out_are_to_the_web() -> None:
    out = [address(link) for page in reader().pages for link in links(page)]
    wrong = [
        link
        for link in out
        if link is not None
        and (
            urlsplit(link).scheme not in ("http", "https")
            or "localhost" in link
            or "127.0.0" in link
        )
    ]
    assert wrong == []
    assert len([link for link in out if link]) > 100


def test_links_inside_lead_somewhere() -> None:
    places = reader().named_destinations
    goals = Counter(
        (number, goal(link))
        for number, page in enumerate(reader().pages, 1)
        for link in links(page)
        if address(link) is None
    )
    assert [name for _, name in goals if name not in places] == []
    assert all(page_of(place) for place in places.values())

    # From where to where: chapters, ledger and bibliography point to each other.
    starts = [page for (_, page), _ in outline()][1:]
    chapter_of = {
        number: name
        for name, start, end in zip(
            DOCUMENTS, starts, [*starts[1:], len(reader().pages) + 1], strict=True
        )
        for number in range(start, end)
    }
    ways = {
        (chapter_of.get(number), name.removeprefix("/").split(":")[0]) for number, name in goals
    }
    for chapter in (name for name in DOCUMENTS if re.match(r"notebooks/(evidence/)?\d", name)):
        assert ("book/ledger", chapter) in ways
        assert (chapter, "book/bibliography") in ways
        assert ("genindex", chapter) in ways
    for name in DOCUMENTS:
        assert any(goal == name for start, goal in ways if start is None), (
            f"{name} isn't in the contents"
        )


def test_contents_say_the_right_pages() -> None:
    captions = {part["chapters"][0]["file"]: part["caption"] for part in TOC["parts"]}
    lines = ["Contents"]
    for name, ((title, page), sections) in zip(DOCUMENTS, outline()[1:], strict=True):
        listed = [] if title in NOT_LISTED else sections
        entries = (f"{entry}{number}" for entry, number in [(title, page), *listed])
        lines += [captions.get(name, ""), *entries]
    (_, (_, first)) = outline()[0][0], outline()[1][0]
    pages = enumerate((without_spaces(text) for text in texts()[1 : first - 1]), 2)
    found = "".join(text.removeprefix(f"Contents{number}") for number, text in pages)
    assert found == without_spaces("".join(lines))


def test_index_says_the_right_pages() -> None:
    (_, first), _ = outline()[-1]
    index = " ".join("\n".join(texts()[first - 1 :]).split())
    terms = {
        name.split(":term-")[1].replace("-", " "): page_of(place)
        for name, place in reader().named_destinations.items()
        if name.startswith("/book/notation:term-")
    }
    right = [term for term, page in terms.items() if f"{term}, {page}" in index]
    assert len(right) > 0.8 * len(terms) > 20  # a name is not always the term itself, as in LoRA


def test_landing_page_links_it() -> None:
    for name, link in (("index", PDF.name), ("book/index", f"../{PDF.name}")):
        page = (SITE / f"{name}.html").read_text("utf8")
        assert f'<a href="{link}">' in page
        assert f"({len(reader().pages)} pages A4" in page


# --- the file -------------------------------------------------------------------------------------


def test_fonts_are_embedded_and_the_same_everywhere() -> None:
    fonts = {}
    for page in reader().pages:
        for font in page["/Resources"].get("/Font", {}).values():
            fonts[font.get_object().indirect_reference.idnum] = font.get_object()
    names = set()
    for font in fonts.values():
        inner = font["/DescendantFonts"][0].get_object() if font["/Subtype"] == "/Type0" else font
        descriptor = inner["/FontDescriptor"]
        if font["/Subtype"] == "/Type3":
            assert font["/CharProcs"]  # its letters are drawings
        else:
            assert {"/FontFile2", "/FontFile3"} & set(descriptor), (
                f"{font['/BaseFont']} is not embedded"
            )
        names.add(descriptor["/FontName"].split("+")[-1])
    assert [name for name in names if not FONTS.fullmatch(name)] == []
    assert any(name.startswith("KaTeX") for name in names)


def test_file_says_what_it_is() -> None:
    root = reader().trailer["/Root"]
    assert (reader().metadata.title, root["/Lang"]) == (TITLE, "en")
    assert reader().metadata.author
    assert root["/MarkInfo"]["/Marked"]
    assert root["/PageMode"] == "/UseOutlines"


def test_screen_readers_are_told_of_figures_and_formulas() -> None:
    elements: Counter[str] = Counter()
    without = []
    todo: list[object] = [reader().trailer["/Root"]["/StructTreeRoot"]["/K"]]
    while todo:
        element = todo.pop()
        if isinstance(element, IndirectObject):
            element = element.get_object()
        if isinstance(element, list):
            todo += list(element)
        elif isinstance(element, DictionaryObject) and "/S" in element:
            kind = str(element["/S"])
            elements[kind + ("+" if element.get("/Alt") else "")] += 1
            if kind == "/Formula" and not element.get("/Alt"):
                without.append(element)
            todo += [element.raw_get("/K")] if "/K" in element else []
    assert without == []
    assert elements["/Formula+"] > 1000
    assert elements["/Figure+"] >= sum(
        article(name).count('<figure class="af-figure">') for name in DOCUMENTS
    )
    assert elements["/H1"] == len(DOCUMENTS) + 1
    assert elements["/Table"] > 20
    assert elements["/NonStruct"] == 0
