"""Random streams that never meet, and matrices of a known structure against scipy and numpy."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

from helpers.maths import (
    bit_reversal,
    gaussian,
    generator,
    hartley,
    integers,
    orders,
    uniform,
)

DRAWS = {
    "gaussian": lambda seed, **stream: gaussian(300, 4, seed=seed, **stream),
    "uniform": lambda seed, **stream: uniform(300, 4, seed=seed, **stream),
    "integers": lambda seed, **stream: integers(1000, 300, 4, seed=seed, **stream),
    "orders": lambda seed, **stream: orders(300, 4, seed=seed, **stream),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_follow_seed_and_stream_alone(name):
    draw, state = DRAWS[name], torch.get_rng_state()
    first = draw(1, stream="a")
    assert torch.equal(first, draw(1, stream="a"))
    for other in (draw(2, stream="a"), draw(1, stream="b")):
        assert (first == other).double().mean() < 0.05
    opened = generator(1, "a")
    assert torch.equal(first, draw(opened))
    assert not torch.equal(first, draw(opened))  # an open stream goes on
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"


def test_draws_have_the_distributions_they_promise():
    assert scipy.stats.kstest(gaussian(5000, seed=0), "norm").pvalue > 0.001
    assert scipy.stats.kstest(uniform(5000, seed=0), "uniform").pvalue > 0.001
    counts = np.bincount(integers(7, 7000, low=2, seed=0), minlength=7)
    assert counts[:2].sum() == 0
    assert scipy.stats.chisquare(counts[2:]).pvalue > 0.001
    permutations = orders(4, 6000, seed=0)
    assert torch.equal(permutations.sort(-1).values, torch.arange(4).expand(6000, 4))
    counts = permutations.unique(dim=0, return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 0.001


def test_numbers_are_numpys_own_on_every_machine():
    # PCG64 and numpy's ziggurat: the first digits of these streams are part of the book.
    numbers = gaussian(3, seed=0, stream="machines")
    torch.testing.assert_close(numbers, torch.tensor(FIRST, dtype=torch.float64))


FIRST = [1.087689955456211, 1.3617194929388805, -0.9167267862857237]


@pytest.mark.parametrize("n", [1, 4, 7, 1000])
def test_hartleys_matrix_is_real_minus_imaginary_part_of_the_dft(n):
    F = np.fft.fft(np.eye(n), norm="ortho")
    np.testing.assert_allclose(hartley(n), F.real - F.imag, atol=1e-14)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_bit_reversal_reverses_binary_digits(n):
    digits = n.bit_length() - 1
    assert bit_reversal(n).tolist() == [int(f"{k:0{digits}b}"[::-1], 2) for k in range(n)]
