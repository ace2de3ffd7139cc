"""Orthonormal columns from an unconstrained matrix, for gradient descent."""

import torch
from jaxtyping import Float
from torch import Tensor


def signed_qr(raw: Float[Tensor, "*batch m r"]) -> Float[Tensor, "*batch m r"]:
    """Q of the QR factorization whose R has a positive diagonal; r ≤ m.

    For a ``raw`` of full column rank there is just one, and it is smooth in ``raw``.

    Mezzadri 2007, section 5: of a Gaussian ``raw`` this Q is uniformly distributed, LAPACK's is not.
    """
    Q, R = torch.linalg.qr(raw)
    return Q * torch.where(R.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(Q.dtype)[..., None, :]
