"""Classes of operators on the tokens, one structure each, fitted to pairs: which of them explains the pairs?

Samples are (samples, n, width): each holds ``width`` vectors of length n as columns. A fixed operator T
maps every sample X to TX; attention maps it to softmax(XWXᵀ)X.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import scipy.fft
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from helpers.maths import hartley, real_tensor

Samples = Float[Tensor, "samples n width"]
Columns = Float64[Tensor, "n pairs"]
Operator = Float64[Tensor, "n n"]
QueryKey = Float64[Tensor, "width width"]


class Explained(NamedTuple):
    """What a class makes of the pairs."""

    parameters: int
    """Free parameters of the member that was chosen."""
    error: float
    """Its relative Frobenius error on pairs that served neither to fit nor to choose."""


def explain(
    inputs: Samples, outputs: Samples, clean: Samples | None = None
) -> dict[str, Explained]:
    """For each class of :func:`members` its best size, and that member's error on held-out pairs.

    The first quarter of the samples fits the members, the second chooses a size for each class, the
    other half gives the errors: against ``clean``, the outputs without noise, where they are known.

    Raises ValueError for fewer than four samples, and what :func:`members` raises.
    """
    (inputs, outputs), wanted = _pairs(inputs, outputs), outputs if clean is None else clean
    quarter, found = len(inputs) // 4, {}
    if not quarter:
        raise ValueError(f"inputs must have four samples or more, not {len(inputs)}")
    second, rest = slice(quarter, 2 * quarter), slice(2 * quarter, None)
    for name, sizes in members(inputs[:quarter], outputs[:quarter]).items():
        errors = {p: relative_error(f(inputs[second]), outputs[second]) for p, f in sizes.items()}
        best = min(errors, key=errors.__getitem__)
        found[name] = Explained(best, relative_error(sizes[best](inputs[rest]), wanted[rest]))
    return found


def members(
    inputs: Samples, outputs: Samples
) -> dict[str, dict[int, Callable[[Samples], Samples]]]:
    """Class → free parameters → the map of that class and size with the least squared error on the pairs.

    low rank: T of rank r, r(2n − r) parameters. Toeplitz: a zero-padded convolution with 2b + 1 taps.
    circulant: the same on a circle; these are the T that are diagonal *in* the Fourier basis. transform:
    diag(g)B with B the Hartley, the cosine (DCT-II) or the sine transform (DST-I). attention: W of
    rank h, h(2·width − h) parameters; W is fitted freely, then cut. dense: any T. All but dense have at
    most n²/4 parameters.

    Time and memory grow like n⁴ and width⁴: for n up to 100 or so and width up to 16. Raises
    TypeError or ValueError for tensors that are not real and finite, differ in shape, or have n < 8.
    """
    inputs, outputs = _pairs(inputs, outputs)
    n, width = inputs.shape[1:]
    X, Y = (samples.transpose(0, 1).flatten(1) for samples in (inputs, outputs))
    eye = torch.eye(n, dtype=X.dtype)
    shifts = torch.stack([eye.roll(lag, 0) for lag in range(n)])  # by −1 at place −1
    diagonals = torch.cat([shifts.tril(), shifts[1:].triu()])  # 0 … n − 1, then 1 − n … −1
    doubling = [2**i for i in range(n.bit_length())]
    near = {2 * b + 1: [*range(-b, b + 1)] for b in [0, *doubling] if 2 * b < n}
    far = {2 * b + 1: [*range(-b, b + 1)] for b in [*doubling, n - 1] if n <= 2 * b < 2 * n}
    kinds = [hartley(n), *(torch.from_numpy(f(eye.numpy(), axis=0)) for f in (_dct, _dst))]
    gains = [((B @ X) * Y).sum(1, True) / (B @ X).square().sum(1, True) for B in kinds]
    transforms = [gain * B for gain, B in zip(gains, kinds, strict=True)]
    operators = {
        "low rank": {r * (2 * n - r): fit_low_rank(r, X, Y) for r in range(1, n // 8 + 1)},
        "Toeplitz": {p: fit_span(diagonals[lags], X, Y) for p, lags in (near | far).items()},
        "circulant": {p: fit_span(shifts[lags], X, Y) for p, lags in near.items()}
        | {n: fit_span(shifts, X, Y)},
        "transform": {n: min(transforms, key=lambda T: float((Y - T @ X).norm()))},
        "dense": {n * n: fit_low_rank(n, X, Y)},
    }
    found = {
        name: {p: partial(torch.matmul, T) for p, T in sizes.items()}
        for name, sizes in operators.items()
    }
    U, S, Vh = torch.linalg.svd(fit_query_key(inputs, outputs))
    ranks = [h for h in doubling if h <= width and h * (2 * width - h) <= n * n / 4]
    cut = {h * (2 * width - h): (U[:, :h] * S[:h]) @ Vh[:h] for h in ranks}
    return found | {"attention": {p: partial(attend, query_key=W) for p, W in cut.items()}}


def fit_span(basis: Float64[Tensor, "p n n"], X: Columns, Y: Columns) -> Operator:
    """The combination T = Σ_k c_k B_k of the basis with the least ‖Y − TX‖_F."""
    moved = (basis @ X).flatten(1).mT
    c = torch.linalg.lstsq(moved, Y.reshape(-1, 1), driver="gelsd").solution
    return (c[:, :, None] * basis).sum(0)


def fit_low_rank(rank: int, X: Columns, Y: Columns) -> Operator:
    """The T of rank at most ``rank`` with the least ‖Y − TX‖_F (Izenman 1975).

    That of least squares, projected on the leading left singular vectors of its predictions.
    """
    dense = torch.linalg.lstsq(X.mT, Y.mT, driver="gelsd").solution.mT
    U = torch.linalg.svd(dense @ X, full_matrices=False).U[:, :rank]
    return U @ (U.mT @ dense)


def attend(inputs: Samples, query_key: QueryKey) -> Samples:
    """softmax(XWXᵀ)X for each sample X."""
    return (inputs @ query_key @ inputs.mT).softmax(-1) @ inputs


def fit_query_key(inputs: Samples, outputs: Samples, steps: int = 6) -> QueryKey:
    """W of :func:`attend` by damped Gauss–Newton from W = 0; a step that raises the error isn't taken.

    With C_i the covariance of the tokens under the weights of row i, ∂y_i/∂W_μν = x_iμ C_i e_ν.
    """
    X, width, damping = inputs, inputs.shape[-1], 1e-2
    W, eye = X.new_zeros(width, width), torch.eye(width**2, dtype=X.dtype)
    for _ in range(steps):
        A = (X @ W @ X.mT).softmax(-1)
        Y = A @ X
        C = (A @ (X[..., :, None] * X[..., None, :]).flatten(-2)).unflatten(-1, (width, width))
        C = C - Y[..., :, None] * Y[..., None, :]
        J = (X[..., None, :, None] * C[..., :, None, :]).reshape(-1, width**2)
        H = J.mT @ J
        ridge = damping * H.diagonal().mean() + 1e-300
        step = torch.linalg.solve(H + ridge * eye, J.mT @ (outputs - Y).flatten()).view_as(W)
        better = (outputs - attend(X, W + step)).norm() < (outputs - Y).norm()
        W, damping = (W + step, damping / 4) if better else (W, damping * 4)
    return W


def relative_error(found: Samples, wanted: Samples) -> float:
    """‖found − wanted‖_F/‖wanted‖_F over all samples."""
    return float((found - wanted).norm() / wanted.norm())


def _pairs(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    real_tensor(inputs, "inputs", least_dims=3)
    real_tensor(outputs, "outputs", least_dims=3)
    if inputs.shape != outputs.shape or inputs.ndim != 3 or inputs.shape[1] < 8:
        shapes = f"{tuple(inputs.shape)} and {tuple(outputs.shape)}"
        raise ValueError(
            f"inputs and outputs must have one shape (samples, n ≥ 8, width), not {shapes}"
        )
    if not outputs.any():
        raise ValueError("outputs must not be all zero, or no class is better than another")
    return inputs.double(), outputs.double()


_dct = partial(scipy.fft.dct, norm="ortho")
_dst = partial(scipy.fft.dst, type=1, norm="ortho")
