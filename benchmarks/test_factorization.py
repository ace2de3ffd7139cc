"""The factorization layer against the note's recipe, two libraries, and LAPACK; the rows of chapter 2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.note_recipe import NoteRecipe, descend
from experiments.recipe_ablation import ROWS
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import FactorizationLayer, fit
from helpers.maths import gaussian

SIZES = (8, 16, 32, 64)
ROUNDS = 5


def lapack(X: Tensor, seed: int) -> float:
    U, S, Vh = torch.linalg.svd(X)
    return float(torch.linalg.matrix_norm((U * S) @ Vh - X) / torch.linalg.matrix_norm(X))


METHODS = {
    "LAPACK": lapack,
    "our layer": lambda X, seed: (
        fit(FactorizationLayer(*X.shape, seed=seed), X, progress=False).relative_error
    ),
    "note's recipe": lambda X, seed: descend(NoteRecipe(*X.shape, seed=seed), X).relative_error,
    "torch parametrization": lambda X, seed: ROWS["torch parametrization"](X, seed).relative_error,
    "geotorch": lambda X, seed: ROWS["geotorch"](X, seed).relative_error,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_factorization(measure, size, method):
    """Gaussian matrices, one for each round; each method trains as long as it is meant to."""
    inputs = [(gaussian(size, size, seed=seed), seed) for seed in range(ROUNDS)]
    measure("factorization", method, size, METHODS[method], inputs, lambda found, *_: found)


@pytest.mark.parametrize("row", ROWS)
def test_ablation(measure, row):
    """Every row of chapter 2's ablation on the note's targets, a round for each."""
    inputs = [(note_targets(0)[case], 0) for case in NOTE_CASES]
    measure("ablation", row, 32, ROWS[row], inputs, lambda found, *_: found.relative_error)
