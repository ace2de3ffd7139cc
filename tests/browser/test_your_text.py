"""The page that computes does what the helpers do, in every state, with files of the site and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import MOST_MILLISECONDS, Visit
from playwright.sync_api import Page, expect
from test_pages import CUT_OFF, UNDESCRIBED, UNNAMED_TABLES, UNREACHED, axe_violations

from helpers.maths import spectrum
from helpers.models import attention_maps, minilm, minilm_tokens

PAGE = "book/your_text"
MOST_BYTES = 30_000_000
LONG = (Path(__file__).parents[2] / "book" / "how_to_read.md").read_text("utf8")
TEXTS = {"http": LONG, "file": "“Encore, encore!” cried 3 naïve coöks — again, again (and again)."}
TRICKY = [
    "Crème brûlée, Ångström, İstanbul, ΑΣΟΣ, ﬁne, e\u0301, Straße",
    "北京 and 東京タワー, 한국어 텍스트, 😀 👩‍👩‍👧‍👦👍🏽 ok🎉ok",
    "שלום עולם! مرحبا بالعالم، كيف الحال؟ नमस्ते",
    "https://example.org/a_b?q=1&r=%20#x, me@example.org; C:\\new\\table",
    "[CLS] [MASK] [mask] a[SEP]b <b>no &amp; HTML</b> $x^2$",
    "a\u00adb\u200bc\u0000d\ufffde\tf\u00a0g\u2003h\r\ni\u000bj",
    "supercalifragilistic" * 5 + " " + "supercalifragilistic" * 6,
    "lorem ipsum, " * 800,
]


def compute(page: Page, text: str) -> str:
    """Let the page compute; what it says then."""
    status = page.locator("form [role=status]")
    status.evaluate("status => status.replaceChildren()")
    page.get_by_label("Your text").fill(text)
    page.get_by_role("button", name="Compute attention").press("Enter")
    expect(status).to_have_text(re.compile("Done|nothing|did not load"), timeout=MOST_MILLISECONDS)
    return status.inner_text()


def shown_values(page: Page) -> torch.Tensor:
    return torch.tensor(
        json.loads(page.locator("figure").get_attribute("data-singular-values")),
        dtype=torch.float64,
    )


def tokenize(page: Page, text: str) -> tuple[list[str], list[int]]:
    return page.evaluate("t => MiniLM.tokenize(t).then(({ tokens, ids }) => [tokens, ids])", text)


@pytest.mark.parametrize("visit", ["http", "file"], indirect=True)
def test_singular_values_are_those_of_the_helpers(visit: Visit, site: Path) -> None:
    page, text = visit.open(PAGE), TEXTS[visit.base[:4]]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    compute(page, text)
    files = [site / url.removeprefix(f"{visit.base}/") for url in asked]
    assert 20_000_000 < sum(file.stat().st_size for file in files) <= MOST_BYTES
    assert len(set(files)) == len(files), "a file was loaded twice"

    ids = minilm_tokens(text, max_length=64)
    shown = page.locator(".af-tokens li").all_inner_texts()
    assert [shown, ids.tolist()] == tokenize(page, text)
    expected = spectrum(attention_maps(minilm(), ids)).singular_values.flatten(0, 1)
    heads = page.get_by_role("radio")
    expect(heads).to_have_count(72)
    for head in (0, 2, 20, 33, 50, 71):
        heads.nth(head).check()
        values = shown_values(page)
        torch.testing.assert_close(values, expected[head], rtol=0, atol=1e-3)
        mine = spectrum(torch.diag(values))
        name = f"layer {head // 12 + 1}, head {head % 12 + 1}"
        k99 = f"k₉₉ {mine.energy_rank(0.99)}"
        assert heads.nth(head).get_attribute("aria-label") == f"{name}, {k99}"
        assert page.locator(".af-ranks").inner_text() == (
            f"Ranks of {name}: {k99}, nuclear rank (90 %) {mine.nuclear_rank(0.9)}, "
            f"effective rank {mine.effective_rank:.1f}, stable rank {mine.stable_rank:.1f}."
        )
    assert visit.problems == []


def test_no_text_needs_more_bytes(site: Path) -> None:
    """Even if each of its 64 tokens stands in another file of the vocabulary."""
    sizes = {file.stem: file.stat().st_size for file in (site / "_static/minilm").iterdir()}
    words = sorted((size for name, size in sizes.items() if "words" in name), reverse=True)
    assert sum(sizes.values()) - sum(words[64:]) <= MOST_BYTES


def test_tokens_are_those_of_python(visit: Visit) -> None:
    page = visit.open(PAGE)
    for text in TRICKY:
        assert tokenize(page, text)[1] == minilm_tokens(text, max_length=64).tolist(), text


def test_after_a_second_attempt_the_cut_moves_at_once_and_keys_choose_heads(visit: Visit) -> None:
    page = visit.open(PAGE)
    page.route("**/minilm/layer-3.js", lambda route: route.abort())
    assert "did not load" in compute(page, "to be or not to be")
    page.unroute("**/minilm/layer-3.js")
    assert "Done: 8 tokens" in compute(page, "to be or not to be")
    assert ["ERR_FAILED" in problem for problem in visit.problems] == [True]
    slider = page.get_by_role("slider", name="rank r")
    slider.press("Home")
    for rank in range(1, 9):
        values = shown_values(page).square()
        error = float((values[rank:].sum() / values.sum()).sqrt())
        said = f"r = {rank} of 8: relative error {100 * error:.1f} %"
        assert slider.get_attribute("aria-valuetext").startswith(said)
        pictures = page.locator("figure image").evaluate_all("all => all.map(e => e.href.baseVal)")
        assert rank > 1 or pictures[0] != pictures[1]
        assert rank < 8 or pictures[0] == pictures[1]
        slider.press("ArrowRight")
    chosen = page.get_by_role("radio", checked=True)
    for key, name in (("ArrowDown", "layer 2, head 1"), ("ArrowRight", "layer 2, head 2")):
        chosen.press(key)
        expect(chosen).to_be_focused()
        assert chosen.get_attribute("aria-label").startswith(name)
        assert name in page.locator("figure [role=img]").get_attribute("aria-label")


def test_whatever_is_typed(visit: Visit) -> None:
    page = visit.open(PAGE)
    assert "nothing to read" in compute(page, " \n\t\u200b")
    assert page.locator(".af-computed").is_hidden()
    assert compute(page, "😀 🎉").endswith("Not in its vocabulary and read as [UNK]: 2 of 2.")
    assert "nothing to read" in compute(page, "")
    assert page.locator(".af-tokens li").count() == 4, "what was there is lost"
    assert "the first 62 of 2000 word pieces" in compute(page, "four " * 2000)
    assert "Done: 3 tokens" in compute(page, "x" * 10_000)
    compute(page, "שלום <b>עולם</b>")
    assert page.locator(".af-tokens").get_attribute("dir") == "rtl"
    assert page.locator(".af-computed b").count() == 0
    assert visit.problems == []


def test_everybody_can_use_what_is_computed(visit: Visit) -> None:
    page = visit.open(PAGE)
    compute(page, "Whoever can read can read this.")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.wait_for_function(f"document.documentElement.dataset.theme === '{scheme}'")
        assert axe_violations(visit, colours=False) == axe_violations(visit, colours=True) == []
    assert page.evaluate(UNDESCRIBED, 3) == page.evaluate(UNNAMED_TABLES) == []
    for width in (360, 320):
        page.set_viewport_size({"width": width, "height": 512})
        assert page.evaluate(CUT_OFF) == []
    page.wait_for_function(f"({UNREACHED})().length === 0")
