"""The claim ledger on the pages: counts, a chart, and every claim with its number.

Directives, for Markdown pages::

    ```{claim-counts}
    ```
    ```{claim-chart}
    ```
    ```{claim-filter}
    ```
    ```{claim-list} spectrum
    ```

    {claim}`S03`

    ```{claim-badges} 1
    ```

A table of verdicts by note, a tile for every claim, the filter's controls, and every claim of one note; one claim as a badge in
a sentence, and those of a chapter in a row. All are made from
book/claims.yml and from the numbers that the committed notebooks have bound; a malformed claim, or
a tested claim without its number, fails the build.  ``{ref}`ledger-s03`` `` links to one claim.
The controls that filter the ledger are made by book/_static/ledger.js: without it all claims show.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from functools import cache
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective, SphinxRole

from helpers.page import claims

LEDGER_PAGE = "book/ledger"
EVIDENCE = "notebooks/evidence/"
FILTERED = ("note", "verdict", "kind", "chapter")


def read_ledger() -> dict[str, claims.Claim]:
    try:
        return claims.ledger()
    except (ValueError, KeyError, yaml.YAMLError) as error:
        raise ExtensionError(f"claim ledger: {error}") from error


@cache
def bound_numbers(notebook: Path) -> dict[str, str]:
    """The texts that a committed notebook has glued, by name."""
    numbers = {}
    for cell in json.loads(notebook.read_text("utf8"))["cells"]:
        for output in cell.get("outputs", []):
            scrap = output.get("metadata", {}).get("scrapbook")
            if scrap:
                text = output["data"][scrap["mime_prefix"] + "text/plain"]
                numbers[scrap["name"]] = ast.literal_eval("".join(text))
    return numbers


def tested_page(env: BuildEnvironment, claim: claims.Claim) -> str:
    """The docname of the chapter, or of its evidence, that shows the claim's card."""
    pages = [f"notebooks/{claim.chapter:02d}_", f"{EVIDENCE}{claim.chapter:02d}_"]
    card = f'id=\\"claim-{claim.id}\\"'
    for page in sorted(env.found_docs):
        if page.startswith(tuple(pages)) and card in Path(env.doc2path(page)).read_text("utf8"):
            return page
    raise ExtensionError(
        f"claim ledger: {claim.id} is called tested, but neither chapter {claim.chapter} "
        "nor the evidence for it shows its card"
    )


def number_of(env: BuildEnvironment, claim: claims.Claim) -> tuple[str, str]:
    """The claim's number and its spread, as the notebook that judges it has bound them."""
    notebook = Path(env.doc2path(tested_page(env, claim)))
    env.note_dependency(str(notebook))
    numbers = bound_numbers(notebook)
    if claim.id not in numbers:
        raise ExtensionError(
            f"claim ledger: {claim.id} is called tested, but {notebook.name} binds no number to it"
        )
    return numbers[claim.id], numbers.get(f"{claim.id}_spread", "a single number, without spread")


