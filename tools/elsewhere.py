"""Run the unit tests and the notebooks as other machines would, and list every number that moved.

    python tools/elsewhere.py                                    all of them
    python tools/elsewhere.py notebooks/01_*.ipynb tests/maths   only these

Settings of the environment choose other kernels, so one machine can stand in for several. What may
differ, and by how much, is what tests/by_value.py says. Fails if a test does, if a number left its
tolerance, or if a claim's number comes closer to its rule's edge than three times its spread over
the runs: on the next machine its verdict could be another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from helpers.page import claims

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "elsewhere"
UNIT_TESTS = ["maths", "layers", "models", "data", "page", "experiments"]
SETTINGS = {
    "none of them": {},
    "no vector units": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Prescott",
    },
    "AVX2, two threads": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Zen",
        "OMP_NUM_THREADS": "2",
    },
}
SPREADS = 3
Moves = dict[tuple[str, str], dict]
"""Cell and place → what by_value.py tells of a number that moved."""


def run(arguments: list[str], name: str, chosen: dict[str, str]) -> tuple[bool, Moves]:
    """Whether pytest passes under the ``chosen`` settings, and what moved."""
    file = FOLDER / f"{name}.jsonl"
    file.write_text("", encoding="utf-8")
    others = {key for settings in SETTINGS.values() for key in settings} - {"OMP_NUM_THREADS"}
    environment = {key: value for key, value in os.environ.items() if key not in others}
    here = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    options = ["-q", "--dist", "loadscope", "--nbval", "--nbval-current-env"]
    options += ["-p", "by_value", "--moved", str(file), "-c", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        env={**environment, "OMP_NUM_THREADS": "1", **chosen, "PYTHONPATH": here},
        check=False,
    )
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return done.returncode == 0, {(line["cell"], line["where"]): line for line in lines}


def listed(runs: list[Moves]) -> list[str]:
    """One line for every number that moved in some run, the one nearest to its tolerance first."""
    worst: Moves = {}
    for moves in runs:
        for place, move in moves.items():
            if place not in worst or move["moved"] > worst[place]["moved"]:
                worst[place] = move
    shares = {
        place: move["moved"] / move["allowed"] if move["allowed"] else float("inf")
        for place, move in worst.items()
    }
    return [
        f"{shares[place]:6.0%}  moved {move['moved']:.1e}  allowed {move['allowed']:.1e}  "
        f"{move['was']} → {move['now']}  {place[0]}: {place[1]}"
        for place, move in sorted(worst.items(), key=lambda item: -shares[item[0]])
    ]


def near_an_edge(runs: list[Moves], ledger: dict[str, claims.Claim]) -> list[str]:
    """The claims whose number could fall on the other side of their rule on yet another machine."""
    values: dict[str, list[float]] = defaultdict(list)
    for moves in runs:
        for (_, place), move in moves.items():
            if place in ledger and isinstance(move["was"], float):
                values[place] += [move["was"], move["now"]]
    found = []
    for id_, seen in values.items():
        if ledger[id_].holds_if is None:
            continue
        edge = float(ledger[id_].holds_if.split()[1])
        distance, spread = min(abs(value - edge) for value in seen), max(seen) - min(seen)
        if distance < SPREADS * spread:
            found.append(
                f"{id_}: {min(seen):g} to {max(seen):g}, rule {ledger[id_].holds_if}: "
                f"{distance:.1e} from the edge, less than {SPREADS} × {spread:.1e}"
            )
    return found


def main() -> None:
    tests = [f"tests/{wing}" for wing in UNIT_TESTS]
    notebooks = ["notebooks", *(str(path) for path in sorted((ROOT / "book").glob("*.ipynb")))]
    FOLDER.mkdir(parents=True, exist_ok=True)
    passed, runs = [], []
    for name, chosen in SETTINGS.items():
        print(f"\n{name}: {' '.join(f'{k}={v}' for k, v in chosen.items())}", flush=True)
        ok, moves = run(sys.argv[1:] or ["-n", "2", *tests, *notebooks], name, chosen)
        passed.append(ok)
        runs.append(moves)
    moved, near = listed(runs), near_an_edge(runs, claims.ledger())
    print(f"\n{len(moved)} numbers moved", *moved, sep="\n")
    print(f"\n{len(near)} verdicts near the edge of their rule", *near, sep="\n")
    for name, ok in zip(SETTINGS, passed, strict=True):
        print(f"{name}: {'passed' if ok else 'FAILED'}")
    sys.exit(not all(passed) or bool(near))


if __name__ == "__main__":
    main()
