"""The net catches fish: in a copy of the book, each single change must make the suite fail.

The copy holds the helpers, the ledger, and the first sections of chapter 1; nbval runs them as `make test` does.
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
CHAPTER = "notebooks/01_attention_spectrum.ipynb"
LAST_CELL = "ey-s09"  # up to the test of S09: what A is, and Eckart–Young


@pytest.fixture
def copy(tmp_path):
    for part in ("helpers", "book/claims.yml", "tests/nbval_sanitize.cfg"):
        target = tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, target)
    notebook = json.loads((ROOT / CHAPTER).read_text(encoding="utf-8"))
    last = [cell["id"] for cell in notebook["cells"]].index(LAST_CELL)
    notebook["cells"] = notebook["cells"][: last + 1]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / CHAPTER).write_text(json.dumps(notebook), encoding="utf-8")
    return tmp_path


def replace(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1, (
        f"{old!r} is not in {path.name}: this test no longer tests anything"
    )
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def run_suite(folder):
    """Failed cells by number, running the copy's chapter with the copy's helpers."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        str(folder),
    ]
    command += [
        "--nbval",
        "--nbval-current-env",
        "--nbval-sanitize-with",
        "tests/nbval_sanitize.cfg",
        CHAPTER,
    ]
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {
        int(number) for number in re.findall(r"^FAILED .*::Cell (\d+)", done.stdout, re.MULTILINE)
    }


def code_position(folder, cell_id):
    """nbval numbers the code cells from 0."""
    cells = json.loads((folder / CHAPTER).read_text(encoding="utf-8"))["cells"]
    return [cell["id"] for cell in cells if cell["cell_type"] == "code"].index(cell_id)


def test_the_unchanged_copy_passes(copy):
    assert run_suite(copy) == set()


def test_one_changed_digit_in_a_text_a_card_and_a_drawing(copy):
    notebook = json.loads((copy / CHAPTER).read_text(encoding="utf-8"))
    changed = {
        "see-load": ("text/plain", r"96(?=\])"),
        "what-s01": ("text/html", r"(?<=<b>)\d"),
        "what-bounds": ("application/papermill.record/text/plain", r"\d(?=')"),
        "see-figure": ("text/html", r"\d(?=\.\d+ z)|(?<=L )\d(?=\d)"),
    }
    for cell in notebook["cells"]:
        if cell["id"] in changed:
            mime, digit = changed[cell["id"]]
            data = next(out["data"] for out in cell["outputs"] if mime in out.get("data", {}))
            old = "".join(data[mime])
            data[mime] = re.sub(
                digit, lambda m: m[0][:-1] + str((int(m[0][-1]) + 1) % 10), old, count=1
            )
            assert sum(a != b for a, b in zip(old, data[mime], strict=True)) == 1
    (copy / CHAPTER).write_text(json.dumps(notebook), encoding="utf-8")
    assert run_suite(copy) == {code_position(copy, cell_id) for cell_id in changed}


def test_one_changed_verdict(copy):
    ledger = copy / "book" / "claims.yml"
    before, entry = ledger.read_text(encoding="utf-8").split("\nS09:", 1)
    ledger.write_text(
        before + "\nS09:" + entry.replace("verdict: holds\n", "verdict: fails\n", 1),
        encoding="utf-8",
    )
    assert code_position(copy, "ey-s09") in run_suite(copy)


def test_a_verdict_and_its_rule_changed_together(copy):
    """A ledger that is consistent in itself, but not with what is measured."""
    ledger = copy / "book" / "claims.yml"
    before, entry = ledger.read_text(encoding="utf-8").split("\nS09:", 1)
    entry = entry.replace("verdict: holds\n", "verdict: fails\n", 1)
    entry = re.sub(r"reference: \S+", "reference: 1.0", entry, count=1)
    ledger.write_text(before + "\nS09:" + entry, encoding="utf-8")
    assert run_suite(copy) == {code_position(copy, "ey-s09")}


def test_attention_without_its_scale(copy):
    replace(
        copy / "helpers/attention.py", "scale = 1 / math.sqrt(queries.shape[-1])", "scale = 1.0"
    )
    assert code_position(copy, "what-equal") in run_suite(copy)


def test_truncation_with_a_transposed_v(copy):
    replace(copy / "helpers/spectrum.py", "@ Vh[..., :rank, :]", "@ Vh.mT[..., :rank, :]")
    assert code_position(copy, "ey-s09") in run_suite(copy)
