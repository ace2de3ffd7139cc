"""The tool that runs the book as other machines would."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from helpers.page import claims

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("elsewhere", ROOT / "tools" / "elsewhere.py")
elsewhere = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(elsewhere)
CLAIM = next(c for c in claims.ledger().values() if c.holds_if and c.holds_if.startswith(">="))


def printing(*prints):
    """A notebook that prints these expressions; committed is what they give with no setting."""
    cells = []
    for count, (expression, committed) in enumerate(prints, start=1):
        output = v4.new_output("stream", name="stdout", text=f"{committed}\n")
        cell = v4.new_code_cell(
            f"import os\nprint(format({expression}, '.2f'))",
            execution_count=count,
            outputs=[output],
        )
        cells.append(cell)
    return v4.new_notebook(cells=cells)


def test_what_moves_under_a_setting_is_listed_and_too_far_is_a_failure(tmp_path):
    default = "os.environ.get('ATEN_CPU_CAPABILITY') == 'default'"
    threads = "os.environ['OMP_NUM_THREADS'] == '2'"
    notebook = printing((f"1 + 0.01 * ({default})", "1.00"), (f"2 + 0.05 * ({threads})", "2.00"))
    nbformat.write(notebook, tmp_path / "book.ipynb")
    command = [sys.executable, ROOT / "tools" / "elsewhere.py", tmp_path / "book.ipynb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    report = done.stdout[done.stdout.index("2 numbers moved") :].splitlines()
    assert "500%  moved 5.0e-02  allowed 1.0e-02  2.00 → 2.05" in report[1]
    assert "100%  moved 1.0e-02  allowed 1.0e-02  1.00 → 1.01" in report[2]
    assert report[-3:] == [
        "none of them: passed",
        "no vector units: passed",
        "AVX2, two threads: FAILED",
    ]


@pytest.mark.parametrize(("now", "is_near"), [(0.95, False), (0.91, True), (0.89, True)])
def test_a_verdict_keeps_three_spreads_from_its_edge(now, is_near):
    ledger = {"X01": replace(CLAIM, id="X01", holds_if=">= 0.8", reference=1.0, verdict="holds")}
    moved = {("cell", "X01"): {"was": 0.96, "now": now, "moved": 0.96 - now, "allowed": 0.1}}
    found = elsewhere.near_an_edge([{}, moved], ledger)
    assert [line.startswith("X01: ") for line in found] == [True] * is_near
    assert elsewhere.near_an_edge([{}, {}], ledger) == []
