"""Goals that a butterfly can hold, orders that can be learned, and what the stored searches found."""

import math

import numpy as np
import pytest
import torch

from experiments import transform_search
from experiments.transform_search import (
    GOALS,
    SEEDS,
    SoftPermutation,
    dft,
    learn_columns,
    load_results,
    run,
)
from helpers.layers import Butterfly, cooley_tukey, learn_blocks, rank_one_bound, rmse
from helpers.maths import bit_reversal, gaussian


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n", [8, 64])
def test_the_goals_are_the_transforms_of_their_names(n):
    x = gaussian(n, 2, seed=1)
    goals = {name: make(n, 3).matrix for name, make in GOALS.items()}
    close(goals["DFT"] @ x.to(torch.complex128), torch.fft.fft(x, dim=0, norm="ortho"))
    close(goals["Hadamard"].abs() * math.sqrt(n), torch.ones(n, n, dtype=torch.float64))
    identity = torch.eye(n, dtype=torch.float64)
    for name in ("Hadamard", "DCT", "random orthogonal"):
        close(goals[name] @ goals[name].T, identity)
    assert (goals["DCT"][1].diff() < 0).all()  # a half wave, falling
    circulant = goals["convolution"]
    by_fft = torch.fft.ifft(torch.fft.fft(circulant[:, :1], dim=0) * torch.fft.fft(x, dim=0), dim=0)
    close(circulant @ x, by_fft.real)
    assert float(circulant.norm()) == pytest.approx(math.sqrt(n))


@pytest.mark.parametrize("name", ["DFT", "Hadamard"])
def test_a_butterfly_can_hold_what_a_random_matrix_cannot_be(name):
    goal, null = GOALS[name](32, 0), GOALS["random orthogonal"](32, 0)
    order = goal.form.get("input_order", torch.arange(32))
    assert rank_one_bound(goal.matrix, order) < 1e-12
    assert rank_one_bound(null.matrix, order) > 0.5


# Permutations


def hard(n, choices):
    """A permutation that makes the given choices (…, level, 3) with certainty."""
    permutation = SoftPermutation(n, copies=len(choices))
    permutation.logits.data = torch.where(choices.bool(), 1000.0, -1000.0).double()
    return permutation


def test_hard_choices_are_permutations():
    choices = torch.cartesian_prod(*[torch.arange(2)] * 6).unflatten(1, (2, 3))
    permutation, x = hard(8, choices), gaussian(8, 3, seed=0)
    orders, moved = permutation.orders(), permutation(x)
    assert torch.equal(orders.sort(1).values, torch.arange(8).expand(64, 8))
    for order, y in zip(orders, moved, strict=True):
        close(y, x[order])  # the convention of Butterfly's input_order
    assert len({tuple(order) for order in orders.tolist()}) > 30


