"""Rank measures on matrices whose answer is known on paper, and against numpy."""

import math

import numpy as np
import pytest
import torch

from helpers.maths import Spectrum, distance_to_rank_one, gaussian, spectrum, truncate

F64 = torch.float64
RANKS = {
    "effective_rank": lambda result: result.effective_rank,
    "stable_rank": lambda result: result.stable_rank,
    "participation_ratio": lambda result: result.participation_ratio,
    "energy_rank": lambda result: result.energy_rank(0.9),
    "nuclear_rank": lambda result: result.nuclear_rank(0.9),
    "numerical_rank": lambda result: result.numerical_rank(1.5),
}


def diagonal(*entries):
    return torch.diag(torch.tensor(entries, dtype=F64))


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (1, 4), (1, 6, 5), (2, 3, 6, 4)])
def test_singular_values_are_numpys_and_descend(shape):
    matrices = gaussian(*shape, seed=0)
    values = spectrum(matrices).singular_values
    expected = np.linalg.svd(matrices.numpy(), compute_uv=False)
    np.testing.assert_allclose(values, expected, atol=1e-12)
    assert (values.diff(dim=-1) <= 0).all()


@pytest.mark.parametrize("size", [1, 4, 9])
def test_every_measure_counts_equal_singular_values(size):
    result = spectrum(3.0 * torch.eye(size, dtype=F64))
    for name, rank in RANKS.items():
        assert float(rank(result)) == pytest.approx(size), name
    assert result.energy_rank(1.0) == result.nuclear_rank(1.0) == size


def test_measures_of_two_singular_values_by_hand():
    result = spectrum(diagonal(3, 1))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert result.effective_rank.item() == pytest.approx(math.exp(entropy))
    assert result.stable_rank.item() == pytest.approx(10 / 9)
    assert result.participation_ratio.item() == pytest.approx(100 / 82)
    assert (result.energy_rank(0.9), result.energy_rank(0.91)) == (1, 2)  # just nine tenths
    assert (result.nuclear_rank(0.75), result.nuclear_rank(0.76)) == (1, 2)
    assert (result.numerical_rank(1.001), result.numerical_rank(0.999)) == (1, 2)


def test_a_zero_matrix_has_rank_and_distance_zero():
    zero = torch.zeros(2, 4, 3, dtype=F64)
    for rank in RANKS.values():
        assert torch.equal(rank(spectrum(zero)).double(), torch.zeros(2, dtype=F64))
    assert torch.equal(distance_to_rank_one(zero), torch.zeros(2, dtype=F64))


@pytest.mark.parametrize("name", RANKS)
def test_a_batch_is_measured_one_by_one(name):
    matrices = gaussian(2, 3, 6, 5, seed=1)
    matrices[1, 2] = matrices[1, 2, :, :1] * matrices[1, 2, :1]  # of rank one, unlike the others
    single = torch.stack([RANKS[name](spectrum(matrix)) for matrix in matrices.flatten(0, 1)])
    measured = RANKS[name](spectrum(matrices))
    torch.testing.assert_close(measured.flatten(), single)
    assert single.unique().numel() > 1


# From the smallest scale to the largest that a number of the dtype can have without losing digits.
SCALES = [(F64, scale) for scale in (1e-300, 1e-170, 1e160, 1e307)] + [
    (torch.float32, scale) for scale in (1e-35, 1e-25, 1e20, 1e37)
]


@pytest.mark.parametrize(("dtype", "scale"), SCALES)
def test_relative_measures_are_the_same_at_every_scale(dtype, scale):
    matrix = gaussian(6, 6, seed=2).to(dtype)
    scaled = scale * matrix
    for name in RANKS.keys() - {"numerical_rank"}:
        one, other = (RANKS[name](spectrum(part)) for part in (matrix, scaled))
        torch.testing.assert_close(one, other, msg=name)
    torch.testing.assert_close(distance_to_rank_one(scaled), distance_to_rank_one(matrix))
    torch.testing.assert_close(truncate(scaled, 2) / scale, truncate(matrix, 2))


def test_a_spectrum_beyond_the_largest_number_still_has_its_ranks():
    result = spectrum(torch.full((64, 64), 1e308, dtype=F64))
    assert result.singular_values[0] == torch.inf
    assert result.effective_rank.item() == pytest.approx(1)
    assert result.energy_rank() == 1


def test_energy_rank_is_the_least_rank_within_ten_percent():
    matrix = gaussian(30, 20, seed=1)
    k = int(spectrum(matrix).energy_rank(0.99))
    errors = [torch.linalg.matrix_norm(matrix - truncate(matrix, r)) for r in (k - 1, k)]
    assert errors[0] > 0.1 * torch.linalg.matrix_norm(matrix) >= errors[1]


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_truncation_error_is_what_eckart_and_young_say(rank):
    matrices = gaussian(2, 7, 5, seed=3)
    tail = spectrum(matrices).singular_values[:, rank:]
    low_rank = truncate(matrices, rank)
    error = torch.linalg.matrix_norm(matrices - low_rank)
    torch.testing.assert_close(error, tail.norm(dim=-1), atol=1e-12, rtol=0)
    assert (torch.linalg.matrix_rank(low_rank) == rank).all()


@pytest.mark.parametrize("name", ["effective_rank", "stable_rank", "participation_ratio"])
def test_measures_are_differentiable_both_ways(name):
    def measure(matrices):
        return getattr(spectrum(matrices), name)

    matrices = gaussian(3, 4, 3, seed=7)
    assert torch.autograd.gradcheck(measure, matrices.clone().requires_grad_())
    direction = gaussian(3, 4, 3, seed=8)
    forward = torch.func.jvp(measure, (matrices,), (direction,))[1]
    gradient = torch.func.grad(lambda A: measure(A).sum())(matrices)
    torch.testing.assert_close(forward, (gradient * direction).sum((-2, -1)))


def test_distance_to_rank_one_is_numpys():
    tokens = gaussian(3, 6, 5, seed=9)
    residual = tokens.numpy() - tokens.numpy().mean(1, keepdims=True)
    expected = np.linalg.norm(residual, axis=(1, 2)) / np.linalg.norm(tokens, axis=(1, 2))
    np.testing.assert_allclose(distance_to_rank_one(tokens), expected, rtol=1e-12)
    assert distance_to_rank_one(tokens[0, :1].expand(4, 5)) < 1e-15


def test_float32_stays_float32_even_in_autocast():
    matrix = gaussian(8, 8, seed=10).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low_rank = truncate(matrix, 3)
        result = spectrum(matrix)
    assert torch.equal(low_rank, truncate(matrix, 3))
    assert isinstance(result, Spectrum)
    assert result.effective_rank.dtype == low_rank.dtype == torch.float32
