"""Cuts the committed texts out of a Python installation: ``python -m experiments.make_texts``.

Twenty excerpts for MiniLM, and the texts on which the decoder is trained and judged. Both the topics and the
library differ between Python versions, so the texts are committed and this script only says where
they came from. ``texts/README.md`` names the version used.
"""

import gzip
import importlib
import inspect
import json
import re
import textwrap
import unicodedata
from pathlib import Path
from pydoc_data.topics import topics

FOLDER = Path(__file__).parents[1] / "helpers/data/texts"

PROSE_TOPICS = (
    "assignment", "calls", "comparisons", "execmodel", "function",
    "import", "objects", "sequence-types", "strings", "try",
)  # fmt: skip
"""Held out: the decoder is trained on the other topics."""
CODE_MODULES = (
    "argparse", "calendar", "csv", "difflib", "fractions",
    "heapq", "json.decoder", "shlex", "textwrap", "tokenize",
)  # fmt: skip

# MiniLM's tokenizer turns this many characters into more than its window of 512 word pieces.
LEAST_CHARACTERS = 2600

NOT_PROSE = re.compile(r"\||>>>|::=|==|\*\*\*|---|^\s*\* ")


HELD_OUT_BYTES = 6700
"""Per topic; ten topics are 67 kB."""

LONG_MODULES = (
    "ast", "asyncio.events", "dataclasses", "datetime", "doctest",
    "http.client", "inspect", "optparse", "pickle", "zipfile",
)  # fmt: skip
LISTED = (0x0391, 0x0410, 0x05D0, 0x0905, 0x2190, 0x2200, 0x2500, 0x2600, 0x2801, 0x3041)
"""Where ten lists of Unicode characters begin: Greek, Cyrillic, Hebrew, Devanagari, arrows, …"""
LONG_CHARACTERS = 10_500
"""More than 2,048 of SmolLM2's tokens of code or of a list."""


def paragraphs(text: str) -> list[str]:
    """The blank-line separated parts of a text, as they stand."""
    return [part for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip()]


def squeezed(text: str) -> str:
    """The text with every run of white space made one space."""
    return " ".join(text.split())


def prose(topic: str) -> str:
    """The first paragraphs of a topic that are sentences: no table, grammar, list or session."""
    excerpt: list[str] = []
    for part in map(squeezed, paragraphs(topics[topic])):
        sentences = len(part) >= 80 and part[0].isupper() and part.endswith(".")
        if sentences and not NOT_PROSE.search(part):
            excerpt.append(textwrap.fill(part, 79, break_on_hyphens=False, break_long_words=False))
        if sum(map(len, excerpt)) >= LEAST_CHARACTERS:
            break
    return "\n\n".join(excerpt) + "\n"


def code(module: str, characters: int = LEAST_CHARACTERS) -> str:
    """Whole lines of a module from its first class or function, past its header."""
    source = inspect.getsource(importlib.import_module(module))
    source = source[re.search(r"^(class|def) ", source, re.MULTILINE).start() :]
    return source[: source.index("\n", characters) + 1]


def listed(start: int) -> str:
    """A list of characters from ``start`` on, one a line: code point and name."""
    lines, point = [], start
    while sum(map(len, lines)) < LONG_CHARACTERS:
        if name := unicodedata.name(chr(point), ""):
            lines.append(f"U+{point:04X} {name.capitalize()}\n")
        point += 1
    return "".join(lines)


def held_out() -> str:
    """The first paragraphs of every held-out topic, tables and examples included."""
    kept: dict[str, str] = {}  # topics quote each other: keep a paragraph once
    for topic in PROSE_TOPICS:
        size = 0
        for part in paragraphs(topics[topic]):
            if size < HELD_OUT_BYTES and squeezed(part) not in kept:
                kept[squeezed(part)] = part
                size += len(part.encode()) + 2
    return "\n\n".join(kept.values()) + "\n"


def training_text(held_out_text: str) -> str:
    """Every paragraph, once, that stands neither in a held-out topic nor in ``held_out_text``.

    Topics quote each other at length, so leaving out whole topics would not keep their text out.
    """
    seen = {squeezed(part) for part in paragraphs(held_out_text)}
    seen |= {squeezed(part) for topic in PROSE_TOPICS for part in paragraphs(topics.get(topic, ""))}
    kept: list[str] = []
    for topic in sorted(topics.keys() - set(PROSE_TOPICS)):
        for part in paragraphs(topics[topic]):
            if squeezed(part) not in seen:
                seen.add(squeezed(part))
                kept.append(part)
    return "\n\n".join(kept) + "\n"


def long_texts() -> dict[str, list[str]]:
    """Ten long texts of code and ten lists, by kind."""
    return {
        "code": [code(module, LONG_CHARACTERS) for module in LONG_MODULES],
        "lists": [listed(start) for start in LISTED],
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for index, topic in enumerate(PROSE_TOPICS):
        (FOLDER / f"prose_{index}.txt").write_text(prose(topic), encoding="utf-8")
    for index, module in enumerate(CODE_MODULES):
        (FOLDER / f"code_{index}.txt").write_text(code(module), encoding="utf-8")
    (FOLDER.parent / "heldout.txt").write_text(held_out(), encoding="utf-8")
    training = training_text(held_out()).encode()
    (FOLDER.parent / "training.txt.gz").write_bytes(gzip.compress(training, mtime=0))
    long = json.dumps(long_texts()).encode()
    (FOLDER.parent / "long.json.gz").write_bytes(gzip.compress(long, mtime=0))


if __name__ == "__main__":
    main()
