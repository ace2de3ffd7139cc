"""The note's recipe with up to twenty-five times its steps: which targets does it reach? (Two minutes on one core.)"""

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from experiments.note_recipe import NoteRecipe, lapack_qr
from experiments.store import Experiment
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import update
from helpers.maths import frobenius_norm

SEEDS = 10
STEPS = (100, 200, 400, 800, 1600, 3200, 6400, 12_800, 20_000)


def run(
    case: str, steps: Sequence[int] = STEPS, n: int = 32
) -> dict[str, Float64[Tensor, "steps seeds"]]:
    """Relative errors of the note's layer on one n×n target: "last", after each number of ``steps``, and "least" so far.

    Columns of Q that flip their sign throw a run back now and then, at a moment that hangs on rounding; the
    least error so far doesn't see that. The seeds train side by side: their losses are summed, and Adam keeps every parameter apart, so that
    each run is that of :func:`experiments.note_recipe.descend`.
    """
    X = torch.stack([note_targets(seed, n)[case] for seed in range(SEEDS)])
    layers = [NoteRecipe(n, seed=seed) for seed in range(SEEDS)]
    left, middle, right = parameters = [
        torch.stack([getattr(layer, name).detach() for layer in layers]).requires_grad_()
        for name in ("left", "middle", "right")
    ]
    adam = torch.optim.Adam(parameters, lr=3e-3)
    found: dict[str, list[Tensor]] = {"last": [], "least": []}
    least = torch.full((SEEDS,), torch.inf, dtype=torch.float64)
    for step in range(max(steps) + 1):
        S = torch.nn.functional.softplus(middle)
        difference = X - (lapack_qr(left) * S[:, None, :]) @ lapack_qr(right).mT
        last = frobenius_norm(difference.detach()) / frobenius_norm(X)
        least = least.minimum(last)
        if step in steps:
            found["last"].append(last)
            found["least"].append(least)
        update(adam, difference.square().mean((1, 2)).sum())
    return {name: torch.stack(errors) for name, errors in found.items()}


EXPERIMENT = Experiment(
    name="recipe_longer",
    measure=run,
    jobs=[{"case": case} for case in NOTE_CASES],
    settings={"steps": STEPS, "seeds": SEEDS, "n": 32},
)


def load_longer() -> dict[str, dict[str, Float64[Tensor, "steps seeds"]]]:
    """Targets → "last" and "least" → relative errors, a row for each number of STEPS."""
    return {
        job["case"]: {name: torch.tensor(rows).double() for name, rows in found.items()}
        for job, found in EXPERIMENT.load()
    }
