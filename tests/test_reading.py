"""The reading budget: no converted chapter exceeds it, and whatever exceeds it is found."""

import json
import re
from collections import Counter
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from nbformat import v4 as nbformat

from book._ext import reading

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CHAPTERS = {path.stem: json.loads(path.read_text("utf8")) for path in NOTEBOOKS}
CHAPTERS = {name: book for name, book in CHAPTERS.items() if reading.is_converted(book)}
NO_LABEL = re.compile(r"(show|see)? ?(the )?(code|source)?( cell.*)?", re.IGNORECASE)


def over(limit, counts):
    """All together, if more than ``limit``, and the five cells that have most."""
    total = counts.total()
    return [("all", total), *counts.most_common(5)] if total > limit else []


def of_cells(found):
    return Counter(cell for cell, *_ in found)


# Each item of the budget, with the cells that exceed it.
BUDGET = {
    "at most 3,000 words of prose": lambda c: over(3000, c.words),
    "at most 150 visible lines of code": lambda c: over(150, of_cells(c.lines)),
    "no visible line over 76 characters": lambda c: [line for line in c.lines if len(line[1]) > 76],
    "at most an eighth of them bookkeeping": lambda c: over(len(c.lines) / 8, c.bookkeeping),
    "no visible cell uses a name that only a folded cell defines": lambda c: c.from_folds,
    "at most 30 folded cells": lambda c: over(30, of_cells(c.folds)),
    "every fold is labelled by what it holds": lambda c: [
        fold for fold in c.folds if NO_LABEL.fullmatch(fold[1])
    ],
    "no two folds in a row": lambda c: c.in_a_row,
    "at most 6 claim cards": lambda c: over(6, c.cards),
    "at most 4 tables": lambda c: over(4, of_cells(c.tables)),
    "at most 8 rows in a table": lambda c: [table for table in c.tables if table[1] > 8],
    "at most 3 numbers in a sentence": lambda c: [s for s in c.sentences if s[1] > 3],
}


@pytest.mark.parametrize(("chapter", "item"), [*product(CHAPTERS, BUDGET)])
def test_a_chapter_keeps_its_budget(chapter, item):
    exceeding = BUDGET[item](reading.count(CHAPTERS[chapter]))
    assert not exceeding, "\n".join([f"{chapter}: {item}, but", *map(str, exceeding)])


# --- whatever exceeds it is found -----------------------------------------------------------------

text = nbformat.new_markdown_cell
CARD = '<div class="af-claim af-holds"></div>'


def code(source, *tags, html="", label="How it is computed"):
    metadata = {"tags": list(tags), "mystnb": {"code_prompt_show": label}}
    outputs = [nbformat.new_output("display_data", {"text/html": html})]
    return nbformat.new_code_cell(source, metadata=metadata, outputs=outputs)


def fold(source="", **parts):
    return code(source, "hide-input", **parts)


def table(rows):
    row = "<tr><th>a</th></tr>"
    return f'<div class="af-table"><thead>{row}</thead><tbody>{row * rows}</tbody></div>'


def count(*cells):
    return reading.count(nbformat.new_notebook(cells=list(cells)))


# For each item the most it allows, and cells that have so much of it.
AMOUNTS = [
    (3000, lambda n: [text("word " * n)]),
    (150, lambda n: [code("x = 1\n\n" * n)]),
    (76, lambda n: [code("x" * n)]),
    (2, lambda n: [code("assert True\n" * n + "x = 1\n" * (16 - n))]),
    (0, lambda n: [fold("import math"), text("Now."), code("math.pi\n" * n)]),
    (30, lambda n: [cell for _ in range(n) for cell in (fold(), text("Now."))]),
    (0, lambda n: [fold(label="Show the code" if n else "How k₉₉ is computed")]),
    (0, lambda n: [fold(), *[code("", "remove-cell"), fold()] * n]),
    (6, lambda n: [code("x = 1", html=CARD * n)]),
    (4, lambda n: [text("| a |\n|---|\n| b |"), code("x = 1", html=table(1) * (n - 1))]),
    (8, lambda n: [text("| a |\n|---|\n" + "| b |\n" * n), code("x = 1", html=table(n))]),
    (3, lambda n: [text("Of these, " + "10, " * n + "all.")]),
]


@pytest.mark.parametrize(("item", "amount"), [*zip(BUDGET, AMOUNTS, strict=True)], ids=list(BUDGET))
def test_one_too_many_is_found_and_nothing_else(item, amount):
    most, cells = amount
    for n, expected in ((most, []), (most + 1, [item])):
        counts = count(*cells(n))
        assert [name for name, exceeding in BUDGET.items() if exceeding(counts)] == expected


