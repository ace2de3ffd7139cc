"""Which structure does a matrix have, and is it more than chance?

A diagnostic is one number, and it comes with a null. The number says how far a matrix is from a
structure. The null, the same number on matrices without the structure, says what chance gives.

The diagnostics take matrices of shape (…, n, n) and raise TypeError for anything but real floating
tensors, ValueError for matrices that are not square, not finite or empty. All but
``row_stochastic_distance`` are the same at every scale of the matrix; a zero matrix has distance 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from helpers.maths.checks import integer, own_precision, real_tensor, square_matrices
from helpers.maths.draws import Seed, gaussian, generator, orders
from helpers.maths.spectrum import divide, frobenius_norm, spectrum, unit_scale

Matrices = Float[Tensor, "*batch n n"]
Values = Float[Tensor, "*batch"]

BAND_ENERGY = 0.99
SAME_SIGMA = 1e-5
TIE = 1e-9
ROUNDING = 1e-12
ORDER_FREE = ("low_rank", "row_stochastic", "flatness")
"""Diagnostics that no order of rows and columns changes."""


@dataclass(frozen=True)
class Reading:
    """The value of a diagnostic, and its values on null matrices."""

    value: float
    nulls: Mapping[str, Float64[Tensor, "draws"]]
    """By the name of the null: "permuted", "shuffled" or "Gaussian"."""
    structured: str
    """Whether a "low" or a "high" value means structure."""

    @property
    def z_scores(self) -> dict[str, float]:
        """(value − mean)/(standard deviation) for each null, and 0 where all are the same number."""
        scores = {}
        for name, null in self.nulls.items():
            difference, deviation = self.value - float(null.mean()), float(null.std())
            same = abs(difference) < ROUNDING
            scores[name] = 0.0 if same else difference / max(deviation, ROUNDING)
        return scores

    @property
    def z(self) -> float:
        """The z-score that speaks least for structure, so against the null that explains it best."""
        weakest = {"low": max, "high": min}[self.structured]
        return weakest(self.z_scores.values())

    @property
    def p(self) -> float:
        """(1 + null values at least as structured)/(1 + draws), for the null where it is largest."""
        sign = {"low": 1, "high": -1}[self.structured]
        return max(
            (1 + int((sign * null <= sign * self.value + ROUNDING).sum())) / (1 + len(null))
            for null in self.nulls.values()
        )


def diagnose(
    matrix: Float[Tensor, "n n"],
    *,
    rank: int | None = None,
    draws: int = 199,
    seed: Seed = 0,
) -> dict[str, Reading]:
    """All diagnostics of one square matrix by name, in float64, each with its nulls.

    The nulls are ``draws`` matrices each: the matrix with its rows and, independently, its columns
    in random order ("permuted"), and Gaussian ones of the same norm ("Gaussian"). Where no such
    permutation changes the number, all entries are dealt out anew instead ("shuffled").

    low_rank: :func:`low_rank_distance` for ``rank``, by default n // 8 and at least 1.
    toeplitz, circulant, row_stochastic: :func:`toeplitz_distance` and so on.
    bandwidth, flatness, sinusoidal_rows: the functions of these names.
    sinusoidal_vectors: that function, where null vectors get the matrix's own singular values.

    Raises TypeError for anything but a real floating tensor; ValueError for a matrix that is not
    square, not finite, zero or smaller than 4×4, for ``rank`` outside 1 … n and for fewer than two
    draws.
    """
    square_matrices(matrix, "matrix")
    if matrix.ndim != 2 or len(matrix) < 4 or not matrix.any():
        shape = f"its shape is {tuple(matrix.shape)}"
        raise ValueError(f"matrix must be one matrix, at least 4×4 and not zero; {shape}")
    matrix = matrix.detach().double()
    n = len(matrix)
    rank = max(1, n // 8) if rank is None else integer(rank, "rank", least=1, most=n)
    draws, stream = integer(draws, "draws", least=2), generator(seed, "diagnose")
    rows, columns = orders(n, 2, draws, seed=stream).to(matrix.device)
    permuted = matrix[rows[:, :, None], columns[:, None, :]]
    places = orders(n * n, draws, seed=stream).to(matrix.device)
    shuffled = matrix.flatten()[places].unflatten(-1, (n, n))
    normal = gaussian(draws, n, n, seed=stream).to(matrix)
    size = frobenius_norm(matrix) / frobenius_norm(normal)
    normal = normal * size[:, None, None]
    sigma = spectrum(matrix).relative_values

    measures = {  # name → function, and the side on which there is structure
        "low_rank": (lambda A: low_rank_distance(A, rank), "low"),
        "toeplitz": (toeplitz_distance, "low"),
        "circulant": (circulant_distance, "low"),
        "bandwidth": (bandwidth, "low"),
        "row_stochastic": (row_stochastic_distance, "low"),
        "flatness": (flatness, "high"),
        "sinusoidal_vectors": (lambda A: sinusoidal_vectors(A, sigma), "high"),
        "sinusoidal_rows": (sinusoidal_rows, "high"),
    }
    readings = {}
    for name, (measure, structured) in measures.items():
        first = {"shuffled": shuffled} if name in ORDER_FREE else {"permuted": permuted}
        nulls = {null: measure(copies) for null, copies in {**first, "Gaussian": normal}.items()}
        readings[name] = Reading(float(measure(matrix)), nulls, structured)
    return readings


def low_rank_distance(matrices: Matrices, rank: int) -> Values:
    """‖A − A_r‖_F/‖A‖_F = √(Σ_{k>r}σ²/Σσ²), the distance to rank r (Eckart & Young 1936).

    Raises ValueError unless 1 ≤ ``rank`` ≤ n.
    """
    squares = spectrum(square_matrices(matrices, "matrices")).relative_values.square()
    rank = integer(rank, "rank", least=1, most=matrices.shape[-1])
    return divide(squares[..., rank:].sum(-1), squares.sum(-1)).sqrt()


def toeplitz_distance(matrices: Matrices) -> Values:
    """‖A − P(A)‖_F/‖A‖_F, where P replaces each diagonal i − j = const by its mean."""
    matrices = _scaled(matrices)
    labels = _lags(matrices) + matrices.shape[-1] - 1
    means = _sums(matrices, labels) / labels.flatten().bincount()
    return _distance(means[..., labels], matrices)


def circulant_distance(matrices: Matrices) -> Values:
    """‖A − P(A)‖_F/‖A‖_F, where P replaces each set i − j = const (mod n) by its mean.

    Its square is the share of ‖A‖_F² off the diagonal of F A Fᴴ, F the unitary DFT, since the
    circulant matrices are those for which F A Fᴴ is diagonal (Gray 2006, section 3.1). So "diagonal in
    the Fourier basis" is a test for convolutions on a circle, not for Fourier transforms.
    """
    moved = torch.fft.ifft(torch.fft.fft(_scaled(matrices), dim=-2), dim=-1)
    energy = moved.abs().square()
    outside = energy - torch.diag_embed(energy.diagonal(dim1=-2, dim2=-1))
    return divide(outside.sum((-2, -1)), energy.sum((-2, -1))).sqrt()


def bandwidth(matrices: Matrices) -> Values:
    """Smallest b such that the entries at most b places off the diagonal hold 99 % of ‖A‖_F²."""
    matrices = _scaled(matrices)
    held = _sums(matrices.square(), _lags(matrices).abs()).cumsum(-1)
    # A share of exactly 99 % may miss it by rounding.
    return (held < (BAND_ENERGY - ROUNDING) * held[..., -1:]).sum(-1).to(matrices)


def row_stochastic_distance(matrices: Matrices) -> Values:
    """‖A − P(A)‖_F/‖A‖_F, where P(A) is the nearest matrix with A_ij ≥ 0 and row sums 1.

    Each row is projected on the simplex: max(a − θ, 0) with the θ that makes the sum 1 (Duchi et
    al. 2008, Figure 1). Unlike the other distances, this one depends on the scale of A.
    """
    ordered = square_matrices(matrices, "matrices").sort(-1, descending=True).values
    counts = torch.arange(1, matrices.shape[-1] + 1, device=matrices.device)
    shifts = (ordered.cumsum(-1) - 1) / counts
    support = (ordered > shifts).sum(-1, keepdim=True).clamp(min=1)
    nearest = (matrices - shifts.gather(-1, support - 1)).clamp(min=0)
    return _distance(nearest, matrices)


def flatness(matrices: Matrices) -> Values:
    """Participation ratio of σ² over n: 1 if all σ are equal, 1/n for rank one, ½ for large Gaussian A."""
    matrices = square_matrices(matrices, "matrices")
    return spectrum(matrices).participation_ratio / matrices.shape[-1]


@own_precision
def sinusoidal_rows(matrices: Matrices) -> Values:
    """:func:`sinusoid_overlap` of the rows, in the mean weighted by their squared norms."""
    matrices = _scaled(matrices)
    held = _held_by_sinusoids(matrices.mT).amax(-2)
    return divide(held.sum(-1), matrices.square().sum((-2, -1)))


@own_precision
def sinusoidal_vectors(matrices: Matrices, singular_values: Float[Tensor, "n"]) -> Values:
    """:func:`sinusoid_overlap` of the left and right singular vectors, in the mean weighted by σ².

    ``singular_values`` are the σ, descending and not all 0, that weight the vectors and group them:
    where two σ differ by less than 1e-5 σ₁ their vectors are known up to a rotation only, and the
    subspace is measured.
    """
    U, _, Vh = torch.linalg.svd(_scaled(matrices))
    sigma = real_tensor(singular_values, "singular_values") / singular_values[0]
    weights = sigma.square()
    ends = [*((sigma[:-1] - sigma[1:] > SAME_SIGMA).nonzero().flatten() + 1).tolist(), len(sigma)]
    groups = [(i, j) for i, j in zip([0, *ends], ends, strict=False) if j - i > 1]
    means = []
    for side in (U, Vh.mT):
        shares = _held_by_sinusoids(side).amax(-2)
        for i, j in groups:
            if weights[i:j].sum() > TIE * weights.sum():
                shares[..., i:j] = sinusoid_overlap(side[..., i:j])[..., None]
        means.append((shares * weights).sum(-1) / weights.sum())
    return (means[0] + means[1]) / 2


@own_precision
def sinusoid_overlap(basis: Float[Tensor, "*batch n k"]) -> Values:
    """How nearly the span of k orthonormal columns is a span of sinusoids: 1 if it is.

    For one vector u it is max_f ‖P_f u‖², the largest share of its energy that a·cos(2πft) +
    b·sin(2πft) can hold, over frequencies 0 ≤ f ≤ ½. For a subspace the unit vector in it that is
    most nearly a sinusoid is taken out, then the next one, and the k shares are averaged. The
    choice is greedy, so the mean is a lower bound; it is the same for every orthonormal basis of the
    subspace. The frequencies are the multiples of 1/(4n) and 1/(4(n + 1)), those of the DFT, the
    DCT-II and the DST-I among them. Raises ValueError for columns that are not orthonormal.
    """
    gram = real_tensor(basis, "basis", least_dims=2).mT @ basis
    n, k = basis.shape[-2:]
    if (gram - torch.eye(k, dtype=gram.dtype, device=gram.device)).abs().max() > 1e-3:
        raise ValueError("basis must have orthonormal columns; torch.linalg.qr gives such a basis")
    if k == n:
        return torch.ones(basis.shape[:-2], dtype=basis.dtype, device=basis.device)
    parts, shares = torch.einsum("fns,...nk->...fsk", _sinusoids(n).to(basis), basis), []
    for _ in range(k):
        a, b, c = (
            (parts[..., i, :] * parts[..., j, :]).sum(-1) for i, j in ((0, 0), (0, 1), (1, 1))
        )
        # The larger eigenvalue of the 2×2 matrix ((a, b), (b, c)) of each frequency. Among equal
        # ones a frequency whose sine and cosine are both in the subspace spoils nothing for others.
        larger = (a + c) / 2 + torch.hypot((a - c) / 2, b)
        best = (larger + TIE * (a + c)).argmax(-1, keepdim=True)
        shares.append(larger.gather(-1, best)[..., 0])
        if k > 1:
            chosen = parts.take_along_dim(best[..., None, None], -3)[..., 0, :, :]
            angle = torch.atan2(2 * b, a - c).gather(-1, best) / 2  # of the larger eigenvector
            direction = angle.cos() * chosen[..., 0, :] + angle.sin() * chosen[..., 1, :]
            direction = torch.nn.functional.normalize(direction, dim=-1)[..., None, None, :]
            parts = parts - (parts * direction).sum(-1, keepdim=True) * direction
    return torch.stack(shares).mean(0)


def _scaled(matrices: Tensor) -> Tensor:
    """The square matrices of a diagnostic that doesn't depend on their scale."""
    return square_matrices(matrices, "matrices") / unit_scale(matrices)