class ClaimCounts(SphinxDirective):
    """A table: for each note, how many claims have each verdict."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(claims.LEDGER))
        ledger = read_ledger().values()
        counts = Counter((claim.note, claim.verdict) for claim in ledger)
        notes = claims.NOTES
        lines = ["| verdict | " + " | ".join(notes) + " | total |"]
        lines.append("|---" * (len(notes) + 2) + "|")
        for verdict in claims.VERDICTS:
            row = [counts[note, verdict] for note in notes]
            if verdict == claims.UNTESTED and not any(row):
                continue
            lines.append(
                "| "
                + " | ".join([f"{claims.SYMBOLS[verdict]} {verdict}", *map(str, [*row, sum(row)])])
                + " |"
            )
        row = [sum(claim.note == note for claim in ledger) for note in notes]
        lines.append("| " + " | ".join(["total", *map(str, [*row, sum(row)])]) + " |")
        box = nodes.container(classes=["af-counts"])
        self.state.nested_parse(StringList(lines, str(claims.LEDGER)), self.content_offset, box)
        return [box]


def badge(env: BuildEnvironment, id_: str, number: bool = True) -> nodes.reference:
    """A claim's verdict in a few signs, with its number where a sentence says of what, linked to its entry in the ledger."""
    claim = read_ledger()[id_]
    uri = env.app.builder.get_relative_uri(env.docname, LEDGER_PAGE) + f"#ledger-{id_}"
    classes = ["af-badge", _class(claim.verdict)]
    link = nodes.reference("", "", refuri=uri, internal=True, classes=classes)
    link += nodes.Text(f"{id_} {claims.SYMBOLS[claim.verdict]}")
    if claim.measure and number:
        link += nodes.Text(" ")
        link += nodes.inline("", "measured ", classes=["af-hidden"])
        link += nodes.Text(number_of(env, claim)[0])
    link += nodes.inline("", f" {claim.verdict}", classes=["af-hidden"])
    return link


class ClaimBadge(SphinxRole):
    """{claim}`S03`: the claim's badge."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        if self.text not in read_ledger():
            message = self.inliner.reporter.error(f"no claim {self.text!r}", line=self.lineno)
            return [], [message]
        return [badge(self.env, self.text)], []


class ClaimBadges(SphinxDirective):
    """The badges of all claims of a chapter."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(claims.LEDGER))
        row = nodes.paragraph(classes=["af-badges"])
        for claim in read_ledger().values():
            if str(claim.chapter) == self.arguments[0]:
                row += [badge(self.env, claim.id, number=False), nodes.Text(" ")]
        return [row]


class ClaimChart(SphinxDirective):
    """A picture of all verdicts: a tile for every claim, by note and verdict, linked to its entry."""

    def run(self) -> list[nodes.Node]:
        self.env.note_dependency(str(claims.LEDGER))
        page = ""
        if self.env.docname != LEDGER_PAGE:
            page = self.env.app.builder.get_relative_uri(self.env.docname, LEDGER_PAGE)
        rows = "".join(self.row(note, page) for note in claims.NOTES)
        key = ", ".join(f"{claims.SYMBOLS[v]} {v}" for v in claims.VERDICTS if v != claims.UNTESTED)
        caption = (
            f"All claims of the three notes, sorted by verdict: {key}. A tile leads to its claim."
        )
        return [
            nodes.raw(
                "",
                f'<figure class="af-chart"><ul>{rows}</ul><figcaption>{caption}</figcaption></figure>',
                format="html",
            )
        ]

    def row(self, note: str, page: str) -> str:
        found = [claim for claim in read_ledger().values() if claim.note == note]
        found.sort(key=lambda claim: claims.VERDICTS.index(claim.verdict))
        tiles = "".join(
            f'<li><a class="af-tile {_class(claim.verdict)}" href="{page}#ledger-{claim.id}">'
            f'{claim.id} <span aria-hidden="true">{claims.SYMBOLS[claim.verdict]}</span>'
            f'<span class="af-hidden"> {escape(claim.verdict)}</span></a></li>'
            for claim in found
        )
        return f"<li><span>{escape(note)} note, {len(found)} claims</span><ul>{tiles}</ul></li>"


class ClaimFilter(SphinxDirective):
    """The controls that filter the ledger. Hidden until ledger.js finds them."""

    def run(self) -> list[nodes.Node]:
        chapters = sorted({str(claim.chapter) for claim in read_ledger().values()})
        verdicts = [verdict for verdict in claims.VERDICTS if verdict != claims.UNTESTED]
        choices = {
            "note": claims.NOTES,
            "verdict": verdicts,
            "kind": claims.KINDS,
            "chapter": chapters,
        }
        selects = "".join(
            f'<label>{name} <select name="{name}"><option value="">any</option>'
            + "".join(f'<option value="{_slug(x)}">{escape(x)}</option>' for x in options)
            + "</select></label>"
            for name, options in choices.items()
        )
        form = (
            '<form class="af-filter" hidden aria-label="Filter the claims">'
            '<label>words <input type="search" name="words" autocomplete="off"></label>'
            f'{selects}<button type="reset">all claims</button><output></output></form>'
        )
        return [nodes.raw("", form, format="html")]


