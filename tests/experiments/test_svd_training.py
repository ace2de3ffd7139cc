"""Networks that learn to factor: training helps, and the stored ones beat the iteration that they unroll."""

import pytest
import torch

from experiments.svd_training import SEEDS, run, train, trained_operator
from helpers.layers import FactorizationOperator, excess_error
from helpers.maths import known_matrices


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
