"""Maps from an unconstrained matrix to one with orthonormal columns, for gradient descent.

Each takes ``raw`` of shape (…, m, r) with r ≤ m and returns Q of the same shape with QᵀQ = I,
differentiable in ``raw``. The Cayley map and the exponential need a square ``raw``.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.maths.checks import own_precision
from helpers.maths.spectrum import unit_scale

Map = Callable[[Float[Tensor, "*batch m r"]], Float[Tensor, "*batch m r"]]


def lapack_qr(raw: Float[Tensor, "*batch m r"]) -> Float[Tensor, "*batch m r"]:
    """Q of the QR factorization, with the signs that LAPACK happens to give it.

    Q is then a product of Householder reflections, so a square Q has a determinant of fixed sign.
    """
    return torch.linalg.qr(raw).Q


def signed_qr(raw: Float[Tensor, "*batch m r"]) -> Float[Tensor, "*batch m r"]:
    """Q of the QR factorization whose R has a positive diagonal.

    For a ``raw`` of full column rank there is just one, and it is smooth in ``raw``.

    Mezzadri 2007, section 5: of a Gaussian ``raw`` this Q is uniformly distributed, LAPACK's is not.
    """
    Q, R = torch.linalg.qr(raw)
    return Q * torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q.dtype)[..., None, :]


def cayley(raw: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """(I + A)⁻¹(I − A) with A = (raw − rawᵀ)/2: every rotation without the eigenvalue −1."""
    skew = (raw - raw.mT) / 2
    identity = torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)
    return torch.linalg.solve(identity + skew, identity - skew)


def matrix_exponential(raw: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """exp((raw − rawᵀ)/2): every rotation (Lezcano-Casado & Martínez-Rubio 2019)."""
    return torch.linalg.matrix_exp((raw - raw.mT) / 2)


@own_precision
def householder(raw: Float[Tensor, "*batch m r"]) -> Float[Tensor, "*batch m r"]:
    """First r columns of H₁H₂…H_r, H_k = I − 2vvᵀ/vᵀv with v column k of ``raw`` from its diagonal down.

    With r = m the determinant is always (−1)ᵐ.
    """
    V = raw.tril()
    V = V / unit_scale(V, dim=-2)  # a reflection depends on the direction of v only
    gram = V.mT @ V
    # H₁…H_r = I − VTVᵀ, where T⁻¹ holds the upper triangle of VᵀV with its diagonal halved.
    inverse_T = gram.triu(1) + torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1) / 2)
    top = V[..., : raw.shape[-1], :].mT
    identity = torch.eye(*raw.shape[-2:], dtype=raw.dtype, device=raw.device)
    return identity - V @ torch.linalg.solve_triangular(inverse_T, top, upper=True)


MAPS: dict[str, Map] = {
    "qr": lapack_qr,
    "signed qr": signed_qr,
    "cayley": cayley,
    "exponential": matrix_exponential,
    "householder": householder,
}
SQUARE = ("cayley", "exponential")
"""Maps that need a square ``raw``; fewer columns are cut from their result."""
