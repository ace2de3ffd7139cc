"""Bad input: an exception that names the argument, what came, and what is allowed."""

import re

import numpy as np
import pytest
import torch

from helpers.data import cases, note_targets
from helpers.maths import (
    attention,
    attention_weights,
    bit_reversal,
    causal_mask,
    diagnose,
    distance_to_rank_one,
    gaussian,
    input_dependence,
    integer,
    one_of,
    random_attention,
    real_number,
    real_tensor,
    shuffle_within_rows,
    spectrum,
    truncate,
)

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
    with pytest.raises(error, match=rf"(?s)^{name} must .*{said}"):
        call(bad)


@pytest.mark.parametrize("rank", [0, -1, 4, 2.0, "2", True, None])
def test_rank(rank):
    with pytest.raises((ValueError, TypeError), match=rf"^rank must be .*{rank}"):
        truncate(GOOD, rank)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan"), float("inf"), "0.9", None])
def test_fraction(fraction):
    for measure in (spectrum(GOOD).energy_rank, spectrum(GOOD).nuclear_rank):
        with pytest.raises((ValueError, TypeError), match="^fraction must be"):
            measure(fraction)


@pytest.mark.parametrize("tolerance", [0, -1e-3, float("nan"), float("inf"), None])
def test_tolerance(tolerance):
    with pytest.raises((ValueError, TypeError), match="^tolerance must be"):
        spectrum(GOOD).numerical_rank(tolerance)


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "1"])
def test_scale(scale):
    with pytest.raises((ValueError, TypeError), match="^scale must be"):
        attention_weights(GOOD, GOOD, scale=scale)


def test_widths_differ():
    with pytest.raises(
        ValueError, match=r"^queries and keys must have the same width.*\(3, 3\).*\(3, 2\)"
    ):
        attention_weights(GOOD, GOOD[:, :2])


def test_dtypes_differ():
    with pytest.raises(TypeError, match="^queries and keys must share a dtype.*float64.*float32"):
        attention_weights(GOOD, GOOD.float())


def test_batches_do_not_broadcast():
    with pytest.raises(ValueError, match="^queries and keys must broadcast"):
        attention_weights(GOOD.expand(2, 3, 3), GOOD.expand(5, 3, 3))


def test_values_have_other_length():
    with pytest.raises(ValueError, match="^values must have one row per key"):
        attention(GOOD, GOOD, GOOD[:2])


def test_logits_overflow():
    big = 1e200 * GOOD
    with pytest.raises(ValueError, match="^queries and keys give logits beyond"):
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
    with pytest.raises(error, match="^mask must"):
        attention_weights(GOOD, GOOD, mask=mask)


@pytest.mark.parametrize("n", [0, -2, 2.5, None, True])
def test_causal_mask(n):
    with pytest.raises((ValueError, TypeError), match="^n must be"):
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
    with pytest.raises(ValueError, match=r"^weights must be square.*\(2, 3\)"):
        shuffle_within_rows(GOOD[:2], seed=0)


# The note's targets


@pytest.mark.parametrize("seed", [-1, 0.5, None])
def test_seed_of_the_notes_targets(seed):
    with pytest.raises((ValueError, TypeError), match="^seed must be"):
        note_targets(seed)


@pytest.mark.parametrize("n", [3, 0, -1, 8.0, None, True])
def test_size_of_the_notes_targets(n):
    with pytest.raises((ValueError, TypeError), match=f"^n must be .*{n}"):
        note_targets(0, n)


# Numbers


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "said"),
    [
        ({}, -1e300, float("inf"), "x must be finite, not inf"),
        ({}, 0, float("nan"), "x must be finite, not nan"),
        ({"least": 0}, 0, -1e-9, "x must be finite and at least 0, not -1e-09"),
        ({"above": 0}, 1e-9, 0, "x must be finite and above 0, not 0"),
        ({"most": 1}, 1, 1.5, "x must be finite and at most 1, not 1.5"),
        ({"least": 0, "most": 1}, 1, -2, "x must be finite and at least 0 and at most 1, not -2"),
        ({"above": 0, "most": 1}, 1, 0, "x must be finite and above 0 and at most 1, not 0"),
        ({"least": 0}, 5, float("inf"), "x must be finite and at least 0, not inf"),
        ({"most": 1}, -5, float("-inf"), "x must be finite and at most 1, not -inf"),
    ],
)
def test_bounds_of_a_number(bounds, good, bad, said):
    assert real_number(good, "x", **bounds) == good
    assert isinstance(real_number(good, "x", **bounds), float)
    with pytest.raises(ValueError, match=f"^{said}$"):
        real_number(bad, "x", **bounds)


@pytest.mark.parametrize("bad", ["1", None, True, 1j, [1.0], GOOD])
def test_not_a_number(bad):
    with pytest.raises(TypeError, match="^x must be a real number, not"):
        real_number(bad, "x", least=0)


