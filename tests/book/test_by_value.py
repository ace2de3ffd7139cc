"""What counts as the same output: text exactly, numbers and figures within what they allow."""

import pytest
import torch
from by_value import SHADES, figure_pairs, pairs, text_pairs

from helpers.page import claims, figures, printed


def too_far(was, now, **stated):
    return [str(pair) for pair in text_pairs("here", was, now, **stated) if pair.outside]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("k₉₉ is 212 of 512", "k₉₉ is 211 of 512"),
        ("error 0.123", "error 0.124"),
        ("1.2e-05 at most", "1.1e-05 at most"),
        ("9.9e-06", "1.0e-05"),
        ("95.3 % of all", "95.2 % of all"),
        ("12,345 tokens", "12,346 tokens"),
        ("−0.01 or -0.01", "0.00 or 0.00"),
        ("2.3·10⁻⁴ and 10⁻¹⁶", "2.4·10⁻⁴ and 10⁻¹⁵"),
        ("tensor([-0.1234,  1.0000])", "tensor([ -0.1235, 0.9999])"),
        ("1.0 to 2.2", "1.1 to 2.1"),
    ],
)
def test_one_unit_of_the_last_printed_digit_is_the_same(was, now):
    assert was != now
    assert too_far(was, now) == []
    assert too_far(now, was) == []


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("error 0.123", "error 0.125"),
        ("1.2e-05", "1.2e-06"),
        ("95.3 %", "95.5 %"),
        ("12,345", "12,347"),
        ("−0.46", "0.46"),
        ("2.3·10⁻⁴", "2.3·10⁻³"),
        ("10⁻¹⁶", "10⁻¹³"),
        ("9 of 10 seeds", "8 of 10 seeds"),  # a lone digit is a count
        ("0.2", "nan"),
        ("k99 of float32", "k98 of float32"),  # digits in a name
        ("ends at 3.", "ended at 3."),
        ("1, 2", "1, 2, 2"),
        ("✓ holds", "✗ fails"),
    ],
)
def test_more_is_not(was, now):
    assert len(too_far(was, now)) == 1
    assert len(too_far(now, was)) == 1


def test_the_message_says_which_number_and_how_far():
    (said,) = too_far("an error of 0.123 over ten", "an error of 0.183 over ten")
    assert (
        said == "here, in “…an error of 0.123 over ten…”: was '0.123', is '0.183', allowed ±0.001"
    )


def test_a_stated_tolerance_stands_in_for_the_unit_and_rounding_adds_to_it():
    assert too_far("0.50", "0.56", tolerance=0.05) == []  # .504 and .555
    assert len(too_far("0.50", "0.57", tolerance=0.05)) == 1
    assert too_far("50 %", "56 %", tolerance=0.05) == []  # of the share, not of the percents
    assert len(too_far("50.0", "50.1", tolerance=0)) == 1


@pytest.fixture
def shown(monkeypatch):
    """What claims and figures display, as the outputs of a notebook."""
    outputs = []

    def display(data, *, raw=False, metadata=None):
        data = data if raw else {"text/html": data.data}
        outputs.append({"output_type": "display_data", "data": data, "metadata": metadata or {}})

    for module in (claims, figures):
        monkeypatch.setattr(module, "display", display)
    return outputs


def same(outputs, make, first, second):
    """Whether nothing that ``make`` shows of ``first`` and of ``second`` is too far apart."""
    make(first)
    make(second)
    was, now = outputs[-2:]
    return not any(pair.outside for pair in pairs([was], [now]))


def test_a_bound_number_moves_by_its_tolerance(shown):
    def loose(value):
        claims.bind("error", value, ".2f", tolerance=0.05)

    def usual(value):
        claims.bind("error", value, ".2f")

    def exact(value):
        claims.bind("count", value, ".0f", tolerance=0)

    assert same(shown, loose, 0.504, 0.55)
    assert not same(shown, loose, 0.50, 0.551)
    assert same(shown, usual, 0.504, 0.51)
    assert not same(shown, usual, 0.496, 0.507)  # both print as .5 and .51, but that is 1.1 units
    assert same(shown, exact, 12, 12)
    assert not same(shown, exact, 12, 13)


