"""Explorers as plain HTML: the widgets that a notebook has saved, without the widgets' own scripts.

A page shows the picture at which an explorer opens, with any script or none, and holds all of them as text
that explorer.js shows when a slider moves.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html import escape
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
VIEW = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*?)</script>', re.DOTALL
)

Models = dict[str, dict[str, Any]]


def child_models(models: Models, name: str) -> list[str]:
    return [child.removeprefix("IPY_MODEL_") for child in models[name]["state"]["children"]]


def pictures(models: Models, name: str, sliders: list[str]) -> Iterator[str]:
    """The pictures of nested stacks, those of the last slider beside each other."""
    if not sliders:
        yield models[name]["state"]["value"]
        return
    links = {
        tuple(model["state"][end][0].removeprefix("IPY_MODEL_") for end in ("source", "target"))
        for model in models.values()
        if model["model_name"] == "LinkModel"
    }
    children = child_models(models, name)
    labels = models[sliders[0]]["state"]["_options_labels"]
    if (sliders[0], name) not in links or len(children) != len(labels):
        raise ExtensionError("explorers: a slider that isn't linked to one picture per value")
    for child in children:
        yield from pictures(models, child, sliders[1:])


def explorer(number: int, models: Models, name: str) -> str:
    """Plain sliders above the picture at which the explorer opens."""
    if "af-explorer" not in models[name]["state"].get("_dom_classes", []):
        raise ExtensionError("explorers: the only widgets that work in a page are explorers")
    *sliders, stack = child_models(models, name)
    rows, places, opened = "", [], 0
    for index, slider in enumerate(models[slider]["state"] for slider in sliders):
        label, values = escape(slider["description"]), slider["_options_labels"]
        id_ = f"explorer-{number}-{index + 1}"
        at = slider["index"]
        opened = opened * len(values) + at
        places.append(f"{label} = {escape(values[at])}")
        rows += (
            f'<div class="widget-slider pst-js-only"><label class="widget-label" for="{id_}">{label}</label>'
            f'<input type="range" id="{id_}" min="0" max="{len(values) - 1}" value="{at}" autocomplete="off"'
            f' aria-valuetext="{escape(values[at])}" data-values="{escape(json.dumps(values))}">'
            f'<span class="widget-readout" aria-hidden="true">{escape(values[at])}</span></div>'
        )
    shown = list(pictures(models, stack, sliders))
    kept = json.dumps(shown).replace("</", "<\\/")
    return (
        f'<div class="af-explorer" role="group" aria-label="Explorer {number}">'
        f'{rows}<div class="af-picture">{shown[opened]}</div>'
        f"<noscript><p>The sliders of this figure need JavaScript. Shown is {', '.join(places)}.</p></noscript>"
        f'<script type="application/json" class="af-pictures">{kept}</script></div>'
    )


def draw_explorers(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Replace each widget of a page, and take its saved state out of the page's scripts."""
    scripts = context.get("script_files", [])
    states = [s for s in scripts if getattr(s, "attributes", {}).get("type") == WIDGET_STATE]
    views = VIEW.findall(context.get("body", ""))
    if not views:
        return
    if len(states) != 1:
        raise ExtensionError(f"explorers: {page} has widgets, but {len(states)} saved states")
    models = json.loads(states[0].attributes["body"].replace(r"<\/script>", "</script>"))["state"]
    context["script_files"] = [script for script in scripts if script is not states[0]]
    drawn = (
        explorer(number, models, json.loads(view)["model_id"])
        for number, view in enumerate(views, 1)
    )
    context["body"] = VIEW.sub(lambda _: next(drawn), context["body"])


def setup(app: Sphinx) -> dict[str, object]:
    # After myst_nb has added the saved state.
    app.connect("html-page-context", draw_explorers, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
