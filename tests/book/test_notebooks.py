"""The rules that every notebook of the book keeps. nbval re-executes them; this looks at what is committed."""

import json
import re
import statistics
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from helpers.page import claims

ROOT = Path(__file__).parents[2]
YOURS = ROOT / "notebooks" / "your_own.ipynb"
CHAPTERS = sorted({*(ROOT / "notebooks").glob("*.ipynb")} - {YOURS})
EVIDENCE = sorted((ROOT / "notebooks" / "evidence").glob("*.ipynb"))
NOTEBOOKS = [*CHAPTERS, YOURS, *EVIDENCE, *sorted((ROOT / "book").glob("*.ipynb"))]
PAGES = [*NOTEBOOKS, *(ROOT / "book").glob("*.md")]
GLUE = "application/papermill.record/text/plain"
CHECK = re.compile(r"\bcheck\(")
VIEW = "application/vnd.jupyter.widget-view+json"

# Numbers that prose may state: definitions of this book, and figures quoted from a cited work or a note.
# Whatever the book measures is glued.
STATED = {"99 %", "90 %", "10 %", "5 %", "95 %"}  # thresholds and quantiles
STATED |= {"1 %"}  # offered to choose from in a prediction
STATED |= {"93.3 %", "0.127"}  # quoted from cited works
STATED |= {"3.11", "99%", "99.9 %"}  # Python; a note, quoted; a threshold


def name(path):
    """A chapter and its evidence have one name, in two folders."""
    return f"evidence-{path.stem}" if path in EVIDENCE else path.stem


each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def outputs(path):
    return [(cell, output) for cell in code_cells(path) for output in cell.outputs]


def tags(cell):
    return cell.metadata.get("tags", [])


def glued(path):
    """Names bound in a notebook's outputs."""
    return [out.metadata.scrapbook.name for _, out in outputs(path) if GLUE in out.get("data", {})]


