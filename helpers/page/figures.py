"""One house style: small panels, fixed colour meanings, inline SVG that follows the page.

A figure is one panel or several. Each panel is a small SVG of its own, so that panels stand side
by side on a desk and one below the other on a phone. Ink is ``currentColor``: axes and text turn
light in dark mode, data colours and heat maps stay what they are.

Beside its drawing a shown figure carries what it shows, as text (:func:`figure_data`): tests
compare that, since the bytes of a drawing hang on the machine and on versions of libraries.
"""

import base64
import html
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
from IPython.display import HTML, display
from jaxtyping import Shaped
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection, PathCollection
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator
from PIL import Image
from torch import Tensor

# What a colour means, in every chapter. All reach a contrast of 3:1 on white and on near-black
# and stay apart under the common colour-vision deficiencies; lines differ in dash as well.
COLOURS = {
    "trained": "#2a7fc9",
    "null": "#c8641e",
    "baseline": "#8a8a8a",
    "repaired": "#16946a",
    "alternative": "#b268b8",
}
DASHES = dict(zip(COLOURS, ("-", "--", ":", "-.", (0, (5, 1))), strict=True))
INK = "#010203"  # as in house.mplstyle; on the way out it becomes currentColor
HEAT_COLOURS = 64
MOST_CELLS = 128  # rows and columns of a heat map in its data; a larger one is averaged in blocks
Size = tuple[float, float]  # in inches
SEEN = 0.01  # how far a point may move, as a share of its axis: 2.6 px, about the width of a line

matplotlib.style.use(Path(__file__).with_name("house.mplstyle"))


def panel(title: str, x_label: str = "", y_label: str = "", *, size: Size = (3.4, 2.8)) -> Axes:
    """A new panel of ``size`` inches with its labels; its figure is ``.figure``.

    The axes sit at a fixed place, so that panels align and do not jump between two states.
    """
    axes = Figure(figsize=size).add_axes(_inches(size, left=0.61, right=0.1, bottom=0.48, top=0.28))
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    return axes


def _inches(size: Size, *, left: float, right: float, bottom: float, top: float) -> tuple:
    """Place of axes with these margins in a figure of ``size``, as matplotlib takes it."""
    width, height = size
    return left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height


def line(
    axes: Axes, x: object, y: object, meaning: str, label: str | None = None, **style: object
) -> None:
    """Draw y over x in the colour and dash that ``meaning`` (a key of COLOURS) has everywhere."""
    looks = {"color": COLOURS[meaning], "linestyle": DASHES[meaning], "label": label, **style}
    axes.plot(as_list(x), as_list(y), **looks)


def logarithmic(axes: Axes, which: str = "y") -> None:
    """Log axis (``which`` is "x", "y" or "xy") with plain-text powers, which every font can set."""
    for name in which:
        axis = {"x": axes.xaxis, "y": axes.yaxis}[name]
        {"x": axes.set_xscale, "y": axes.set_yscale}[name]("log")
        axis.set_major_locator(LogLocator(numticks=6))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))


def power_of_ten(value: float) -> str:
    """10⁻³ for 0.001; 0.01 … 1000 are written out."""
    exponent = round(np.log10(value))
    if -2 <= exponent <= 3:
        return f"{value:g}"
    return "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def heatmap(
    title: str,
    matrix: Shaped[Tensor, "m n"],
    *,
    x_label: str = "key j",
    y_label: str = "query i",
    low: float,
    high: float,
    log: bool = False,
    diverging: bool = False,
    size: Size = (3.4, 2.8),
    bar: bool = True,
) -> Axes:
    """Panel with a matrix in true colours, clipped to ``low … high``, and its colour bar, if there is a ``bar``."""
    axes = panel(title, x_label, y_label, size=size)
    norm = LogNorm(low, high, clip=True) if log else Normalize(low, high, clip=True)
    colours = matplotlib.colormaps["RdBu_r" if diverging else "viridis"].resampled(HEAT_COLOURS)
    image = axes.imshow(matrix.detach().cpu().double().numpy(), norm=norm, cmap=colours)
    axes.spines[:].set_visible(False)
    axes.set_position(_inches(size, left=0.51, right=0.85 if bar else 0.1, bottom=0.48, top=0.28))
    if bar:
        beside = _inches(size, left=size[0] - 0.68, right=0.56, bottom=0.62, top=0.42)
        colours_bar = axes.figure.colorbar(image, cax=axes.figure.add_axes(beside))
        colours_bar.outline.set_visible(False)
        if log:
            logarithmic(colours_bar.ax)
    return axes


