"""The book for everybody: without JavaScript, enlarged, on a narrow window, by keyboard, by ear."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from conftest import NOTEBOOKS, PAGES, Visit
from playwright.sync_api import Browser
from test_explorers import explorers_in_notebook

every_page = pytest.mark.parametrize("name", PAGES)
no_script = pytest.mark.parametrize("visit", ["no script"], indirect=True)

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
  for (const element of document.querySelectorAll('main *:not(mjx-container *, svg *)')) {
    if (!element.checkVisibility({ visibilityProperty: true })) continue;
    const { left, right, width: own } = element.getBoundingClientRect();
    const out = own > 1 && (left < -1 || right > width + 1);
    if (out && (!bounded(element) || element.matches('caption'))) {
      bad.push(`${element.tagName}.${element.className} from ${left} to ${right}`);
    }
  }
  return bad;
}"""

HEADINGS = """() => [...document.querySelectorAll('main :is(h1, h2, h3, h4, h5, h6)')]
  .filter(heading => heading.checkVisibility())
  .map(heading => [Number(heading.tagName[1]), heading.textContent.trim()])"""

# Tables without a name, and header cells that don't say what they head.
UNNAMED_TABLES = """() => [...document.querySelectorAll('main table:not(.indextable)')].flatMap(table => {
  const name = table.caption?.textContent.trim() || table.getAttribute('aria-label');
  const heads = [...table.querySelectorAll('th')];
  const bad = [];
  if (!name) bad.push(`no name: ${table.textContent.trim().slice(0, 40)}`);
  if (!heads.length || heads.some(head => !head.scope)) bad.push(`no scope: ${name}`);
  return bad;
})"""

# Short cells with a number in which the browser has broken the line.
BROKEN_NUMBERS = """() => [...document.querySelectorAll('main td')].filter(cell => {
  const text = cell.textContent.trim();
  if (text.length > 12 || !/\\d/.test(text) || cell.querySelector('mjx-container, a')) return false;
  const range = document.createRange();
  range.selectNodeContents(cell.querySelector('p') ?? cell);
  return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
}).map(cell => cell.textContent)"""

# By how much the page has moved under a reader's eyes while it was drawn.
SHIFT = """() => new Promise(resolve => {
  let sum = 0;
  const add = list => list.getEntries().forEach(entry => { sum += entry.value; });
  new PerformanceObserver(add).observe({ type: 'layout-shift', buffered: true });
  setTimeout(() => resolve(sum), 100);
})"""

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


# --- without JavaScript ---------------------------------------------------------------------------


@no_script
@every_page
def test_page_is_read_without_javascript(visit: Visit, name: str) -> None:
    page = visit.page
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{visit.base}/{name}.html")
    assert page.locator("main h1:visible").count() == 1
    assert page.locator(".bd-article .math:not(:has(mjx-container))").count() == 0
    for button in page.locator(".pst-js-only").all():
        assert not button.is_visible(), "a button that does nothing"

    explorers = page.locator(".af-explorer")
    assert explorers.count() == (explorers_in_notebook(name) if name in NOTEBOOKS else 0) or (
        name == "index"
    )
    for explorer in explorers.all():
        drawing = explorer.locator(".af-panels svg").first
        drawing.scroll_into_view_if_needed()
        assert drawing.bounding_box()["height"] > 100
        assert explorer.locator("noscript p").is_visible()
        assert not explorer.locator("input").first.is_visible()

    for width in (1280, 360):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.locator("nav.bd-links a").last.is_visible(), "the book's contents"
        assert page.evaluate(CUT_OFF) == []
    assert visit.problems == []


@no_script
def test_without_javascript_the_system_chooses_the_colours(visit: Visit) -> None:
    page = visit.page
    lightness = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{visit.base}/index.html")
        shades = "getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0)"
        lightness[scheme] = [
            page.evaluate(shades.format(what)) for what in ("backgroundColor", "color")
        ]
    (page_light, ink_light), (page_dark, ink_dark) = lightness.values()
    assert page_light > 700 > ink_light + 300
    assert page_dark < 100 < ink_dark - 300


# --- narrow, enlarged -----------------------------------------------------------------------------


@every_page
def test_nothing_is_cut_off_at_400_percent(visit: Visit, name: str) -> None:
    """A window of 1280 pixels is 640 wide at 200 % and 320 at 400 %: WCAG 1.4.4 and 1.4.10."""
    visit.page.emulate_media(reduced_motion="reduce")
    visit.page.set_viewport_size({"width": 360, "height": 740})
    page = visit.open(name)
    assert page.evaluate(SHIFT) < 0.1
    for width in (640, 360, 320):
        page.set_viewport_size({"width": width, "height": 512})
        assert page.evaluate(CUT_OFF) == [], width
        assert page.evaluate(BROKEN_NUMBERS) == [], width


def test_a_caption_stays_when_its_table_is_scrolled(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 740})
    wide = 0
    for name in NOTEBOOKS:
        moved = visit.open(name).evaluate(
            """() => [...document.querySelectorAll('.af-table')].map(box => {
                 box.scrollLeft = 10000;
                 const { left, right } = box.querySelector('caption').getBoundingClientRect();
                 return [box.scrollLeft, left, right];
               })"""
        )
        assert all(left >= 0 and right <= 361 for _, left, right in moved)
        wide += sum(by > 20 for by, _, _ in moved)
    assert wide, "no table is wide enough to test anything"


