"""Every page, served and from its file: nothing from elsewhere, no error, accessible, fit for a phone."""

from __future__ import annotations

import io
import json
import re

import nbformat
import pytest
from conftest import DOCUMENTS, NOTEBOOKS, PAGES, ROOT, Visit
from PIL import Image, ImageChops

AXE = ROOT / "book" / "frontend" / ".cache" / "axe-core" / "axe.min.js"
both_ways = pytest.mark.parametrize("visit", ["http", "file"], indirect=True)

# Text of the article as a reader sees it, less code, where dollars and braces are meant.
PROSE = """() => {
  const article = document.querySelector('main').cloneNode(true);
  article.querySelectorAll('pre, code, script, style, mjx-container, svg').forEach(e => e.remove());
  return article.textContent;
}"""

# Pictures without a text alternative, or whose alternative is a file name.
UNDESCRIBED = r"""() => {
  const bad = [];
  const check = (element, text) => {
    const words = (text ?? '').trim().split(/\s+/);
    if (words.length < 3 || /\.(png|svg|jpe?g|gif|webp)$/i.test(words.at(-1))) {
      bad.push(`${element.tagName} "${text}"`);
    }
  };
  for (const image of document.querySelectorAll('.bd-article img')) check(image, image.alt);
  for (const picture of document.querySelectorAll('.bd-article [role=img]')) {
    if (!picture.closest('mjx-container')) check(picture, picture.getAttribute('aria-label'));
  }
  for (const figure of document.querySelectorAll('.bd-article .af-figure')) {
    if (!figure.querySelector('[role=img][aria-label]')) bad.push('figure without role=img');
  }
  for (const svg of document.querySelectorAll('.bd-article svg')) {
    const told = svg.closest('[role=img][aria-label], mjx-container, [aria-hidden=true], button');
    if (!told) bad.push('bare svg');
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
      const how = `${style.filter} ${style.mixBlendMode} ${style.opacity}`;
      bad.push(`${raster.tagName}: ${how} on ${e.tagName}`);
    }
  }
  return bad;
})"""


def axe_violations(visit: Visit) -> list[str]:
    visit.page.keyboard.press("Shift")  # boxes that scroll get their tab stop with the first key
    if not visit.page.evaluate("typeof axe === 'object'"):
        visit.page.evaluate(AXE.read_text("utf8"))
    result = visit.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{violation['id']}: {violation['help']}: {node['html'][:200]}"
        for violation in result["violations"]
        for node in violation["nodes"]
    ]


def sideways_overflow(visit: Visit) -> int:
    """By how many pixels the page itself can be scrolled sideways on a phone."""
    visit.page.set_viewport_size({"width": 360, "height": 740})
    visit.page.evaluate("scrollTo(0, 0)")
    return visit.page.evaluate(
        """() => {
          const page = document.scrollingElement;
          scrollTo(10000, 0);
          return Math.max(page.scrollWidth - page.clientWidth, scrollX);
        }"""
    )


@both_ways
@pytest.mark.parametrize("name", PAGES)
def test_page(visit: Visit, name: str) -> None:
    page = visit.open(name)

    prose = page.evaluate(PROSE)
    assert not re.search(r"\$[^$\n]{1,80}\$|\\\(|\\\[", prose), "mathematics that was not typeset"
    assert not re.search(r"\{[a-z:]+\}`", prose), "a MyST role that was not resolved"
    assert page.locator("mjx-merror").count() == 0
    unset = page.locator(".bd-article .math:not(:has(mjx-container))").count()
    assert unset == 0, f"{unset} formulas were not typeset"
    assert page.evaluate(UNDESCRIBED) == []
    assert page.title().strip()
    assert page.locator("html").get_attribute("lang") == "en"
    if name in ("index", *DOCUMENTS):
        assert len(page.locator("meta[name=description]").get_attribute("content")) > 40

    if visit.served:  # these don't depend on where the page comes from
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
            assert axe_violations(visit) == [], scheme
        assert page.evaluate(FALSIFIED) == []

    assert sideways_overflow(visit) == 0
    assert visit.problems == []


def test_heat_maps_have_the_same_colours_in_the_dark(visit: Visit) -> None:
    page = visit.open(next(name for name in NOTEBOOKS if name.startswith("notebooks/")))
    raster = page.locator(".af-figure svg image").first
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
    largest = max(high for _, high in ImageChops.difference(light, dark).getextrema())
    assert largest <= 2


@both_ways
def test_search_finds_a_word_and_no_nonsense(visit: Visit) -> None:
    found = visit.open("search", "?q=attention").locator("#search-results li")
    found.first.wait_for(timeout=10_000)
    assert found.locator("a").first.get_attribute("href")
    page = visit.open("search", "?q=xyzzyplugh")
    page.get_by_text("did not match any documents").wait_for(timeout=10_000)
    assert visit.problems == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_can_be_downloaded(visit: Visit, name: str) -> None:
    page = visit.open(name)
    page.locator(".dropdown-download-buttons > button").click()
    with page.expect_download() as download:
        page.locator("a.btn-download-source-button").click()
    text = download.value.path().read_text("utf8")
    nbformat.validate(json.loads(text))
    assert text == (ROOT / f"{name}.ipynb").read_text("utf8")
