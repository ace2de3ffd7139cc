"""Every slider of every explorer, on every page: each step by keyboard changes picture and description."""

from __future__ import annotations

import json

import pytest
from conftest import NOTEBOOKS, ROOT, Visit
from playwright.sync_api import Locator

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def explorers_in_notebook(name: str) -> int:
    """How many explorers the committed notebook shows: views of a widget with the class af-explorer."""
    notebook = json.loads((ROOT / f"{name}.ipynb").read_text("utf8"))
    models = notebook["metadata"].get("widgets", {}).get(WIDGET_STATE, {"state": {}})["state"]
    views = [
        output["data"][WIDGET_VIEW]["model_id"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if WIDGET_VIEW in output.get("data", {})
    ]
    return sum("af-explorer" in models[view]["state"].get("_dom_classes", []) for view in views)


def picture(explorer: Locator) -> tuple[str, str]:
    """The drawing that is visible, and its description."""
    shown = explorer.evaluate(
        """explorer => [...explorer.querySelectorAll('.af-panels')]
             .filter(panels => panels.checkVisibility())
             .map(panels => [panels.innerHTML, panels.getAttribute('aria-label')])"""
    )
    assert len(shown) == 1, f"{len(shown)} pictures are visible at once"
    return tuple(shown[0])


def live(explorer: Locator) -> Locator:
    """The explorer in the window, with its pictures fetched."""
    explorer.scroll_into_view_if_needed()
    explorer.and_(explorer.page.locator("[data-live]")).wait_for(timeout=10_000)
    return explorer


def walk(explorer: Locator, handle: Locator, key: str, most: int = 1000) -> int:
    """Press a key until the slider's end; the picture has to change at every step."""
    name = handle.get_attribute("id")
    before, position = picture(explorer), handle.input_value()
    for step in range(most):
        handle.press(key)
        now = handle.input_value()
        if now == position:
            return step
        after = picture(explorer)
        assert after[0] != before[0], f"{name}: step {step + 1} left the picture as it was"
        assert after[1] != before[1], f"{name}: step {step + 1} left the description as it was"
        before, position = after, now
    return most


def drive(visit: Visit, name: str) -> int:
    """Move the sliders of a page, over their whole length where it is served; count the explorers."""
    page = visit.open(name)
    explorers = page.locator(".af-explorer")
    for number in range(explorers.count()):
        explorer = live(explorers.nth(number))
        sliders = explorer.locator(".widget-slider")
        assert sliders.count() > 0, f"explorer {number + 1} has no slider"
        for slider in sliders.all():
            label = slider.locator("label").inner_text()
            handle = explorer.get_by_role("slider", name=label, exact=True)
            assert handle.input_value() == "0"
            steps = int(handle.get_attribute("max"))
            assert steps >= 1, "a slider with one state"
            most = steps + 1 if visit.served else 1
            assert walk(explorer, handle, "ArrowRight", most) == min(steps, most)
            spoken = handle.get_attribute("aria-valuetext")
            assert spoken == slider.locator(".widget-readout").inner_text()
    return explorers.count()


@pytest.mark.parametrize("visit", ["http", "file"], indirect=True)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_slider_changes_the_picture(visit: Visit, name: str) -> None:
    assert drive(visit, name) == explorers_in_notebook(name)
    assert visit.problems == []


def test_chapters_have_explorers() -> None:
    for name in NOTEBOOKS:
        if name.startswith("notebooks/"):
            assert explorers_in_notebook(name) > 0, name


def test_pictures_that_cannot_be_fetched_are_told(visit: Visit) -> None:
    """A slider is never silently dead: without its pictures the explorer says so, and tries again."""
    name = next(name for name in NOTEBOOKS if explorers_in_notebook(name))
    visit.page.route("**/explorers/*.js", lambda route: route.abort())
    explorer = visit.open(name).locator(".af-explorer").first
    explorer.scroll_into_view_if_needed()
    trouble = explorer.get_by_role("status")
    trouble.get_by_text("could not be loaded").wait_for(timeout=10_000)
    before = picture(explorer)
    visit.page.unroute("**/explorers/*.js")
    explorer.locator("input").first.press("ArrowRight")
    live(explorer)
    assert picture(explorer) != before
    assert trouble.inner_text() == ""


def test_a_slider_can_be_dragged_by_touch(visit: Visit) -> None:
    """A drag by pointer on a phone-sized page moves the slider and the picture."""
    name = next(name for name in NOTEBOOKS if explorers_in_notebook(name))
    visit.page.set_viewport_size({"width": 360, "height": 740})
    explorer = live(visit.open(name).locator(".af-explorer").first)
    handle = explorer.locator("input").first
    before = picture(explorer)
    handle.hover()
    box = handle.bounding_box()
    assert min(box["width"], box["height"]) >= 24, "too small for a finger"
    x, y = box["x"] + 8, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 150, y, steps=5)
    visit.page.mouse.up()
    assert picture(explorer) != before
