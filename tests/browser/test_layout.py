"""Converted chapters on a wide screen: pictures come soon and often, and panels fill the column."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import NOTEBOOKS, ROOT, Visit
from playwright.sync_api import Page

from book._ext.reading import is_converted

CONVERTED = [
    name for name in NOTEBOOKS if is_converted(json.loads((ROOT / f"{name}.ipynb").read_text()))
]
FIRST_PICTURE, NEXT_PICTURE = 1200, 2500  # pixels from the top of the page, and between two
FILLED = 0.9  # of the text column; the box around an explorer takes 6 %

# From and to where each picture reaches, where the chapter ends, the panels by rows, and the text column's width.
# What is no picture to a reader is small (icons) or in a formula; exercises at the end need none.
LAYOUT = r"""() => {
  const article = document.querySelector('.bd-article');
  const boxes = [...article.querySelectorAll('figure, img, svg')]
    .filter(picture => picture.checkVisibility() && !picture.closest('.katex'))
    .map(picture => picture.getBoundingClientRect())
    .filter(box => box.width >= 100 && box.height >= 100);
  const last = [...article.querySelectorAll('h2')].find(heading => /^[\d.\s]*Exercise/.test(heading.textContent));
  const end = last ? last.getBoundingClientRect().top : article.getBoundingClientRect().bottom;
  const panels = [...article.querySelectorAll('.af-panels')].filter(row => row.checkVisibility());
  return {
    pictures: boxes.map(box => [box.top + scrollY, box.bottom + scrollY]),
    end: end + scrollY,
    column: article.querySelector('.af-reading').getBoundingClientRect().width,
    figures: panels.map(box => ({
      caption: box.closest('figure').querySelector('figcaption')?.textContent ?? '',
      panels: [...box.children].map(panel => panel.getBoundingClientRect().toJSON()),
    })),
  };
}"""


def faults(page: Page) -> list[str]:
    # Boxes that the browser hasn't drawn yet have guessed heights.
    page.add_style_tag(content="* { content-visibility: visible !important }")
    layout = page.evaluate(LAYOUT)
    found = []
    seen, allowed = 0, FIRST_PICTURE
    for top, bottom in sorted([*layout["pictures"], [layout["end"]] * 2]):
        if top - seen > allowed:
            found.append(f"no picture from {seen:.0f} to {top:.0f} px")
        seen, allowed = max(seen, bottom), NEXT_PICTURE
    for figure in layout["figures"]:
        found += panel_faults(figure, layout["column"])
    return found


def panel_faults(figure: dict[str, Any], column: float) -> list[str]:
    """Rows that leave a part of the column empty, or that break what the caption calls left and right."""
    caption = figure["caption"]
    rows: dict[int, list[dict[str, float]]] = {}
    for panel in figure["panels"]:
        rows.setdefault(round(panel["top"]), []).append(panel)
    widths = [row[-1]["right"] - row[0]["left"] for row in rows.values()]
    found = [f"{w:.0f} of {column:.0f} px: {caption}" for w in widths if w < FILLED * column]
    if "Right:" in caption and len(rows) > 1:
        found.append(f"{len(rows)} rows: {caption}")
    return found


@pytest.mark.parametrize("name", CONVERTED)
def test_pictures_come_often_and_fill_the_column(visit: Visit, name: str) -> None:
    page = visit.open(name)
    assert page.locator("h1 + .af-reading").inner_text().startswith("Reading: about ")
    found = faults(page)
    assert not found, "\n".join(found)


def panels(*widths: int) -> str:
    drawn = "".join(f'<svg style="width: {width}px; height: 200px"></svg>' for width in widths)
    caption = "<figcaption>Left: a. Middle: b. Right: c.</figcaption>"
    return f'<figure style="margin: 0"><div class="af-panels">{drawn}</div>{caption}</figure>'


def space(height: int) -> str:
    return f'<div style="height: {height}px"></div>'


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (space(1000) + panels(320, 320, 320) + space(2400), []),
        (space(1300) + panels(320, 320, 320), ["no picture from 0 to 13"]),
        (panels(960) + space(2600) + panels(960), ["no picture from 2"]),
        (panels(960) + space(2600), ["no picture from 2"]),
        (panels(960) + space(2400) + "<h2>Exercises</h2>" + space(2400), []),
        (panels(960) + space(1300) + '<svg width="20"></svg>' + space(1300), ["no picture from 2"]),
        (panels(600), ["600 of 960 px: Left"]),
        (panels(480, 480, 960), ["2 rows: Left"]),
    ],
)
def test_a_layout_with_a_fault_is_found(visit: Visit, content: str, found: list[str]) -> None:
    style = ".af-panels { display: flex; flex-wrap: wrap } body { margin: 0 } svg { flex: none }"
    visit.page.set_content(
        f"<!doctype html><style>{style}</style><div class='bd-article' style='width: 960px'>"
        f"<p class='af-reading' style='margin: 0; height: 0'></p>{content}</div>"
    )
    said = faults(visit.page)
    assert [fault[: len(start)] for fault, start in zip(said, found, strict=True)] == found
