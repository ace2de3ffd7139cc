"""Figures, explorers, exercises and the claim ledger."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from ipywidgets import HTML, SelectionSlider, Stack
from matplotlib.colors import to_rgb
from PIL import Image

from helpers.page import MOST_STATES, claims, exercises, explore, figures

F64 = torch.float64


def panels(value=1.0):
    curve = figures.panel("title", "x", "y")
    figures.line(curve, [1, 2, 3], [value, 0.1234567, 1e-3], "trained", "label")
    figures.logarithmic(curve)
    return curve


# --- figures ---------------------------------------------------------------------------------------------


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("colour", figures.COLOURS.values())
@pytest.mark.parametrize("background", ["#ffffff", "#121212"])
def test_data_colours_stand_out_in_light_and_dark(colour, background):
    low, high = sorted((luminance(colour), luminance(background)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_the_same_figure_has_the_same_bytes_and_another_one_has_not():
    assert figures.figure_html(panels(), "alt") == figures.figure_html(panels(), "alt")
    assert figures.figure_html(panels(), "alt") != figures.figure_html(panels(1.1), "alt")


def test_ink_follows_the_page_and_no_black_is_left():
    text = figures.figure_html(panels(), "alt")
    assert "currentColor" in text
    assert figures.INK not in text
    assert "#000000" not in text
    assert "<style" not in text


def test_rounding_keeps_signs_and_labels():
    rounded = figures._round_numbers(
        figures.re.match(r' (d|x|y)="([^"]*)"', ' d="M -0.501 -0.001 L 12.3456 7"')
    )
    assert rounded == ' d="M -0.5 0 L 12.35 7"'
    curve = figures.panel("0.123456", "x", "y")
    assert "0.123456" in figures.figure_html(curve, "alt")


def test_ids_of_two_figures_do_not_meet():
    first, second = (
        set(re.findall(r'id="([^"]+)"', figures.figure_html(panels(), alt))) for alt in "ab"
    )
    assert first
    assert not first & second


def test_heat_map_keeps_its_colours():
    matrix = torch.linspace(0, 1, 64, dtype=F64).reshape(8, 8)
    text = figures.figure_html(figures.heatmap("title", matrix, low=0, high=1), "alt")
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        for data in re.findall(r"data:image/png;base64,([^\"]+)", text)
    ]
    drawn = next(picture for picture in pictures if picture.shape[:2] == (8, 8))
    expected = figures.matplotlib.colormaps["viridis"].resampled(64)(np.arange(64))[:, :3]
    assert np.abs(drawn.reshape(-1, 3) / 255 - expected).max() <= 1 / 255


@pytest.mark.bad_input
def test_alternative_text_is_needed_and_escaped():
    assert 'aria-label="a &lt; &quot;b&quot;"' in figures.figure_html(panels(), 'a < "b"')
    for alt in ("", "  ", None):
        with pytest.raises(ValueError, match="alt must describe"):
            figures.figure_html(panels(), alt)
    with pytest.raises(ValueError, match="panels must be"):
        figures.figure_html([], "alt")


@pytest.mark.parametrize(
    ("value", "text"), [(1e-3, "10⁻³"), (0.01, "0.01"), (1000.0, "1000"), (1e12, "10¹²")]
)
def test_powers_of_ten_are_plain_text(value, text):
    assert figures.power_of_ten(value) == text


# --- explorers -------------------------------------------------------------------------------------------


def draw(rank, kind="a"):
    return panels(float(rank)), f"rank {rank} of {kind}"


def linked_stacks(widget):
    if isinstance(widget, Stack):
        yield widget
        for child in widget.children:
            yield from linked_stacks(child)


def test_every_state_is_drawn_where_its_sliders_point():
    explorer = explore.explore(draw, rank=[3, 1, 2], kind=["a", "b"])
    *sliders, outer = explorer.children
    assert [type(s) for s in sliders] == [SelectionSlider, SelectionSlider]
    assert [s.description for s in sliders] == ["rank", "kind"]
    assert [label for label, _ in sliders[0].options] == ["3", "1", "2"]
    for i, rank in enumerate([3, 1, 2]):
        for j, kind in enumerate("ab"):
            leaf = outer.children[i].children[j]
            assert isinstance(leaf, HTML)
            assert f'aria-label="rank {rank} of {kind}"' in leaf.value


def test_every_state_has_the_caption():
    widget = explore.explore(draw, "What is plotted & how.", rank=[1, 2])
    pictures = widget.children[-1].children
    assert [
        p.value.count("<figcaption>What is plotted &amp; how.</figcaption>") for p in pictures
    ] == [1, 1]


def test_plain_text_lists_what_every_state_shows():
    bundle = explore.explore(draw, rank=[1, 2])._repr_mimebundle_()
    assert bundle["text/plain"] == "[rank = 1] rank 1 of a\n[rank = 2] rank 2 of a"
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.bad_input
def test_bad_explorers():
    with pytest.raises(TypeError, match="draw must be a function"):
        explore.explore("draw", rank=[1])
    with pytest.raises(ValueError, match="parameters must name"):
        explore.explore(draw)
    for values in ([], [1, 1]):
        with pytest.raises(ValueError, match="rank must have"):
            explore.explore(draw, rank=values)
    with pytest.raises(ValueError, match=f"{MOST_STATES} at most"):
        explore.explore(draw, rank=range(101))
    with pytest.raises(TypeError, match="draw must return"):
        explore.explore(lambda rank: panels(), rank=[1])


# --- exercises -------------------------------------------------------------------------------------------


def test_complex_answers_are_compared_with_their_imaginary_part():
    expected = torch.tensor([1 + 2j, 3.0])
    cases = [((), expected)]
    assert exercises.check(lambda: expected.clone(), cases, hint="").passed
    assert "off by 2" in exercises.check(lambda: expected.real, cases, hint="").message


CASES = [((2.0,), 4.0), ((torch.ones(2, dtype=F64),), torch.ones(2))]


def test_a_right_answer_passes():
    assert exercises.check(lambda x: x**2, CASES, hint="square it").passed


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: None, "returned nothing"),
        (lambda x: ..., "returned nothing"),
        (lambda x: x**2 + 1e-6, "case 1 the answer is off by 1e-06"),
        (lambda x: 4.0, r"case 2 the shape is \(\), expected \(2,\)"),
        (lambda x: float("nan"), "off by nan"),
        (lambda x: "four", "returned a str"),
        (lambda x: 1 / 0, "raised ZeroDivisionError"),
    ],
)
def test_a_wrong_answer_gets_a_reason_and_the_hint(answer, said):
    feedback = exercises.check(answer, CASES, hint="Square it.")
    assert not feedback.passed
    assert re.search(said, feedback.message)
    assert feedback.message.endswith("Square it.")
    assert "af-open" in feedback._repr_html_()


# --- the ledger ------------------------------------------------------------------------------------------

CLAIM = claims.Claim(
    id="X01",
    note="spectrum",
    claim="Five is $\\le 6$.",
    kind="measurement",
    chapter=1,
    verdict="holds",
    measure="five",
    holds_if="<= 6",
    reference=5.0,
    tolerance=0.1,
    format=".1f",
    finding="It is.",
)


@pytest.fixture
def ledger(monkeypatch):
    entries = {"X01": CLAIM}
    monkeypatch.setattr(claims, "ledger", lambda: entries)
    return entries


def test_judging_shows_a_card_and_binds_the_number(ledger, monkeypatch):
    shown = []
    monkeypatch.setattr(claims, "display", lambda data, **kwargs: shown.append((data, kwargs)))
    claims.judge("X01", torch.tensor([4.9, 5.04, 5.1]))
    bound = {kwargs["metadata"]["scrapbook"]["name"]: data for data, kwargs in shown if kwargs}
    assert bound["X01"] == {"application/papermill.record/text/plain": "'5.0'"}
    assert bound["X01_spread"] == {"application/papermill.record/text/plain": "'4.9 to 5.1'"}
    card = shown[-1][0].data
    assert 'id="claim-X01"' in card
    assert "5.0 (4.9 to 5.1)" in card
    assert "✓ holds" in card


def test_a_chapter_lists_what_was_judged(ledger, monkeypatch):
    monkeypatch.setattr(claims, "display", lambda *args, **kwargs: None)
    monkeypatch.setattr(claims, "_judged", {})
    ledger["X02"] = replace(CLAIM, id="X02", chapter=2)
    with pytest.raises(KeyError, match="X01"):
        claims.verdicts(1)
    claims.judge("X01", torch.tensor([4.9, 5.04, 5.1]))
    assert claims.verdicts(1) == [["X01", "✓ holds", "5.0 (4.9 to 5.1)", "≤ 6"]]


@pytest.mark.parametrize(
    ("change", "value", "said"),
    [
        ({}, 5.11, "ledger 5 ± 0.1"),
        ({}, 4.89, "ledger 5 ± 0.1"),
        ({}, 6.5, "not the ledger's verdict 'holds'"),
        ({"verdict": "fails", "holds_if": "< 4"}, 3.9, "not the ledger's verdict 'fails'"),
    ],
)
def test_a_moved_value_or_verdict_raises(ledger, change, value, said):
    ledger["X01"] = replace(CLAIM, **change)
    with pytest.raises(claims.ClaimError, match=said):
        claims.judge("X01", value)


def test_judging_refuses_nan_unknown_and_untested(ledger):
    with pytest.raises(ValueError, match="a number for X01, not NaN"):
        claims.judge("X01", float("nan"))
    with pytest.raises(KeyError, match="X02"):
        claims.judge("X02", 1.0)
    empty = dict.fromkeys(("measure", "holds_if", "reference", "tolerance", "format", "finding"))
    ledger["X01"] = replace(CLAIM, verdict="not yet tested", **empty)
    with pytest.raises(ValueError, match="untested|not yet tested"):
        claims.judge("X01", 5.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "true"}, "verdict must be one of"),
        ({"kind": "guess"}, "kind must be one of"),
        ({"note": "mine"}, "note must be one of"),
        ({"verdict": "fails"}, "contradicts"),
        ({"reference": 7.0}, "contradicts"),
        ({"tolerance": -1}, "tolerance must be"),
        ({"finding": None}, "finding must be given"),
        ({"holds_if": None}, "holds_if must be given"),
        ({"verdict": "not yet tested"}, "must be given exactly"),
        ({"verdict": "not testable as stated"}, "holds_if must be given"),
    ],
)
def test_a_malformed_entry_is_refused(change, said):
    with pytest.raises(ValueError, match=f"X01: .*{said}"):
        replace(CLAIM, **change)


def test_the_ledger_has_all_claims_of_the_three_notes():
    wanted = (
        [f"F{i:02}" for i in range(1, 33)]
        + [f"S{i:02}" for i in range(1, 15)]
        + [f"Q{i:02}" for i in range(1, 11)]
    )
    assert list(claims.ledger()) == wanted