def name_tokens(axes: Axes, tokens: Sequence[str]) -> Axes:
    """Write the tokens of a text beside the rows and below the columns of a heat map."""
    names = [token.replace("\n", "⏎").strip() or "·" for token in tokens]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    return axes


def figure_html(panels: Axes | Sequence[Axes], alt: str, caption: str = "") -> str:
    """``<figure>`` with the panels as inline SVG, the text alternative ``alt`` and a caption.

    Raises ValueError for an empty ``alt``.
    """
    panels = list(panels) if isinstance(panels, Sequence | np.ndarray) else [panels]
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError("alt must describe what the figure shows, but it is empty")
    # The alternative text salts the element ids: two states on one page never share one.
    # Three stand in one row of a page's column, two or one on a phone.
    least = "12rem" if len(panels) == 3 else "15rem"
    drawings = "".join(_svg(axes.figure, f"{alt}{i}", least) for i, axes in enumerate(panels))
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return (
        f'<figure class="af-figure"><div class="af-panels" style="display:flex;flex-wrap:wrap" '
        f'role="img" aria-label="{html.escape(alt)}">'
        f"{drawings}</div>{below}</figure>"
    )


def show(
    panels: Axes | Sequence[Axes], alt: str, caption: str = "", *, tolerance: float = SEEN
) -> None:
    """Display panels as one figure (see :func:`figure_html`), with the data it shows.

    On another machine a point may lie elsewhere by ``tolerance``, a share of its axis.
    """
    page = figure_html(panels, alt, caption)  # first: drawing settles limits and ticks
    metadata = {"figure": figure_data(panels, tolerance)}
    display({"text/html": page, "text/plain": alt}, raw=True, metadata=metadata)


def figure_data(panels: Axes | Sequence[Axes], tolerance: float = SEEN) -> list[str]:
    """What drawn panels show, one JSON object per line: every axes, then all that stands in it.

    Places are thousandths of the axes, x and y in turn, from the lower left corner; what lies
    outside is moved to the edge, and null is not drawn. A heat map has one character per cell, from
    "0" for the lowest of its colours; a space is no value.
    """
    panels = list(panels) if isinstance(panels, Sequence | np.ndarray) else [panels]
    parts: list[dict[str, object]] = [{"tolerance": tolerance}]
    for axes in panels:
        legend = axes.get_legend()
        entries = [text.get_text() for text in legend.get_texts()] if legend else []
        parts.append({"panel": axes.get_title(), "legend": entries})
        for name, axis in ("x", axes.xaxis), ("y", axes.yaxis):
            fixed = isinstance(axis.get_major_locator(), FixedLocator)
            parts.append(
                {
                    "axis": f"{name}, {axis.get_scale()}: {axis.get_label_text()}",
                    "limits": [float(f"{limit:.6g}") for limit in axis.get_view_interval()],
                    "ticks": [tick.get_text() for tick in axis.get_ticklabels() if fixed],
                }
            )
        for artist in (*axes.lines, *axes.collections, *axes.patches, *axes.images):
            parts.append(_artist_data(artist, axes))
        for text in axes.texts:
            place = text.get_transform().transform(text.get_position())
            parts.append({"text": text.get_text(), "places": _places(place, axes)})
    compact = {"ensure_ascii": False, "separators": (",", ":")}
    return [json.dumps(part, **compact) for part in parts]


