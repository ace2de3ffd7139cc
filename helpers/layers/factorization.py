"""A layer that learns U, Σ and V of one matrix, and a fit that uses curvature.

Notation: X is the target (m×n), U (m×r) and V (n×r) have orthonormal columns, S ≥ 0 holds the r
diagonal entries of Σ, and B = UᵀXV. The loss is ‖X − U diag(S) Vᵀ‖_F².
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from helpers.layers.fitting import matching
from helpers.maths import Seed, frobenius_norm, gaussian, generator, signed_qr
from helpers.maths.checks import integer, own_precision, real_number, real_tensor

LEAST_DAMPING = 0.01


class DivergenceError(RuntimeError):
    """Training ended with a non-finite or a much larger error than it began with."""


@dataclass(frozen=True)
class Factors:
    """U (…, m, r), S (…, r) and V (…, n, r) with U diag(S) Vᵀ ≈ X; note that it is V, not Vᵀ."""

    U: Float[Tensor, "*batch m r"]
    S: Float[Tensor, "*batch r"]
    V: Float[Tensor, "*batch n r"]

    @own_precision
    def matrix(self) -> Float[Tensor, "*batch m n"]:
        """U diag(S) Vᵀ."""
        return (self.U * self.S[..., None, :]) @ self.V.mT

    @classmethod
    def signed(cls, U: Tensor, diagonal: Tensor, V: Tensor) -> "Factors":
        """U diag(d) Vᵀ with the signs of d moved into U."""
        signs = torch.where(diagonal < 0, -1.0, 1.0).to(U.dtype)
        return cls(U * signs[..., None, :], diagonal.abs(), V)

    def relative_error(self, target: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch"]:
        """‖X − U diag(S) Vᵀ‖_F / ‖X‖_F, and 0 for an exactly reproduced zero matrix."""
        error, size = frobenius_norm(target - self.matrix()), frobenius_norm(target)
        return torch.where(error == 0, 0, error / size)


@dataclass(frozen=True)
class Fit:
    """What training did to a layer."""

    relative_error: float
    """‖X − UΣVᵀ‖_F / ‖X‖_F at the end; for a zero matrix the absolute error."""
    history: Float[Tensor, "steps_plus_1"]
    """The relative error before the first step and after each one."""
    singular_values: Float[Tensor, "steps_plus_1 r"]
    """S at the same times, in the units of the target, in the layer's order."""
    converged: bool
    """Whether training stopped by itself, at the tolerance or where no step helps any more; always
    False for a fixed number of steps."""


class FactorizationLayer(nn.Module):
    """U diag(S) Vᵀ for one matrix of ``rows`` × ``columns``, with U and V orthonormal at every step.

    ``rank`` is the number of columns of U and V, at most and by default min(rows, columns). U and V are
    the QR factors, with signs, of ``left`` and ``right``. S is free: a negative entry of ``middle`` is moved
    into U, so that S ≥ 0 and both orientations can be reached. Starts at random, drawn from ``seed``:
    standard normal for S, and for U and V normal of standard deviation one over the square root of their
    rows. In double precision; ``.float()`` makes it single.

    Traceable: works under ``torch.compile`` without graph breaks.
    """

    def __init__(self, rows: int, columns: int, rank: int | None = None, *, seed: Seed = 0) -> None:
        super().__init__()
        rows, columns = integer(rows, "rows", least=1), integer(columns, "columns", least=1)
        smaller = min(rows, columns)
        self.rank = smaller if rank is None else integer(rank, "rank", least=1, most=smaller)
        stream = generator(seed, "factorization layer")
        self.left = nn.Parameter(1 / math.sqrt(rows) * gaussian(rows, self.rank, seed=stream))
        self.middle = nn.Parameter(gaussian(self.rank, seed=stream))
        self.right = nn.Parameter(
            1 / math.sqrt(columns) * gaussian(columns, self.rank, seed=stream)
        )

    def forward(self) -> Factors:
        """The factors, differentiable in the parameters."""
        U, V = self.orthonormal()
        return Factors.signed(U, self.middle, V)

    def orthonormal(self) -> tuple[Float[Tensor, "m r"], Float[Tensor, "n r"]]:
        """U and V without the signs of S."""
        return signed_qr(self.left), signed_qr(self.right)

    def extra_repr(self) -> str:
        return f"{len(self.left)}, {len(self.right)}, rank={self.rank}"


