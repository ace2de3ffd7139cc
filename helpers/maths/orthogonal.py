"""Maps from an unconstrained matrix to one with orthonormal columns, for gradient descent.

Each takes ``raw`` of shape (…, m, r) with r ≤ m and returns Q of the same shape with QᵀQ = I,
differentiable in ``raw``. The Cayley map needs a square ``raw``; fewer columns are cut from its result.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

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


MAPS: dict[str, Map] = {
    "qr": lapack_qr,
    "signed qr": signed_qr,
    "cayley": cayley,
}
