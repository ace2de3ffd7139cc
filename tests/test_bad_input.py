"""Bad input: an exception that names the argument, what came, and what is allowed."""

import pytest
import torch

from helpers.attention import attention, attention_weights, causal_mask
from helpers.nulls import random_attention, shuffle_within_rows
from helpers.spectrum import distance_to_rank_one, spectrum, truncate

GOOD = torch.eye(3, dtype=torch.float64)
NAN = GOOD.clone()
NAN[0, 1] = float("nan")
INFINITE = GOOD.clone()
INFINITE[0, 1] = float("inf")

MATRICES = [
    (NAN, ValueError, "finite"),
    (INFINITE, ValueError, "finite"),
    (GOOD[:0], ValueError, "empty"),
    (GOOD[0], ValueError, "dimensions"),
    (GOOD.long(), TypeError, "int64"),
    (GOOD.bool(), TypeError, "bool"),
    (GOOD.half(), TypeError, "float16"),
    (GOOD.to(torch.complex128), TypeError, "complex128"),
    (GOOD.numpy(), TypeError, "ndarray"),
    (None, TypeError, "NoneType"),
]


@pytest.mark.parametrize(("bad", "error", "said"), MATRICES)
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("matrices", spectrum),
        ("matrices", lambda bad: truncate(bad, 1)),
        ("tokens", distance_to_rank_one),
        ("queries", lambda bad: attention_weights(bad, GOOD)),
        ("keys", lambda bad: attention_weights(GOOD, bad)),
        ("values", lambda bad: attention(GOOD, GOOD, bad)),
        ("weights", lambda bad: shuffle_within_rows(bad, seed=0)),
    ],
)
def test_tensors(name, call, bad, error, said):
    with pytest.raises(error, match=rf"(?s){name}.*{said}"):
        call(bad)


@pytest.mark.parametrize("rank", [0, -1, 4, 2.0, "2", True, None])
def test_rank(rank):
    with pytest.raises((ValueError, TypeError), match=rf"rank must be .*{rank}"):
        truncate(GOOD, rank)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), float("inf"), "0.9", None])
def test_fraction(fraction):
    for measure in (spectrum(GOOD).energy_rank, spectrum(GOOD).nuclear_rank):
        with pytest.raises((ValueError, TypeError), match="fraction must be"):
            measure(fraction)


@pytest.mark.parametrize("tolerance", [0, -1e-3, float("nan"), float("inf"), None])
def test_tolerance(tolerance):
    with pytest.raises((ValueError, TypeError), match="tolerance must be"):
        spectrum(GOOD).numerical_rank(tolerance)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "1"])
def test_scale(scale):
    with pytest.raises((ValueError, TypeError), match="scale must be"):
        attention_weights(GOOD, GOOD, scale=scale)


def test_widths_differ():
    with pytest.raises(ValueError, match=r"same width.*\(3, 3\).*\(3, 2\)"):
        attention_weights(GOOD, GOOD[:, :2])


def test_dtypes_differ():
    with pytest.raises(TypeError, match="share a dtype.*float64.*float32"):
        attention_weights(GOOD, GOOD.float())


def test_batches_do_not_broadcast():
    with pytest.raises(ValueError, match="broadcast"):
        attention_weights(GOOD.expand(2, 3, 3), GOOD.expand(5, 3, 3))


def test_values_have_other_length():
    with pytest.raises(ValueError, match="values must have one row per key"):
        attention(GOOD, GOOD, GOOD[:2])


def test_logits_overflow():
    big = 1e200 * GOOD
    with pytest.raises(ValueError, match="queries and keys give logits beyond"):
        attention_weights(big, big)


def test_fully_masked_row():
    mask = causal_mask(3)
    mask[1] = False
    with pytest.raises(ValueError, match="mask.*1 rows are fully masked"):
        attention_weights(GOOD, GOOD, mask=mask)


@pytest.mark.parametrize(
    ("mask", "error"),
    [(GOOD, TypeError), ([[True]], TypeError), (torch.ones(2, 3, dtype=torch.bool), ValueError)],
)
def test_mask(mask, error):
    with pytest.raises(error, match="mask must"):
        attention_weights(GOOD, GOOD, mask=mask)


@pytest.mark.parametrize("n", [0, -2, 2.5, None, True])
def test_causal_mask(n):
    with pytest.raises((ValueError, TypeError), match="n must be"):
        causal_mask(n)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("n", {"n": 0}),
        ("d", {"d": 1.5}),
        ("samples", {"samples": 0}),
        ("temperature", {"temperature": 0}),
        ("seed", {"seed": -1}),
    ],
)
def test_random_attention(name, arguments):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
        random_attention(**{"n": 4, "d": 2, **arguments})


def test_shuffling_a_rectangle():
    with pytest.raises(ValueError, match=r"weights must be square.*\(2, 3\)"):
        shuffle_within_rows(GOOD[:2], seed=0)
