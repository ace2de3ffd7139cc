"""fθ(X), learned once for all matrices, against the classical iteration and LAPACK."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from experiments.svd_training import trained_operator
from helpers.layers import FactorizationOperator, Factors
from helpers.maths import known_matrices

SIZES = (32, 64, 128, 256, 512, 1024)
ROUNDS = 7


def lapack(X: Tensor, rank: int) -> Factors:
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    return Factors(U[:, :rank], S[:rank], Vh[:rank].mT)


def randomised(X: Tensor, rank: int) -> Factors:
    """torch's randomised SVD with as many products with X as the operator's nine roots cost."""
    torch.manual_seed(0)
    return Factors(*torch.svd_lowrank(X, q=rank, niter=9))


METHODS = {
    "LAPACK": lapack,
    "learned operator": lambda X, rank: trained_operator(0, rank)(X),
    "classical iteration": lambda X, rank: FactorizationOperator(rank)(X),
    "torch.svd_lowrank": randomised,
}


def excess(found: Factors, X: Tensor, rank: int) -> float:
    """(‖X − X̂‖² − ‖X − X_r‖²)/‖X‖²; below 1e-15 it is rounding, and is set to that."""
    best = torch.linalg.svdvals(X)[rank:].square().sum()
    lost = (X - found.matrix()).square().sum() - best
    return max(float(lost / X.square().sum()), 1e-15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_operator(measure, size, method):
    """The leading quarter of the singular values of random matrices of known spectrum."""
    matrices, _ = known_matrices(ROUNDS, size, generator=torch.Generator().manual_seed(size))
    inputs = [(X, size // 4) for X in matrices]
    with torch.no_grad():
        measure("operator", method, size, METHODS[method], inputs, excess)
