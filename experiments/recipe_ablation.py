"""Chapter 2's ablation: from the note's recipe to a layer that fits, one change at a time.

Ten seeds of every row of ROWS on each of the note's targets, and what the note's recipe does on the way
(13 minutes on one core). The chapter reads the results and runs several of the rows again, live.
"""

from collections.abc import Callable

import geotorch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from experiments.note_recipe import NoteRecipe, VariedLayer, descend, spectral_norm
from experiments.store import Experiment
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import FactorizationLayer, Factors, Fit, fit
from helpers.layers.factorization import fit_of, project
from helpers.maths import frobenius_norm

SEEDS = 10


class PeerLayer(VariedLayer):
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


Row = Callable[[Tensor, int], Fit]
FASTER = {"learning_rate": 0.1, "one_cycle": True}


def note_row(layer: dict[str, object] | None = None, **options: object) -> Row:
    """The note's layer with some of its maps replaced, trained by ``descend`` with ``options``."""
    return lambda X, seed: descend(NoteRecipe(*X.shape, seed=seed, **(layer or {})), X, **options)


def layer_row(orthogonal: str = "signed qr", **options: object) -> Row:
    """A layer with free Σ and a small start on a scaled target, trained by ``descend``."""
    options = {"scale": True, **options}
    return lambda X, seed: descend(
        VariedLayer(*X.shape, orthogonal=orthogonal, seed=seed), X, **options
    )


def peer_row(constrain: Callable[[nn.Linear], object], **options: object) -> Row:
    """A :class:`PeerLayer`, trained as the rows "one-cycle …" but for ``options``."""
    options = {"scale": True, **FASTER, **options}
    return lambda X, seed: descend(PeerLayer(*X.shape, constrain, seed=seed), X, **options)


LBFGS = {"line_search_fn": "strong_wolfe", "history_size": 10}
LBFGS |= {"tolerance_grad": 0, "tolerance_change": 0}


def descend_eliminated(
    layer: VariedLayer, target: Float[Tensor, "m n"], *, lbfgs: bool, steps: int
) -> Fit:
    """As ``descend`` on a scaled target, with diag(UᵀXV), the best for the present U and V, for Σ.

    Variable projection (Golub & Pereyra 1973), by Adam as in FASTER or by L-BFGS, which may evaluate
    the loss 20 times a step. The fit's history holds the start and the end.
    """
    scaled, parameters = target / spectral_norm(target), (layer.left, layer.right)
    if lbfgs:
        optimizer, schedule = torch.optim.LBFGS(parameters, **LBFGS), None
    else:
        rate, cycle = FASTER["learning_rate"], torch.optim.lr_scheduler.OneCycleLR
        optimizer = torch.optim.Adam(parameters, rate)
        schedule = cycle(optimizer, rate, total_steps=steps)

    def loss() -> Tensor:
        optimizer.zero_grad()
        U, V = layer.orthonormal()
        value = (scaled - (U * project(scaled, U, V)[0]) @ V.mT).square().sum()
        value.backward()
        return value

    @torch.no_grad()
    def record() -> tuple[Tensor, Tensor]:
        diagonal, error, _ = project(target, *layer.orthonormal())
        return error / frobenius_norm(target), diagonal.abs()

    records = [record()]
    for _ in range(steps):
        optimizer.step(loss)
        if schedule:
            schedule.step()
    return fit_of([*records, record()], False)


def eliminated_row(orthogonal: str, *, lbfgs: bool = False, steps: int = 800) -> Row:
    """A layer with a small start, trained by :func:`descend_eliminated`."""
    return lambda X, seed: descend_eliminated(
        VariedLayer(*X.shape, orthogonal=orthogonal, seed=seed), X, lbfgs=lbfgs, steps=steps
    )