def _artist_data(artist: Artist, axes: Axes) -> dict[str, object]:
    if isinstance(artist, AxesImage):
        return _heat_data(artist)
    if isinstance(artist, Line2D):
        colour, vertices = artist.get_color(), artist.get_xydata()
    else:
        colour = (*np.atleast_2d(artist.get_facecolor()), *np.atleast_2d(artist.get_edgecolor()))[0]
        paths = artist.get_paths() if isinstance(artist, Collection) else [artist.get_path()]
        vertices = np.concatenate([np.empty((0, 2)), *(path.vertices for path in paths)])
    transform = artist.get_transform()
    if isinstance(artist, PathCollection):  # a scatter: one path, drawn at every offset
        vertices, transform = artist.get_offsets(), artist.get_offset_transform()
    return {
        "drawn": re.sub("^_.*", "", str(artist.get_label() or "")),
        "colour": to_hex(colour),
        "places": _places(transform.transform(vertices), axes),
    }


def _places(pixels: np.ndarray, axes: Axes) -> list[int | None]:
    shares = axes.transAxes.inverted().transform(np.ma.filled(pixels, np.nan)).ravel()
    return [None if np.isnan(s) else round(1000 * float(s)) for s in shares.clip(0, 1)]


def _heat_data(image: AxesImage) -> dict[str, object]:
    shares = np.ma.filled(image.norm(image.get_array()), np.nan).astype(np.float32)
    size = [min(length, MOST_CELLS) for length in reversed(shares.shape)]
    blocks = np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BOX))
    steps = ((HEAT_COLOURS - 1) * blocks).ravel().tolist()
    return {
        "axis": f"colour, {'log' if isinstance(image.norm, LogNorm) else 'linear'}",
        "limits": [image.norm.vmin, image.norm.vmax],
        "shape": str(shares.shape),
        "shades": "".join(" " if np.isnan(s) else chr(ord("0") + round(s)) for s in steps),
    }


def show_table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> None:
    """Display a table; the first cell of a row is its header.

    Numbers come formatted; the hyphen before one becomes a minus sign. A cell made with
    ``printed(…, tolerance=…)`` says how far its number may move on another machine.
    """
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        f"<tr>{''.join(_cell(cell, i == 0) for i, cell in enumerate(row))}</tr>" for row in rows
    )
    display(
        HTML(
            f'<div class="af-table" tabindex="0"><table><caption>{html.escape(caption)}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )
    )


def _cell(cell: object, is_header: bool) -> str:
    tolerance = getattr(cell, "tolerance", None)
    within = "" if tolerance is None else f' data-tolerance="{tolerance:g}"'
    opening, name = (f'th scope="row"{within}', "th") if is_header else (f"td{within}", "td")
    return f"<{opening}>{html.escape(re.sub(r'^-(?=[0-9])', '−', str(cell)))}</{name}>"


def _svg(figure: Figure, salt: str, least: str) -> str:
    """Inline SVG without size, date or machine: the same data give the same bytes."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Style sheets would reach the whole page; group names would repeat on it.
    text = re.sub(
        r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL
    )
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'data:image/png;base64,([^"]+)', _palette_png, text)
    # A hundredth of a point is below what a screen shows, and above the last digits of a sum.
    text = re.sub(r' (d|x|y)="([^"]*)"', _round_numbers, text)
    width, height = figure.get_size_inches() * 72
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="flex:1 1 {least};max-width:{width / 11:.0f}rem" '
        'aria-hidden="true" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    text = re.sub("<svg[^>]*>", opening, text, count=1)
    return re.sub(r"\s*\n\s*", " ", text.replace(INK, "currentColor"))


def _round_numbers(match: re.Match[str]) -> str:
    def shorten(number: re.Match[str]) -> str:
        rounded = round(float(number[0]), 2) + 0.0  # + 0.0 turns −0.0 into 0.0
        return f"{rounded:.2f}".rstrip("0").rstrip(".")

    return f' {match[1]}="' + re.sub(r"-?\d+\.\d+", shorten, match[2]) + '"'


def _palette_png(match: re.Match[str]) -> str:
    """The same picture with a palette in place of four channels: a fifth of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("RGB")
    if picture.getcolors(256) is None:
        return match[0]
    buffer = io.BytesIO()
    picture.quantize(256).save(buffer, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_list(values: Tensor | Iterable[object]) -> list:
    """The entries of a tensor, or of anything that has some, for plotting."""
    if isinstance(values, Tensor):
        return values.detach().cpu().tolist()
    return [value.item() if isinstance(value, Tensor) else value for value in values]
