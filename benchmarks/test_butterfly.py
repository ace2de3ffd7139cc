"""The butterfly product that equals the DFT: applied, against torch.fft, and found, against descent."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.memory import peak_memory
from experiments.transform_search import dft, learn_blocks
from helpers.layers import Butterfly, cooley_tukey, factorize
from helpers.maths import bit_reversal, gaussian

SIZES = (64, 128, 256, 512, 1024, 2048, 4096)
WIDTH, ROUNDS = 64, 9


def butterfly(size: int) -> Callable[[Tensor], Tensor]:
    product = Butterfly(size, input_order=bit_reversal(size)).float()
    product.blocks.data = cooley_tukey(size).to(torch.complex64)
    return product


def dense(size: int) -> Callable[[Tensor], Tensor]:
    matrix = dft(size).matrix.to(torch.complex64)
    return lambda x: matrix @ x


METHODS = {
    "torch.fft": lambda size: lambda x: torch.fft.fft(x, dim=0, norm="ortho"),
    "butterfly product": butterfly,
    "dense matrix": dense,
}


def relative_error(found: Tensor, x: Tensor) -> float:
    exact = torch.fft.fft(x.to(torch.complex128), dim=0, norm="ortho")
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_butterfly(measure, size, method):
    """64 Gaussian vectors at once, in complex64, so that the accuracy shows as well."""
    inputs = [
        (torch.complex(*gaussian(2, size, WIDTH, seed=seed)).to(torch.complex64),)
        for seed in range(ROUNDS)
    ]
    with torch.no_grad():
        measure("butterfly", method, size, METHODS[method](size), inputs, relative_error)


def descend(matrix: Tensor) -> Butterfly:
    """A thousand steps, as in the experiment; a few columns at a time from N = 128 on."""
    size = len(matrix)
    layer = Butterfly(size, input_order=bit_reversal(size))
    learn_blocks(layer, matrix, steps=1000, columns=64 if size > 64 else None)
    return layer


SEARCHES = {
    "factorize": (SIZES, lambda matrix: factorize(matrix, columns="bit reversal")),
    "factorize, columns unknown": (SIZES[:5], lambda matrix: factorize(matrix, columns="search")),
    "gradient descent": (SIZES[:3], descend),
}


def distance(found: Butterfly, matrix: Tensor) -> float:
    return float((found.matrix().detach() - matrix).norm() / matrix.norm())


@pytest.mark.parametrize(
    ("size", "method"),
    [(size, method) for size in SIZES for method, (sizes, _) in SEARCHES.items() if size in sizes],
)
def test_finding(measure, benchmark, size, method):
    """The factors of the dense DFT, complex128; the peak of its memory from a run of its own."""
    search = SEARCHES[method][1]
    inputs = [(dft(size).matrix,)] * 3
    measure("butterfly search", method, size, search, inputs, distance)
    if method != "gradient descent":
        benchmark.extra_info["bytes"] = peak_memory(lambda: search(*inputs[0]).blocks)
