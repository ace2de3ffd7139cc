"""Every page for everybody: accessible in light and dark, on a phone, by keyboard, from a file, without scripts."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import pytest
from conftest import CHAPTER, PAGES, ROOT, Visit, explorers_in_notebook
from PIL import Image, ImageChops

AXE = ROOT / "book" / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
LEAST_WORDS_OF_ALT = 3
COLOUR_RULES = ["color-contrast", "link-in-text-block"]

# Text of the article as a reader sees it, less code, where dollars and braces are meant.
PROSE = """() => {
  const article = document.querySelector('main').cloneNode(true);
  article.querySelectorAll('pre, code, script, style, .katex, svg').forEach(e => e.remove());
  return article.textContent;
}"""

# Pictures without a text alternative, or whose alternative is a file name.
UNDESCRIBED = r"""least => {
  const bad = [];
  const check = (element, text) => {
    const words = (text ?? '').trim().split(/\s+/);
    if (words.length < least || /\.(png|svg|jpe?g|gif|webp)$/i.test(words.at(-1))) {
      bad.push(`${element.tagName} "${text}"`);
    }
  };
  for (const image of document.querySelectorAll('.bd-article img')) check(image, image.alt);
  for (const picture of document.querySelectorAll('.bd-article [role=img]')) {
    check(picture, picture.getAttribute('aria-label'));
  }
  for (const figure of document.querySelectorAll('.bd-article .af-figure')) {
    if (!figure.querySelector('[role=img][aria-label]')) bad.push('figure without role=img');
  }
  for (const svg of document.querySelectorAll('.bd-article svg')) {
    if (!svg.closest('[role=img][aria-label], [aria-hidden=true], button, .katex')) bad.push('bare svg');
  }
  return bad;
}"""

# Rasters that a filter, a blend mode or an opacity would falsify, with the ancestors that do it.
FALSIFIED = """() => [
  ...document.querySelectorAll('.bd-article :is(img, .af-figure svg, .af-figure image)')
].flatMap(raster => {
  const bad = [];
  for (let e = raster; e; e = e.parentElement) {
    const style = getComputedStyle(e);
    if (style.filter !== 'none' || style.mixBlendMode !== 'normal' || style.opacity !== '1') {
      bad.push(`${raster.tagName}: ${style.filter} ${style.mixBlendMode} ${style.opacity} on ${e.tagName}`);
    }
  }
  return bad;
})"""

# What reaches out of the window to the side and lies in no box that can be scrolled; the page's own way to the side.
CUT_OFF = """() => {
  const width = document.documentElement.clientWidth;
  scrollTo(10000, 0);
  const moved = scrollX;
  scrollTo(0, 0);
  const bad = moved ? [`the page scrolls by ${moved}`] : [];
  const bounded = (element) => {
    for (let box = element.parentElement; box; box = box.parentElement) {
      if (['auto', 'scroll'].includes(getComputedStyle(box).overflowX)) return true;
    }
    return false;
  };
  for (const element of document.querySelectorAll('main *:not(.katex *, svg *)')) {
    const { left, right, width: own } = element.getBoundingClientRect();
    const out = own > 1 && (left < -1 || right > width + 1);
    if (out && element.checkVisibility({ visibilityProperty: true }) && (!bounded(element) || element.matches('caption'))) {
      bad.push(`${element.tagName}.${element.className} from ${left} to ${right}`);
    }
  }
  return bad;
}"""

# Boxes that scroll to the side and cannot be reached by keyboard. Four pixels, as of a formula in a line, hide nothing.
UNREACHED = """() => [...document.querySelectorAll('.bd-article :is(pre, .math, .af-table, .af-panels)')]
  .filter(box => box.checkVisibility() && box.scrollWidth > box.clientWidth + 4 && box.tabIndex < 0
    && getComputedStyle(box).overflowX !== 'hidden').map(box => box.outerHTML.slice(0, 80))"""

# Short cells with a number in which the browser has broken the line.
BROKEN_NUMBERS = r"""() => [...document.querySelectorAll('main td')].filter(cell => {
  const text = cell.textContent.trim();
  if (text.length > 12 || !/\d/.test(text) || cell.querySelector('.katex, a')) return false;
  const range = document.createRange();
  range.selectNodeContents(cell.querySelector('p') ?? cell);
  return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
}).map(cell => cell.textContent)"""

HEADINGS = """() => [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')]
  .filter(heading => heading.checkVisibility()).map(heading => Number(heading.tagName[1]))"""

# Tables without a name, and header cells that don't say what they head.
UNNAMED_TABLES = """() => [...document.querySelectorAll('main table:not(.indextable)')].flatMap(table => {
  const name = table.caption?.textContent.trim() || table.getAttribute('aria-label');
  const heads = [...table.querySelectorAll('th')];
  const bad = [];
  if (!name) bad.push(`no name: ${table.textContent.trim().slice(0, 40)}`);
  if (!heads.length || heads.some(head => !head.scope)) bad.push(`no scope: ${name}`);
  return bad;
})"""

# One of each kind is left of what has the same tags, classes and styles up to the article: a colour rule takes as long as
# a page has elements, and asks the same of all of these.
ONE_OF_EACH = """() => {
  const kinds = new Set();
  const inMain = [...document.querySelectorAll('main *')];
  for (const leaf of inMain.filter(element => !element.firstElementChild)) {
    let kind = '';
    for (let e = leaf; e.tagName !== 'MAIN'; e = e.parentElement) {
      kind += `${e.tagName} ${e.getAttribute('class')} ${e.getAttribute('style')} ${e.tagName === 'TR' && e.rowIndex % 2} in `;
    }
    if (kinds.has(kind)) leaf.remove();
    kinds.add(kind);
  }
}"""

# What has the focus: its name, the width of its outline, and whether it can be seen.
FOCUS = """() => {
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const { width, height } = element.getBoundingClientRect();
  const name = element.getAttribute('aria-label') || element.textContent.trim() || element.name || '';
  return {
    name: `${element.tagName}.${element.className} ${name.slice(0, 40)}`,
    outline: style.outlineStyle === 'none' ? 0 : parseFloat(style.outlineWidth),
    seen: width > 1 && height > 1 && element.checkVisibility({ visibilityProperty: true, opacityProperty: true }),
  };
}"""


def axe_violations(visit: Visit, *, colours: bool) -> list[str]:
    """Of the rules on colours, or of all others."""
    if not visit.page.evaluate("typeof axe === 'object'"):
        visit.page.evaluate(AXE.read_text("utf8"))
    others = {"rules": {rule: {"enabled": False} for rule in COLOUR_RULES}}
    options = {"runOnly": COLOUR_RULES} if colours else others
    options["resultTypes"] = ["violations"]
    result = visit.page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:200]}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
def test_page(visit: Visit, name: str) -> None:
    page = visit.page
    page.emulate_media(color_scheme="light")
    visit.open(name)

    # Everything is written as it should be, and told to those who don't see it.
    prose = page.evaluate(PROSE)
    assert not re.search(r"\$[^$\n]{1,80}\$|\\\(|\\\[", prose), "mathematics that was not typeset"
    assert not re.search(r"\{[a-z:]+\}`", prose), "a MyST role that was not resolved"
    assert page.locator(".katex:not(:has(math))").count() == 0, "a formula that cannot be read out"
    assert page.locator(".bd-article .math:not(:has(.katex))").count() == 0
    assert page.evaluate(UNDESCRIBED, LEAST_WORDS_OF_ALT) == []
    assert page.evaluate(UNNAMED_TABLES) == []
    levels = page.evaluate(HEADINGS)
    assert levels.count(1) == 1 == levels[0]
    assert max((b - a for a, b in pairwise(levels)), default=0) <= 1
    assert page.get_by_role("main").count() == 1
    assert page.title().strip()
    assert page.locator("html").get_attribute("lang") == "en"
    assert len(page.locator("meta[name=description]").get_attribute("content")) > 40

    # By keyboard: what has the focus can be seen.
    for stop in range(12):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        assert focus["seen"], focus
        assert focus["outline"] >= 2, focus
        assert stop or focus["name"].endswith("Skip to main content")

    # With all folds open.
    page.evaluate(
        "document.querySelectorAll('main details').forEach(fold => { fold.open = true; })"
    )
    page.wait_for_function(
        "[...document.querySelectorAll('main details')].every(fold => fold.open)"
    )
    assert axe_violations(visit, colours=False) == []

    # A window of 1280 pixels is 640 wide at 200 % and 320 at 400 %: WCAG 1.4.4 and 1.4.10.
    for width in (640, 360, 320):
        page.set_viewport_size({"width": width, "height": 512})
        assert page.evaluate(CUT_OFF) == [], width
        assert page.evaluate(BROKEN_NUMBERS) == [], width
    page.wait_for_function(f"({UNREACHED})().length === 0")

    # In both colours.
    page.set_viewport_size({"width": 1280, "height": 900})
    page.evaluate(ONE_OF_EACH)
    assert axe_violations(visit, colours=True) == []
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    assert page.evaluate(FALSIFIED) == []
    assert axe_violations(visit, colours=True) == []
    assert visit.problems == []


@pytest.mark.parametrize("visit", ["no script"], indirect=True)
def test_pages_are_read_without_javascript(visit: Visit) -> None:
    page = visit.page
    for name in PAGES:
        page.set_viewport_size({"width": 1280 if name == CHAPTER else 360, "height": 800})
        page.goto(f"{visit.base}/{name}.html")
        assert page.locator("main h1:visible").count() == 1
        assert page.locator(".pst-js-only:visible").count() == 0, "a button that does nothing"
        assert page.locator(".bd-article .math:not(:has(.katex))").count() == 0
        explorers = page.locator(".af-explorer")
        assert explorers.count() == explorers_in_notebook(name)
        for explorer in explorers.all():
            assert explorer.locator(".af-panels svg").first.bounding_box()["height"] > 100
            assert explorer.locator("noscript p").is_visible()
            assert not explorer.locator("input").first.is_visible()
        assert page.locator("nav.bd-links a").last.is_visible(), "the book's contents"
        assert page.evaluate(CUT_OFF) == []
    assert visit.problems == []


def test_menus_search_and_folds_work_by_keyboard(visit: Visit) -> None:
    page = visit.open(CHAPTER)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")

    fold = page.locator("main details").first
    before = fold.get_attribute("open")
    fold.locator("summary").first.press("Enter")
    assert fold.get_attribute("open") != before

    page.set_viewport_size({"width": 360, "height": 740})
    page.locator("button.primary-toggle").press("Enter")
    link = page.locator("dialog[open] nav.bd-links a").first
    link.wait_for()
    page.keyboard.press("Escape")
    assert not link.is_visible()

    page.keyboard.press("Control+k")
    page.keyboard.type("rank")
    page.keyboard.press("Enter")
    page.locator("#search-results li").first.wait_for()


def test_heat_maps_have_the_same_colours_in_the_dark(visit: Visit) -> None:
    page = visit.open(CHAPTER)
    raster = page.locator(".af-explorer svg image").first  # with many shades
    shots = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        raster.scroll_into_view_if_needed()
        box = raster.bounding_box()
        # The frame of the map belongs to the page; a margin keeps it out of the picture.
        clip = {key: box[key] + 3 for key in ("x", "y")}
        clip |= {key: box[key] - 6 for key in ("width", "height")}
        shots.append(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB"))
    light, dark = shots
    assert light.size == dark.size
    assert len(light.getcolors(maxcolors=1_000_000)) > 8, "that is no heat map"
    assert max(high for _, high in ImageChops.difference(light, dark).getextrema()) <= 2


@pytest.mark.parametrize("visit", ["http", "file"], indirect=True)
def test_search_finds_words_with_and_without_their_accents(visit: Visit) -> None:
    page = visit.page
    for words in (
        "attention",
        "Nyströmformer",
        "nystromformer",
        "Björck",
        "bjorck",
        "Åke",
        "Ré",
        "hvilshoj",
    ):
        visit.open("search", f"?q={words}")
        results = page.locator("#search-results")
        results.get_by_text("Search finished").wait_for()
        goal = "bibliography.html" if words != "attention" else "spectrum.html"
        assert results.locator(f"li a[href*='{goal}']").count(), words
    visit.open("search", "?q=xyzzyplugh")
    page.get_by_text("did not match any documents").wait_for()
    assert visit.problems == []


def test_every_name_of_the_bibliography_is_found(visit: Visit) -> None:
    """No word of the sources is lost on the way to the index, whatever letters it has."""
    page = visit.open("book/bibliography")
    text = page.locator("main").inner_text()
    words = {word for word in re.findall(r"\w{2,}", text) if not word.isascii()}
    assert len(words) > 15
    visit.open("search", "?q=attention")
    lost = page.evaluate(
        """words => words.filter(word => {
             const stem = new Stemmer().stemWord(word.toLowerCase());
             return !(stem in Search._index.terms) && !(stem in Search._index.titleterms);
           })""",
        sorted(words),
    )
    assert lost == []


def test_a_frame_without_an_origin_shows_everything(visit: Visit) -> None:
    """Where storage and fonts are refused: text, mathematics, sliders and the theme button work."""
    page = visit.page
    frame = (
        f'<iframe sandbox="allow-scripts" src="{CHAPTER}.html" width="1200" height="800"></iframe>'
    )
    page.route("**/frame.html", lambda route: route.fulfill(body=frame, content_type="text/html"))
    page.goto(f"{visit.base}/frame.html")
    inner = page.frame_locator("iframe")
    inner.locator(".katex").first.wait_for()
    framed = page.frames[1]
    framed.wait_for_function("document.readyState === 'complete'")
    assert framed.evaluate(
        "document.fonts.ready.then(() => document.fonts.check('16px KaTeX_Math'))"
    )
    assert framed.evaluate("[...document.fonts].some(font => font.family === 'KaTeX_Math')")

    explorer = inner.locator(".af-explorer").first
    before = explorer.locator(".af-picture").inner_html()
    explorer.locator("input").first.press("ArrowRight")
    assert explorer.locator(".af-picture").inner_html() != before

    themes = set()
    for _ in range(3):
        themes.add(framed.evaluate("document.documentElement.dataset.theme"))
        inner.locator(".theme-switch-button:visible").first.click()
    assert themes == {"light", "dark"}
    assert [problem for problem in visit.problems if "page error" in problem] == []
