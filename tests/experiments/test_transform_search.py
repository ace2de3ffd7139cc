"""Goals that a butterfly can hold, training towards them, and what the stored searches found."""

import math

import numpy as np
import pytest
import scipy.fft
import torch

from experiments import transform_search
from experiments.transform_search import (
    DIRECT,
    GOALS,
    SEEDS,
    dft,
    learn_blocks,
    load_results,
    mirrored,
    rmse,
    run,
)
from helpers.layers import Butterfly, cooley_tukey, factorize, normalised, rank_one_bound
from helpers.maths import bit_reversal, gaussian, hartley, signed_qr


def close(found, expected, tolerance=1e-12):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


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


# Real transforms by one complex butterfly


@pytest.mark.parametrize("n", [4, 16, 64])
def test_cosine_and_hartley_transforms_are_real_parts_of_a_butterfly(n):
    cosine = torch.from_numpy(scipy.fft.dct(np.eye(n), axis=0, norm="ortho"))
    assert rank_one_bound(cosine, bit_reversal(n)) > 0.1  # by itself it is none
    found = factorize(mirrored(cosine, -1), columns="search")
    assert found.error < 1e-13
    close(found.matrix().real, cosine)
    found = factorize(mirrored(hartley(n), +1), columns="bit reversal")
    assert found.error < 1e-13
    close(found.matrix().real, hartley(n))


# Training


def test_gradient_descent_finds_the_twiddle_factors_from_every_start():
    layer = Butterfly(8, copies=4, seed=0, input_order=bit_reversal(8))
    history = learn_blocks(layer, dft(8).matrix, steps=600)
    assert history.shape == (600, 4)
    assert rmse(layer, dft(8).matrix).max() < 1e-10
    for blocks in layer.blocks.detach():
        found, known = (normalised(b, layer.strides) for b in (blocks, cooley_tukey(8)))
        close(found, known, 1e-8)


def test_it_does_not_find_a_random_orthogonal_matrix():
    matrix, order = signed_qr(gaussian(8, 8, seed=1)), bit_reversal(8)
    layer = Butterfly(8, copies=5, seed=0, input_order=order)
    learn_blocks(layer, matrix, steps=300)
    bound = rank_one_bound(matrix, order) / math.sqrt(8)
    assert 0.1 < bound <= rmse(layer, matrix).min()


def test_the_history_is_the_rmse_before_each_step():
    layer, target = Butterfly(8, real=True), torch.from_numpy(scipy.fft.dct(np.eye(8), axis=0))
    seen = []
    watch = lambda step, now: seen.append((step, float(rmse(now, target))))  # noqa: E731
    history = learn_blocks(layer, target, steps=6, watch=watch)
    assert [step for step, _ in seen] == list(range(6))
    assert history.tolist() == pytest.approx([error for _, error in seen], rel=1e-12)
    expected = np.linalg.norm(layer.matrix().detach().numpy() - target.numpy()) / 8
    assert float(rmse(layer, target)) == pytest.approx(expected, rel=1e-12)


def test_random_columns_estimate_the_rmse():
    target, order = dft(16).matrix, bit_reversal(16).flip(0)
    start = float(rmse(Butterfly(16, input_order=order), target))

    def first(columns, seed=0):
        layer = Butterfly(16, input_order=order)
        return float(learn_blocks(layer, target, columns=columns, steps=1, seed=seed))

    errors = [first(4, seed) for seed in range(40)]
    assert float(np.sqrt(np.mean(np.square(errors)))) == pytest.approx(start, rel=0.1)
    assert len(set(errors)) > 30
    assert first(4) == first(4)
    assert first(None) == pytest.approx(start)
    assert first(16) == pytest.approx(start)  # all columns are no choice


# Runs


def test_a_run_on_the_null_knows_its_bound(monkeypatch):
    learn = transform_search.learn_blocks
    few = lambda *arguments, **options: learn(*arguments, **{**options, "steps": 20})  # noqa: E731
    monkeypatch.setattr(transform_search, "learn_blocks", few)
    null = run("random orthogonal", 16, 0)
    assert null["rmse"] >= 0.99 * null["bound"] > 0.05


def test_a_run_finds_the_dft():
    assert run("DFT", 8, 0)["rmse"] < 1e-12


@pytest.mark.parametrize("goal", DIRECT)
def test_what_is_found_directly(goal):
    found = run(goal, 32, 1, method="direct")
    if goal == "random orthogonal":
        assert found["error"] >= found["bound"] > 0.5
    else:
        assert found["bound"] - 1e-14 <= found["error"] < 1e-13


def test_stored_searches_find_the_fft_and_stay_above_the_bounds():
    results = load_results()
    assert {goal for goal, _ in results["descent"]} == set(GOALS)
    assert {goal for goal, _ in results["direct"]} == set(DIRECT)
    for name, runs in results.items():
        for (goal, n), values in runs.items():
            assert len(values) == SEEDS
            if name == "direct" and goal != "random orthogonal":
                assert values.max() < 1e-13
            if goal == "DFT" and n <= 64:
                assert values.max() < 1e-12
    for n in (64, 256, 1024):
        place = "random orthogonal", n
        assert (results["direct"][place] >= 0.999 * results["bound"][place]).all()
        matrix = GOALS["random orthogonal"](n, 3).matrix
        bound = rank_one_bound(matrix, bit_reversal(n)) if n < 1024 else results["bound"][place][3]
        assert results["bound"][place][3] == pytest.approx(float(bound), rel=1e-3)
