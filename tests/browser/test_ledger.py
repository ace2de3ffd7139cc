"""The ledger's filter and chart, with and without JavaScript."""

from __future__ import annotations

import pytest
from conftest import Visit
from playwright.sync_api import Browser, Page, expect

from helpers.page import claims

LEDGER = list(claims.ledger().values())


def shown(page: Page) -> list[str]:
    """Ids of the claims that can be seen."""
    boxes = page.locator(".af-entry:visible")
    return [id_.removeprefix("ledger-") for id_ in boxes.evaluate_all("all => all.map(e => e.id)")]


def chosen(**wanted: object) -> list[str]:
    """Ids of the claims that fit, in the ledger's order by note."""
    fits = [c for c in LEDGER if all(getattr(c, key) == value for key, value in wanted.items())]
    return [c.id for note in claims.NOTES for c in fits if c.note == note]


def test_the_filter_shows_what_fits_and_counts_it(visit: Visit) -> None:
    page = visit.open("book/ledger")
    assert shown(page) == chosen()
    page.get_by_label("verdict").select_option("holds")
    page.get_by_label("chapter").select_option("1")
    expected = chosen(verdict="holds", chapter=1)
    assert shown(page) == expected
    assert (
        page.locator(".af-filter output").inner_text() == f"{len(expected)} of {len(LEDGER)} claims"
    )
    assert page.locator(".af-tile:not(.af-faded)").count() == len(expected)
    assert page.get_by_role("heading", name="The softmax-QK note").is_hidden()
    page.get_by_role("button", name="all claims").click()
    expect(page.locator(".af-entry:visible")).to_have_count(len(LEDGER))  # the fields empty first
    assert shown(page) == chosen()


def test_words_are_found_whatever_their_case(visit: Visit) -> None:
    page = visit.open("book/ledger")
    page.get_by_label("words").fill("TOEPLITZ distance")
    assert "F21" in shown(page)
    assert len(shown(page)) < 10
    page.get_by_label("words").fill("no such words anywhere")
    assert shown(page) == []


def test_a_choice_can_be_linked_to(visit: Visit) -> None:
    page = visit.open("book/ledger", "?note=softmax-QK&verdict=fails")
    assert shown(page) == chosen(note="softmax-QK", verdict="fails")
    page.get_by_label("verdict").select_option("")
    assert page.url.endswith("?note=softmax-QK")


def test_a_link_to_a_hidden_claim_takes_the_filter_off(visit: Visit) -> None:
    page = visit.open("book/ledger", "?verdict=holds")
    page.evaluate("location.hash = 'ledger-F02'")
    page.locator("#ledger-F02").wait_for(state="visible")
    assert shown(page) == chosen()


@pytest.mark.parametrize("name", ["book/ledger", "book/what_survives"])
def test_every_claim_has_a_tile_that_leads_to_it(visit: Visit, name: str) -> None:
    page = visit.open(name)
    assert page.locator(".af-tile").count() == len(LEDGER)
    page.get_by_role("link", name="F02 fails").click()
    assert page.url.endswith("book/ledger.html#ledger-F02")
    page.locator("#ledger-F02").wait_for(state="visible")


def test_without_javascript_all_claims_show_and_no_control_does(
    browser: Browser, server: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server}/book/ledger.html")
    # locators need no script of the page
    assert page.locator(".af-entry:visible").count() == len(LEDGER)
    assert page.locator(".af-filter").is_hidden()
    context.close()