class ClaimList(SphinxDirective):
    """Every claim of one note, as a list of cards."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        note = self.arguments[0]
        if note not in claims.NOTES:
            raise self.error(f"no note {note!r}; there are {', '.join(claims.NOTES)}")
        self.env.note_dependency(str(claims.LEDGER))
        return [self.entry(claim) for claim in read_ledger().values() if claim.note == note]

    def entry(self, claim: claims.Claim) -> nodes.container:
        name = f"ledger-{claim.id}"
        # The filter knows an entry by these classes.
        marks = [f"af-{key}-{_slug(str(getattr(claim, key)))}" for key in FILTERED]
        box = nodes.container(ids=[name], classes=["af-entry", _class(claim.verdict), *marks])
        standard = self.env.get_domain("std")
        standard.labels[name.lower()] = self.env.docname, name, f"claim {claim.id}"
        standard.anonlabels[name.lower()] = self.env.docname, name

        verdict = f"{claims.SYMBOLS[claim.verdict]} {claim.verdict}"
        head = nodes.paragraph(classes=["af-entry-head"])
        head += nodes.strong("", claim.id)
        head += nodes.inline("", verdict, classes=["af-verdict"])
        head += nodes.inline(
            "",
            f"{claim.kind}, ",
            nodes.inline("", "", *self.chapter(claim)),
            nodes.Text(f", since edition {claim.since}"),
            classes=["af-kind"],
        )
        box += head
        self.parse(f"> “{claim.words}”", box)
        self.parse(claim.claim, box)
        if claim.verdict != claims.UNTESTED:
            if claim.measure:
                self.parse(self.measurement(claim), box)
            self.parse(claim.finding, box)
        return box

    def chapter(self, claim: claims.Claim) -> list[nodes.Node]:
        """Where the claim is tested: a link to its verdict card, or the chapter that it waits for."""
        if claim.verdict == claims.UNTESTED:
            return [nodes.Text(f"planned for chapter {claim.chapter}")]
        page = tested_page(self.env, claim)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page) + f"#claim-{claim.id}"
        where = "the evidence for chapter" if page.startswith(EVIDENCE) else "chapter"
        text = f"tested in {where} {claim.chapter}"
        return [nodes.reference("", text, refuri=uri, internal=True)]

    def measurement(self, claim: claims.Claim) -> str:
        number, spread = number_of(self.env, claim)
        reference, tolerance = (claim.exact(value) for value in (claim.reference, claim.tolerance))
        rule = f"; the claim holds if the number is {claim.rule()}" if claim.holds_if else ""
        return (
            f"Measured: {claim.measure}: **{number}** ({spread}). "
            f"Reference {reference} ± {tolerance}{rule}."
        )  # fmt: skip

    def parse(self, text: str, parent: nodes.Element) -> None:
        self.state.nested_parse(
            StringList(text.splitlines(), str(claims.LEDGER)), self.content_offset, parent
        )


def add_filter(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Only the ledger's page loads the script of its filter."""
    if page == LEDGER_PAGE:
        app.add_js_file("ledger.js")


def _slug(text: str) -> str:
    return text.replace(" ", "-")


def _class(verdict: str) -> str:
    return f"af-{_slug(verdict)}"


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("claim-counts", ClaimCounts)
    app.add_directive("claim-chart", ClaimChart)
    app.add_directive("claim-filter", ClaimFilter)
    app.add_directive("claim-list", ClaimList)
    app.add_directive("claim-badges", ClaimBadges)
    app.add_role("claim", ClaimBadge())
    app.connect("html-page-context", add_filter)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