def _distance(nearest: Tensor, matrices: Tensor) -> Tensor:
    """‖A − nearest‖_F/‖A‖_F of each matrix A of a batch."""
    return divide(frobenius_norm(matrices - nearest), frobenius_norm(matrices))


def _lags(matrices: Tensor) -> Int64[Tensor, "n n"]:
    """i − j."""
    index = torch.arange(matrices.shape[-1], device=matrices.device)
    return index[:, None] - index


def _sums(matrices: Tensor, labels: Int64[Tensor, "n n"]) -> Tensor:
    """The sum of the entries of each label 0, 1, … : (…, labels)."""
    sums = matrices.new_zeros(*matrices.shape[:-2], int(labels.max()) + 1)
    return sums.index_add(-1, labels.flatten(), matrices.flatten(-2))


def _held_by_sinusoids(vectors: Tensor) -> Tensor:
    """‖P_f v‖² for each frequency f and each column v: (…, frequencies, columns)."""
    cosine, sine = _sinusoids(vectors.shape[-2]).to(vectors).unbind(-1)
    return (cosine @ vectors).square() + (sine @ vectors).square()


def _sinusoids(n: int) -> Float64[Tensor, "frequencies n 2"]:
    """An orthonormal basis of span{cos 2πft, sin 2πft}, t = ½ … n − ½, for each frequency.

    At f = 0 and f = ½ one of the two vanishes.
    """
    steps = [torch.arange(2 * m + 1, dtype=torch.float64) / (4 * m) for m in (n, n + 1)]
    t = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
    angles = 2 * math.pi * torch.outer(torch.cat(steps), t)
    # About the middle of the interval cosine and sine are even and odd, so orthogonal already.
    planes = torch.stack([angles.cos(), angles.sin()], dim=-1)
    sizes = torch.linalg.vector_norm(planes, dim=-2, keepdim=True)
    return torch.where(sizes > 1e-9, planes / sizes.clamp(min=1e-9), 0)
