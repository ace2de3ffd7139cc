"""The house style, the data that a figure carries, and tables."""

import base64
import io
import json
import math
import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from helpers.page import figures, printed

F64 = torch.float64


def curve(values=(1.0, 0.1234567, 1e-3)):
    axes = figures.panel("title", "x", "y")
    figures.line(axes, range(len(values)), values, "trained", "label")
    figures.logarithmic(axes)
    return axes


def data_of(panels):
    figures.figure_html(panels, "alt")
    return [json.loads(line) for line in figures.figure_data(panels)]


def pictures(html):
    found = re.findall(r"data:image/png;base64,([^\"]+)", html)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


# --- style -------------------------------------------------------------------------------------


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


@pytest.mark.parametrize("colour", figures.COLOURS.values())
@pytest.mark.parametrize("background", ["#ffffff", "#121212"])
def test_data_colours_stand_out_in_light_and_dark(colour, background):
    low, high = sorted((luminance(colour), luminance(background)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_a_line_has_the_colour_and_dash_of_its_meaning_unless_told_otherwise():
    axes = figures.panel("title")
    for meaning in figures.COLOURS:
        figures.line(axes, [0, 1], [0, 1], meaning, f"the {meaning}")
    figures.line(axes, [0, 1], [0, 1], "null", color="#000001", linestyle="-")
    *lines, special = axes.lines
    for line, (meaning, colour) in zip(lines, figures.COLOURS.items(), strict=True):
        assert to_hex(line.get_color()) == colour
        assert line.get_label() == f"the {meaning}"
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(lines)
    assert to_hex(special.get_color()) == "#000001"


def test_a_drawing_is_the_same_every_time_and_shares_no_id_with_another():
    first, again, other = (figures.figure_html(curve(), alt) for alt in ("a", "a", "b"))
    assert first == again
    ids = [set(re.findall(r'id="([^"]+)"', html)) for html in (first, other)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_ink_follows_the_page_and_no_style_sheet_reaches_it():
    axes = curve()
    axes.legend()
    html = figures.figure_html(axes, "alt")
    assert "currentColor" in html
    for left in (figures.INK, "#000000", "black", "<style", "<metadata", "<!--"):
        assert left not in html


def test_coordinates_are_short_and_words_are_left_alone():
    html = figures.figure_html(figures.panel("0.123456", "x", "y"), "alt")
    assert "0.123456" in html
    assert not re.search(r' (?:d|x|y)="[^"]*\.\d{3}', html)


@pytest.mark.parametrize(
    ("value", "text"), [(1e-3, "10⁻³"), (0.01, "0.01"), (1000.0, "1000"), (1e12, "10¹²")]
)
def test_powers_of_ten_are_plain_text(value, text):
    assert figures.power_of_ten(value) == text


@pytest.mark.parametrize(
    ("options", "values", "name"),
    [
        ({"low": 0, "high": 1}, [0, 0.25, 1, 2], "viridis"),
        ({"low": -1, "high": 1, "diverging": True}, [-2, -1, 0.5, 1], "RdBu_r"),
        ({"low": 1e-2, "high": 1e2, "log": True}, [1e-3, 1e-1, 1, 1e3], "viridis"),
    ],
)
def test_a_heat_map_shows_each_value_in_its_colour(options, values, name):
    panel = figures.heatmap("title", torch.tensor([values, values[::-1]], dtype=F64), **options)
    picture = next(p for p in pictures(figures.figure_html(panel, "alt")) if p.size == (4, 2))
    assert picture.mode == "P"
    low, high = options["low"], options["high"]
    clipped = [min(max(value, low), high) for value in values]
    if options.get("log"):
        shares = [math.log(v / low) / math.log(high / low) for v in clipped]
    else:
        shares = [(v - low) / (high - low) for v in clipped]
    expected = 255 * matplotlib.colormaps[name].resampled(64)(shares)[:, :3]
    drawn = np.asarray(picture.convert("RGB")).astype(float)
    assert np.abs(drawn[0] - expected).max() <= 1
    assert np.abs(drawn[1] - expected[::-1]).max() <= 1


@pytest.mark.parametrize(("colours", "mode"), [(16, "P"), (256, "P"), (257, "RGB")])
def test_a_picture_gets_a_palette_if_that_loses_nothing(colours, mode):
    pixels = np.arange(400).clip(max=colours - 1)
    array = np.stack([pixels % 256, pixels // 256, 0 * pixels], -1).astype(np.uint8)
    array = array.reshape(20, 20, 3)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="png")
    data = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    smaller = figures._palette_png(re.match(r"data:image/png;base64,([^\"]+)", data))
    (picture,) = pictures(f'"{smaller}"')
    assert picture.mode == mode
    assert np.array_equal(np.asarray(picture.convert("RGB")), array)


@pytest.mark.bad_input
def test_alternative_text_is_needed_and_escaped():
    assert 'aria-label="a &lt; &quot;b&quot;"' in figures.figure_html(curve(), 'a < "b"')
    for alt in ("", "  ", None):
        with pytest.raises(ValueError, match="alt must describe"):
            figures.figure_html(curve(), alt)


# --- what can be drawn ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        torch.tensor([1.0, 2.0], requires_grad=True),
        torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        torch.tensor([1, 2]),
        [torch.tensor(1.0, requires_grad=True), 2],
        np.array([1.0, 2.0]),
        range(1, 3),
    ],
    ids=["gradient", "bfloat16", "int", "mixed", "numpy", "range"],
)
def test_a_line_is_drawn_whatever_holds_its_numbers(values):
    axes = figures.panel("title")
    figures.line(axes, values, values, "trained")
    assert axes.lines[0].get_xydata().tolist() == [[1, 1], [2, 2]]
    assert figures.as_list(values) == [1, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64, torch.bool])
def test_a_heat_map_is_drawn_whatever_holds_its_numbers(dtype):
    panel = figures.heatmap("title", torch.eye(2).to(dtype), low=0, high=1)
    assert panel.images[0].get_array().tolist() == [[1, 0], [0, 1]]
    gradient = figures.heatmap("title", torch.eye(2, requires_grad=True), low=0, high=1)
    assert gradient.images[0].get_array().tolist() == [[1, 0], [0, 1]]


# --- data of a figure ----------------------------------------------------------------------------


def test_places_are_thousandths_of_the_axes_along_their_scale():
    axes = figures.panel("title", "x", "y")
    figures.line(axes, [0, 5, 10, 20], [1e-4, 1e-2, float("nan"), 1], "trained", "label")
    figures.logarithmic(axes)
    axes.set(xlim=(0, 10), ylim=(1e-3, 1e1))
    _, panel, x, y, line = data_of(axes)
    assert panel == {"panel": "title", "legend": []}
    assert x == {"axis": "x, linear: x", "limits": [0, 10], "ticks": []}
    assert y == {"axis": "y, log: y", "limits": [0.001, 10], "ticks": []}
    assert line == {
        "drawn": "label",
        "colour": figures.COLOURS["trained"],
        # Below the axis: at its edge. No number: not drawn. To the right of it: at its edge.
        "places": [0, 0, 500, 250, None, None, 1000, 750],
    }


def test_everything_that_is_drawn_is_in_the_data():
    axes = figures.panel("title")
    axes.set(xlim=(0, 10), ylim=(0, 10))
    axes.scatter([1, 2], [3, 4])
    axes.bar([5], [6], width=2)
    axes.vlines([7], 1, 2)
    axes.fill_between([0, 1], [2, 3])
    axes.axhline(9)
    axes.axvspan(1, 2)
    axes.text(5, 5, "k₉₉ = 14")
    axes.set_xticks([0, 10], labels=["first", "last"])
    axes.plot([0], [0], label="seen")
    axes.legend()
    data = data_of(axes)
    places = [part["places"] for part in data if "places" in part]
    for some in (
        [100, 300, 200, 400],
        [400, 0, 600, 0, 600, 600, 400, 600, 400, 0],
        [700, 100, 700, 200],
        [0, 900, 1000, 900],
    ):
        assert some in places
    assert any(
        sorted(part) == sorted([100, 0, 100, 1000, 200, 1000, 200, 0, 100, 0]) for part in places
    )
    assert any(part[:2] == [0, 0] and 300 in part for part in places)  # the filled area
    assert {"text": "k₉₉ = 14", "places": [500, 500]} in data
    assert data[1]["legend"] == ["seen"]
    assert data[2]["ticks"] == ["first", "last"]


def test_a_heat_map_has_one_character_per_cell():
    matrix = torch.tensor([[0.0, 0.5, 1.0], [2.0, float("nan"), -1.0]])
    *_, heat = data_of(figures.heatmap("title", matrix, low=0, high=1))
    assert heat["axis"] == "colour, linear"
    assert heat["limits"] == [0, 1]
    assert heat["shape"] == "(2, 3)"
    assert [ord(c) - ord("0") for c in heat["shades"] if c != " "] == [0, 32, 63, 63, 0]
    assert heat["shades"][4] == " "


def test_a_large_heat_map_is_averaged_in_blocks():
    matrix = torch.linspace(0, 1, 256)[:, None].expand(256, 3)
    *_, heat = data_of(figures.heatmap("title", matrix, low=0, high=1))
    blocks = matrix.reshape(128, 2, 3).mean(dim=1).flatten() * 63
    steps = torch.tensor([float(ord(c) - ord("0")) for c in heat["shades"]])
    assert heat["shape"] == "(256, 3)"
    torch.testing.assert_close(steps, blocks, atol=0.51, rtol=0)


def test_a_shown_figure_has_its_data_in_the_metadata_and_stays_small(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda data, **kwargs: shown.append((data, kwargs)))
    panels = [curve(torch.rand(100)), figures.heatmap("heat", torch.rand(512, 512), low=0, high=1)]
    figures.show(panels, "alt", "caption", tolerance=0.05)
    ((data, options),) = shown
    assert data["text/html"] == figures.figure_html(panels, "alt", "caption")
    assert options["metadata"] == {"figure": figures.figure_data(panels, 0.05)}
    assert json.loads(options["metadata"]["figure"][0]) == {"tolerance": 0.05}
    assert sum(map(len, options["metadata"]["figure"])) < 18_000


# --- tables --------------------------------------------------------------------------------------


def test_a_table_escapes_its_cells_and_states_what_they_tolerate(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda part: shown.append(part.data))
    wide = printed(-0.5, ".1f", tolerance=0.2)
    figures.show_table(["a", "<b>"], [["x & y", 1], ["z", wide]], "A <table>")
    figures.show_table(["a", "b"], [["x-1", "-1.5"]], "A hyphen")
    first, second = shown
    assert first == (
        '<div class="af-table" tabindex="0"><table><caption>A &lt;table&gt;</caption>'
        '<thead><tr><th scope="col">a</th><th scope="col">&lt;b&gt;</th></tr></thead>'
        '<tbody><tr><th scope="row">x &amp; y</th><td>1</td></tr>'
        '<tr><th scope="row">z</th><td data-tolerance="0.2">−0.5</td></tr></tbody></table></div>'
    )
    assert "x-1</th><td>−1.5</td></tr>" in second
