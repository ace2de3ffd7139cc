"""How much a chapter asks of its reader: the counts of the reading budget, and the time below its title.

Only chapters of the second layout are counted: the metadata of their notebook say ``"layout": 2``.
tests/test_reading.py holds the limits.
"""

from __future__ import annotations

import ast
import json
import re
import symtable
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# Most adults read English non-fiction at 175 to 300 words a minute, 238 on average (Brysbaert 2019,
# doi.org/10.1016/j.jml.2019.104047); with formulas in it, it goes slower.  The others are estimates: a line of code
# is worth a sentence of 17 words, a picture or a table takes as long as its axes or heads and its caption.
WORDS_PER_MINUTE = 200
SECONDS_PER_LINE = 12
SECONDS_PER_PICTURE = 30

FOLDS = {"hide-input", "hide-cell"}
NO_CODE = {*FOLDS, "remove-input", "remove-cell"}
NO_OUTPUT = {"hide-cell", "hide-output", "remove-cell", "remove-output"}
VIEW = "application/vnd.jupyter.widget-view+json"

SKIPPED = {"dropdown", "prf:proof", "math", "index", "raw", "code", "code-block"}  # directives
FENCE = re.compile(r"\s*(:{3,}|~{3,}|`{3,}(?!.*`))\s*(?:\{([\w:-]+)\})?(.*)")
ROWS = re.compile(r"(?m)^ *\|[-:| ]+\| *\n((?: *\|.*\n?)*)")

# A number is a numeral with its sign, decimals and power of ten, or what is glued (a median with its spread is one).
# None are: digits in a name (S03, k₉₉, float32, GPT-2; layer 2; heads 4 and 7), words (ten), and whatever stands in
# mathematics, code, citations and the targets of links.
NUMBER = re.compile(r"(?<!\w)(?<!\w[-.])\d+(?:[.,]\d+)*(?:·10)?(?:e[-−]?\d+)?[⁻⁰¹²³⁴-⁹]*(?!\w)")
NOUN = (
    r"\b(?:chapter|section|exercise|theorem|definition|figure|table|panel|layer|head|token|row|column|step|seed|cell"
    r"|line|version|python)"
)
LIST = r"\d+(?:(?:, | and | or | to |–)\d+)*"
NAME = re.compile(rf"(?:{NOUN} \d+(?:\.\d+)*|{NOUN}s {LIST})\b(?! ?%)", re.IGNORECASE)
SENTENCE = re.compile(r"(?<=[.!?])[\"”’)*_]*\s+|\n\s*\n")

PLAIN = (  # from Markdown to what is read; a formula, a piece of code and a citation are a word each
    (r"(?s)\$\$.*?\$\$", " "),
    (r"\{glue:[a-z]+\}`[^`]*`", "0"),
    (r"\{[a-z:]+\}`([^`<]*\w)\s*<[^`]*`|\{term\}`([^`]*)`", r"\1\2"),
    (r"\{[a-z:]+\}`[^`]*`|`[^`]*`|\$[^$]*\$", "x"),
    (r"(?s)\\begin\{(\w+\*?)\}.*?\\end\{\1\}", " "),
    (r"!?\[([^\]]*)\]\([^)]*\)", r"\1"),
    (r"(?m)<[^>]*>|^\([\w-]+\)=$|^ *>|^ *\|.*$", " "),
    (r"(?m)^#+ (.*)$|^\s*(?:[-*+]|\d+[.)]) ", r"\n\n\1\n\n"),
    (r"\b(e\.g|i\.e|al|cf|vs)\.", r"\1"),
)


@dataclass
class Counts:
    """What a notebook holds, each with the id of its cell."""

    words: Counter[str] = field(default_factory=Counter)
    sentences: list[tuple[str, int, str]] = field(default_factory=list)  # and its numbers
    lines: list[tuple[str, str]] = field(default_factory=list)  # visible ones of code
    bookkeeping: Counter[str] = field(default_factory=Counter)
    from_folds: list[tuple[str, str]] = field(default_factory=list)  # names
    folds: list[tuple[str, str]] = field(default_factory=list)  # and their labels
    in_a_row: list[tuple[str, str]] = field(default_factory=list)
    cards: Counter[str] = field(default_factory=Counter)
    tables: list[tuple[str, int]] = field(default_factory=list)  # and its rows
    pictures: int = 0

    @property
    def minutes(self) -> int:
        """To read all but exercises and folds; a multiple of five, because no more is known."""
        seconds = SECONDS_PER_LINE * len(self.lines)
        seconds += SECONDS_PER_PICTURE * (self.pictures + len(self.tables))
        return max(5, 5 * round((self.words.total() / WORDS_PER_MINUTE + seconds / 60) / 5))


