"""Rank measures against matrices whose answer is known on paper, and against numpy."""

import math

import numpy as np
import pytest
import torch

from helpers.maths import Spectrum, distance_to_rank_one, spectrum, truncate

F64 = torch.float64


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 4), (2, 3, 6, 4)])
def test_singular_values_are_numpys_and_descend(shape):
    matrices = gaussian(*shape)
    values = spectrum(matrices).singular_values
    assert values.shape == (*shape[:-2], min(shape[-2:]))
    np.testing.assert_allclose(
        values, np.linalg.svd(matrices.numpy(), compute_uv=False), atol=1e-12
    )
    assert (values.diff(dim=-1) <= 0).all()


@pytest.mark.parametrize("size", [1, 4, 9])
def test_every_measure_counts_equal_singular_values(size):
    result = spectrum(3.0 * torch.eye(size, dtype=F64))
    for measure in (result.effective_rank, result.stable_rank, result.participation_ratio):
        assert measure.item() == pytest.approx(size, abs=1e-12)
    assert result.energy_rank(1.0) == result.nuclear_rank(1.0) == result.numerical_rank(1.0) == size


def test_measures_of_two_singular_values_by_hand():
    result = spectrum(torch.diag(torch.tensor([3.0, 1.0], dtype=F64)))
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert result.effective_rank.item() == pytest.approx(math.exp(entropy), abs=1e-12)
    assert result.stable_rank.item() == pytest.approx(10 / 9, abs=1e-12)
    assert result.participation_ratio.item() == pytest.approx(100 / 82, abs=1e-12)
    assert result.energy_rank(0.9) == 1  # exactly nine tenths
    assert result.energy_rank(0.91) == 2
    assert result.nuclear_rank(0.75) == 1  # exactly three quarters
    assert result.nuclear_rank(0.76) == 2
    assert result.numerical_rank(1.0) == 1  # strictly above
    assert result.numerical_rank(0.999) == 2


def test_energy_rank_is_the_least_rank_within_ten_percent():
    matrix = gaussian(30, 20, seed=1)
    k = int(spectrum(matrix).energy_rank(0.99))
    relative = [
        torch.linalg.matrix_norm(matrix - truncate(matrix, r)) / torch.linalg.matrix_norm(matrix)
        for r in (k - 1, k)
    ]
    assert relative[0] > 0.1 >= relative[1]


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e150])
def test_relative_measures_ignore_scale(scale):
    matrix = gaussian(6, 6)
    one, other = spectrum(matrix), spectrum(scale * matrix)
    for name in ("effective_rank", "participation_ratio"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-9, atol=0)
    assert one.energy_rank() == other.energy_rank()


def test_stable_rank_ignores_scale_and_stays_below_the_rank():
    matrix = gaussian(8, 3) @ gaussian(3, 8, seed=1)
    for scale in (1e-200, 1.0, 1e150):
        value = spectrum(scale * matrix).stable_rank
        torch.testing.assert_close(value, spectrum(matrix).stable_rank, rtol=1e-9, atol=0)
        assert value < 3


def test_zero_matrix_has_rank_zero_by_every_measure():
    result = spectrum(torch.zeros(2, 4, 3, dtype=F64))
    for value in (
        result.effective_rank,
        result.stable_rank,
        result.participation_ratio,
        result.energy_rank(),
        result.nuclear_rank(),
        result.numerical_rank(1e-9),
    ):
        assert value.shape == (2,)
        assert (value == 0).all()


MEASURES = {
    "effective_rank": lambda result: result.effective_rank,
    "stable_rank": lambda result: result.stable_rank,
    "participation_ratio": lambda result: result.participation_ratio,
    "energy_rank": lambda result: result.energy_rank(0.9),
    "nuclear_rank": lambda result: result.nuclear_rank(0.9),
    "numerical_rank": lambda result: result.numerical_rank(1.5),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_batch_equals_one_by_one(measure):
    matrices = gaussian(2, 3, 6, 5)
    single = [measure(spectrum(matrix)) for matrix in matrices.flatten(0, 1)]
    torch.testing.assert_close(measure(spectrum(matrices)).flatten(), torch.stack(single))
    assert len({float(value) for value in single}) > 1


@pytest.mark.parametrize("batch", [(1,), (2,), (7,), (2, 3), (2, 3, 4)])
def test_a_batch_in_halves_has_the_numbers_of_the_whole(batch):
    matrices = gaussian(*batch, 40, 30)
    values = spectrum(matrices).singular_values
    assert torch.equal(values, torch.linalg.svdvals(matrices))
    torch.testing.assert_close(spectrum(matrices.requires_grad_()).singular_values, values)


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_truncation_error_is_what_the_theorem_says(rank):
    matrices = gaussian(2, 7, 5)
    sigma = spectrum(matrices).singular_values
    difference = matrices - truncate(matrices, rank)
    torch.testing.assert_close(
        torch.linalg.matrix_norm(difference), sigma[:, rank:].norm(dim=-1), atol=1e-12, rtol=0
    )
    assert (spectrum(truncate(matrices, rank)).numerical_rank(1e-10) == rank).all()


def test_distance_to_rank_one_at_both_ends():
    row = gaussian(1, 5)
    assert distance_to_rank_one(row.expand(4, 5)) < 1e-15
    centred = gaussian(6, 5)
    assert distance_to_rank_one(centred - centred.mean(0)).item() == pytest.approx(1)
    assert distance_to_rank_one(torch.zeros(3, 2, dtype=F64)) == 0


def test_distance_to_rank_one_is_numpys_for_every_matrix_of_a_batch():
    tokens = gaussian(3, 6, 5).numpy()
    residual = tokens - tokens.mean(1, keepdims=True)
    expected = np.linalg.norm(residual, axis=(1, 2)) / np.linalg.norm(tokens, axis=(1, 2))
    np.testing.assert_allclose(distance_to_rank_one(torch.tensor(tokens)), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["effective_rank", "stable_rank", "participation_ratio"])
def test_measures_are_differentiable(name):
    matrix = gaussian(4, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: getattr(spectrum(m), name), matrix)


def test_float32_stays_float32():
    result = spectrum(gaussian(4, 4).float())
    assert isinstance(result, Spectrum)
    assert result.effective_rank.dtype == torch.float32
