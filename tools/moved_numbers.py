"""List every number of the book that moved between runs, and how far against its tolerance.

    python tools/moved_numbers.py record runs/one.json      execute all notebooks, keep all numbers
    OMP_NUM_THREADS=2 python tools/moved_numbers.py record runs/two.json
    python tools/moved_numbers.py record --runs 10 runs/ten.json pytest --nbval …      the same, by a command
    python tools/moved_numbers.py compare runs/*.json                the list

What is recorded is what the notebooks hand to ``claims.judge`` and ``claims.bind``, before rounding.
A claim's tolerance is the ledger's. Any other number may move by half a unit of its last printed
digit; what is bound as a text may not change. ``compare`` fails if a number left its tolerance.
Records can come from other machines, thread counts and versions of Python; ``make moved`` compares
one thread with two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat
from run_notebooks import ROOT, all_notebooks, execute

from helpers.page import claims

# Run by IPython when a kernel starts: every bound number also goes to a file, unrounded.
RECORDER = """
import json
from helpers import claims
from helpers.summary import median, printed

def record(name, value, spec="", bind=claims.bind):
    raw = value if isinstance(value, str) else median(value)
    text = value if isinstance(value, str) else printed(raw, spec)
    with open({file!r}, "a", encoding="utf-8") as file:
        file.write(json.dumps([name, raw, text]) + "\\n")
    bind(name, value, spec)

claims.bind = record
"""


def run_once(command: list[str]) -> dict[str, list]:
    """Name → [number or text before rounding, text as printed], over all notebooks.

    ``command`` is what executes them; an empty one means that this script does.
    """
    with tempfile.TemporaryDirectory() as folder:
        numbers = Path(folder, "numbers.jsonl")
        startup = Path(folder, "profile_default", "startup")
        startup.mkdir(parents=True)
        (startup / "00_record.py").write_text(RECORDER.format(file=str(numbers)), encoding="utf-8")
        os.environ["IPYTHONDIR"] = folder
        if command:
            subprocess.run(command, check=True)
        for path in [] if command else all_notebooks():
            execute(nbformat.read(path, as_version=4), path.parent)
            print(f"{path.relative_to(ROOT)}: executed", flush=True)
        lines = numbers.read_text(encoding="utf-8").splitlines()
    return {name: [raw, text] for name, raw, text in map(json.loads, lines)}


def record(file: Path, runs: int, command: list[str]) -> None:
    """Keep the numbers of ``runs`` executions, with the settings they were made under.

    Written after each, so that nothing is lost if a later one fails.
    """
    label = (
        f"Python {platform.python_version()}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = []
    for _ in range(runs):
        kept.append({"label": label, "numbers": run_once(command)})
        file.write_text(json.dumps(kept), encoding="utf-8")


@dataclass(frozen=True)
class Move:
    """How far one number moved over all runs."""

    name: str
    text: str
    moved: float
    """Largest minus smallest; infinite for a text that changed."""
    tolerance: float
    kind: str

    @property
    def share(self) -> float:
        """The move in units of the tolerance; 0 if it didn't move."""
        if self.moved == 0:
            return 0.0
        return self.moved / self.tolerance if self.tolerance else float("inf")


def last_digit(text: str) -> float:
    """The place value of the last printed digit of the first number in ``text``, percents as shares."""
    number = re.search(r"\d[\d,]*(\.\d+)?(e[+-]?\d+)?", text)
    if number is None:
        return 0.0
    unit = 10.0 ** (1 - len(number[1]) if number[1] else 0)
    unit *= 10.0 ** int(number[2][1:]) if number[2] else 1
    return unit / 100 if text.endswith("%") else unit


def moves(runs: list[dict]) -> list[Move]:
    """One entry for every number that all ``runs`` have."""
    ledger, found = claims.ledger(), []
    for name, (first, text) in runs[0]["numbers"].items():
        values = [run["numbers"][name][0] for run in runs]
        if isinstance(first, str):
            moved, tolerance, kind = (0.0 if len(set(values)) == 1 else float("inf")), 0.0, "text"
        else:
            moved = max(values) - min(values)
            claim = ledger.get(name)
            tolerance = claim.tolerance if claim else last_digit(text) / 2
            kind = "claim" if claim else "number"
        found.append(Move(name, text, moved, tolerance, kind))
    return found


def compare(files: list[Path]) -> bool:
    """Print the numbers that moved, the farthest first. Whether all stayed within their tolerance."""
    runs = [run for file in files for run in json.loads(file.read_text(encoding="utf-8"))]
    if len(runs) < 2:
        raise SystemExit("compare needs at least two runs")
    names = [set(run["numbers"]) for run in runs]
    if missing := set.union(*names) - set.intersection(*names):
        raise SystemExit(f"not in every run: {', '.join(sorted(missing))}")
    labels = [run["label"] for run in runs]
    for label in dict.fromkeys(labels):
        print(f"{labels.count(label)} × {label}")
    found = moves(runs)
    moved = sorted((move for move in found if move.moved > 0), key=lambda move: -move.share)
    print(f"{len(found)} numbers, {len(moved)} moved, {sum(m.share > 1 for m in moved)} too far")
    for move in moved:
        print(
            f"{move.name:32} {move.text:>24}  moved {move.moved:.1e}"
            f"  tolerance {move.tolerance:.1e} ({move.kind})  share {move.share:.1e}"
        )
    return all(move.share <= 1 for move in moved)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("file", type=Path)
    recording.add_argument("--runs", type=int, default=1)
    recording.add_argument("execute", nargs=argparse.REMAINDER, metavar="COMMAND")
    comparing = commands.add_parser("compare")
    comparing.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    if arguments.command == "record":
        record(arguments.file, arguments.runs, arguments.execute)
    else:
        sys.exit(not compare(arguments.files))
