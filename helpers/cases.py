"""The matrices that the factorization note trains its layer on."""

import math

import torch
from jaxtyping import Float64
from torch import Tensor

from helpers.checks import integer
from helpers.nulls import gaussian

NOTE_CASES = ("low rank", "convolution", "attention", "Fourier")
"""What the note says these four matrices stand for."""


def note_targets(seed: int, n: int = 32) -> dict[str, Float64[Tensor, "n n"]]:
    """The note's four n×n targets by the names in NOTE_CASES, Gaussian parts drawn from ``seed``.

    Low rank: AB with A (n×4) and B (4×n). Convolution: yyᵀ, y a Gaussian signal filtered by (.4, 1, .4).
    Attention: softmax(XXᵀ)X with n = d and no 1/√d. Fourier: ssᵀ with s = sin 5t + ½ sin 11t, which
    has no randomness. Raises ValueError for n < 4.
    """
    n = integer(n, "n", least=4)
    left, right, tokens, noise = gaussian(4, n, n, seed=seed)
    kernel = torch.tensor([[[0.4, 1.0, 0.4]]], dtype=torch.float64)
    filtered = torch.conv1d(noise[None, :1], kernel, padding=1)[0, 0]
    t = torch.linspace(0, 2 * math.pi, n, dtype=torch.float64)
    waves = torch.sin(5 * t) + 0.5 * torch.sin(11 * t)
    matrices = (
        left[:, :4] @ right[:4],
        torch.outer(filtered, filtered),
        torch.softmax(tokens @ tokens.mT, dim=-1) @ tokens,
        torch.outer(waves, waves),
    )
    return dict(zip(NOTE_CASES, matrices, strict=True))