# --- by keyboard ----------------------------------------------------------------------------------


def tabbed(visit: Visit, most: int = 40) -> Iterator[dict]:
    """What gets the focus, one press of Tab after the other."""
    for _ in range(most):
        visit.page.keyboard.press("Tab")
        focus = visit.page.evaluate(FOCUS)
        if focus is None:
            return
        yield focus


@every_page
def test_focus_can_be_seen(visit: Visit, name: str) -> None:
    narrow = PAGES.index(name) % 2  # every other page on a dark phone, the rest on a light desk
    visit.page.emulate_media(color_scheme="dark" if narrow else "light", reduced_motion="reduce")
    visit.page.set_viewport_size({"width": 360 if narrow else 1280, "height": 800})
    visit.open(name)
    stops = list(tabbed(visit))
    assert stops[0]["name"].endswith("Skip to main content")
    assert [stop for stop in stops if stop["outline"] < 2 or not stop["seen"]] == []


def test_menus_search_and_folds_work_by_keyboard(visit: Visit) -> None:
    page = visit.open(next(name for name in NOTEBOOKS if name.startswith("notebooks/")))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")

    fold = page.locator("main details > summary").first
    opened = page.locator("main details").first
    before = opened.get_attribute("open")
    fold.press("Enter")
    assert opened.get_attribute("open") != before

    page.keyboard.press("Control+k")
    page.keyboard.type("rank")
    page.keyboard.press("Enter")
    page.locator("#search-results li").first.wait_for(timeout=10_000)

    page.set_viewport_size({"width": 360, "height": 740})
    menu = page.locator("button.primary-toggle")
    menu.press("Enter")
    link = page.locator("dialog[open] nav.bd-links a").first
    link.wait_for()
    page.keyboard.press("Escape")
    assert not link.is_visible()


def test_a_link_leads_to_its_place(visit: Visit) -> None:
    """What is far from the window has guessed heights at first; a link is not led astray by them."""
    name = next(name for name in NOTEBOOKS if name.startswith("notebooks/"))
    page = visit.open(name)
    anchors = page.locator("nav.page-toc a").evaluate_all("links => links.map(link => link.hash)")
    for anchor in (anchors[len(anchors) // 2], anchors[-1]):
        page.goto("about:blank")
        page.goto(f"{visit.base}/{name}.html{anchor}")
        page.wait_for_function(
            """anchor => {
                 const { top } = document.querySelector(anchor).getBoundingClientRect();
                 const { scrollTop, scrollHeight, clientHeight } = document.scrollingElement;
                 return top >= 0 && (top < 200 || scrollTop + clientHeight > scrollHeight - 2);
               }""",
            arg=anchor, timeout=5_000,
        )  # fmt: skip


def test_what_scrolls_is_reached_by_keyboard(visit: Visit) -> None:
    page = visit.page
    page.set_viewport_size({"width": 360, "height": 740})
    visit.open(next(name for name in NOTEBOOKS if name.startswith("notebooks/")))
    page.keyboard.press("Tab")
    unreached = page.evaluate(
        """() => [...document.querySelectorAll('.bd-article :is(pre, .math, .af-table)')]
             .filter(box => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0
               && getComputedStyle(box).overflowX !== 'hidden').map(box => box.outerHTML.slice(0, 80))"""
    )
    assert unreached == []


def test_scroll_bar_moves_nothing(browser_with_scroll_bars: Browser, server: str) -> None:
    """It comes a moment after the side bar is drawn, whose width is a part of what it leaves."""
    page = browser_with_scroll_bars.new_page(viewport={"width": 1350, "height": 940})
    page.goto(f"{server}/index.html")
    left, right = (
        "main => main.getBoundingClientRect().left",
        "main => main.getBoundingClientRect().right",
    )
    main = page.get_by_role("main")
    long = main.evaluate(left), main.evaluate(right)
    assert long[1] < 1350, "a scroll bar is there"
    page.add_style_tag(content="body { height: 500px; overflow: clip; }")
    assert (main.evaluate(left), main.evaluate(right)) == long


# --- by ear ---------------------------------------------------------------------------------------


@every_page
def test_page_tells_its_structure_and_draws_its_icons(visit: Visit, name: str) -> None:
    page = visit.open(name)
    assert page.evaluate(SHIFT) < 0.1
    levels = [level for level, _ in page.evaluate(HEADINGS)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert max((b - a for a, b in pairwise(levels)), default=0) <= 1
    assert page.evaluate(UNNAMED_TABLES) == []
    spoken = page.locator("mjx-container:not(:has(mjx-assistive-mml > math))").count()
    assert spoken == 0, "a formula that a screen reader cannot read"
    assert page.get_by_role("main").count() == 1

    # Icons come from the small font in the style sheet, and not from the theme's script or its whole font.
    fetched = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert not [url for url in fetched if "fontawesome" in url]
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('i[class*="fa-"]')].map(icon =>
             [icon.className, getComputedStyle(icon, '::before').content,
              document.fonts.check('900 16px "Font Awesome 6 Free"')])"""
    )
    assert drawn
    assert [icon for icon in drawn if icon[1] in ("none", "normal", '""') or not icon[2]] == []
