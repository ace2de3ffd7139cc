"""Matrices with a known structure."""

import math

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from helpers.maths.checks import integer


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
