"""What this book adds to Sphinx's pages: descriptions, a root page, launch buttons."""

from __future__ import annotations

import os
import posixpath
import re
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError


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
    app.connect("config-inited", add_launch_buttons)
    app.connect("html-page-context", add_description)
    app.connect("html-page-context", repair_roles)
    app.connect("build-finished", write_root_page, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
