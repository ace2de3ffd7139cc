"""Singular values, the ranks people read off them, and best low-rank approximations."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from helpers.maths.checks import integer, real_number, real_tensor


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a batch of matrices, and rank measures computed from them.

    Every measure has the batch shape and is 0 for a zero matrix. Gradients flow through
    ``effective_rank``, ``stable_rank`` and ``participation_ratio``.
    """

    singular_values: Float[Tensor, "*batch k"]
    """σ₁ ≥ σ₂ ≥ … ≥ 0, shape (…, min(m, n))."""

    @property
    def effective_rank(self) -> Float[Tensor, "*batch"]:
        """exp H(p) with p = σ/Σσ and H the entropy in nats (Roy & Vetterli 2007, Definition 1)."""
        shares = _divide(self._relative, self._relative.sum(-1, keepdim=True))
        entropy = -torch.special.xlogy(shares, shares).sum(-1)
        return torch.where(self._nonzero, entropy.exp(), 0)

    @property
    def stable_rank(self) -> Float[Tensor, "*batch"]:
        """‖A‖_F² / ‖A‖₂² = Σσ² / σ₁² (Rudelson & Vershynin 2007). Never above the rank."""
        return self._relative.square().sum(-1)

    @property
    def participation_ratio(self) -> Float[Tensor, "*batch"]:
        """(Σσ²)² / Σσ⁴: the number of equal σ² that would spread the energy as evenly."""
        squares = self._relative.square()
        return _divide(squares.sum(-1).square(), squares.square().sum(-1))

    def energy_rank(self, fraction: float = 0.99) -> Int64[Tensor, "*batch"]:
        """Smallest k with σ₁² + … + σ_k² ≥ fraction · Σσ²; k₉₉ is ``energy_rank(0.99)``.

        By Eckart–Young this is the least rank that approximates A with a relative Frobenius
        error of at most √(1 − fraction). ``fraction`` lies in (0, 1].
        """
        return self._smallest_count(self._relative.square(), fraction)

    def nuclear_rank(self, fraction: float = 0.9) -> Int64[Tensor, "*batch"]:
        """Smallest k with σ₁ + … + σ_k ≥ fraction · Σσ (the curve of Linformer's Figure 1)."""
        return self._smallest_count(self._relative, fraction)

    def numerical_rank(self, tolerance: float) -> Int64[Tensor, "*batch"]:
        """Number of σ_k > ``tolerance``, an absolute bound in the units of the matrix."""
        tolerance = real_number(tolerance, "tolerance", above=0)
        return (self.singular_values > tolerance).sum(-1)

    @property
    def _nonzero(self) -> Tensor:
        return self.singular_values[..., 0] > 0

    @property
    def _relative(self) -> Tensor:
        """σ/σ₁, so that no square over- or underflows whatever the scale of A."""
        return _divide(self.singular_values, self.singular_values[..., :1])

    def _smallest_count(self, weights: Tensor, fraction: float) -> Tensor:
        """Smallest number of leading ``weights`` that hold ``fraction`` of their sum."""
        fraction = real_number(fraction, "fraction", above=0, most=1)
        held = weights.cumsum(-1)
        # A share that equals the fraction on paper may miss it by rounding.
        slack = 8 * torch.finfo(weights.dtype).eps
        count = (held < (fraction - slack) * held[..., -1:]).sum(-1) + 1
        return torch.where(self._nonzero, count, 0)


def spectrum(matrices: Float[Tensor, "*batch m n"]) -> Spectrum:
    """Singular values of each matrix of a batch, shape (…, m, n), descending.

    Raises TypeError for tensors that are not real floating point, ValueError for fewer than
    two dimensions, empty or non-finite input.
    """
    return Spectrum(_singular_values(real_tensor(matrices, "matrices", least_dims=2)))


def truncate(matrices: Float[Tensor, "*batch m n"], rank: int) -> Float[Tensor, "*batch m n"]:
    """Best approximation of rank ≤ ``rank``: A_r = Σ_{k≤r} σ_k u_k v_kᵀ.

    Eckart & Young 1936, Mirsky 1960: no matrix of rank r is closer to A in any unitarily
    invariant norm; ‖A − A_r‖_F² = Σ_{k>r} σ_k² and ‖A − A_r‖₂ = σ_{r+1}.

    Raises ValueError unless 1 ≤ ``rank`` ≤ min(m, n); otherwise as :func:`spectrum`.
    """
    real_tensor(matrices, "matrices", least_dims=2)
    rank = integer(rank, "rank", least=1, most=min(matrices.shape[-2:]))
    U, S, Vh = torch.linalg.svd(matrices, full_matrices=False)
    return U[..., :rank] * S[..., None, :rank] @ Vh[..., :rank, :]


def distance_to_rank_one(tokens: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch"]:
    """‖X − 1x̄ᵀ‖_F / ‖X‖_F: how far the rows of X are from being all the same row x̄.

    x̄ is the mean row. Dong, Cordonnier & Loukas 2021 measure it from the nearest such row, in another norm.
    0 for a zero matrix.
    """
    real_tensor(tokens, "tokens", least_dims=2)
    residual = tokens - tokens.mean(-2, keepdim=True)
    return _divide(torch.linalg.matrix_norm(residual), torch.linalg.matrix_norm(tokens))


def _singular_values(matrices: Tensor) -> Tensor:
    """``torch.linalg.svdvals``, on a CPU in two halves of the batch at once.

    LAPACK works through a batch one by one and keeps a second core only partly busy. Every matrix
    is still factored alone, so the numbers are the same.
    """
    halves = matrices.flatten(0, -3).chunk(2) if matrices.ndim > 2 else ()
    if len(halves) < 2 or matrices.requires_grad or matrices.device.type != "cpu":
        return torch.linalg.svdvals(matrices)
    with ThreadPoolExecutor(2) as threads:
        values = torch.cat(list(threads.map(torch.linalg.svdvals, halves)))
    return values.unflatten(0, matrices.shape[:-2])


def _divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, and 0 where the denominator is 0 (a zero matrix has rank 0)."""
    zero = denominator == 0
    return torch.where(zero, 0, numerator / denominator.masked_fill(zero, 1))
