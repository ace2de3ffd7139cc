"""Chapter 2's ablation: from the note's recipe to a layer that fits, one change at a time.

``python -m helpers.ablation`` (about 15 minutes on one core) writes ``helpers/data/ablation.json``: for
each row of ROWS the relative error and the seconds of every seed on each of the note's targets.
The chapter reads that file and runs several of its rows again, live.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import geotorch
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal
from tqdm import tqdm

from helpers.cases import NOTE_CASES, note_targets
from helpers.factorization import FactorizationLayer, Fit, NoteRecipe, descend, fit

RESULTS = Path(__file__).parent / "data" / "ablation.json"
SEEDS = 10


class PeerLayer(FactorizationLayer):
    """A layer whose U and V are weights that another library keeps orthonormal.

    ``constrain`` takes an ``nn.Linear`` and parametrizes its weight.
    """

    def __init__(
        self, rows: int, columns: int, constrain: Callable[[nn.Linear], object], *, seed: int
    ):
        super().__init__(rows, columns, seed=seed)
        for name, raw in (("U", self.left), ("V", self.right)):
            linear = nn.Linear(self.rank, len(raw), bias=False, dtype=raw.dtype)
            constrain(linear)
            # Both libraries draw their start from the global generator; ours is set explicitly.
            linear.weight = torch.linalg.qr(raw.detach()).Q
            self.add_module(name, linear)

    def orthonormal(self) -> tuple[Tensor, Tensor]:
        return self.U.weight, self.V.weight


FASTER = {"learning_rate": 0.1, "one_cycle": True}
ONE_CYCLE = {"scale": True, **FASTER}


def layer_row(layer: dict[str, str], **options: object) -> Callable[[Tensor, int], Fit]:
    """Train a layer with these maps by :func:`helpers.factorization.descend`."""
    return lambda X, seed: descend(FactorizationLayer(*X.shape, seed=seed, **layer), X, **options)


def peer_row(constrain: Callable[[nn.Linear], object]) -> Callable[[Tensor, int], Fit]:
    return lambda X, seed: descend(PeerLayer(*X.shape, constrain, seed=seed), X, **ONE_CYCLE)


NOTE = {"orthogonal": "qr", "sigma": "softplus"}
SIGNED, FREE = {"orthogonal": "signed qr"}, {"sigma": "free"}
ROWS: dict[str, Callable[[Tensor, int], Fit]] = {
    "note's recipe": lambda X, seed: fit(NoteRecipe(*X.shape, seed=seed), X),
    "only faster": layer_row(NOTE, **FASTER),
    "only scaled": layer_row(NOTE, scale=True),
    "only signed QR": layer_row(NOTE | SIGNED),
    "only free Σ": layer_row(NOTE | FREE),
    "all but scaled": layer_row(SIGNED | FREE, **FASTER),
    "all but signed QR": layer_row(NOTE | FREE, **ONE_CYCLE),
    "all but free Σ": layer_row(NOTE | SIGNED, **ONE_CYCLE),
    "scaled, signed QR, |Σ|": layer_row(SIGNED | {"sigma": "absolute"}, scale=True),
    "scaled, signed QR, free Σ": layer_row(SIGNED | FREE, scale=True),
    "Cayley map": layer_row({"orthogonal": "cayley"}, scale=True),
    "matrix exponential": layer_row({"orthogonal": "exponential"}, scale=True),
    "Householder": layer_row({"orthogonal": "householder"}, scale=True),
    "one-cycle Adam": layer_row({}, **ONE_CYCLE),
    "Σ eliminated": layer_row({}, **ONE_CYCLE, eliminate=True),
    "L-BFGS": layer_row({}, optimizer="lbfgs", steps=20, scale=True, eliminate=True),
    "Gauss–Newton (default)": lambda X, seed: fit(FactorizationLayer(*X.shape, seed=seed), X),
    "torch parametrization": peer_row(orthogonal),
    "geotorch": peer_row(lambda linear: geotorch.orthogonal(linear, "weight")),
}
"""Every row's training, from a target and a seed; from "Cayley map" on targets are scaled and Σ is free."""


def run(seeds: int = SEEDS) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Relative errors and seconds of every row by target; seed k draws the k-th targets and the start.

    All rows take turns on each target, so that a machine's changing load hits them alike.
    """
    results: dict = {
        row: {case: {"errors": [], "seconds": []} for case in NOTE_CASES} for row in ROWS
    }
    for seed in tqdm(range(seeds), "seeds"):
        for case, target in note_targets(seed).items():
            for row, train in ROWS.items():
                done = train(target, seed)
                results[row][case]["errors"].append(float(f"{done.relative_error:.3g}"))
                results[row][case]["seconds"].append(float(f"{done.seconds:.3g}"))
    return results


def load_ablation() -> dict[str, dict[str, dict[str, list[float]]]]:
    """The committed results: rows → targets → "errors" and "seconds", one number per seed."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = run()
    head = {"command": "python -m helpers.ablation", "torch": torch.__version__.split("+")[0]}
    lines = ",\n".join(
        f"  {json.dumps(k, ensure_ascii=False)}: {json.dumps(v)}" for k, v in rows.items()
    )
    RESULTS.write_text(f'{json.dumps(head)[:-1]}, "rows": {{\n{lines}\n}}}}\n', encoding="utf-8")
    sys.exit(0)
