"""What this book adds to Sphinx's pages: descriptions, a root page, launch buttons, a search without accents.

What the theme leaves out for screen readers is added here too.  Whatever is not found as expected stops the build.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import unicodedata
from html import escape, unescape
from pathlib import Path

from docutils import nodes
from pybtex.plugin import find_plugin, register_plugin
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinx.search.en import SearchEnglish

# The theme reads a reader's choice of light or dark from the storage.  Without a choice it is the system's, known
# before the first paint.  In a frame without an origin of its own there is no storage, and the theme would throw.
COLOURS = """\
<script>
  for (const name of ["localStorage", "sessionStorage"]) {
    try { window[name].length; } catch {
      const kept = {};
      const storage = { getItem: (key) => kept[key] ?? null, setItem: (key, value) => { kept[key] = value; } };
      Object.defineProperty(window, name, { value: storage });
    }
  }
  if (!localStorage.getItem("mode")) localStorage.setItem("mode", "auto");
  if (localStorage.getItem("mode") === "auto") {
    localStorage.setItem("theme", matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }
</script>
"""
# How the theme does it.
THEME = (
    'dataset.mode = localStorage.getItem("mode")',
    'dataset.theme = localStorage.getItem("theme")',
)


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


# --- the head of a page ---------------------------------------------------------------------------


def add_head(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Colours at once, and for search engines and link previews the page's first paragraph."""
    book = app.config.html_title
    title = context.get("title") or book
    description = f"{title}: {book}, an executable book that tests what is said of attention."
    if doctree is not None:
        texts = (" ".join(text.astext().split()) for text in doctree.findall(nodes.paragraph))
        description = next((text for text in texts if len(text) > 40), description)
    if len(description) > 200:
        description = description[:200].rsplit(" ", 1)[0] + " …"
    properties = {"og:title": title, "og:description": description, "og:type": "article"}
    tags = [
        f'<meta property="{name}" content="{escape(text)}">' for name, text in properties.items()
    ]
    if 'name="description"' not in context.get("metatags", ""):
        tags.append(f'<meta name="description" content="{escape(description)}">')
    sheet = posixpath.relpath("_static/no-script.css", posixpath.dirname(page) or ".")
    tags.append(f'<noscript><link rel="stylesheet" href="{sheet}"></noscript>')
    context["metatags"] = context.get("metatags", "") + "\n".join(tags) + COLOURS


# --- its text -------------------------------------------------------------------------------------

TABLE = re.compile(r'<h[1-6]>(.*?)<a class="headerlink"|<table class="table"', re.DOTALL)
CELL = re.compile(
    r"<td(?: class=\"([^\"]*)\")?( data-tolerance=\"[^\"]*\")?>((?:<p>)?([^<]{1,12})(?:</p>)?</td>)"
)


def repair_body(
    app: Sphinx, page: str, template: str, context: dict, doctree: nodes.document | None
) -> None:
    """Roles, ids and tables as screen readers need them."""
    if doctree is None or "body" not in context:
        return
    body = context["body"]
    # docutils' role of a bibliography's entries is deprecated; sphinx-proof gives all boxes of a page one id.
    body = body.replace('role="doc-biblioentry"', 'role="listitem"')
    body = body.replace(' id="proof-content"', "")
    body = body.replace('<th class="head', '<th scope="col" class="head')
    heading, named = "", 0

    def name(found: re.Match[str]) -> str:
        """A table of Markdown has no caption: it gets the name of its section."""
        nonlocal heading, named
        if found[1] is None:
            named += 1
            return f'{found[0]} aria-label="{heading}"'
        heading = re.sub(r"<[^>]*>", "", found[1]).strip()
        return found[0]

    body = TABLE.sub(name, body)
    if named != len(list(doctree.findall(nodes.table))) or re.search(r"<th\b(?![^>]*scope=)", body):
        raise ExtensionError(f"attention_book: a table of {page} isn't written as it was")

    def mark(cell: re.Match[str]) -> str:
        """A short cell with a number in it is not broken."""
        classes, tolerance, content, text = cell.groups()
        if not any(letter.isdigit() for letter in unescape(text)):
            return cell[0]
        classes = f"{classes} " if classes else ""
        return f'<td class="{classes}af-number"{tolerance or ""}>{content}'

    context["body"] = CELL.sub(mark, body)


# --- all pages ------------------------------------------------------------------------------------


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
    if 'data-content_root="../"' not in page:
        raise ExtensionError("attention_book: the landing page no longer says where the root is")
    attributes = r'(?<=[\s<])(href|src|action|data-content_root)="([^"]*)"'
    (root / "index.html").write_text(re.sub(attributes, move, page), "utf8")


def check_pages(app: Sphinx, exception: Exception | None) -> None:
    """No page has been passed over, and the theme is the one that the pages were made for."""
    if exception is not None or app.builder.name != "html":
        return
    pages = [path for path in Path(app.outdir).rglob("*.html") if "_static" not in path.parts]
    for path in pages:
        page = path.read_text("utf8")
        faults = [mark for mark in (COLOURS.strip(), *THEME) if page.count(mark) != 1]
        if faults or page.find(COLOURS.strip()) > page.find(THEME[0]):
            raise ExtensionError(f"attention_book: {path.name} doesn't hold {faults or COLOURS!r}")
        for left in ("vnd.jupyter.widget", 'class="math notranslate', 'role="doc-biblioentry"'):
            if left in page:
                raise ExtensionError(f"attention_book: {path.name} still holds {left}")
    if len(pages) < len(app.env.found_docs):
        raise ExtensionError("attention_book: there are fewer pages than documents")


# --- search ---------------------------------------------------------------------------------------


LETTERS = {"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ß": "ss"}  # one letter in Unicode


class SearchWithoutAccents(SearchEnglish):
    """English, with "Björck" and "Bjorck" being the same word, in the index and in the query."""

    js_stemmer_code = f"""{SearchEnglish.js_stemmer_code}
{{
const letters = {json.dumps(LETTERS, ensure_ascii=False)};
const StemmerWithAccents = Stemmer;
Stemmer = function () {{
  const {{ stemWord }} = new StemmerWithAccents();
  this.stemWord = (word) =>
    stemWord([...word].map((x) => letters[x] ?? x).join("").normalize("NFKD").replace(/\\p{{M}}/gu, ""));
}};
}}
"""

    def stem(self, word: str) -> str:
        plain = unicodedata.normalize("NFKD", word.lower().translate(str.maketrans(LETTERS)))
        return super().stem("".join(x for x in plain if unicodedata.category(x)[0] != "M"))


def setup(app: Sphinx) -> dict[str, object]:
    # Otherwise each citation searches all installed packages for them: a tenth of the build.
    for name in ("plaintext", "docutils"):
        register_plugin("pybtex.backends", name, find_plugin("pybtex.backends", name), force=True)
    app.add_search_language(SearchWithoutAccents)
    app.connect("config-inited", add_launch_buttons)
    app.connect("html-page-context", add_head)
    app.connect("html-page-context", repair_body)
    app.connect("build-finished", write_root_page, priority=900)
    app.connect("build-finished", check_pages, priority=950)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
