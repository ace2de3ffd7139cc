"""The matrices that the factorization note trains its layer on, and data that stand for their names.

The note gives its layer one matrix per case. The functions below give pairs instead: inputs X, and
outputs Y = TX + noise of an operator T that acts along the tokens. For attention T depends on X.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float64
from torch import Tensor

from helpers.maths import attention_weights, gaussian, hartley, integer, real_number

NOTE_CASES = ("low rank", "convolution", "attention", "Fourier")
"""What the note says these four matrices stand for."""

WIDTH, RANK = 8, 4
"""Columns of a sample; and the rank of the operator that is of low rank, and of the product of queries and keys in attention."""

_OPERATOR = "operator of a case"


def note_targets(seed: int, n: int = 32) -> dict[str, Float64[Tensor, "n n"]]:
    """The note's four n×n targets by the names in NOTE_CASES, Gaussian parts drawn from ``seed``.

    Low rank: AB with A (n×4) and B (4×n). Convolution: yyᵀ, y a Gaussian signal filtered by (.4, 1, .4).
    Attention: softmax(XXᵀ)X with n = d and no 1/√d. Fourier: ssᵀ with s = sin 5t + ½ sin 11t, which
    has no randomness. Raises ValueError for n < 4.
    """
    n = integer(n, "n", least=4)
    left, right, tokens, noise = gaussian(4, n, n, seed=seed, stream="note targets")
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


@dataclass(frozen=True)
class Case:
    """Inputs and noisy outputs of an operator. Each sample holds WIDTH columns of length n."""

    inputs: Float64[Tensor, "samples n width"]
    """X: independent standard normal entries."""
    outputs: Float64[Tensor, "samples n width"]
    """Y = T X + noise."""
    operator: Float64[Tensor, "n n"] | None
    """T, or None where it depends on X."""
    clean: Float64[Tensor, "samples n width"]
    """T X, the outputs without noise."""
    query_key: Float64[Tensor, "width width"] | None = None
    """W with T(X) = softmax(X W Xᵀ); None where T is fixed."""

    def split(self, samples: int) -> tuple["Case", "Case"]:
        """The first ``samples`` samples and the rest, of the same operator."""
        samples = integer(samples, "samples", least=1, most=len(self.inputs) - 1)
        columns = {name: getattr(self, name) for name in ("inputs", "outputs", "clean")}
        first = {name: part[:samples] for name, part in columns.items()}
        rest = {name: part[samples:] for name, part in columns.items()}
        return replace(self, **first), replace(self, **rest)


def low_rank(n: int = 32, samples: int = 32, noise: float = 0.1, seed: int = 0) -> Case:
    """T = AB/√(n·r) with Gaussian A (n×r) and B (r×n), r = RANK.

    Common to all cases: ``samples`` inputs of n tokens and WIDTH columns, and noise of standard
    deviation ``noise`` times the root mean square of the clean outputs. All is drawn from ``seed``.
    Raises ValueError for n < 4, samples < 1, and noise < 0.
    """
    n = integer(n, "n", least=4)
    left, right = gaussian(2, n, RANK, seed=seed, stream=_OPERATOR)
    operator = left @ right.mT / math.sqrt(n * RANK)
    return _fixed(operator, samples, noise, seed)


def convolution(
    n: int = 32,
    samples: int = 32,
    noise: float = 0.1,
    seed: int = 0,
    *,
    kernel: Sequence[float] = (0.4, 1.0, 0.4),
    circular: bool = False,
) -> Case:
    """T_ij = kernel at i − j, centred, with zeros beyond the ends: a Toeplitz matrix.

    With ``circular`` the ends are joined and T is circulant. The kernel has an odd number of taps,
    at most n, not all zero; otherwise ValueError. For the rest see :func:`low_rank`.
    """
    n = integer(n, "n", least=4)
    taps = tuple(real_number(tap, "kernel") for tap in kernel)
    if len(taps) % 2 == 0 or len(taps) > n or not any(taps):
        raise ValueError(f"kernel must have an odd number of taps, at most n, not {kernel!r}")
    middle = len(taps) // 2
    if circular:
        matrix = scipy.linalg.circulant(np.roll(np.pad(taps, (0, n - len(taps))), -middle))
    else:
        halves = (taps[middle:], taps[middle::-1])  # the first column and the first row
        matrix = scipy.linalg.toeplitz(*(np.pad(half, (0, n - middle - 1)) for half in halves))
    return _fixed(torch.from_numpy(matrix), samples, noise, seed)


def fourier(n: int = 32, samples: int = 32, noise: float = 0.1, seed: int = 0) -> Case:
    """T = H, the real Fourier transform of Hartley: H_jk = (cos 2πjk/n + sin 2πjk/n)/√n (Bracewell 1983).

    H is symmetric and orthogonal. For the arguments see :func:`low_rank`.
    """
    return _fixed(hartley(integer(n, "n", least=4)), samples, noise, seed)


def attention(
    n: int = 32,
    samples: int = 32,
    noise: float = 0.1,
    seed: int = 0,
    *,
    sharpness: float = 2.0,
) -> Case:
    """T(X) = softmax(X W Xᵀ), W = W_q W_kᵀ with Gaussian W_q, W_k (WIDTH×RANK), scaled to ‖W‖_F = sharpness.

    For i ≠ j the logit x_iᵀ W x_j then has the standard deviation ``sharpness``. The values are the
    tokens themselves, so that Y = T(X) X. Raises as :func:`low_rank`, and for sharpness ≤ 0.
    """
    n = integer(n, "n", least=4)
    sharpness = real_number(sharpness, "sharpness", above=0)
    query, key = gaussian(2, WIDTH, RANK, seed=seed, stream=_OPERATOR)
    W = query @ key.mT
    W = sharpness * W / torch.linalg.matrix_norm(W)
    inputs, draws = _draw(n, samples, seed)
    clean = attention_weights(inputs @ W, inputs, scale=1.0) @ inputs
    return Case(inputs, _noisy(clean, draws, noise), None, clean, W)


def random_operator(n: int = 32, samples: int = 32, noise: float = 0.1, seed: int = 0) -> Case:
    """T with independent N(0, 1/n) entries: the negative control, without structure. See :func:`low_rank`."""
    n = integer(n, "n", least=4)
    operator = gaussian(n, n, seed=seed, stream=_OPERATOR) / math.sqrt(n)
    return _fixed(operator, samples, noise, seed)


def _fixed(operator: Tensor, samples: int, noise: float, seed: int) -> Case:
    inputs, draws = _draw(len(operator), samples, seed)
    clean = operator @ inputs
    return Case(inputs, _noisy(clean, draws, noise), operator, clean)


def _draw(n: int, samples: int, seed: int) -> Float64[Tensor, "2 samples n width"]:
    """Inputs and unit noise."""
    samples = integer(samples, "samples", least=1)
    return gaussian(2, samples, n, WIDTH, seed=seed, stream="inputs and noise of a case")


def _noisy(clean: Tensor, draws: Tensor, noise: float) -> Tensor:
    noise = real_number(noise, "noise", least=0)
    return clean + noise * clean.square().mean().sqrt() * draws
