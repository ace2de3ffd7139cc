"""The net catches fish: each change to a copy of the book, on its own, makes the suite fail.

The copy holds the helpers, the ledger and a part of the evidence for chapter 1, which is executed there
afresh, and then nbval runs it as `make test` does: once unchanged but for what may move on another
machine, and once with every fish, each in a cell of its own that no other one touches.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = "notebooks/evidence/01_attention_spectrum.ipynb"
LAST_CELL = "ey-s09"  # up to the test of S09: what A is, and Eckart–Young
AND_CELLS = ("nulls-ranks", "nulls-both", "nulls-s10")  # a claim with a rule
COPIED = (
    "helpers",
    "experiments",
    "book/claims.yml",
    "book/claims.schema.json",
    "tests/by_value.py",
    "tools/run_notebooks.py",
)


def run(folder, *command):
    """Run Python in the copy; the environment has a broken kernel by the name that notebooks ask for."""
    kernel = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    spec = {"argv": ["no-such-python"], "display_name": "Other", "language": "python"}
    kernel.write_text(json.dumps(spec), encoding="utf-8")
    path = os.pathsep.join([str(folder), str(folder / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "JUPYTER_PATH": str(folder / "jupyter")}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_suite(folder):
    """Cell id → what nbval says of it, for every cell that fails."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "by_value", "--color=no")
    done = run(folder, "-m", "pytest", *options, "--nbval", "--nbval-current-env", NOTEBOOK)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    ids = [cell["id"] for cell in read(folder)["cells"] if cell["cell_type"] == "code"]
    found = re.split(r"^_+ .*::Cell (\d+) _+$", done.stdout, flags=re.MULTILINE)
    return {ids[int(n)]: said for n, said in zip(found[1::2], found[2::2], strict=True)}


def read(folder):
    return json.loads((folder / NOTEBOOK).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The copy, executed in it by the tool that executes the book."""
    folder = tmp_path_factory.mktemp("book")
    for part in COPIED:
        target = folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, target)
    notebook = read(ROOT)
    last = [cell["id"] for cell in notebook["cells"]].index(LAST_CELL)
    more = [cell for cell in notebook["cells"] if cell["id"] in AND_CELLS]
    notebook["cells"] = [*notebook["cells"][: last + 1], *more]
    (folder / NOTEBOOK).parent.mkdir(parents=True)
    (folder / NOTEBOOK).write_text(json.dumps(notebook), encoding="utf-8")
    done = run(folder, "tools/run_notebooks.py", NOTEBOOK)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def change(folder, path, old, new, *, after=""):
    """Replace the first ``old`` behind ``after`` in a file of the copy."""
    text = (folder / path).read_text(encoding="utf-8")
    start = text.index(after)
    assert old in text[start:], f"{old!r} is not in {path}: this test no longer tests anything"
    changed = text[:start] + text[start:].replace(old, new, 1)
    (folder / path).write_text(changed, encoding="utf-8")


def change_outputs(folder, moves):
    """Cell id → a function of its outputs' JSON; every one has to change something."""
    notebook = read(folder)
    for cell in notebook["cells"]:
        for move in moves.get(cell["id"], []):
            before = json.dumps(cell["outputs"], ensure_ascii=False)
            after = move(before)
            assert after != before, f"{cell['id']}: this test no longer tests anything"
            cell["outputs"] = json.loads(after)
    (folder / NOTEBOOK).write_text(json.dumps(notebook), encoding="utf-8")


def shifted(pattern, step):
    """Add ``step`` to the number that is the group of the pattern's first match."""

    def move(text):
        match = re.search(pattern, text)
        decimals = len(match[1].partition(".")[2])
        return (
            f"{text[: match.start(1)]}{float(match[1]) + step:.{decimals}f}{text[match.end(1) :]}"
        )

    return move


POINT = r'places\\":\[(?:\d+,){21}(\d+)'  # the eleventh singular value in the first figure


def test_what_may_move_on_another_machine_passes(executed, tmp_path):
    """And the notebook runs with this interpreter, whatever kernel the environment would start."""
    copy = shutil.copytree(executed, tmp_path / "book")
    moves = {
        "see-figure": [shifted(r"fall from (\d\.\d+)", 0.01), shifted(POINT, 9)],
        "what-bounds": [shifted(r"'(\d+\.\d)'", 0.1)],
    }
    change_outputs(copy, moves)
    assert run_suite(copy) == {}


@pytest.fixture(scope="module")
def caught(executed, tmp_path_factory):
    copy = shutil.copytree(executed, tmp_path_factory.mktemp("fish") / "book")
    moves = {
        "see-load": [shifted(r"\[(?:\d+, )*(\d+)\]", 48)],
        "see-figure": [shifted(POINT, 50)],
        "what-bounds": [shifted(r"'(\d+\.\d)'", 0.3)],
    }
    change_outputs(copy, moves)
    change(copy, "book/claims.yml", "verdict: holds\n", "verdict: fails\n", after="\nS01:")
    change(copy, "book/claims.yml", "verdict: holds\n", "verdict: fails\n", after="\nS10:")
    change(copy, "book/claims.yml", "reference: 0.29", "reference: 0.05", after="\nS10:")
    attention = "scale = 1 / math.sqrt(queries.shape[-1])"
    change(copy, "helpers/maths/attention.py", attention, "scale = 1.0")
    change(copy, "helpers/maths/spectrum.py", "@ Vh[..., :rank, :]", "@ Vh.mT[..., :rank, :]")
    return run_suite(copy)


def test_a_printed_number_changed_by_half(caught):
    assert "was '144', is '96', allowed ±1" in caught["see-load"]


def test_a_point_of_a_figure_moved_by_a_twentieth_of_its_axis(caught):
    assert "places 21: was" in caught["see-figure"]


def test_a_bound_number(caught):
    assert "sigma1_largest, in" in caught["what-bounds"]


def test_a_verdict_and_its_reference_changed_together(caught):
    """The ledger stays consistent in itself, but not with what is measured."""
    assert "ClaimError" in caught["nulls-s10"]


def test_a_verdict_without_a_number(caught):
    assert "af-fails" in caught["what-s01"]


def test_attention_without_its_scale(caught):
    assert "Tensor-likes are not close" in caught["what-equal"]


def test_truncation_with_a_transposed_v(caught):
    assert "Tensor-likes are not close" in caught["ey-s09"]


def test_nothing_else_was_caught(caught):
    cells = {"see-load", "see-figure", "what-bounds", "what-s01", "what-equal", "ey-s09"}
    assert set(caught) == cells | {"nulls-s10"}