@pytest.mark.parametrize(
    ("markdown", "words"),
    [
        ("## A heading\n\n- and an item\n\n1. and another", 7),
        ("Let $a < b$ be\n\n$$\na\n$$\n", 3),
        ("{term}`heads<attention head>` of {cite:t}`a2020,b2021`, `a + b`, [a link](a/b)", 6),
        (":::{prf:theorem} title\n:label: t\n\nRead this.\n:::", 2),
        ("::::{prf:proof}\n:::{note}\nnot\n:::\nnot\n::::\nRead.", 1),
        (":::{dropdown} Proof\nnot\n:::\nRead.", 1),
        (":::{admonition} Answer\n:class: tip dropdown\nnot\n:::\nRead.", 1),
        ("```python\nnot\n```\n```{index}\nsingle: not\n```\nRead.", 1),
        ("(label)=\n<!-- not -->\n| not |\n|---|\n| not |", 0),
        ("### Exercise 1.1: not\nnot\n#### not\n### Read\n## Exercises\nnot\n### not\n", 1),
    ],
)
def test_words_are_what_is_read_in_passing(markdown, words):
    assert count(text(markdown)).words.total() == words


def test_exercises_end_with_their_section():
    cells = [text("## Exercises"), text("### Exercise 1.1\nnot"), text("## Summary\nRead.")]
    assert count(*cells).words.total() == 2


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("Of 512 values, −0.5 to 2.3·10⁻⁴, one in 12,345 is in 99 % of the 64-token rows.", 6),
        ("Layer 2, head 4; heads 4, 7 and 9; S03, k₉₉, GPT-2, float32, 135M, ten, Python 3.11.", 0),
        ("Heads 20 % wide: {glue:text}`a`, and {glue:text}`b.ipynb::c` elsewhere.", 3),
        ("After {cite:p}`x2020` come `f(3)`, $3$, [a page](page-3.ipynb) and {ref}`a <b-3>`.", 0),
        ("## Of 1\n\n1. In 2, 3\n2. of 4, 5! The third, e.g. 6, is 7 (i.e. 8).", 3),
    ],
)
def test_numbers_in_a_sentence(sentence, numbers):
    assert max(found for _, found, _ in count(text(sentence)).sentences) == numbers


def test_names_are_followed_as_python_does():
    folded = fold("rows = kept = 1\ndef shown(): inner = 2")
    own = code("def f(rows):\n    return [kept for kept in rows]\ninner = len(rows := [])")
    assert count(folded, own).from_folds == []
    used = code("def g():\n    return kept, shown()")
    assert [name for _, name in count(folded, used).from_folds] == ["kept", "shown"]
    assert count(folded, code("kept = 2"), code("kept")).from_folds == []


def test_all_kinds_of_bookkeeping_are_counted_and_what_is_removed_is_not():
    kinds = (
        "claims.judge(\n    'S03',\n)\nfor x in y:\n    torch.testing.assert_close(x, 1)\nassert x"
    )
    assert count(code(kinds)).bookkeeping.total() == 5
    removed = count(
        code("assert x", "remove-input", html=CARD), code("", "remove-output", html=CARD)
    )
    assert (len(removed.lines), removed.cards.total()) == (0, 1)


@pytest.mark.parametrize(
    ("layout", "page"),
    [(2, ["Title", "Reading: about 35 minutes", "Text"]), (1, ["Title", "Text"])],
)
def test_a_converted_chapter_says_its_time_below_its_title(tmp_path, layout, page):
    cells = [text("word " * 2000 + "![a](b)"), code("x = 1\n" * 80)]  # 10 and 16 minutes
    cells += [code("", "hide-input", html="<figure></figure>" * 11 + table(2))]  # 14 × 30 seconds
    cells[-1].outputs[0].data[reading.VIEW] = {}  # an explorer
    notebook = nbformat.new_notebook(cells=cells, metadata={"layout": layout})
    (tmp_path / "a.ipynb").write_text(json.dumps(notebook), "utf8")
    section = nodes.section("", nodes.title(text="Title"), nodes.paragraph(text="Text"))
    environment = SimpleNamespace(
        docname="a", doc2path=lambda name: str(tmp_path / f"{name}.ipynb")
    )
    reading.add_reading_time(
        SimpleNamespace(env=environment), nodes.document(None, None, "", section)
    )
    assert [node.astext() for node in section] == page
