"""Wrong arguments: an exception that names the argument, what came, and what is allowed."""

import re
from itertools import product

import numpy as np
import pytest
import torch

from helpers.maths import (
    attention,
    attention_weights,
    bandwidth,
    bit_reversal,
    causal_mask,
    circulant_distance,
    diagnose,
    distance_to_rank_one,
    flatness,
    generator,
    hartley,
    integer,
    low_rank_distance,
    one_of,
    random_attention,
    real_number,
    real_tensor,
    row_stochastic_distance,
    shuffle_within_rows,
    sinusoid_overlap,
    sinusoidal_rows,
    sinusoidal_vectors,
    spectrum,
    toeplitz_distance,
    truncate,
)

pytestmark = pytest.mark.bad_input
GOOD = torch.eye(4, dtype=torch.float64)
HOLE = GOOD.clone()
HOLE[0, 1] = float("nan")
MATRICES = {
    "matrices": [
        spectrum,
        lambda bad: truncate(bad, 1),
        lambda bad: low_rank_distance(bad, 1),
        toeplitz_distance,
        circulant_distance,
        bandwidth,
        row_stochastic_distance,
        flatness,
        sinusoidal_rows,
        lambda bad: sinusoidal_vectors(bad, torch.ones(4)),
    ],
    "tokens": [distance_to_rank_one],
    "queries": [lambda bad: attention_weights(bad, GOOD)],
    "keys": [lambda bad: attention_weights(GOOD, bad)],
    "values": [lambda bad: attention(GOOD, GOOD, bad)],
    "weights": [lambda bad: shuffle_within_rows(bad, seed=0)],
    "matrix": [diagnose],
    "basis": [sinusoid_overlap],
}
TENSORS = [
    (HOLE, ValueError, "finite, but 1 of its 16"),
    (GOOD / 0, ValueError, "finite, but 16 of its 16"),
    (GOOD[:0], ValueError, r"empty.*\(0, 4"),
    (GOOD[0], ValueError, "dimensions"),
    (GOOD.long(), TypeError, "int64"),
    (GOOD.half(), TypeError, "float16"),
    (GOOD.to(torch.complex128), TypeError, "complex128"),
    (GOOD.numpy(), TypeError, "ndarray"),
    (None, TypeError, "NoneType"),
]


@pytest.mark.parametrize(
    ("name", "bad", "error", "said"),
    [(name, *tensor) for name, tensor in product(MATRICES, TENSORS)],
)
def test_tensors(name, bad, error, said):
    for call in MATRICES[name]:
        with pytest.raises(error, match=rf"(?s)^{name} must .*({said})"):
            call(bad)


@pytest.mark.parametrize("call", [*MATRICES["matrices"][2:], *MATRICES["weights"], diagnose])
def test_rectangles(call):
    with pytest.raises(ValueError, match=r"^(matrices|weights|matrix) must be square.*\(2, 4\)"):
        call(GOOD[:2])


@pytest.mark.parametrize("bad", [GOOD[None], GOOD[:3, :3], 0 * GOOD])
def test_what_cannot_be_diagnosed(bad):
    with pytest.raises(ValueError, match="^matrix must be one matrix, at least 4×4 and not"):
        diagnose(bad)


CALLS = [
    # what must be said, and the calls that it is said of
    (r"rank must be", lambda bad: truncate(GOOD, bad), [0, -1, 5, 2.0, "2", True, None]),
    (r"rank must be", lambda bad: low_rank_distance(GOOD, bad), [0, -1, 5, 2.0, None]),
    (r"rank must be", lambda bad: diagnose(GOOD, rank=bad), [0, 5, 2.0, True]),
    (r"draws must be", lambda bad: diagnose(GOOD, draws=bad), [1, 9.0, None]),
    (r"seed must be", lambda bad: diagnose(GOOD, seed=bad), [-1, 0.5, None, True]),
    (r"seed must be", lambda bad: generator(bad, "stream"), [-1, 0.5, "1", None, True]),
    (r"fraction must be", spectrum(GOOD).energy_rank, [0, -0.1, 1.01, float("nan"), "0.9", None]),
    (r"fraction must be", spectrum(GOOD).nuclear_rank, [0, 1.01, float("inf"), None]),
    (r"tolerance must be", spectrum(GOOD).numerical_rank, [0, -1e-3, float("nan"), None]),
    (
        r"scale must be",
        lambda bad: attention_weights(GOOD, GOOD, scale=bad),
        [0, -1.0, float("nan"), "1"],
    ),
    (
        r"mask must",
        lambda bad: attention_weights(GOOD, GOOD, mask=bad),
        [GOOD, [[True]], torch.zeros(4, 4, dtype=torch.bool)],
    ),
    (r"n must be", hartley, [0, -1, 4.0, None]),
    (r"n must be", bit_reversal, [0, 1, 3, 12, -8, 8.0, "8", None, True]),
    (r"seed must be", lambda bad: shuffle_within_rows(GOOD, seed=bad), [-1]),
    (r"basis must have orthonormal", sinusoid_overlap, [2 * GOOD, torch.ones(4, 2)]),
    (
        r"queries and keys must have the same width.*\(4, 4\).*\(4, 2\)",
        lambda bad: attention_weights(GOOD, bad),
        [GOOD[:, :2]],
    ),
    (
        r"queries and keys give logits beyond",
        lambda bad: attention_weights(bad, bad),
        [1e200 * GOOD],
    ),
    (r"x must be one of 'a', 'b', not", lambda bad: one_of(bad, "x", ["a", "b"]), ["c", None]),
    (r"x must be a real number, not", lambda bad: real_number(bad, "x"), ["1", None, True, 1j]),
    (r"x must be finite, not inf", lambda bad: real_number(bad, "x"), [float("inf")]),
    (
        r"x must be finite and above 0 and at most 1, not",
        lambda bad: real_number(bad, "x", above=0, most=1),
        [0, 1.5, -2],
    ),
    (
        r"x must be finite and at least 0, not",
        lambda bad: real_number(bad, "x", least=0),
        [-1e-9, float("nan")],
    ),
    (
        r"x must be an integer, not .* \(.*\)",
        lambda bad: integer(bad, "x", least=0),
        [True, 1.0, "1", None],
    ),
    (r"x must be at least 1, not 0", lambda bad: integer(bad, "x", least=1), [0]),
    (r"x must be between 1 and 3, not", lambda bad: integer(bad, "x", least=1, most=3), [0, 4]),
]


@pytest.mark.parametrize(
    ("said", "call", "bad"),
    [(said, call, bad) for said, call, values in CALLS for bad in values],
    ids=lambda value: re.sub(r"\W+", " ", value) if isinstance(value, str) else None,
)
def test_message(said, call, bad):
    with pytest.raises((ValueError, TypeError), match=rf"(?s)^{said}"):
        call(bad)


def test_what_is_allowed_is_handed_back():
    for good in (GOOD, GOOD.float(), GOOD[0], GOOD.clone().requires_grad_()):
        assert real_tensor(good, "x") is good
    assert type(integer(np.int64(3), "x", least=3, most=3)) is int
    assert type(real_number(np.float32(1), "x", least=1, most=1)) is float
    assert one_of("b", "x", {"a": 1, "b": 2}) == "b"


def test_the_smallest_values_are_welcome():
    one = torch.ones(1, 1, dtype=torch.float64)
    assert truncate(GOOD, 1).shape == (4, 4)
    assert shuffle_within_rows(one, seed=0) == random_attention(1, 1)[0] == causal_mask(1) == 1
    assert hartley(1) == bandwidth(one) + 1
    diagnose(GOOD, rank=1, draws=2)
