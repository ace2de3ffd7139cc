"""Figures with sliders that move with a kernel and without one."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import ipywidgets as widgets
from ipywidgets.widgets.widget_string import HTMLStyle
from matplotlib.axes import Axes

from helpers.page.figures import figure_html

MOST_STATES = 100  # what a page can carry: about 8 KB each, compressed

Draw = Callable[..., tuple[Axes | Sequence[Axes], str]]


class Explorer(widgets.VBox):
    """Sliders above a picture. As plain text it is the list of its states' descriptions,

    so that nbval, which skips widgets, compares what every state shows.
    """

    descriptions: Mapping[str, str]

    def _repr_mimebundle_(self, **kwargs: object) -> dict[str, object]:
        bundle = super()._repr_mimebundle_(**kwargs)
        lines = (f"[{point}] {alt}" for point, alt in self.descriptions.items())
        return {**bundle, "text/plain": "\n".join(lines)}


def explore(
    draw: Draw,
    /,
    caption: str = "",
    *,
    opens_at: Mapping[str, object] = MappingProxyType({}),
    **parameters: Sequence[object],
) -> Explorer:
    """Draw every state once and put a slider per parameter above the pictures.

    ``draw(**point)`` returns ``(panels, alt)`` as :func:`helpers.page.figures.figure_html` takes them;
    ``caption``, in plain text, stands below every picture.
    ``parameters`` gives each parameter's values; the slider's name is the parameter's, with spaces for
    underscores. A slider starts at its value in ``opens_at``, or at its first one. Sliders and pictures are
    linked in the browser, so the same cell is live in JupyterLab and in the built page.

    Raises TypeError for a caption that is no text and a parameter that is no list; ValueError for a
    parameter without values or with a repeated value, a place to open at that is no value, and more
    than 100 states. What goes wrong with ``draw`` gets a note that says at which state.
    """
    if not isinstance(caption, str):
        raise TypeError(f"caption must be text, not {caption!r}; values are given by name")
    for name, values in parameters.items():
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise TypeError(f"{name} must be a list of values, not {values!r}")
        labels = [_label(value) for value in values]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"{name} must have at least one value and none twice, not {labels}")
        if name in opens_at and opens_at[name] not in values:
            raise ValueError(f"opens_at must be a value of {name}, not {opens_at[name]!r}")
    states = math.prod(len(values) for values in parameters.values())
    if states > MOST_STATES:
        raise ValueError(f"parameters give {states} states; a page carries {MOST_STATES} at most")

    places = {n: list(v).index(opens_at.get(n, v[0])) for n, v in parameters.items()}
    sliders = {
        name: widgets.SelectionSlider(
            options=[(_label(value), i) for i, value in enumerate(values)],
            value=places[name],
            description=name.replace("_", " "),
            style={"description_width": "initial"},
            layout={"width": "100%", "max_width": "30rem"},
        )
        for name, values in parameters.items()
    }
    descriptions: dict[str, str] = {}
    shared = {"layout": widgets.Layout(width="100%"), "style": HTMLStyle()}

    def stack(point: dict[str, object]) -> widgets.Widget:
        """The picture at ``point``, or the pictures over the first parameter not yet in it."""
        if len(point) == len(parameters):
            try:
                panels, alt = draw(**point)
            except Exception as error:
                error.add_note(f"The explorer was drawing its state {point}.")
                raise
            descriptions[", ".join(f"{k} = {_label(v)}" for k, v in point.items())] = alt
            return widgets.HTML(figure_html(panels, alt, caption), **shared)
        name = list(parameters)[len(point)]
        children = [stack({**point, name: value}) for value in parameters[name]]
        pictures = widgets.Stack(children, selected_index=places[name], layout=shared["layout"])
        widgets.jslink((sliders[name], "index"), (pictures, "selected_index"))
        return pictures

    explorer = Explorer([*sliders.values(), stack({})])
    explorer.add_class("af-explorer")
    explorer.descriptions = descriptions
    return explorer


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
