"""What this book adds to Sphinx: the claim ledger, page descriptions, a root page, launch buttons.

Directives, for Markdown pages::

    ```{claim-counts}
    ```
    ```{claim-list} spectrum
    ```

The first is a table of verdicts by note, the second every claim of one note.  Both are made from
book/claims.yml and from the numbers that the committed notebooks have bound; a malformed claim, or
a tested claim without its number, fails the build.  ``{ref}`ledger-s03` `` links to one claim.
"""

from __future__ import annotations

import ast
import json
import os
import posixpath
import re
from collections import Counter
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from helpers import claims

# --- the ledger -------------------------------------------------------------------------------


def read_ledger() -> dict[str, claims.Claim]:
    try:
        return claims.ledger()
    except (ValueError, KeyError) as error:
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


def chapter_page(env: BuildEnvironment, number: int) -> str | None:
    """The docname of a chapter, e.g. notebooks/01_attention_spectrum; None if it isn't written yet."""
    pages = [page for page in env.found_docs if page.startswith(f"notebooks/{number:02d}_")]
    return pages[0] if pages else None


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
        verdict_class = "af-" + claim.verdict.replace(" ", "-")
        box = nodes.container(ids=[name], classes=["af-entry", verdict_class])
        standard = self.env.get_domain("std")
        standard.labels[name.lower()] = self.env.docname, name, f"claim {claim.id}"
        standard.anonlabels[name.lower()] = self.env.docname, name

        verdict = f"{claims.SYMBOLS[claim.verdict]} {claim.verdict}"
        head = nodes.paragraph(classes=["af-entry-head"])
        head += nodes.strong("", claim.id)
        head += nodes.inline("", verdict, classes=["af-verdict"])
        head += nodes.inline(
            "", f"{claim.kind}, ", nodes.inline("", "", *self.chapter(claim)), classes=["af-kind"]
        )
        box += head
        self.parse(claim.claim, box)
        if claim.verdict != claims.UNTESTED:
            self.parse(self.measurement(claim), box)
            self.parse(claim.finding, box)
        return box

    def chapter(self, claim: claims.Claim) -> list[nodes.Node]:
        """Where the claim is tested: a link to its verdict card, or the chapter that it waits for."""
        if claim.verdict == claims.UNTESTED:
            return [nodes.Text(f"planned for chapter {claim.chapter}")]
        page = self.tested_page(claim)
        uri = self.env.app.builder.get_relative_uri(self.env.docname, page) + f"#claim-{claim.id}"
        text = f"tested in chapter {claim.chapter}"
        return [nodes.reference("", text, refuri=uri, internal=True)]

    def tested_page(self, claim: claims.Claim) -> str:
        page = chapter_page(self.env, claim.chapter)
        if page is None:
            raise ExtensionError(
                f"claim ledger: {claim.id} is called tested, but chapter {claim.chapter} isn't there"
            )
        return page

    def measurement(self, claim: claims.Claim) -> str:
        notebook = Path(self.env.doc2path(self.tested_page(claim)))
        self.env.note_dependency(str(notebook))
        numbers = bound_numbers(notebook)
        if claim.id not in numbers:
            raise ExtensionError(
                f"claim ledger: {claim.id} is called tested, but {notebook.name} binds no number to it"
            )
        spread = f" ({numbers[claim.id + '_spread']})" if claim.id + "_spread" in numbers else ""
        reference, tolerance = (
            format(value, claim.format) for value in (claim.reference, claim.tolerance)
        )
        rule = f"; the claim holds if the number is {self.rule(claim)}" if claim.holds_if else ""
        return (
            f"Measured: {claim.measure}: **{numbers[claim.id]}**{spread}. "
            f"Reference {reference} ± {tolerance}{rule}."
        )  # fmt: skip

    @staticmethod
    def rule(claim: claims.Claim) -> str:
        """The decision rule in the unit of the number: "at least 95%" for ">= 0.95" and ".0%"."""
        comparison, bound = claim.holds_if.split()
        words = {">=": "at least", "<=": "at most", ">": "above", "<": "below"}
        return f"{words[comparison]} {format(float(bound), claim.format)}"

    def parse(self, text: str, parent: nodes.Element) -> None:
        self.state.nested_parse(
            StringList(text.splitlines(), str(claims.LEDGER)), self.content_offset, parent
        )


# --- around the pages -------------------------------------------------------------------------


def add_launch_buttons(app: Sphinx, config: Config) -> None:
    """Show the repository and launch buttons if, and only if, the build is told the public address."""
    url = os.environ.get("BOOK_REPOSITORY_URL", "").removesuffix(".git").rstrip("/")
    if not url:
        return
    if not re.fullmatch(r"https://[^/\s]+/[^/\s]+/[^/\s]+", url):
        raise ExtensionError(
            f"BOOK_REPOSITORY_URL must look like https://host/owner/name, not {url!r}"
        )
    config.html_theme_options |= {
        "repository_url": url,
        "repository_branch": os.environ.get("BOOK_REPOSITORY_BRANCH", "main"),
        "use_repository_button": True,
        "launch_buttons": {
            "notebook_interface": "jupyterlab",
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
        },
    }


def add_description(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Describe a page to search engines and link previews by its first paragraph."""
    if doctree is None:
        return
    texts = (" ".join(paragraph.astext().split()) for paragraph in doctree.findall(nodes.paragraph))
    description = next((text for text in texts if len(text) > 40), app.config.html_title)
    if len(description) > 200:
        description = description[:200].rsplit(" ", 1)[0] + " …"
    title = context.get("title") or app.config.html_title
    properties = {"og:title": title, "og:description": description, "og:type": "article"}
    tags = [
        f'<meta property="{name}" content="{escape(text)}">' for name, text in properties.items()
    ]
    if 'name="description"' not in context.get("metatags", ""):
        tags.append(f'<meta name="description" content="{escape(description)}">')
    context["metatags"] = context.get("metatags", "") + "\n".join(tags)


def repair_roles(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Give the entries of a bibliography the role that their list demands; docutils' own is deprecated."""
    if "body" in context:
        context["body"] = context["body"].replace('role="doc-biblioentry"', 'role="listitem"')


def write_root_page(app: Sphinx, exception: Exception | None) -> None:
    """Make index.html the landing page itself, with its relative addresses moved one folder up.

    Without this the site's root is an empty page that refreshes itself to book/index.html.
    """
    if exception is not None or app.builder.name != "html":
        return
    root = Path(app.outdir)
    folder = posixpath.dirname(app.config.root_doc)

    def move(match: re.Match[str]) -> str:
        attribute, address = match.groups()
        if not address or address.startswith("#") or re.match(r"[a-z][a-z0-9+.-]*:", address):
            return match[0]
        moved = posixpath.normpath(posixpath.join(folder, address))
        return f'{attribute}="{moved}/"' if address.endswith("/") else f'{attribute}="{moved}"'

    page = (root / f"{app.config.root_doc}.html").read_text("utf8")
    attributes = r'(?<=[\s<])(href|src|action|data-content_root)="([^"]*)"'
    (root / "index.html").write_text(re.sub(attributes, move, page), "utf8")


def setup(app: Sphinx) -> dict[str, object]:
    app.add_directive("claim-counts", ClaimCounts)
    app.add_directive("claim-list", ClaimList)
    app.connect("config-inited", add_launch_buttons)
    app.connect("html-page-context", add_description)
    app.connect("html-page-context", repair_roles)
    app.connect("build-finished", write_root_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