@pytest.mark.parametrize(
    ("bounds", "bad", "said"),
    [
        ({"least": 1}, 0, "x must be at least 1, not 0"),
        ({"least": 1, "most": 3}, 0, "x must be between 1 and 3, not 0"),
        ({"least": 1, "most": 3}, 4, "x must be between 1 and 3, not 4"),
        ({"least": -2, "most": 0}, 1, "x must be between -2 and 0, not 1"),
    ],
)
def test_bounds_of_an_integer(bounds, bad, said):
    for good in (bounds["least"], bounds.get("most", 10**9), np.int64(bounds["least"])):
        assert integer(good, "x", **bounds) == good
        assert type(integer(good, "x", **bounds)) is int
    with pytest.raises(ValueError, match=f"^{said}$"):
        integer(bad, "x", **bounds)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (True, "x must be an integer, not True (bool)"),
        (1.0, "x must be an integer, not 1.0 (float)"),
        ("1", "x must be an integer, not '1' (str)"),
        (None, "x must be an integer, not None (NoneType)"),
    ],
)
def test_not_an_integer(bad, said):
    with pytest.raises(TypeError, match=f"^{re.escape(said)}$"):
        integer(bad, "x", least=0)


def test_a_tensor_of_the_right_kind_is_handed_back():
    for good in (GOOD, GOOD.float(), GOOD[0], GOOD.clone().requires_grad_()):
        assert real_tensor(good, "x") is good
    assert real_tensor(GOOD, "x", least_dims=2) is GOOD


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (torch.tensor(1.0), "x must have at least 1 dimensions, but its shape is ()"),
        (GOOD[:, :0], "x must not be empty, but its shape is (3, 0)"),
        (GOOD / 0, "x must be finite, but 9 of its 9 entries are NaN or infinite"),
        (NAN, "x must be finite, but 1 of its 9 entries are NaN or infinite"),
        (-INFINITE, "x must be finite, but 1 of its 9 entries are NaN or infinite"),
    ],
)
def test_what_is_said_of_a_tensor(bad, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        real_tensor(bad, "x")


def test_one_of_some_names():
    assert one_of("b", "x", {"a": 1, "b": 2}) == "b"
    with pytest.raises(ValueError, match="^x must be one of 'a', 'b', not 'c'$"):
        one_of("c", "x", ["a", "b"])


# Diagnostics

FOUR = torch.eye(4, dtype=torch.float64)
HOLE = FOUR.clone()
HOLE[1, 2] = float("nan")

NO_SQUARE = [
    (torch.ones(4, 5), ValueError, r"square.*\(4, 5\)"),
    (FOUR[0], ValueError, "dimensions"),
    (FOUR[None], ValueError, r"square.*\(1, 4, 4\)"),
    (FOUR[:0], ValueError, "empty"),
    (FOUR[:3, :3], ValueError, r"4×4.*\(3, 3\)"),
    (0 * FOUR, ValueError, "zero"),
    (HOLE, ValueError, "finite"),
    (FOUR / 0, ValueError, "finite"),
    (FOUR.long(), TypeError, "int64"),
    (FOUR.half(), TypeError, "float16"),
    (FOUR.to(torch.complex128), TypeError, "complex128"),
    (FOUR.numpy(), TypeError, "ndarray"),
    (FOUR.tolist(), TypeError, "list"),
]


@pytest.mark.parametrize(("bad", "error", "said"), NO_SQUARE)
def test_matrix_to_diagnose(bad, error, said):
    with pytest.raises(error, match=rf"^matrix must .*{said}"):
        diagnose(bad)
    with pytest.raises(error, match=rf"^truth must .*{said}"):
        diagnose(FOUR, truth=bad)


def test_truth_of_another_shape():
    with pytest.raises(ValueError, match=r"^truth must .*\(4, 4\), not \(5, 5\)"):
        diagnose(FOUR, truth=torch.eye(5))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("rank", bad) for bad in (0, -1, 5, 2.0, "2", True)),
        *(("draws", bad) for bad in (1, 0, 9.0, None, True)),
        *(("seed", bad) for bad in (-1, 0.5, None, True)),
    ],
)
def test_options_of_diagnose(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        diagnose(FOUR, **{name: bad})


PAIRS = torch.ones(3, 4, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        (PAIRS / 0, ValueError, "finite"),
        (PAIRS[:0], ValueError, "empty"),
        (PAIRS[0], ValueError, "dimensions"),
        (PAIRS.long(), TypeError, "int64"),
        (PAIRS.to(torch.complex128), TypeError, "complex128"),
        (PAIRS.numpy(), TypeError, "ndarray"),
        (None, TypeError, "NoneType"),
    ],
)
def test_pairs(bad, error, said):
    with pytest.raises(error, match=rf"^inputs must .*{said}"):
        input_dependence(bad, PAIRS)
    with pytest.raises(error, match=rf"^outputs must .*{said}"):
        input_dependence(PAIRS, bad)


