"""Singular values, the ranks people read off them, and best low-rank approximations."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import forward_ad

from helpers.maths.checks import integer, own_precision, real_number, real_tensor


def unit_scale(values: Tensor, dim: int | tuple[int, ...] = (-2, -1)) -> Tensor:
    """The power of two next below the largest modulus along ``dim``, which stays; 1 where all are 0.

    What is divided by it loses no digit, and no square or sum of it over- or underflows. So a measure
    that doesn't depend on the scale is the same at every scale the dtype holds.
    """
    largest = torch.linalg.vector_norm(values.detach(), torch.inf, dim, keepdim=True)
    return torch.where(largest > 0, largest / (2 * torch.frexp(largest).mantissa), 1)


def frobenius_norm(matrix: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
    """‖matrix‖_F, whatever its scale: no square over- or underflows."""
    largest = matrix.abs().amax((-2, -1))
    scaled = matrix / torch.where(largest > 0, largest, 1)[..., None, None]
    return largest * torch.linalg.matrix_norm(scaled)


@dataclass(frozen=True)
class Spectrum:
    """Singular values of a batch of matrices, and rank measures computed from them.

    Every measure has the batch shape and is 0 for a zero matrix. Gradients flow through
    ``effective_rank``, ``stable_rank`` and ``participation_ratio``.
    """

    scaled_values: Float[Tensor, "*batch k"]
    """σ₁ ≥ σ₂ ≥ … ≥ 0 in units of ``unit``."""
    unit: Float[Tensor, "*batch"] | float = 1.0

    @property
    def singular_values(self) -> Float[Tensor, "*batch k"]:
        """σ₁ ≥ σ₂ ≥ … ≥ 0, shape (…, min(m, n)); infinite where the dtype can't hold it."""
        return self.scaled_values * torch.as_tensor(self.unit)[..., None]

    @property
    def effective_rank(self) -> Float[Tensor, "*batch"]:
        """exp H(p) with p = σ/Σσ and H the entropy in nats (Roy & Vetterli 2007, Definition 1)."""
        shares = divide(self.relative_values, self.relative_values.sum(-1, keepdim=True))
        entropy = -torch.special.xlogy(shares, shares).sum(-1)
        return torch.where(self._nonzero, entropy.exp(), 0)

    @property
    def stable_rank(self) -> Float[Tensor, "*batch"]:
        """‖A‖_F² / ‖A‖₂² = Σσ² / σ₁² (Rudelson & Vershynin 2007). Never above the rank."""
        return self.relative_values.square().sum(-1)

    @property
    def participation_ratio(self) -> Float[Tensor, "*batch"]:
        """(Σσ²)² / Σσ⁴: the number of equal σ² that would spread the energy as evenly."""
        squares = self.relative_values.square()
        return divide(squares.sum(-1).square(), squares.square().sum(-1))

    def energy_rank(self, fraction: float = 0.99) -> Int64[Tensor, "*batch"]:
        """Smallest k with σ₁² + … + σ_k² ≥ fraction · Σσ²; k₉₉ is ``energy_rank(0.99)``.

        By Eckart–Young this is the least rank that approximates A with a relative Frobenius
        error of at most √(1 − fraction). ``fraction`` lies in (0, 1].
        """
        return self._smallest_count(self.relative_values.square(), fraction)

    def nuclear_rank(self, fraction: float = 0.9) -> Int64[Tensor, "*batch"]:
        """Smallest k with σ₁ + … + σ_k ≥ fraction · Σσ (the curve of Linformer's Figure 1)."""
        return self._smallest_count(self.relative_values, fraction)

    def numerical_rank(self, tolerance: float) -> Int64[Tensor, "*batch"]:
        """Number of σ_k > ``tolerance``, an absolute bound in the units of the matrix."""
        tolerance = real_number(tolerance, "tolerance", above=0)
        return (self.singular_values > tolerance).sum(-1)

    @property
    def relative_values(self) -> Float[Tensor, "*batch k"]:
        """σ/σ₁."""
        return divide(self.scaled_values, self.scaled_values[..., :1])

    @property
    def _nonzero(self) -> Tensor:
        return self.scaled_values[..., 0] > 0

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
    unit = unit_scale(real_tensor(matrices, "matrices", least_dims=2))
    return Spectrum(_singular_values(matrices / unit), unit[..., 0, 0])


@own_precision
def truncate(matrices: Float[Tensor, "*batch m n"], rank: int) -> Float[Tensor, "*batch m n"]:
    """Best approximation of rank ≤ ``rank``: A_r = Σ_{k≤r} σ_k u_k v_kᵀ.

    Eckart & Young 1936, Mirsky 1960: no matrix of rank r is closer to A in any unitarily
    invariant norm; ‖A − A_r‖_F² = Σ_{k>r} σ_k² and ‖A − A_r‖₂ = σ_{r+1}.

    Raises ValueError unless 1 ≤ ``rank`` ≤ min(m, n); otherwise as :func:`spectrum`.
    """
    unit = unit_scale(real_tensor(matrices, "matrices", least_dims=2))
    rank = integer(rank, "rank", least=1, most=min(matrices.shape[-2:]))
    U, S, Vh = torch.linalg.svd(matrices / unit, full_matrices=False)
    return unit * (U[..., :rank] * S[..., None, :rank] @ Vh[..., :rank, :])


def distance_to_rank_one(tokens: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch"]:
    """‖X − 1x̄ᵀ‖_F / ‖X‖_F: how far the rows of X are from being all the same row x̄.

    x̄ is the mean row. Dong, Cordonnier & Loukas 2021 measure it from the nearest such row, in another norm.
    0 for a zero matrix.
    """
    tokens = tokens / unit_scale(real_tensor(tokens, "tokens", least_dims=2))
    residual = tokens - tokens.mean(-2, keepdim=True)
    return divide(torch.linalg.matrix_norm(residual), torch.linalg.matrix_norm(tokens))


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, and 0 where the denominator is 0 (a zero matrix has rank 0)."""
    zero = denominator == 0
    return torch.where(zero, 0, numerator / denominator.masked_fill(zero, 1))


def _singular_values(matrices: Tensor) -> Tensor:
    """``torch.linalg.svdvals``, on a CPU in two halves of the batch at once.

    LAPACK works through a batch one by one and keeps a second core only partly busy. Every matrix
    is still factored alone, so the numbers are the same.
    """
    halves = matrices.flatten(0, -3).chunk(2) if matrices.ndim > 2 else ()
    # Another thread knows nothing of a derivative, forward or backward.
    derived = matrices.requires_grad or forward_ad.unpack_dual(matrices).tangent is not None
    if len(halves) < 2 or derived or matrices.device.type != "cpu":
        return torch.linalg.svdvals(matrices)
    with ThreadPoolExecutor(2) as threads:
        values = torch.cat(list(threads.map(torch.linalg.svdvals, halves)))
    return values.unflatten(0, matrices.shape[:-2])
