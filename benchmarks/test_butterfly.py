"""The butterfly product that equals the DFT, against the dense matrix and torch.fft."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from experiments.transform_search import dft
from helpers.layers import Butterfly, cooley_tukey
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