def test_a_cell_of_a_table_has_its_own_tolerance(shown):
    def table(value):
        cells = [[12, printed(value, ".1f", tolerance=0.5), f"{value:.1f}"[:1]]]
        figures.show_table(["n", "wide", "digit"], cells, "Caption")

    assert same(shown, table, 2.1, 2.6)
    assert not same(shown, table, 2.1, 2.8)
    assert not same(shown, table, 2.9, 3.0)


def picture(values, y_limit=None, matrix=None):
    curve = figures.panel("title", "x", "y")
    figures.line(curve, range(len(values)), values, "trained", "label")
    if y_limit:
        figures.logarithmic(curve)
        curve.set_ylim(*y_limit)
    matrix = torch.linspace(0, 1, 100).reshape(10, 10) if matrix is None else matrix
    return [curve, figures.heatmap("heat", matrix, low=0, high=1)]


def test_a_point_may_move_by_a_hundredth_of_its_axis(shown):
    def linear(move):
        figures.show(picture([0, 1, 2, 10 + move, 20]), "alt")

    def log(factor):
        figures.show(picture([1e-3, 1e-1 * factor], (1e-4, 1)), "alt")

    def wide(move):
        figures.show(picture([0, 1, 2, 10 + move, 20]), "alt", tolerance=0.1)

    assert same(shown, linear, 0, 0.2)
    assert not same(shown, linear, 0, 1.1)  # 5 % of 0 … 20 and its margins
    assert same(shown, wide, 0, 1.1)
    assert not same(shown, wide, 0, 3)
    assert same(shown, log, 1, 1.07)
    assert not same(shown, log, 1, 10**0.2)  # 5 % of four decades
    assert not same(shown, linear, 0, float("nan"))


def test_a_colour_may_move_by_a_step(shown):
    matrix = torch.full((8, 8), 0.5)

    def heat(move):
        moved = matrix.clone()
        moved[3, 4] += move
        figures.show(picture([0, 1], matrix=moved), "alt")

    assert same(shown, heat, 0, 1 / SHADES)
    assert not same(shown, heat, 0, 0.05)


def test_what_a_figure_says_and_how_much_it_draws_is_compared(shown):
    def labelled(label):
        curve = figures.panel("title", label, "y")
        figures.line(curve, [0, 1], [0, 1], "null", label)
        curve.legend()
        figures.show(curve, "alt")

    def points(number):
        figures.show(picture(list(range(number))), "alt")

    def of_kind(meaning):
        curve = figures.panel("title")
        figures.line(curve, [0, 1], [0, 1], meaning)
        figures.show(curve, "alt")

    assert same(shown, labelled, "k₉₉ = 41", "k₉₉ = 42")
    assert not same(shown, labelled, "k₉₉ = 41", "k₉₉ = 44")
    assert not same(shown, labelled, "trained", "random")
    assert not same(shown, points, 3, 4)
    assert not same(shown, of_kind, "trained", "null")


def test_a_drawing_itself_is_not_compared(shown):
    def wide(width):
        curve = figures.panel("title")
        figures.line(curve, [0, 1], [0, 1], "trained", linewidth=width)
        figures.show(curve, "alt")

    wide(1)
    wide(2)
    assert shown[0]["data"]["text/html"] != shown[1]["data"]["text/html"]
    assert same(shown, wide, 1, 2)


def test_an_output_more_or_less_is_a_difference():
    output = {"output_type": "stream", "name": "stdout", "text": "one\n"}
    for was, now in (([output], []), ([], [output]), ([output], [{**output, "name": "stderr"}])):
        assert any(pair.outside for pair in pairs(was, now))


def test_figures_without_data_have_nothing_to_compare():
    assert list(figure_pairs("here", [], [])) == []
    assert next(figure_pairs("here", [], ['{"tolerance":0.01}'])).outside