def count(notebook: dict[str, Any]) -> Counts:
    counts = Counts()
    for id_, markdown in prose(notebook):
        counts.tables += [(id_, len(rows.splitlines())) for rows in ROWS.findall(markdown)]
        counts.pictures += markdown.count("![")
        for pattern, plain in PLAIN:
            markdown = re.sub(pattern, plain, markdown)
        counts.words[id_] = sum(bool(re.search(r"\w", word)) for word in markdown.split())
        for sentence in SENTENCE.split(markdown):
            numbers = len(NUMBER.findall(NAME.sub("x", sentence)))
            counts.sentences.append((id_, numbers, " ".join(sentence.split())))

    def tags(cell: dict[str, Any]) -> set[str]:
        return set(cell["metadata"].get("tags", []))

    visible, hidden = set(), set()
    for cell in [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]:
        id_, source = cell["id"], "".join(cell["source"])
        if tags(cell) & FOLDS:
            label = cell["metadata"].get("mystnb", {}).get("code_prompt_show", "")
            counts.folds.append((id_, label))
        bound, used = names(source)
        if tags(cell) & NO_CODE:
            hidden |= bound
        else:
            visible |= bound
            counts.from_folds += [(id_, name) for name in sorted(used & (hidden - visible))]
            counts.lines += [(id_, line) for line in source.splitlines() if line.strip()]
            counts.bookkeeping[id_] = bookkeeping(source)
        for output in [] if tags(cell) & NO_OUTPUT else cell["outputs"]:
            html = "".join(output.get("data", {}).get("text/html", ""))
            counts.cards[id_] += len(re.findall('class="af-claim[ "]', html))
            bodies = re.findall(r'(?s)class="af-table.*?<tbody>(.*?)</tbody>', html)
            counts.tables += [(id_, body.count("<tr")) for body in bodies]
            counts.pictures += html.count("<figure") + (VIEW in output.get("data", {}))
    page = [cell for cell in notebook["cells"] if "remove-cell" not in tags(cell)]
    neighbours = [pair for pair in pairwise(page) if all(tags(cell) & FOLDS for cell in pair)]
    counts.in_a_row = [(first["id"], second["id"]) for first, second in neighbours]
    return counts


def prose(notebook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The Markdown of each cell, less exercises, folds, proofs, code and the marks of directives."""
    exercises = 0  # the level of the heading "Exercise…" that we are under
    for cell in [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]:
        kept: list[str] = []
        blocks: list[bool] = []  # of each open fence, whether it is skipped
        for line in "".join(cell["source"]).splitlines():
            if fence := FENCE.fullmatch(line):
                marks, name, rest = fence.groups()
                if blocks and not name and not rest.strip():
                    blocks.pop()
                else:
                    blocks.append(name in SKIPPED or not (name or marks[0] == ":"))
            elif blocks and re.match(r"\s*:[\w-]+:", line):  # an option
                if re.match(r"\s*:class:.*\bdropdown\b", line):
                    blocks[-1] = True
            elif not any(blocks):
                heading = re.match(r"(#+) (Exercise)?", line)
                if heading and (not exercises or len(heading[1]) <= exercises):
                    exercises = len(heading[1]) if heading[2] else 0
                kept += [] if exercises else [line]
        yield cell["id"], "\n".join(kept)


def names(source: str) -> tuple[set[str], set[str]]:
    """What a cell binds for the cells after it, and what it uses that isn't a function's own."""
    top = symtable.symtable(source, "cell", "exec")
    bound = {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}
    used, scopes = set(), [top]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        used |= {s.get_name() for s in scope.get_symbols() if scope is top or s.is_global()}
    return bound, used


def bookkeeping(source: str) -> int:
    """How many lines assert, or call claims or torch.testing."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Assert) or re.match(r"claims\.|torch\.testing\.|assert_", called):
            lines |= {*range(node.lineno, node.end_lineno + 1)}
    return len(lines)


def is_converted(notebook: dict[str, Any]) -> bool:
    """Whether a chapter is in the second layout, and so is held to the budget."""
    return notebook.get("metadata", {}).get("layout") == 2


def add_reading_time(app: Sphinx, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    notebook = json.loads(path.read_text("utf8")) if path.suffix == ".ipynb" else {}
    if is_converted(notebook):
        title = next(doctree.findall(nodes.title))
        said = f"Reading: about {count(notebook).minutes} minutes"
        time = nodes.paragraph("", said, classes=["af-reading"])
        title.parent.insert(title.parent.index(title) + 1, time)


def setup(app: Sphinx) -> dict[str, object]:
    app.connect("doctree-read", add_reading_time)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
