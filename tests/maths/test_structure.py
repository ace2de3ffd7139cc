"""Diagnostics against numpy and scipy, on matrices whose structure is known, and against chance."""

import numpy as np
import pytest
import scipy.fft
import scipy.linalg
import scipy.optimize
import scipy.stats
import torch

from helpers import maths
from helpers.data import cases
from helpers.maths import (
    Reading,
    bandwidth,
    circulant_distance,
    diagnose,
    flatness,
    hartley,
    low_rank_distance,
    row_stochastic_distance,
    signed_qr,
    sinusoid_overlap,
    sinusoidal_rows,
    sinusoidal_vectors,
    spectrum,
    toeplitz_distance,
)

F64 = torch.float64


def gaussian(*shape, seed=0):
    return maths.gaussian(*shape, seed=seed, stream="matrices under test")


def orthonormal(rows, columns, seed=0):
    return signed_qr(gaussian(rows, columns, seed=seed))


def tensor(array):
    return torch.tensor(np.array(array, dtype=float, order="C"))


MEASURES = {
    "low_rank": lambda A: low_rank_distance(A, max(1, A.shape[-1] // 8)),
    "toeplitz": toeplitz_distance,
    "circulant": circulant_distance,
    "bandwidth": bandwidth,
    "row_stochastic": row_stochastic_distance,
    "flatness": flatness,
    "sinusoidal_vectors": lambda A: sinusoidal_vectors(A, spectrum(A).singular_values),
    "sinusoidal_rows": sinusoidal_rows,
}
HIGH = {"flatness", "sinusoidal_vectors", "sinusoidal_rows"}  # where structure is a high value
SCALE_FREE = sorted(MEASURES.keys() - {"row_stochastic"})


# Each diagnostic once more, in numpy and scipy


def relative_distance(A, nearest):
    return np.linalg.norm(A - nearest) / np.linalg.norm(A)


def low_rank_by_truncation(A):
    U, S, Vh = np.linalg.svd(A)
    r = max(1, len(A) // 8)
    return relative_distance(A, U[:, :r] * S[:r] @ Vh[:r])


def toeplitz_by_diagonals(A):
    n = len(A)
    means = [np.diagonal(A, offset).mean() for offset in range(1 - n, n)]
    return relative_distance(A, scipy.linalg.toeplitz(means[n - 1 :: -1], means[n - 1 :]))


def circulant_by_diagonals(A):
    n = len(A)
    column = [np.mean([A[(j + shift) % n, j] for j in range(n)]) for shift in range(n)]
    return relative_distance(A, scipy.linalg.circulant(column))


def test_the_circulant_distance_is_what_the_fourier_basis_leaves_off_the_diagonal():
    A = gaussian(7, 7).numpy()
    F = scipy.linalg.dft(7, scale="sqrtn")
    energy = np.abs(F @ A @ F.conj().T) ** 2
    share = 1 - np.trace(energy) / energy.sum()
    assert float(circulant_distance(tensor(A))) == pytest.approx(share**0.5, abs=1e-12)
    # A Fourier transform is not diagonal in its own basis, nor a convolution.
    assert circulant_distance(hartley(8)) > 0.9


def bandwidth_by_trying(A):
    return next(
        b for b in range(len(A)) if np.sum(np.triu(np.tril(A, b), -b) ** 2) >= 0.99 * np.sum(A**2)
    )


def row_stochastic_by_bisection(A):
    nearest = []
    for row in A:
        surplus = lambda theta, row=row: np.maximum(row - theta, 0).sum() - 1  # noqa: E731
        theta = scipy.optimize.brentq(surplus, row.min() - 1, row.max(), xtol=1e-14)
        nearest.append(np.maximum(row - theta, 0))
    return relative_distance(A, np.array(nearest))


def flatness_by_moments(A):
    energy = np.linalg.svd(A, compute_uv=False) ** 2
    return energy.mean() ** 2 / np.mean(energy**2)


def waves(n):
    """(cos 2πft, sin 2πft) for each frequency, with t from 0, not orthogonal."""
    frequencies = [k / (4 * m) for m in (n, n + 1) for k in range(2 * m + 1)]
    t = np.arange(n)
    return [
        np.stack([np.cos(2 * np.pi * f * t), np.sin(2 * np.pi * f * t)], 1) for f in frequencies
    ]


def share_of(wave, vector):
    fit = wave @ np.linalg.lstsq(wave, vector, rcond=1e-9)[0]
    return fit @ fit / (vector @ vector)


def sinusoidal_rows_by_fits(A):
    shares = [max(share_of(wave, row) for wave in waves(len(A))) for row in A]
    return np.average(shares, weights=(A**2).sum(1))


def sinusoidal_vectors_by_fits(A):
    U, S, Vh = np.linalg.svd(A)
    shares = [
        np.mean([max(share_of(wave, v) for wave in waves(len(A))) for v in pair])
        for pair in zip(U.T, Vh, strict=True)
    ]
    return np.average(shares, weights=S**2)


DEFINITIONS = {
    "low_rank": low_rank_by_truncation,
    "toeplitz": toeplitz_by_diagonals,
    "circulant": circulant_by_diagonals,
    "bandwidth": bandwidth_by_trying,
    "row_stochastic": row_stochastic_by_bisection,
    "flatness": flatness_by_moments,
    "sinusoidal_vectors": sinusoidal_vectors_by_fits,
    "sinusoidal_rows": sinusoidal_rows_by_fits,
}


@pytest.mark.parametrize("n", [4, 5, 33])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_values_are_those_of_numpy_and_scipy(name, n):
    decaying = gaussian(n, n) * torch.exp(-(torch.arange(n) - torch.arange(n)[:, None]).abs())
    for matrix in (gaussian(n, n, seed=1), decaying.triu() + 0.2):
        expected = DEFINITIONS[name](matrix.numpy())
        assert float(MEASURES[name](matrix)) == pytest.approx(expected, abs=1e-10)


def test_bandwidth_at_exactly_99_percent():
    matrix = 0.1 * torch.eye(100, dtype=F64)  # energy 1 on the diagonal
    matrix[0, 5] = (1 / 99) ** 0.5  # and 1/99 at distance 5
    assert bandwidth(matrix) == 0
    matrix[0, 5] *= 1.001
    assert bandwidth(matrix) == 5


@pytest.mark.parametrize("name", MEASURES)
def test_a_batch_is_measured_one_by_one(name):
    matrices = gaussian(2, 3, 6, 6)
    measure = MEASURES[name]
    if name == "sinusoidal_vectors":  # its batch is of nulls, which share the weights

        def measure(A):
            return sinusoidal_vectors(A, torch.arange(6, 0, -1, dtype=F64))

    single = torch.stack([measure(matrix) for matrix in matrices.flatten(0, 1)])
    torch.testing.assert_close(measure(matrices).flatten(), single, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", SCALE_FREE)
@pytest.mark.parametrize(
    ("dtype", "scales"),
    [(F64, (-1.0, 1e-300, 1e-170, 1e160, 1e306)), (torch.float32, (-1.0, 1e-35, 1e20, 1e36))],
)
def test_scale_does_not_matter(name, dtype, scales):
    matrix = gaussian(8, 8).to(dtype)
    for scale in scales:
        found = MEASURES[name](scale * matrix)
        torch.testing.assert_close(found, MEASURES[name](matrix), msg=f"{scale}")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(MEASURES[name](matrix), found)


def test_scale_matters_to_row_stochastic():
    weights = torch.softmax(gaussian(8, 8), dim=-1)
    assert row_stochastic_distance(weights) < 1e-15
    # Of a large matrix the simplex is a point near 0; a small one is near it by far less than its size.
    assert float(row_stochastic_distance(1e307 * torch.eye(8, dtype=F64))) == pytest.approx(1)
    far = 1e300 / float(weights.norm())  # every row is projected on (1/8, …, 1/8)
    assert float(row_stochastic_distance(1e-300 * weights)) == pytest.approx(far)


@pytest.mark.parametrize("name", MEASURES)
def test_float32_stays_float32(name):
    matrix = gaussian(8, 8).float()
    value = MEASURES[name](matrix)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(MEASURES[name](matrix.double())), abs=1e-5)


def test_large_gaussian_matrices_are_half_flat():
    assert float(flatness(gaussian(300, 300))) == pytest.approx(0.5, abs=0.01)


# Known matrices: what is exactly there, what is there in part, and what isn't there


def blocks(n, random):
    block = random.normal(size=(2 * n, 4, 4))
    return np.block([[block[i - j + n] for j in range(n // 4)] for i in range(n // 4)])


def doubly_stochastic(n, random):
    A = np.exp(random.normal(size=(n, n)))
    for _ in range(300):
        A /= A.sum(0)
        A /= A.sum(1, keepdims=True)
    return A


def symmetric_circulant(n, random):
    column = random.normal(size=n)
    return scipy.linalg.circulant(column + np.roll(column[::-1], 1))


def transform(kind, type_):
    return lambda n, random: kind(np.eye(n), type=type_, norm="ortho", axis=0)


CIRCULANT = {"toeplitz": 0, "circulant": 0}
ORTHOGONAL = {"flatness": 1, "sinusoidal_vectors": 1}
WAVES = {**ORTHOGONAL, "sinusoidal_rows": 1}
# name → (matrix of n and a numpy generator, exact values, diagnostics with no claim for this matrix)
KNOWN = {
    "Gaussian": (lambda n, random: random.normal(size=(n, n)), {}, ""),
    "identity": (
        lambda n, random: np.eye(n),
        {**CIRCULANT, **ORTHOGONAL, "bandwidth": 0, "row_stochastic": 0},
        "",
    ),
    "cyclic shift": (
        lambda n, random: np.roll(np.eye(n), 1, axis=0),
        {**CIRCULANT, **ORTHOGONAL, "row_stochastic": 0},
        "",
    ),
    "permutation": (
        lambda n, random: np.eye(n)[random.permutation(n)],
        {**ORTHOGONAL, "row_stochastic": 0},
        "",
    ),
    "circulant": (
        lambda n, random: scipy.linalg.circulant(random.normal(size=n)),
        {**CIRCULANT, "sinusoidal_vectors": 1},
        "row_stochastic flatness low_rank sinusoidal_rows",
    ),
    "symmetric circulant": (
        symmetric_circulant,
        {**CIRCULANT, "sinusoidal_vectors": 1},
        "row_stochastic flatness low_rank sinusoidal_rows bandwidth",
    ),
    "Toeplitz": (
        lambda n, random: scipy.linalg.toeplitz(random.normal(size=n), random.normal(size=n)),
        {"toeplitz": 0},
        "circulant row_stochastic flatness sinusoidal_vectors low_rank",
    ),
    "tridiagonal Toeplitz": (
        lambda n, random: scipy.linalg.toeplitz([2.0, -1.0] + [0.0] * (n - 2)),
        {"toeplitz": 0, "bandwidth": 1, "sinusoidal_vectors": 1},
        "circulant row_stochastic",
    ),
    "triangle of ones": (
        lambda n, random: np.triu(np.ones((n, n))),
        {"toeplitz": 0},
        "low_rank circulant sinusoidal_vectors sinusoidal_rows",
    ),
    "Hankel": (
        lambda n, random: scipy.linalg.hankel(random.normal(size=n), random.normal(size=n)),
        {},
        "sinusoidal_vectors flatness row_stochastic",
    ),
    "block-Toeplitz": (
        # Each diagonal repeats every fourth entry: in part it is Toeplitz.
        lambda n, random: blocks(n - n % 4, random),
        {},
        "toeplitz circulant sinusoidal_vectors flatness",
    ),
    "banded": (
        lambda n, random: np.triu(np.tril(random.normal(size=(n, n)), 1), -1),
        {"bandwidth": 1},
        "",
    ),
    "diagonal": (lambda n, random: np.diag(random.normal(size=n)), {"bandwidth": 0}, ""),
    "upper triangular": (lambda n, random: np.triu(random.normal(size=(n, n))), {}, "low_rank"),
    "Hadamard": (
        # Rows are square waves, which a sinusoid holds by about 8/π².
        lambda n, random: scipy.linalg.hadamard(1 << (n.bit_length() - 1)),
        ORTHOGONAL,
        "sinusoidal_rows",
    ),
    "DCT-I": (transform(scipy.fft.dct, 1), ORTHOGONAL, "sinusoidal_rows bandwidth"),
    "DCT-II": (transform(scipy.fft.dct, 2), WAVES, "bandwidth"),
    "DCT-III": (transform(scipy.fft.dct, 3), ORTHOGONAL, "sinusoidal_rows bandwidth"),
    "DCT-IV": (transform(scipy.fft.dct, 4), WAVES, "bandwidth"),
    "DST-I": (transform(scipy.fft.dst, 1), WAVES, "bandwidth"),
    "DST-II": (transform(scipy.fft.dst, 2), WAVES, "bandwidth"),
    "DST-III": (transform(scipy.fft.dst, 3), ORTHOGONAL, "sinusoidal_rows bandwidth"),
    "DST-IV": (transform(scipy.fft.dst, 4), WAVES, "bandwidth"),
    "Hartley": (lambda n, random: hartley(n).numpy(), WAVES, "bandwidth"),
    "orthogonal": (
        lambda n, random: scipy.stats.ortho_group.rvs(n, random_state=random),
        ORTHOGONAL,
        "",
    ),
    "doubly stochastic": (
        doubly_stochastic,
        {"row_stochastic": 0},
        "sinusoidal_vectors sinusoidal_rows",  # near the constant matrix, which is a sinusoid
    ),
    "row-stochastic softmax": (
        lambda n, random: scipy.special.softmax(2 * random.normal(size=(n, n)), axis=1),
        {"row_stochastic": 0},
        "",
    ),
    "low rank": (
        lambda n, random: random.normal(size=(n, n // 8)) @ random.normal(size=(n // 8, n)),
        {"low_rank": 0},
        "",
    ),
    "rank one": (
        lambda n, random: np.outer(*random.normal(size=(2, n))),
        {"low_rank": 0},
        "",
    ),
}


def known(name, n, seed=0):
    return tensor(KNOWN[name][0](n, np.random.default_rng(seed)))


@pytest.mark.parametrize("n", [8, 33])
@pytest.mark.parametrize("name", KNOWN)
def test_values_of_known_matrices(name, n):
    matrix = known(name, n)
    _, exact, no_claim = KNOWN[name]
    for diagnostic, measure in MEASURES.items():
        value = float(measure(matrix))
        if diagnostic in exact:
            assert value == pytest.approx(exact[diagnostic], abs=1e-9), diagnostic
        elif diagnostic == "bandwidth":
            assert value > n / 4
        elif diagnostic not in no_claim.split():
            assert value < 0.97 if diagnostic in HIGH else value > 0.2, diagnostic


@pytest.mark.parametrize("name", KNOWN)
def test_structure_is_beyond_chance_only_where_it_is(name):
    _, exact, no_claim = KNOWN[name]
    found = [diagnose(known(name, 12, seed), draws=59, seed=seed) for seed in range(5)]
    for diagnostic in MEASURES:
        p = sorted(readings[diagnostic].p for readings in found)
        if diagnostic == "sinusoidal_vectors" and exact.get("flatness") == 1:
            # All σ are equal: the vectors may be chosen freely, so they tell nothing.
            assert p == [1.0] * 5
        elif diagnostic in exact:
            assert p[-1] <= 0.05, diagnostic
        elif diagnostic not in no_claim.split():
            assert p[2] >= 0.05, diagnostic


def test_gaussian_matrices_are_chance():
    runs = [diagnose(gaussian(8, 8, seed=s), draws=59, seed=s) for s in range(30)]
    shares = []
    for name in MEASURES.keys() - {"bandwidth"}:  # bandwidth has ties
        readings = [run[name] for run in runs]
        shares.append(np.mean([reading.p <= 0.05 for reading in readings]))
        for null in readings[0].nulls:
            alone = [Reading(r.value, {null: r.nulls[null]}, r.structured).p for r in readings]
            assert scipy.stats.kstest(alone, "uniform").pvalue > 0.001, (name, null)
    assert np.mean(shares) <= 0.1
    assert np.mean([run["bandwidth"].p <= 0.05 for run in runs]) <= 0.1


# What diagnose makes of one matrix


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e307])
def test_diagnose_hands_out_every_diagnostic_with_its_nulls(scale):
    matrix = gaussian(16, 16)
    readings = diagnose(scale * matrix, draws=7)
    assert list(readings) == list(MEASURES)
    for name, reading in readings.items():
        scaled = matrix if name in SCALE_FREE else scale * matrix
        assert reading.value == pytest.approx(float(MEASURES[name](scaled)), rel=1e-9)
        assert reading.structured == ("high" if name in HIGH else "low")
        moved = name not in {"low_rank", "row_stochastic", "flatness"}
        assert list(reading.nulls) == ["permuted" if moved else "shuffled", "Gaussian"]
        for null in reading.nulls.values():
            assert null.shape == (7,)
            assert null.isfinite().all()


def test_permuted_nulls_move_rows_and_columns_independently():
    one = torch.zeros(8, 8, dtype=F64)
    one[2, 2] = 1
    # A single entry lands anywhere: |i − j| has the mean (n² − 1)/(3n), and is 0 for 1 in n.
    distances = diagnose(one, draws=2000)["bandwidth"].nulls["permuted"]
    assert float(distances.mean()) == pytest.approx(63 / 24, abs=0.15)
    assert float((distances == 0).double().mean()) == pytest.approx(1 / 8, abs=0.03)


def test_shuffled_nulls_keep_the_entries_and_nothing_else():
    # One entry has rank one wherever it is, and two have it if they share a row or a column.
    one, two = torch.zeros(2, 4, 4, dtype=F64)
    one[0, 0] = two[0, 0] = two[0, 1] = 1
    assert diagnose(one, rank=1, draws=50)["low_rank"].nulls["shuffled"].max() < 1e-12
    apart = diagnose(two, rank=1, draws=2000)["low_rank"].nulls["shuffled"] > 0.1
    assert float(apart.double().mean()) == pytest.approx(9 / 15, abs=0.04)


def test_gaussian_nulls_have_the_norm_of_the_matrix():
    # Far below the scale of a stochastic matrix P all rows are 1/n nearly, and ‖A − P‖ is 1.
    tiny = 1e-6 * gaussian(8, 8)
    nulls = diagnose(tiny, draws=20)["row_stochastic"].nulls["Gaussian"]
    expected = 1 / torch.linalg.matrix_norm(tiny).expand(20)
    torch.testing.assert_close(nulls, expected, rtol=1e-3, atol=0)


def test_nulls_follow_the_seed_alone_and_a_matrix_is_not_among_its_own():
    matrix, state = cases.random_operator(8, seed=1).operator, torch.get_rng_state()
    first, again, other = (diagnose(matrix, draws=5, seed=seed)["toeplitz"] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for null, values in first.nulls.items():
        torch.testing.assert_close(values, again.nulls[null], atol=1e-12, rtol=0)
        assert (values - other.nulls[null]).abs().min() > 1e-9
        assert (values - first.value).abs().min() > 1e-9


# Readings by hand

NULL = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=F64)


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (0.0, 1 / 5, 1.0),
        (0.2 - 1e-15, 3 / 5, 4 / 5),  # ties within rounding count
        (0.2 + 1e-15, 3 / 5, 4 / 5),
        (0.25, 3 / 5, 3 / 5),
        (0.5, 1.0, 1 / 5),
    ],
)
def test_p_counts_the_nulls_at_least_as_structured(value, low, high):
    for structured, expected in (("low", low), ("high", high)):
        assert Reading(value, {"permuted": NULL}, structured).p == pytest.approx(expected)
        # The null that explains the value best is the one that counts.
        unlike = NULL + (1 if structured == "low" else -1)
        both = Reading(value, {"permuted": NULL, "Gaussian": unlike}, structured)
        assert both.p == pytest.approx(expected)


def test_z_by_hand():
    reading = Reading(-0.05, {"permuted": NULL, "Gaussian": NULL + 1}, "low")
    deviation = (0.05 / 3) ** 0.5  # of a sample: squares over draws − 1
    assert reading.z_scores["permuted"] == pytest.approx(-0.3 / deviation)
    assert reading.z_scores["Gaussian"] == pytest.approx(-1.3 / deviation)
    assert reading.z == reading.z_scores["permuted"]
    assert Reading(0.55, {"Gaussian": NULL}, "high").z == pytest.approx(0.3 / deviation)


def test_a_null_without_spread():
    same = torch.full((5,), 0.3, dtype=F64)
    tie, below = (Reading(value, {"permuted": same}, "low") for value in (0.3, 0.2))
    assert (tie.z, tie.p) == (0, 1)
    assert -float("inf") < below.z < -1e6
    assert below.p == pytest.approx(1 / 6)


# Sinusoids


def overlap_by_search(basis):
    """One vector after the other, each time in an orthonormal basis of what is left."""
    shares = []
    while basis.shape[1]:
        fits = [
            np.linalg.svd(scipy.linalg.orth(wave, 1e-9).T @ basis) for wave in waves(len(basis))
        ]
        _, S, Vh = max(fits, key=lambda fit: fit[1][0])
        shares.append(S[0] ** 2)
        basis = basis @ Vh[1:].T
    return np.mean(shares)


@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 3), (12, 2), (12, 4)])
def test_overlap_of_a_subspace_by_its_definition_and_in_every_basis(n, k):
    basis = orthonormal(n, k)
    overlap = sinusoid_overlap(basis)
    assert float(overlap) == pytest.approx(overlap_by_search(basis.numpy()), abs=1e-10)
    turned = basis @ orthonormal(k, k, seed=1)
    torch.testing.assert_close(sinusoid_overlap(turned), overlap, atol=1e-10, rtol=0)


@pytest.mark.parametrize("n", [8, 15])
@pytest.mark.parametrize("name", ["DCT-II", "DCT-IV", "DST-I", "DST-II", "DST-IV", "Hartley"])
def test_rows_of_a_transform_are_sinusoids(name, n):
    overlaps = sinusoid_overlap(known(name, n)[..., None])
    torch.testing.assert_close(overlaps, torch.ones(n, dtype=F64), atol=1e-12, rtol=0)


def test_pairs_of_the_dft_and_all_waves_but_the_constant_are_sinusoids():
    t = torch.arange(15, dtype=F64)
    for k in range(1, 8):
        angles = 2 * torch.pi * k * t / 15
        pair = torch.stack([angles.cos(), angles.sin()], 1) * (2 / 15) ** 0.5
        assert float(sinusoid_overlap(pair @ orthonormal(2, 2))) == pytest.approx(1, abs=1e-12)
    # Every frequency has one direction in a subspace of dimension n − 1, but few have two.
    waves = known("DCT-II", 8).T[:, 1:] @ orthonormal(7, 7)
    assert float(sinusoid_overlap(waves)) == pytest.approx(1, abs=1e-10)
    assert sinusoid_overlap(orthonormal(6, 6)) == 1


def test_sinusoids_between_the_frequencies_are_nearly_found_and_others_not():
    t, frequencies = torch.arange(16, dtype=F64), torch.linspace(0, 0.5, 101, dtype=F64)
    waves = torch.cos(2 * torch.pi * frequencies[:, None] * t + 1.0)
    assert sinusoid_overlap(torch.nn.functional.normalize(waves, dim=-1)[..., None]).min() > 0.97
    square = torch.where(torch.arange(64) % 16 < 8, 1.0, -1.0).double()[:, None] / 8
    # A square wave of long period holds 8/π² of its energy in its first harmonic.
    expected = 8 / (16 * np.sin(np.pi / 16)) ** 2
    assert float(sinusoid_overlap(square)) == pytest.approx(expected, abs=0.01)
    assert float(sinusoid_overlap(torch.eye(64, dtype=F64)[:, :1])) < 0.1


@pytest.mark.parametrize("noise", [0, 1e-7])
def test_frequencies_with_one_singular_value(noise):
    eigenvalues = [0.5, 3.0, 2.0, -3.0, 1.5, 1.0, 0.7, 0.3, 0.1]  # ±3 for two pairs
    matrix = tensor(scipy.linalg.circulant(np.fft.irfft(eigenvalues, 16)))
    for seed in range(5):
        # Noise far below σ₁ turns the four vectors at will.
        noisy = matrix + 3 * noise * orthonormal(16, 16, seed=seed)
        value = float(MEASURES["sinusoidal_vectors"](noisy))
        assert value == pytest.approx(1, abs=10 * noise + 1e-10)
    if noise:
        U = torch.linalg.svd(noisy).U[:, :4]
        assert np.mean([float(sinusoid_overlap(u[:, None])) for u in U.T]) < 0.95
