"""fθ(X), learned once for all matrices, against the classical iteration and LAPACK."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from experiments.learned_svd import FactorizationOperator
from experiments.svd_training import known_matrices, trained_operator
from helpers.layers import Factors

SIZES = (32, 64, 128, 256, 512, 1024)
ROUNDS = 7


def lapack(X: Tensor, rank: int) -> Factors:
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    return Factors(U[:, :rank], S[:rank], Vh[:rank].mT)


def randomised(X: Tensor, rank: int) -> Factors:
    """torch's randomised SVD with as many products with X as the operator's nine roots cost."""
    torch.manual_seed(0)
    return Factors(*torch.svd_lowrank(X, q=rank, niter=9))


METHODS: dict[str, Callable[[int], Callable[[Tensor], Factors]]] = {
    "LAPACK": lambda rank: partial(lapack, rank=rank),
    "learned operator": lambda rank: trained_operator(0, rank),
    "classical iteration": FactorizationOperator,
    "torch.svd_lowrank": lambda rank: partial(randomised, rank=rank),
}
TASKS = {
    "100 of 32×32, rank 8": (100, 32, 8),
    "100 of 32×32, full": (100, 32, None),
    "one 512×512, rank 8": (1, 512, 8),
}


def excess(found: Factors, X: Tensor) -> float:
    """(‖X − X̂‖² − ‖X − X_r‖²)/‖X‖²; below 1e-15 it is rounding, and is set to that."""
    best = torch.linalg.svdvals(X)[len(found.S) :].square().sum()
    lost = (X - found.matrix()).square().sum() - best
    return max(float(lost / X.square().sum()), 1e-15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_operator(measure, size, method):
    """The leading quarter of the singular values of random matrices of known spectrum."""
    matrices, _ = known_matrices(ROUNDS, size, seed=0)
    with torch.no_grad():
        run = METHODS[method](size // 4)
        measure("operator", method, size, run, [(X,) for X in matrices], excess)


@pytest.mark.parametrize("method", ["LAPACK", "learned operator"])
@pytest.mark.parametrize("task", TASKS)
def test_tasks(measure, task, method):
    """Batches and few of many, against LAPACK's whole SVD: chapter 2's table."""
    count, n, rank = TASKS[task]
    inputs = [(known_matrices(count, n, seed=seed)[0],) for seed in range(ROUNDS)]
    with torch.no_grad():
        run = torch.linalg.svd if method == "LAPACK" else trained_operator(0, rank)
        measure(task, method, n, run, inputs)
