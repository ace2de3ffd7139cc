"""Networks that learn to factor: training helps, and the stored ones beat the iteration that they unroll."""

import pytest
import torch

from experiments.learned_svd import FactorizationOperator, excess_error
from experiments.svd_training import SEEDS, known_matrices, run, train, trained_operator
from helpers.maths import spectrum


def test_short_training_already_beats_the_classical_iteration():
    operator = train(3, steps=30)
    X, S = known_matrices(100, 16, seed=0)
    learned, classical = (
        excess_error(network, X, S, rank=4).log().mean()
        for network in (operator, FactorizationOperator())
    )
    assert learned < classical - 1


def test_training_is_a_function_of_the_seed():
    first, again, other = (train(seed, steps=2).roots for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_run_returns_the_learned_roots(monkeypatch):
    monkeypatch.setattr("experiments.svd_training.train", lambda seed: train(seed, steps=1))
    assert torch.equal(run(2), train(2, steps=1).roots.detach())


@pytest.mark.parametrize("n", [16, 32])
def test_the_stored_networks_beat_the_iteration_that_they_unroll(n):
    X, S = known_matrices(150, n, seed=1)
    classical = FactorizationOperator(n // 4)
    networks = [trained_operator(seed, n // 4) for seed in range(SEEDS)]
    for learned in networks:
        assert learned.products() == classical.products()
        better = excess_error(learned, X, S) < excess_error(classical, X, S)
        assert better.double().mean() >= 0.9
    assert len({tuple(network.roots.flatten().tolist()) for network in networks}) == SEEDS


@pytest.mark.bad_input
@pytest.mark.parametrize("seed", [-1, SEEDS, 0.5, None])
def test_there_are_ten_networks(seed):
    with pytest.raises((ValueError, TypeError), match="^seed must be"):
        trained_operator(seed)


def test_known_matrices_have_the_singular_values_that_come_with_them():
    matrices, values = known_matrices(30, 12, seed=0)
    torch.testing.assert_close(spectrum(matrices).singular_values, values, atol=1e-12, rtol=0)
    assert (values.diff(dim=-1) <= 0).all()
    assert values.min() >= 0
    # Vectors are uniformly distributed, so no entry is larger than another in the mean.
    share = (matrices / torch.linalg.matrix_norm(matrices)[:, None, None]).square().mean(0)
    assert share.max() < 4 / 144