@own_precision
def fit(
    layer: FactorizationLayer,
    target: Float[Tensor, "m n"],
    *,
    steps: int = 1000,
    tolerance: float = 1e-10,
    progress: bool = True,
) -> Fit:
    """Riemannian Levenberg–Marquardt on U and V with S eliminated, and S sorted at the end.

    Stops at a relative error of ``tolerance`` (or what the precision allows), when an accepted step
    no longer lowers the loss noticeably (a rank below that of X leaves an error), or after
    ``steps``. The damping is a multiple of ‖XV‖² − ‖diag B‖², which vanishes at a solution; the
    multiple falls after a step that lowers the loss, and rises after one that doesn't, which is
    then not taken.

    Raises ValueError if ``target`` is not finite or has not the layer's shape, or if the layer has
    maps of its own; TypeError for another precision than the layer's; DivergenceError.
    """
    target = checked_target(layer, target)
    steps = integer(steps, "steps", least=1)
    tolerance = max(real_number(tolerance, "tolerance", above=0), 4 * torch.finfo(target.dtype).eps)
    if type(layer) is not FactorizationLayer:
        raise ValueError(f"layer must be a plain FactorizationLayer, not {type(layer).__name__}")
    with torch.no_grad():
        size = frobenius_norm(target)
        X = target / torch.where(size > 0, size, 1)
        U, V = layer.orthonormal()
        diagonal, error, spill = project(X, U, V)
        records, factor, converged = [(error, diagonal.abs() * size)], LEAST_DAMPING, False
        for _ in tqdm(range(steps), "fit", disable=not progress, delay=5, leave=False):
            candidate = gauss_newton_step(X, U, V, factor * spill + 1e-30)
            new_diagonal, new_error, new_spill = project(X, *candidate)
            gain = 1 - (new_error / error) ** 2
            if gain > 0:
                (U, V), diagonal, error, spill = candidate, new_diagonal, new_error, new_spill
            factor = max(factor / 3, LEAST_DAMPING) if gain > 0 else factor * 4
            records.append((error, diagonal.abs() * size))
            if converged := bool(error <= tolerance or 0 <= gain < 1e-12 or factor > 1e12):
                break
        order = diagonal.abs().argsort(descending=True)
        layer.left.copy_(U[:, order])
        layer.right.copy_(V[:, order])
        layer.middle.copy_(size * diagonal[order])
    return fit_of(records, converged)


def gauss_newton_step(
    target: Float[Tensor, "*batch m n"],
    U: Float[Tensor, "*batch m r"],
    V: Float[Tensor, "*batch n r"],
    damping: Float[Tensor, "*batch 1 1"] | Float[Tensor, ""] | float,
) -> tuple[Float[Tensor, "*batch m r"], Float[Tensor, "*batch n r"]]:
    """One damped Gauss–Newton step on ‖X − U diag(UᵀXV) Vᵀ‖_F² over orthonormal U and V.

    To first order, turning U by the skew matrix Ω and V by Γ changes B to B − ΩB + BΓ. Setting the
    off-diagonal part to zero with B ≈ diag(d) leaves one 2×2 system for each pair i < j, which is
    diagonal in Ω ± Γ: (Γ + Ω)(d_i − d_j) = −(B_ij + B_ji) and (Γ − Ω)(d_i + d_j) = −(B_ij − B_ji).
    (Undamped and inside the span, these are the corrections of Uchino et al. 2023, after Ogita &
    Aishima 2020.) Outside the span of U the same argument gives XV diag(d)⁻¹, a step of subspace
    iteration. The damping μ > 0 turns each 1/a into a/(a² + μ).
    """
    XV = target @ V
    B = U.mT @ XV
    d = B.diagonal(dim1=-2, dim2=-1)
    gap, total = d[..., :, None] - d[..., None, :], d[..., :, None] + d[..., None, :]
    symmetric = -(B + B.mT) * gap / (gap.square() + damping)  # Γ + Ω
    antisymmetric = -(B - B.mT) * total / (total.square() + damping)  # Γ − Ω
    stretch = d[..., None, :] / (d[..., None, :].square() + damping)
    new_U = signed_qr(U + U @ (symmetric - antisymmetric) / 2 + (XV - U @ B) * stretch)
    # Outside its span V follows the new U: two steps at once would swap U and V.
    XtU = target.mT @ new_U
    outside = XtU - V @ (V.mT @ XtU)
    return new_U, signed_qr(V + V @ (symmetric + antisymmetric) / 2 + outside * stretch)


def project(X: Tensor, U: Tensor, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The best diagonal for given U and V, the error that it leaves, and ‖XV‖² − ‖diagonal‖²."""
    XV = X @ V
    diagonal = (U * XV).sum(0)
    error = torch.linalg.matrix_norm(X - (U * diagonal) @ V.mT)
    return diagonal, error, (XV - U * diagonal).square().sum()


def checked_target(layer: FactorizationLayer, target: Tensor) -> Tensor:
    """``target`` on the layer's device, in its precision; float32 is widened, never the other way."""
    real_tensor(target, "target", least_dims=2)
    matching(target, "target", target.dtype, (len(layer.left), len(layer.right)))
    if target.dtype == torch.float64 and layer.middle.dtype == torch.float32:
        raise TypeError("target must be float32 for a float32 layer, not torch.float64")
    if not torch.isfinite(frobenius_norm(target)):
        raise ValueError("target must have a finite Frobenius norm in its precision")
    return target.detach().to(layer.middle)


def fit_of(records: list[tuple[Tensor, Tensor]], converged: bool) -> Fit:
    """From (relative error, S) before the first step and after each one. Raises DivergenceError."""
    history, singular_values = (torch.stack(column) for column in zip(*records, strict=True))
    first, last = float(history[0]), float(history[-1])
    if not math.isfinite(last) or last > 10 * max(1, first):
        raise DivergenceError(f"training diverged: the error went from {first:.3g} to {last:.3g}")
    return Fit(last, history, singular_values, converged)
