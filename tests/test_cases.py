"""The note's four targets: their formulas in numpy, their ranks, their seeds."""

import numpy as np
import pytest
import torch

from helpers.cases import NOTE_CASES, note_targets
from helpers.nulls import gaussian

RANKS = {"low rank": 4, "convolution": 1, "attention": 32, "Fourier": 1}


def test_there_are_four_square_targets_in_double_precision():
    targets = note_targets(0)
    assert tuple(targets) == NOTE_CASES == tuple(RANKS)
    for target in targets.values():
        assert target.shape == (32, 32)
        assert target.dtype == torch.float64


@pytest.mark.parametrize("seed", [0, 1, 9])
@pytest.mark.parametrize("n", [4, 20, 32])
def test_formulas(n, seed):
    A, B, X, noise = gaussian(4, n, n, seed=seed).numpy()
    y = np.convolve(noise[0], [0.4, 1.0, 0.4], mode="same")
    weights = np.exp(X @ X.T)
    weights /= weights.sum(axis=1, keepdims=True)
    t = np.linspace(0, 2 * np.pi, n)
    s = np.sin(5 * t) + 0.5 * np.sin(11 * t)
    expected = A[:, :4] @ B[:4], np.outer(y, y), weights @ X, np.outer(s, s)
    for target, formula in zip(note_targets(seed, n).values(), expected, strict=True):
        np.testing.assert_allclose(target, formula, atol=1e-12)


@pytest.mark.parametrize("case", NOTE_CASES)
def test_ranks(case):
    for seed in range(10):
        assert np.linalg.matrix_rank(note_targets(seed)[case].numpy(), tol=1e-6) == RANKS[case]


def test_unscaled_attention_of_this_size_is_the_identity():
    tokens = gaussian(4, 32, 32, seed=0)[2]
    weights = torch.softmax(tokens @ tokens.T, dim=-1)
    torch.testing.assert_close(weights, torch.eye(32, dtype=torch.float64), atol=0.01, rtol=0)
    # So the target "attention" is its Gaussian tokens, with nothing of attention in it.
    torch.testing.assert_close(note_targets(0)["attention"], tokens, atol=0.02, rtol=0)


def test_targets_are_a_function_of_the_seed_and_fourier_has_none():
    state = torch.get_rng_state()
    first, again, other = note_targets(1), note_targets(1), note_targets(2)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for case in NOTE_CASES:
        assert torch.equal(first[case], again[case])
        assert torch.equal(first[case], other[case]) == (case == "Fourier")
