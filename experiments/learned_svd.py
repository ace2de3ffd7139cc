"""One network from a matrix to its factors: fθ(X) = (U, Σ, V), an unrolled subspace iteration.

``svd_training`` trains ten of them.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from helpers.layers import Factors, gauss_newton_step
from helpers.maths import Seed, gaussian, integer, own_precision, real_tensor, signed_qr, unit_scale

BLOCKS, DEGREE, CORE_STEPS = 3, 3, 14


class FactorizationOperator(nn.Module):
    """fθ: a batch of matrices (…, m, n) to ``Factors`` of a given rank, S descending.

    A block turns a basis V of r columns into the Q factor of p(XᵀX)V, where the polynomial
    p(t) = Π_j (t − θ_j ρ) has learned roots θ in units of ρ, the smallest ‖Xv‖² over the block's
    basis. θ = 0 is the classical subspace iteration (Rutishauser 1970), at the same number of matrix
    products. The last step factors the small matrix UᵀXV by ``CORE_STEPS`` Gauss–Newton steps.

    ``rank=None`` means min(m, n) of each input. ``roots`` (blocks × degree) are the network's only
    parameters, so one network serves every size. The first basis is random, drawn from ``seed``,
    which is no part of the ``state_dict``.
    """

    def __init__(
        self,
        rank: int | None = None,
        *,
        roots: Float[Tensor, "blocks degree"] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.rank = None if rank is None else integer(rank, "rank", least=1)
        self.seed = integer(seed, "seed", least=0)
        if roots is None:
            roots = torch.zeros(BLOCKS, DEGREE)
        if real_tensor(roots, "roots").ndim != 2:
            raise ValueError(f"roots must have shape (blocks, degree), not {tuple(roots.shape)}")
        self.roots = nn.Parameter(roots.detach().to(torch.float64, copy=True))

    @own_precision
    def forward(self, X: Float[Tensor, "*batch m n"]) -> Factors:
        """U (…, m, r), S (…, r) ≥ 0 descending and V (…, n, r).

        Raises TypeError or ValueError for what is not a finite real matrix, and ValueError for a
        rank above min(m, n).
        """
        real_tensor(X, "X", least_dims=2)
        smaller = min(X.shape[-2:])
        if self.rank is not None and self.rank > smaller:
            raise ValueError(f"rank must be at most min(m, n) = {smaller}, not {self.rank}")
        if X.shape[-2] < X.shape[-1]:  # the basis is exact when V is square
            swapped = self(X.mT)
            return Factors(swapped.V, swapped.S, swapped.U)
        largest = X.abs().amax((-2, -1), keepdim=True)
        X = X / torch.where(largest > 0, largest, 1)
        V = self.basis(X, self.rank or smaller)
        U, core = torch.linalg.qr(X @ V)
        inner = _factor_core(core)
        return Factors(U @ inner.U, inner.S * largest[..., 0], V @ inner.V)

    def basis(
        self, X: Float[Tensor, "*batch m n"], rank: int, seed: Seed | None = None
    ) -> Float[Tensor, "*batch n r"]:
        """Orthonormal columns that should span the leading right singular vectors of X.

        ``seed`` draws the first basis, by default the operator's.
        """
        seed = self.seed if seed is None else seed
        draw = gaussian(X.shape[-1], rank, seed=seed, stream="first basis")
        V = signed_qr(draw.to(X)).expand(*X.shape[:-2], -1, -1)
        for roots in self.roots.to(X):
            Y, unit = V, None
            for root in roots:
                XY = X @ Y
                unit = XY.square().sum(-2).amin(-1)[..., None, None] if unit is None else unit
                Y = X.mT @ XY - root * unit * Y
                size = torch.linalg.matrix_norm(Y, keepdim=True)
                Y = Y / torch.where(size > 0, size, 1)
            V = signed_qr(Y)
        return V

    def products(self) -> int:
        """Products of X or Xᵀ with r columns in one forward pass."""
        return 2 * self.roots.numel() + 1


def _factor_core(core: Tensor) -> Factors:
    """The small r×r matrix to its factors, by a fixed number of Gauss–Newton steps from the identity.

    The damping is a tenth of the mean squared off-diagonal row, so that it vanishes at the solution.
    """
    identity = torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
    left = right = identity.expand_as(core)
    for _ in range(CORE_STEPS):
        B = left.mT @ core @ right
        off = (B - torch.diag_embed(B.diagonal(dim1=-2, dim2=-1))).square().sum((-2, -1), True)
        floor = torch.finfo(core.dtype).tiny ** 0.5
        left, right = gauss_newton_step(core, left, right, 0.1 * off / core.shape[-1] + floor)
    S = (left.mT @ core @ right).diagonal(dim1=-2, dim2=-1)
    order = S.abs().argsort(-1, descending=True)
    columns = order[..., None, :].expand_as(core)
    return Factors.signed(left.gather(-1, columns), S.gather(-1, order), right.gather(-1, columns))


@own_precision
def excess_error(
    operator: FactorizationOperator,
    X: Float[Tensor, "*batch m n"],
    S: Float[Tensor, "*batch k"],
    *,
    rank: int | None = None,
    seed: Seed | None = None,
) -> Float[Tensor, "*batch"]:
    """(‖X − X̂‖_F² − ‖X − X_r‖_F²) / ‖X‖_F²: how much more is lost than by the best rank-r matrix.

    ``S`` are the singular values of X; ``rank`` and ``seed`` are by default the operator's. X̂ is the
    best approximation inside the operator's basis, so that the difference is ‖X_r‖² − ‖XV‖²; below
    1e-15 it is rounding, and is set to that.
    """
    rank = operator.rank if rank is None else rank
    unit = unit_scale(S, -1)
    S, X = S / unit, X / unit[..., None]
    V = operator.basis(X, integer(rank, "rank", least=1, most=min(X.shape[-2:])), seed)
    energy = S.square()
    lost = energy[..., :rank].sum(-1) - (X @ V).square().sum((-2, -1))
    return (lost / energy.sum(-1).clamp(min=1)).clamp(min=1e-15)  # a sum below 1 is that of zeros