def test_each_choice_does_what_is_said():
    first = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # on all 8 places, then none on the halves
    orders = hard(8, torch.tensor([[c, [0, 0, 0]] for c in first])).orders()
    assert orders[0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert orders[1].tolist() == [3, 2, 1, 0, 4, 5, 6, 7]
    assert orders[2].tolist() == [0, 1, 2, 3, 7, 6, 5, 4]
    evens_first = torch.tensor([1, 0, 0]).expand(1, 3, 3)
    assert torch.equal(hard(16, evens_first).orders()[0], bit_reversal(16))


def test_a_relaxed_permutation_is_a_mean_of_permutations():
    permutation = SoftPermutation(16, copies=5, seed=2)
    P = permutation(torch.eye(16, dtype=torch.float64)).detach()
    assert P.min() >= 0
    ones = torch.ones(5, 16, dtype=torch.float64)
    close(P.sum(1), ones)
    close(P.sum(2), ones)
    x = gaussian(16, 3, seed=1)
    close(permutation(x).detach(), P @ x)
    assert torch.equal(permutation.orders(), hard(16, permutation.logits > 0).orders())


# Training on some of the columns


def test_all_columns_are_what_a_layer_learns_from():
    one, other = (Butterfly(8, copies=2, seed=1) for _ in range(2))
    history = learn_blocks(one, dft(8).matrix, steps=30, progress=False)
    close(learn_columns(other, dft(8).matrix, steps=30), history)
    close(other.blocks.detach(), one.blocks.detach())


def test_random_columns_estimate_the_rmse():
    target, order = dft(16).matrix, bit_reversal(16).flip(0)
    start = float(rmse(Butterfly(16, input_order=order), target))

    def first(columns, seed=0):
        layer = Butterfly(16, input_order=order)
        return float(learn_columns(layer, target, columns=columns, steps=1, seed=seed))

    errors = [first(4, seed) for seed in range(40)]
    assert float(np.sqrt(np.mean(np.square(errors)))) == pytest.approx(start, rel=0.1)
    assert len(set(errors)) > 30
    assert first(4) == first(4)
    assert first(16) == pytest.approx(start)  # all columns are no choice
    exact = Butterfly(16, input_order=bit_reversal(16))
    exact.blocks.data = cooley_tukey(16)
    assert float(learn_columns(exact, target, columns=3, steps=1)) < 1e-15


def test_random_columns_find_the_dft():
    layer = Butterfly(8, copies=4, seed=0, input_order=bit_reversal(8))
    learn_columns(layer, dft(8).matrix, steps=600, columns=6)
    assert rmse(layer, dft(8).matrix).max() < 1e-6


# Runs


@pytest.fixture
def briefly(monkeypatch):
    """Every search has twenty steps."""
    for name in ("learn_blocks", "learn_columns"):
        learn = getattr(transform_search, name)

        def few_steps(*arguments, learn=learn, **options):
            return learn(*arguments, **{**options, "steps": 20})

        monkeypatch.setattr(transform_search, name, few_steps)


def test_a_run_keeps_the_order_of_the_least_error(briefly):
    found = run("permutation", 8, 1)
    assert sorted(found["order"]) == list(range(8))
    assert len(found["soft"]) == len(found["bounds"])
    bound = rank_one_bound(dft(8).matrix, torch.tensor(found["order"]))
    assert bound == pytest.approx(found["bounds"][int(np.argmin(found["soft"]))], abs=1e-12)
    assert found["rmse"] >= 0.99 * bound / math.sqrt(8)


def test_a_run_on_the_null_knows_its_bound(briefly):
    null = run("random orthogonal", 16, 0)
    assert null["rmse"] >= 0.99 * null["bound"] > 0.05


def test_a_run_finds_the_dft():
    assert run("DFT", 8, 0)["rmse"] < 1e-12


def test_stored_searches_find_the_fft_and_stay_above_the_bounds():
    results = load_results()
    assert tuple(results) == (*GOALS, "permutation")
    for by_size in results.values():
        for runs in by_size.values():
            assert len(runs) == SEEDS
            assert all(math.isfinite(found["rmse"]) for found in runs)
    for n in ("8", "16", "32", "64"):
        assert max(found["rmse"] for found in results["DFT"][n]) < 1e-12
    for n, runs in results["random orthogonal"].items():
        for seed, found in enumerate(runs):
            goal = GOALS["random orthogonal"](int(n), seed)
            bound = rank_one_bound(goal.matrix, goal.form["input_order"]) / math.sqrt(int(n))
            assert found["bound"] == pytest.approx(bound, rel=1e-3)
            assert found["rmse"] >= 0.99 * bound


def test_stored_permutations_can_hold_the_dft_where_it_was_found():
    for n, runs in load_results()["permutation"].items():
        for found in runs:
            assert sorted(found["order"]) == list(range(int(n)))
            bound = rank_one_bound(dft(int(n)).matrix, torch.tensor(found["order"]))
            assert found["rmse"] >= 0.99 * bound / math.sqrt(int(n)) - 1e-15
            best = int(np.argmin(found["soft"]))
            assert found["bounds"][best] == pytest.approx(bound, rel=0.01, abs=1e-12)
