"""The house style: reference figures that must not change, tables, and where things sit.

``python tests/test_figures.py`` draws the references again, after a wanted change of style.
"""

import base64
import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from helpers.page import figures

REFERENCE = Path(__file__).parent / "reference_figures.html"
WAVE = torch.linspace(-1, 1, 5, dtype=torch.float64)


def drawings():
    """One figure of every kind."""
    lines = figures.panel("Lines", "x", "y (bits)")
    for k, meaning in enumerate(figures.COLOURS):
        figures.line(lines, [0, 1, 2], [k, 2.0 * k, 0.123456 * k], meaning, meaning)
    lines.legend()
    powers = figures.panel("Powers", "n", "error", size=(2.5, 2.0))
    figures.line(powers, [1, 10, 1e6], [1e-8, 1e-3, 1], "trained", linewidth=3, marker="o")
    figures.logarithmic(powers, "xy")
    matrix = torch.outer(WAVE, WAVE)
    yield figures.figure_html([lines, powers], "two panels", "Lines & <powers>")
    yield figures.figure_html(figures.heatmap("Heat", matrix, low=0, high=0.5), "heat map")
    logarithmic = figures.heatmap(
        "Powers", 10 ** (3 * matrix), low=1e-2, high=1e3, log=True, x_label="j", y_label="i"
    )
    yield figures.figure_html(logarithmic, "logarithmic heat map")
    signed = figures.heatmap("Signs", matrix, low=-1, high=1, diverging=True)
    yield figures.figure_html(signed, "signed heat map")


def comparable(text):
    """Without the pictures, whose bytes depend on the version of zlib."""
    return re.sub(r"data:image/png;base64,[^\"]+", "", text)


def test_figures_are_the_reference_figures():
    stored = REFERENCE.read_text(encoding="utf-8").splitlines()
    for drawn, kept in zip(drawings(), stored, strict=True):
        assert comparable(drawn) == kept


def pixels(text, shape):
    pictures = (
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"data:image/png;base64,([^\"]+)", text)
    )
    return next(picture for picture in pictures if picture.size == shape)


@pytest.mark.parametrize(
    ("options", "values", "name"),
    [
        ({"low": 0, "high": 1}, [0, 0.25, 1, 2], "viridis"),
        ({"low": -1, "high": 1, "diverging": True}, [-2, -1, 0.5, 1], "RdBu_r"),
        ({"low": 1e-2, "high": 1e2, "log": True}, [1e-3, 1e-1, 1, 1e3], "viridis"),
    ],
)
def test_a_heat_map_shows_each_value_in_its_colour(options, values, name):
    matrix = torch.tensor([values, values[::-1]], dtype=torch.float64).requires_grad_()
    picture = pixels(
        figures.figure_html(figures.heatmap("title", matrix, **options), "alt"), (4, 2)
    )
    assert picture.mode == "P"
    low, high = options["low"], options["high"]
    clipped = [min(max(value, low), high) for value in values]
    if options.get("log"):
        shares = [math.log(v / low) / math.log(high / low) for v in clipped]
    else:
        shares = [(v - low) / (high - low) for v in clipped]
    colours = figures.matplotlib.colormaps[name].resampled(64)
    expected = 255 * colours(shares)[:, :3]
    drawn = np.asarray(picture.convert("RGB")).astype(float)
    assert np.abs(drawn[0] - expected).max() <= 1
    assert np.abs(drawn[1] - expected[::-1]).max() <= 1


def test_a_picture_of_many_colours_is_left_as_it_is():
    few = np.arange(1200, dtype=np.uint8).reshape(20, 20, 3) // 16
    many = np.random.default_rng(0).integers(256, size=(20, 20, 3), dtype=np.uint8)
    reds = np.zeros((20, 20, 3), dtype=np.uint8)
    reds[..., 0] = np.minimum(np.arange(400), 255).reshape(20, 20)
    one_more = reds.copy()
    one_more[-1, -1, 1] = 1  # the 257th colour
    pictures = ((few, "P"), (reds, "P"), (one_more, "RGB"), (many, "RGB"))
    for array, mode in pictures:
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="png")
        data = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
        text = figures._palette_png(re.match(r"data:image/png;base64,([^\"]+)", data))
        picture = pixels(f'"{text}"', (20, 20))
        assert picture.mode == mode
        assert np.array_equal(np.asarray(picture.convert("RGB")), array)


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


def test_a_table_escapes_its_cells(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda part: shown.append(part.data))
    figures.show_table(["a", "<b>"], [["x & y", 1], ["z", 2.5]], "A <table>")
    figures.show_table(["a", "b"], [["x-1", "-1.5"]], "no heads", row_headers=False)
    first, second = shown
    assert first == (
        '<div class="af-table" tabindex="0"><table><caption>A &lt;table&gt;</caption>'
        '<thead><tr><th scope="col">a</th><th scope="col">&lt;b&gt;</th></tr></thead>'
        '<tbody><tr><th scope="row">x &amp; y</th><td>1</td></tr>'
        '<tr><th scope="row">z</th><td>2.5</td></tr></tbody></table></div>'
    )
    assert "<tr><td>x-1</td><td>−1.5</td></tr>" in second


def test_a_figure_is_shown_as_html(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda part: shown.append(part.data))
    axes = figures.panel("title")
    figures.show(axes, "what it shows", "caption")
    assert shown == [figures.figure_html(axes, "what it shows", "caption")]


def test_entries_as_a_list():
    assert figures.as_list(WAVE.clone().requires_grad_()) == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert figures.as_list(torch.tensor([3, 1])) == [3, 1]


if __name__ == "__main__":
    REFERENCE.write_text("".join(f"{comparable(text)}\n" for text in drawings()), encoding="utf-8")


@pytest.mark.bad_input
def test_a_figure_is_no_panel():
    axes = figures.panel("title")
    with pytest.raises(ValueError, match=r"^panels must be one matplotlib Axes or several, not "):
        figures.figure_html(axes.figure, "what it shows")
