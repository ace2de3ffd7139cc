"""Explorers: every state drawn, each where its sliders point, and all of them told as text."""

import pytest
import torch
from ipywidgets import HTML, SelectionSlider, Stack

from helpers.page import explore, figures
from helpers.page.explore import MOST_STATES


def draw(rank, kind="a"):
    return figures.panel(f"1/{rank} = {1 / rank:g}", "x", "y"), f"rank {rank} of {kind}"


def test_every_state_is_drawn_where_its_sliders_point():
    explorer = explore(draw, "What & how.", rank=[3, 1, 2], kind=["a", "b"])
    *sliders, outer = explorer.children
    assert [type(s) for s in sliders] == [SelectionSlider, SelectionSlider]
    assert [s.description for s in sliders] == ["rank", "kind"]
    assert [label for label, _ in sliders[0].options] == ["3", "1", "2"]
    assert isinstance(outer, Stack)
    for i, rank in enumerate([3, 1, 2]):
        for j, kind in enumerate("ab"):
            leaf = outer.children[i].children[j]
            assert isinstance(leaf, HTML)
            assert f'aria-label="rank {rank} of {kind}"' in leaf.value
            assert leaf.value.count("<figcaption>What &amp; how.</figcaption>") == 1


def test_it_opens_where_it_tells_most():
    explorer = explore(draw, opens_at={"rank": 2}, rank=[3, 1, 2], kind=["a", "b"])
    rank, kind, outer = explorer.children
    assert (rank.value, kind.value, outer.selected_index) == (2, 0, 2)
    assert [inner.selected_index for inner in outer.children] == [0, 0, 0]


def test_plain_text_lists_what_every_state_shows():
    bundle = explore(draw, rank=[1, 2])._repr_mimebundle_()
    assert bundle["text/plain"] == "[rank = 1] rank 1 of a\n[rank = 2] rank 2 of a"
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "values", "error", "said"),
    [
        ([draw], {"rank": []}, ValueError, "^rank must have at least one"),
        ([draw], {"rank": [1, 1]}, ValueError, "^rank must have .* none twice"),
        ([draw], {"rank": range(1, 102)}, ValueError, f"{MOST_STATES} at most"),
        ([draw], {"rank": 3}, TypeError, "^rank must be a list of values, not 3"),
        ([draw], {"rank": "abc"}, TypeError, "^rank must be a list of values, not 'abc'"),
        ([draw], {"rank": torch.tensor([1, 2])}, TypeError, "^rank must be a list of values"),
        ([draw], {"rank": {1, 2}}, TypeError, "^rank must be a list of values"),
        ([draw, [1, 2]], {"rank": [1]}, TypeError, r"^caption must be text, not \[1, 2\]"),
    ],
)
def test_slips(arguments, values, error, said):
    with pytest.raises(error, match=said):
        explore(*arguments, **values)


def test_a_place_to_open_at_that_is_no_value():
    with pytest.raises(ValueError, match="^opens_at must be a value of rank, not 4"):
        explore(draw, opens_at={"rank": 4}, rank=[1, 2])


@pytest.mark.parametrize(
    ("draw", "error"), [(draw, ZeroDivisionError), (lambda rank: figures.panel("t"), TypeError)]
)
def test_a_drawing_that_fails_says_where(draw, error):
    with pytest.raises(error) as caught:
        explore(draw, rank=[0])
    assert caught.value.__notes__ == ["The explorer was drawing its state {'rank': 0}."]