def prose(path):
    """Markdown without code, mathematics, roles, link targets and numbers of exercises."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|\$\$.*?\$\$", " ", text, flags=re.DOTALL)
    text = re.sub(r"\{[a-z:]+\}`[^`]*`|`[^`]*`|\$[^$]*\$|\]\([^)]*\)", " ", text)
    return re.sub(r"[Ee]xercise \d\.\d\b", " ", text)


def test_there_are_notebooks():
    numbers = [path.stem[:3] for path in CHAPTERS]
    assert len(numbers) >= 5
    assert numbers == [f"{i:02}_" for i in range(1, len(numbers) + 1)], (
        "chapters are numbered without a gap: 01_…, 02_…"
    )
    of_chapters = {path.name for path in CHAPTERS}
    assert {path.name for path in EVIDENCE} <= of_chapters, "evidence has its chapter's file name"


@each_notebook
def test_cells_are_small(path):
    lengths = {
        cell.id: sum(bool(line.strip()) for line in cell.source.splitlines())
        for cell in code_cells(path)
    }
    converted = read(path).metadata.get("layout") == 2
    # A converted chapter draws in folds, of which two never stand in a row; what is seen stays short.
    folds = {cell.id for cell in code_cells(path) if {"hide-input", "hide-cell"} & set(tags(cell))}
    most = {name: 50 if converted and name in folds else 12 for name in lengths}
    long = {name: length for name, length in lengths.items() if length > most[name]}
    assert not long, "split these cells, or move a part of them into helpers"
    if converted or path == YOURS:
        return  # tests/test_reading.py counts the lines that are seen; yours has a test below
    middle = statistics.median(lengths.values())
    assert middle <= 4, (
        f"half of the cells have more than 4 lines; the longest: {sorted(lengths, key=lengths.get)[-5:]}"
    )


@each_notebook
def test_it_ran_once_from_top_to_bottom(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), f"run tools/run_notebooks.py on {path.name}"


@each_notebook
def test_nothing_is_hidden_from_nbval(path):
    for cell in code_cells(path):
        assert not any(
            tag.startswith("nbval") or tag == "raises-exception" for tag in tags(cell)
        ), cell.id
        assert not re.search(r"NBVAL_|PYTEST_VALIDATE", cell.source), cell.id
    for cell, output in outputs(path):
        assert output.output_type != "error", cell.id
        assert output.get("name") != "stderr", cell.id
        assert "image/png" not in output.get("data", {}), f"{cell.id}: nbval skips PNG; show SVG"


@each_notebook
def test_every_figure_carries_its_data(path):
    for cell, output in outputs(path):
        is_figure = "<svg" in output.get("data", {}).get("text/html", "")
        assert is_figure == bool(output.get("metadata", {}).get("figure")), (
            f"{cell.id}: show it with figures.show, and execute the notebook again"
        )


@each_notebook
def test_no_pickle_no_global_seed_no_bare_random(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert not re.search(
        r"torch\.load\(|pickle|manual_seed\(\)|torch\.manual_seed|np\.random", source
    )
    for call in re.findall(r"torch\.(?:rand|randn|randperm|randint)\([^\n]*", source):
        assert "generator=" in call, call


@each_notebook
def test_every_widget_that_is_shown_is_saved(path):
    notebook = read(path)
    states = (
        notebook.metadata.get("widgets", {})
        .get("application/vnd.jupyter.widget-state+json", {})
        .get("state", {})
    )
    for cell, output in outputs(path):
        if VIEW in output.get("data", {}):
            assert output.data[VIEW]["model_id"] in states, cell.id
            assert output.data["text/plain"].count("\n") > 0, (
                f"{cell.id}: no list of states for nbval"
            )


@each_notebook
def test_no_cell_runs_on_the_answer_of_an_exercise(path):
    cells = code_cells(path)
    for position, cell in enumerate(cells):
        for name in re.findall(r"^def (my_\w+)", cell.source, re.MULTILINE):
            users = [
                c.id
                for c in cells[position + 1 :]
                if name in c.source and not CHECK.search(c.source)
            ]
            assert not users, f"{name} is used in {users}"


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_exercises_have_a_stub_that_fails_and_a_solution_that_passes(path):
    cells = code_cells(path)
    stubs = [cell for cell in cells if "exercise" in tags(cell)]
    solutions = [cell for cell in cells if "solution" in tags(cell)]
    assert len(stubs) >= 3, "a chapter has three cells with the tag exercise, or more"
    assert len(stubs) == len(solutions), "each needs one cell with the tags solution and hide-cell"
    for stub, solution in zip(stubs, solutions, strict=True):
        names = re.findall(r"^def (my_\w+)", stub.source, re.MULTILINE)
        assert len(names) == 1, f"{stub.id}: a stub defines one function, called my_…"
        (name,) = names
        assert stub.source.rstrip().endswith("..."), f"{stub.id}: a stub ends with ..."
        checks = [cell for cell in cells if name in cell.source and CHECK.search(cell.source)]
        assert len(checks) == 1, f"{name}: one cell calls check with it"
        (check,) = checks
        assert "af-open" in check.outputs[0].data["text/html"], (
            f"{name}: the unsolved stub passes its check"
        )
        assert "af-passed" in solution.outputs[0].data["text/html"], f"{name}: the solution fails"
        assert "hide-cell" in tags(solution)


def test_yours_takes_three_cells_and_a_mistake():
    """Put in, compute, look; then what a typical mistake is answered."""
    sections = []
    for cell in read(YOURS).cells:
        if cell.cell_type == "code":
            sections[-1].append(cell)
        elif cell.source.startswith("## Your own "):
            sections.append([])
    assert len(sections) == 5, "this notebook has five sections; a sixth belongs to a chapter"
    for cells in sections:
        *own, mistake = cells
        assert len(own) == 3, "each section has three cells, and a fourth with a mistake"
        assert not any(tags(cell) for cell in cells), "all of it is seen"
        assert all(len(line) <= 76 for cell in cells for line in cell.source.splitlines())
        assert all(sum(map(bool, cell.source.splitlines())) <= 8 for cell in cells)
        assert "try:" in mistake.source
        assert mistake.outputs[0].text.strip()


def judged(path):
    return [
        id_
        for cell in code_cells(path)
        for id_ in re.findall(r'claims\.judge\(\s*"(\w+)"', cell.source)
    ]


def test_every_tested_claim_has_one_cell_and_every_cell_its_claim():
    found = {path: judged(path) for path in (*CHAPTERS, *EVIDENCE)}
    counts = Counter(id_ for ids in found.values() for id_ in ids)
    tested = {claim.id for claim in claims.ledger().values() if claim.verdict != claims.UNTESTED}
    assert set(counts) == tested, "claims.judge in chapters and evidence against book/claims.yml"
    twice = [id_ for id_, count in counts.items() if count > 1]
    assert not twice, "these are judged in more than one cell"
    for path, ids in found.items():
        assert {claims.ledger()[id_].chapter for id_ in ids} <= {int(path.stem[:2])}


def test_every_card_shows_what_the_ledger_says():
    shown = {}
    for path in (*CHAPTERS, *EVIDENCE):
        for _, output in outputs(path):
            for id_ in re.findall(r'id="claim-(\w+)"', output.get("data", {}).get("text/html", "")):
                shown[id_] = output.data["text/html"]
    for claim in claims.ledger().values():
        if claim.verdict != claims.UNTESTED:
            assert f"{claims.SYMBOLS[claim.verdict]} {claim.verdict}" in shown[claim.id]


def test_names_are_bound_once_and_every_used_one_is_bound():
    bound = Counter(name for path in NOTEBOOKS for name in glued(path))
    assert {name for name, count in bound.items() if count > 1} == set()
    for path in PAGES:
        for place, name in re.findall(
            r"\{glue:[a-z]+\}`(?:([^`:]+)::)?([^`:]+)", path.read_text("utf8")
        ):
            names = glued((path.parent / place).resolve()) if place else [*bound, "name"]
            assert name in names, f"{path.name}: nothing binds {place} {name}; claims.bind does"


@pytest.mark.parametrize("path", [*NOTEBOOKS, ROOT / "book" / "what_survives.md"], ids=name)
def test_no_measured_number_is_typed_into_prose(path):
    numbers = re.findall(r"\d+\.\d+(?: ?%)?|\d+ ?%", prose(path))
    typed = [number for number in numbers if number not in STATED]
    assert not typed, (
        "bind what is measured with claims.bind and write {glue:text}; "
        "what a cited work says goes into STATED; a number that defines something into $…$"
    )


@each_notebook
def test_the_file_is_normalised(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info", "layout", "widgets"}
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert all("execution" not in cell["metadata"] for cell in notebook["cells"])
    assert not re.search(r"/(?:home|root|Users|tmp|work)/\w", text)