SIGNED, FREE = {"orthogonal": "signed qr"}, {"sigma": "free"}
ROWS: dict[str, Row] = {
    "note's recipe": note_row(),
    "only faster": note_row(**FASTER),
    "only scaled": note_row(scale=True),
    "only signed QR": note_row(SIGNED),
    "only free Σ": note_row(FREE),
    "all four": note_row(SIGNED | FREE, scale=True, **FASTER),
    "all but faster": note_row(SIGNED | FREE, scale=True),
    "all but scaled": note_row(SIGNED | FREE, **FASTER),
    "all but signed QR": note_row(FREE, scale=True, **FASTER),
    "all but free Σ": note_row(SIGNED, scale=True, **FASTER),
    "… small start": layer_row(),
    "… Cayley map": layer_row("cayley"),
    "one-cycle QR": layer_row(**FASTER),
    "one-cycle Cayley": layer_row("cayley", **FASTER),
    "torch parametrization": peer_row(orthogonal),
    "torch, higher rate": peer_row(orthogonal, learning_rate=0.3),
    "geotorch": peer_row(lambda linear: geotorch.orthogonal(linear, "weight")),
    "Cayley, Σ eliminated": eliminated_row("cayley"),
    "L-BFGS, Σ eliminated": eliminated_row("signed qr", lbfgs=True, steps=40),
    "L-BFGS Cayley, Σ eliminated": eliminated_row("cayley", lbfgs=True, steps=40),
    "Gauss–Newton (default)": lambda X, seed: fit(FactorizationLayer(*X.shape, seed=seed), X),
}
"""Every row's training, from a target and a seed."""


def run(case: str, seed: int) -> dict[str, dict]:
    """Every row on one target; ``seed`` draws the target and the start.

    "rows": the relative "error" and the largest error of a learned singular value over σ₁ ("sigma");
    "recipe": what :func:`run_recipe` saw.
    """
    target = note_targets(seed)[case]
    true = torch.linalg.svdvals(target)
    rows = {}
    for name, train in ROWS.items():
        done = train(target, seed)
        learned = done.singular_values[-1].sort(descending=True).values
        sigma = float((learned - true).abs().max() / true[0])
        rows[name] = {"error": done.relative_error, "sigma": sigma}
    return {"rows": rows, "recipe": run_recipe(target, seed)[1]}


def flips(path: Float[Tensor, "steps m r"]) -> int:
    """How often, from one step to the next, a column of U turned to its opposite half-space."""
    return int(((path[1:] * path[:-1]).sum(dim=1) < 0).sum())


def overlap(factors: Factors, target: Float[Tensor, "m n"], rank: int = 4) -> float:
    """Mean squared cosine between the leading ``rank`` learned and true left singular directions.

    1 if both span the same space; rank/m on average for a random space.
    """
    learned = factors.U[:, factors.S.argsort(descending=True)[:rank]]
    true = torch.linalg.svd(target).U[:, :rank]
    return float(torch.linalg.matrix_norm(true.T @ learned) ** 2 / rank)


def run_recipe(target: Float[Tensor, "n n"], seed: int) -> tuple[Fit, dict[str, float]]:
    """Train the note's layer; returns the fit and what happened on the way.

    "flips" of the columns of U; "soft" steps, at which ‖UᵀU − I‖_F > 1e-12; how far a parameter of Σ
    "moved" at most; at the end the "overlap" with the true leading four directions and the share of
    Σσ² in the "top four".
    """
    layer, path = NoteRecipe(*target.shape, seed=seed), []
    start = layer.middle.detach().clone()
    result = descend(layer, target, watch=lambda factors: path.append(factors.U))
    steps = torch.stack(path)
    factors = Factors(*(part.detach() for part in (layer().U, layer().S, layer().V)))
    identity = torch.eye(layer.rank, dtype=start.dtype)
    energy = factors.S.sort(descending=True).values.square()
    return result, {
        "flips": flips(steps),
        "soft": int((torch.linalg.matrix_norm(steps.mT @ steps - identity) > 1e-12).sum()),
        "moved": float((layer.middle.detach() - start).abs().max()),
        "overlap": overlap(factors, target),
        "top four": float(energy[:4].sum() / energy.sum()),
    }


EXPERIMENT = Experiment(
    name="recipe_ablation",
    measure=run,
    jobs=[{"case": case, "seed": seed} for case in NOTE_CASES for seed in range(SEEDS)],
    settings={"rows": list(ROWS), "n": 32},
)


def load_ablation() -> dict[str, dict[str, dict[str, list[float]]]]:
    """Rows → targets → "errors" and "sigma", one number per seed."""
    results: dict = {
        row: {case: {"errors": [], "sigma": []} for case in NOTE_CASES} for row in ROWS
    }
    for job, measured in EXPERIMENT.load():
        for row, numbers in measured["rows"].items():
            results[row][job["case"]]["errors"].append(numbers["error"])
            results[row][job["case"]]["sigma"].append(numbers["sigma"])
    return results


def load_recipe() -> dict[str, dict[str, list[float]]]:
    """Targets → the names of :func:`run_recipe` → one number per seed."""
    results: dict = {case: {} for case in NOTE_CASES}
    for job, measured in EXPERIMENT.load():
        for name, value in measured["recipe"].items():
            results[job["case"]].setdefault(name, []).append(value)
    return results
