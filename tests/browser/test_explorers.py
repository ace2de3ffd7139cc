"""Every slider of every explorer: each step changes picture and description."""

from __future__ import annotations

from itertools import pairwise

import pytest
from conftest import CHAPTER, NOTEBOOKS, Visit, explorers_in_notebook

# Moves a slider over its whole length; what each of its places shows: a drawing and its description.
WALK = """slider => {
  const explorer = slider.closest('.af-explorer');
  const shown = [];
  for (let value = 0; value <= slider.max; value++) {
    slider.value = value;
    slider.dispatchEvent(new Event('input'));
    const panels = [...explorer.querySelectorAll('.af-panels')].filter(p => p.checkVisibility());
    if (panels.length !== 1) throw new Error(`${panels.length} pictures are visible at once`);
    const readout = slider.parentElement.querySelector('.widget-readout').textContent;
    shown.push([panels[0].innerHTML, panels[0].getAttribute('aria-label'), readout, slider.ariaValueText]);
  }
  return shown;
}"""


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if explorers_in_notebook(name)])
def test_every_slider_changes_the_picture(visit: Visit, name: str) -> None:
    page = visit.open(name)
    explorers = page.locator(".af-explorer")
    assert explorers.count() == explorers_in_notebook(name)
    for explorer in explorers.all():
        sliders = explorer.get_by_role("slider").all()
        assert sliders, "an explorer without a slider"
        for slider in sliders:
            before = explorer.locator(".af-picture").inner_html()
            opened = int(slider.input_value())
            step = -1 if opened == int(slider.get_attribute("max")) else 1
            slider.press("ArrowRight" if step > 0 else "ArrowLeft")  # as a reader does
            assert slider.input_value() == str(opened + step)
            assert explorer.locator(".af-picture").inner_html() != before
            places = slider.evaluate(WALK)
            for one, next_ in pairwise(places):
                assert one[0] != next_[0], f"the picture stays from {one[2]} to {next_[2]}"
                assert one[1] != next_[1], f"the description stays from {one[2]} to {next_[2]}"
            # A screen reader says what the picture shows now, as nobody reads it out otherwise.
            assert all(spoken == f"{value}: {label}" for _, label, value, spoken in places)
            slider.press("Home")
    assert visit.problems == []


@pytest.mark.parametrize("visit", ["file"], indirect=True)
def test_a_slider_can_be_dragged_on_a_phone_from_a_file(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 740})
    explorer = visit.open(CHAPTER).locator(".af-explorer").first
    handle = explorer.locator("input").first
    before = explorer.locator(".af-picture").inner_html()
    handle.hover()
    box = handle.bounding_box()
    assert min(box["width"], box["height"]) >= 24, "too small for a finger"
    x, y = box["x"] + 8, box["y"] + box["height"] / 2
    visit.page.mouse.move(x, y)
    visit.page.mouse.down()
    visit.page.mouse.move(x + 150, y, steps=5)
    visit.page.mouse.up()
    assert explorer.locator(".af-picture").inner_html() != before
    assert visit.problems == []


def test_a_guess_is_compared_at_once_and_again(visit: Visit) -> None:
    box = visit.open("notebooks/03_four_cases").locator(".af-guess")
    guess, said = box.get_by_role("spinbutton"), box.locator("output")
    guess.fill("4")
    guess.press("Enter")
    said.get_by_text("Your guess: 4, 4.0 times too many.").wait_for()
    for value, verdict in (("0", "too few"), ("1", "which is right")):
        guess.fill(value)
        said.get_by_text(f"Your guess: {value}, {verdict}.").wait_for()
    choice = visit.open("notebooks/02_factorization_layer").locator(".af-guess")
    choice.get_by_role("spinbutton").fill("4")
    choice.get_by_text("Compare").click()
    choice.get_by_text("Your guess: 4, another one is right.").wait_for()
    assert visit.problems == []
