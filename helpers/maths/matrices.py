"""Matrices with a known structure."""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from helpers.maths.checks import integer
from helpers.maths.draws import Seed, gaussian, generator, integers, uniform
from helpers.maths.orthogonal import signed_qr


def power_of_two(n: object, name: str = "n") -> int:
    """``n`` as an int; ValueError unless it is 2, 4, 8, …"""
    n = integer(n, name, least=2)
    if n & (n - 1):
        raise ValueError(f"{name} must be a power of two, not {n}")
    return n


def bit_reversal(n: int) -> Int64[Tensor, "n"]:
    """Places 0 … n − 1 with their binary digits in reverse order."""
    levels = power_of_two(n).bit_length() - 1
    return torch.arange(n).reshape([2] * levels).permute(*reversed(range(levels))).flatten()


def hartley(n: int) -> Float64[Tensor, "n n"]:
    """Hartley's matrix, the real part of the unitary DFT minus its imaginary part."""
    index = torch.arange(integer(n, "n", least=1), dtype=torch.float64)
    # jk is reduced modulo n first: the angle stays small, and exact.
    angle = 2 * math.pi * (torch.outer(index, index) % n) / n
    return (angle.cos() + angle.sin()) / math.sqrt(n)


def known_matrices(
    count: int, n: int, *, seed: Seed
) -> tuple[Float64[Tensor, "count n n"], Float64[Tensor, "count n"]]:
    """Random n×n matrices with their singular values, which are known because we choose them.

    X = P diag(σ) Qᵀ with P, Q uniformly distributed; σ is, each with probability 1/3, a power law
    k^−a (a from .3 to 2), exponential e^−bk (b from .05 to .5) or uniform on [0, 1], with 20 %
    noise on each value, sorted.
    """

    stream = generator(seed, "known matrices")

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * uniform(*shape, seed=stream)

    def rotations() -> Tensor:
        return signed_qr(gaussian(count, n, n, seed=stream))

    k = torch.arange(1, n + 1, dtype=torch.float64)
    power_law = k ** -between(0.3, 2.0, count, 1)
    exponential = torch.exp(-k * between(0.05, 0.5, count, 1))
    families = torch.stack((power_law, exponential, between(0.0, 1.0, count, n)))
    chosen = integers(3, count, seed=stream)
    S = families[chosen, torch.arange(count)] * between(1.0, 1.2, count, n)
    S = S.sort(descending=True).values
    return (rotations() * S[:, None, :]) @ rotations().mT, S