def test_pairs_of_two_shapes():
    with pytest.raises(ValueError, match=r"^inputs and outputs must .*\(3, 4, 2\) and \(2, 4, 2\)"):
        input_dependence(PAIRS, PAIRS[:2])
    with pytest.raises(ValueError, match=r"^inputs and outputs must .*\(1, 3, 4, 2\)"):
        input_dependence(PAIRS[None], PAIRS[None])


@pytest.mark.parametrize("shape", [(1, 4, 8), (8, 4, 1), (2, 4, 2), (2, 8, 3)])
def test_too_few_pairs(shape):
    few = torch.ones(shape)
    with pytest.raises(ValueError, match=rf"^inputs must .*n = {shape[1]} .*not {shape[0]}"):
        input_dependence(few, few)


@pytest.mark.parametrize(
    ("name", "bad"), [("draws", 1), ("draws", 9.0), ("seed", -1), ("seed", None)]
)
def test_options_of_input_dependence(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        input_dependence(PAIRS, PAIRS, **{name: bad})


# The cases made right

CASES = (
    cases.low_rank,
    cases.convolution,
    cases.fourier,
    cases.attention,
    cases.random_operator,
)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("n", bad) for bad in (3, 0, -4, 8.0, "8", None, True)),
        *(("samples", bad) for bad in (0, -1, 2.0, None)),
        *(("width", bad) for bad in (0, 1.5, None)),
        *(("noise", bad) for bad in (-0.1, float("nan"), float("inf"), "0.1", None, True)),
        *(("seed", bad) for bad in (-1, 0.5, None, True)),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_arguments_of_a_case(case, name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        case(**{name: bad})


@pytest.mark.parametrize("bad", [0, 5, 2.0, None])
def test_rank_of_a_case(bad):
    with pytest.raises((ValueError, TypeError), match=f"^rank must be .*{bad}"):
        cases.low_rank(4, rank=bad)
    with pytest.raises((ValueError, TypeError), match=f"^rank must be .*{bad}"):
        cases.attention(width=4, rank=bad)


@pytest.mark.parametrize("bad", [0, -0.5, float("nan"), float("inf"), "2", None])
def test_sharpness(bad):
    with pytest.raises((ValueError, TypeError), match=f"^sharpness must be .*{bad}"):
        cases.attention(sharpness=bad)


@pytest.mark.parametrize(
    "bad",
    [
        (),
        (1.0, 2.0),
        (0.0, 0.0, 0.0),
        (1.0,) * 9,
        (1.0, float("nan"), 1.0),
        (1.0, "2", 1.0),
        ((1.0, 2.0, 3.0),),
        "abc",
        "",
        None,
        1.0,
        GOOD,
    ],
)
def test_kernel(bad):
    with pytest.raises((ValueError, TypeError), match="^kernel must be|^kernel must have"):
        cases.convolution(8, kernel=bad)


@pytest.mark.parametrize("samples", [0, 4, 5, -1, 2.0, None])
def test_split_of_a_case(samples):
    with pytest.raises((ValueError, TypeError), match=f"^samples must be .*{samples}"):
        cases.fourier(4, 4).split(samples)


@pytest.mark.parametrize("n", [0, -1, 4.0, None])
def test_size_of_hartleys_matrix(n):
    with pytest.raises((ValueError, TypeError), match=f"^n must be .*{n}"):
        cases.hartley(n)


@pytest.mark.parametrize("bad", [0, 1, 3, 6, 12, -8, 8.0, "8", None, True])
def test_no_power_of_two(bad):
    with pytest.raises((ValueError, TypeError), match=f"^n must be .*{bad}"):
        bit_reversal(bad)


# The smallest values that are allowed

ONE = torch.ones(1, 1, dtype=torch.float64)
LEAST = {
    "truncate": lambda: truncate(GOOD, 1),
    "causal_mask": lambda: causal_mask(1),
    "gaussian": lambda: gaussian(1, seed=0),
    "random_attention": lambda: random_attention(1, 1, samples=1, seed=0),
    "shuffle_within_rows": lambda: shuffle_within_rows(ONE, seed=0),
    "note_targets": lambda: note_targets(0, 4),
    "low_rank": lambda: cases.low_rank(4, 1, 0, 0, width=1, rank=1),
    "convolution": lambda: cases.convolution(4, 1, 0, 0, width=1, kernel=(1.0,)),
    "fourier": lambda: cases.fourier(4, 1, 0, 0, width=1),
    "attention": lambda: cases.attention(4, 1, 0, 0, width=1, rank=1),
    "random_operator": lambda: cases.random_operator(4, 1, 0, 0, width=1),
    "hartley": lambda: cases.hartley(1),
    "split": lambda: (cases.fourier(4, 2).split(1), cases.fourier(4, 5).split(4)),
    "diagnose": lambda: diagnose(torch.eye(4).double(), rank=1, draws=2, seed=0),
    "input_dependence": lambda: input_dependence(PAIRS, PAIRS, draws=2, seed=0),
}


@pytest.mark.parametrize("call", LEAST.values(), ids=LEAST)
def test_the_smallest_values_are_welcome(call):
    call()
