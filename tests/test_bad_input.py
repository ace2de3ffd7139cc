"""Bad input: an exception that names the argument, what came, and what is allowed."""

import re

import numpy as np
import pytest
import torch

from helpers.data import cases, note_targets
from helpers.layers import (
    CLASSES,
    METHODS,
    ORACLES,
    Butterfly,
    FactorizationLayer,
    FactorizationOperator,
    NoteRecipe,
    UniversalLayer,
    butterfly,
    compress,
    cooley_tukey,
    descend,
    excess_error,
    fit,
    gauss_newton,
    rank_one_bound,
    universal,
)
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
        ("target", lambda bad: fit(FactorizationLayer(3, 3), bad)),
        ("target", lambda bad: fit(NoteRecipe(3), bad)),
        ("X", FactorizationOperator()),
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


# The factorization layer


@pytest.mark.parametrize("rank", [0, -1, 4, 2.0, "2", True])
@pytest.mark.parametrize("layer", [FactorizationLayer, NoteRecipe])
def test_rank_of_a_layer(layer, rank):
    with pytest.raises((ValueError, TypeError), match=rf"^rank must be .*{rank}"):
        layer(5, 3, rank)
    assert layer(5, 3, None).rank == 3


@pytest.mark.parametrize("bad", [0, -2, 2.5, "3", True, None])
def test_size_of_a_layer(bad):
    with pytest.raises((ValueError, TypeError), match=rf"^rows must be .*{bad}"):
        FactorizationLayer(bad, 3)
    with pytest.raises((ValueError, TypeError), match=rf"^columns must be .*{bad}"):
        FactorizationLayer(3, bad)
    with pytest.raises((ValueError, TypeError), match=rf"^rows must be .*{bad}"):
        NoteRecipe(bad)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("orthogonal", "QR"),
        ("orthogonal", None),
        ("sigma", "relu"),
        ("sigma", None),
        ("dtype", torch.float16),
        ("dtype", torch.complex128),
        ("dtype", "float64"),
    ],
)
def test_kind_of_a_layer(name, bad):
    with pytest.raises(ValueError, match=rf"^{name} must be one of .*, not {bad!r}"):
        FactorizationLayer(3, 3, **{name: bad})


@pytest.mark.parametrize("seed", [-1, 0.5, None, True])
@pytest.mark.parametrize("seeded", [FactorizationLayer, NoteRecipe])
def test_seed_of_a_layer(seeded, seed):
    with pytest.raises((ValueError, TypeError), match="^seed must be"):
        seeded(3, 3, seed=seed)


# Training


@pytest.mark.parametrize("train_", [fit, descend])
@pytest.mark.parametrize("target", [GOOD[:2], GOOD[:, :2], GOOD.expand(2, 3, 3), GOOD[None]])
def test_target_of_another_shape(train_, target):
    with pytest.raises(ValueError, match=r"^target must have the layer's shape \(3, 3\), not"):
        train_(FactorizationLayer(3, 3), target)


@pytest.mark.parametrize("train_", [fit, descend])
def test_target_more_precise_than_the_layer(train_):
    with pytest.raises(TypeError, match="^target must be float32 .*, not torch.float64"):
        train_(FactorizationLayer(3, 3, dtype=torch.float32), GOOD)


@pytest.mark.parametrize("train_", [fit, descend])
def test_target_with_a_norm_beyond_the_largest_number(train_):
    with pytest.raises(ValueError, match="^target must"):
        train_(FactorizationLayer(3, 3), torch.full((3, 3), 1.7e308, dtype=torch.float64))


@pytest.mark.parametrize("train_", [fit, descend])
@pytest.mark.parametrize("layer", [None, torch.nn.Linear(3, 3), FactorizationLayer, GOOD])
def test_not_a_layer(train_, layer):
    with pytest.raises(TypeError, match="^layer must be a FactorizationLayer, not"):
        train_(layer, GOOD)


@pytest.mark.parametrize("steps", [0, -1, 2.0, None, True])
@pytest.mark.parametrize("train_", [gauss_newton, descend])
def test_steps(train_, steps):
    with pytest.raises((ValueError, TypeError), match="^steps must be"):
        train_(FactorizationLayer(3, 3), GOOD, steps=steps)


@pytest.mark.parametrize("bad", [0, -1e-3, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize(
    ("train_", "name"), [(gauss_newton, "tolerance"), (descend, "learning_rate")]
)
def test_tolerance_and_learning_rate(train_, name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
        train_(FactorizationLayer(3, 3), GOOD, **{name: bad})


@pytest.mark.parametrize("optimizer", ["sgd", "Adam", None, torch.optim.Adam])
def test_optimizer(optimizer):
    with pytest.raises(ValueError, match="^optimizer must be .*, not"):
        descend(FactorizationLayer(3, 3), GOOD, optimizer=optimizer)


@pytest.mark.parametrize(
    "layer",
    [
        NoteRecipe(3),
        FactorizationLayer(3, 3, sigma="softplus"),
        FactorizationLayer(3, 3, sigma="absolute"),
        FactorizationLayer(3, 3, orthogonal="cayley"),
    ],
)
def test_gauss_newton_on_a_layer_of_another_kind(layer):
    with pytest.raises(ValueError, match="^layer must be signed qr with free sigma.*use descend"):
        gauss_newton(layer, GOOD)


@pytest.mark.parametrize("sigma", ["softplus", "absolute"])
def test_only_a_free_sigma_can_be_eliminated(sigma):
    with pytest.raises(ValueError, match=f"^eliminate must be False .*{sigma}"):
        descend(FactorizationLayer(3, 3, sigma=sigma), GOOD, eliminate=True)


def test_unknown_option():
    with pytest.raises(TypeError, match="stepz"):
        fit(FactorizationLayer(3, 3), GOOD, stepz=4)


# The operator and the note's targets


@pytest.mark.parametrize("rank", [0, -1, 2.0, "2", True])
def test_rank_of_an_operator(rank):
    with pytest.raises((ValueError, TypeError), match=rf"^rank must be .*{rank}"):
        FactorizationOperator(rank)


@pytest.mark.parametrize("X", [GOOD, GOOD[:, :2], torch.ones(5, 3, 4)])
def test_rank_above_that_of_the_matrices(X):
    with pytest.raises(ValueError, match=rf"^rank must be at most .*{min(X.shape[-2:])}, not 4"):
        FactorizationOperator(4)(X)


def test_excess_error_needs_a_rank():
    with pytest.raises((ValueError, TypeError), match="^rank must be"):
        excess_error(FactorizationOperator(), GOOD, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("roots", "error"),
    [
        ([[0.0]], TypeError),
        (GOOD.long(), TypeError),
        (GOOD[0], ValueError),
        (GOOD[None], ValueError),
        (GOOD[:0], ValueError),
        (NAN, ValueError),
    ],
)
def test_roots(roots, error):
    with pytest.raises(error, match="^roots must"):
        FactorizationOperator(roots=roots)


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64, "float64"])
def test_dtype_of_an_operator(dtype):
    with pytest.raises(ValueError, match="^dtype must be one of"):
        FactorizationOperator(dtype=dtype)


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


# Landmarks

LANDMARKS = [method for method in METHODS if method not in ORACLES]
PARTS = {
    name: gaussian(*shape, seed=seed)
    for seed, (name, shape) in enumerate(
        {"queries": (9, 4), "keys": (6, 4), "values": (6, 3)}.items()
    )
}


def try_to_compress(method="k-means", rank=2, *, options=None, **changed):
    return compress(method, **{**PARTS, **changed}, rank=rank, **(options or {}))


def with_entry(name, value):
    tensor = PARTS[name].clone()
    tensor[1, 2] = value
    return tensor


@pytest.mark.parametrize("bad", ["kmeans", "K-means", "", None, 3])
def test_unknown_method(bad):
    with pytest.raises(ValueError, match="^method must be one of 'constant', .*'learned'.*, not"):
        try_to_compress(bad)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [0, -1, 7, 2.0, "2", True, None])
def test_rank_of_a_compression(method, bad):
    with pytest.raises((ValueError, TypeError), match=rf"^rank must be .*{bad}"):
        try_to_compress(method, bad)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", PARTS)
def test_non_finite_parts(method, name, bad):
    with pytest.raises(ValueError, match=f"^{name} must be finite, but 1 of its"):
        try_to_compress(method, **{name: with_entry(name, bad)})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (torch.ones(6, 4, dtype=torch.int64), "int64"),
        (torch.ones(6, 4, dtype=torch.float16), "float16"),
        (torch.ones(6, 4, dtype=torch.complex128), "complex128"),
        (PARTS["keys"].numpy(), "ndarray"),
        (PARTS["keys"].tolist(), "list"),
        (None, "NoneType"),
    ],
)
@pytest.mark.parametrize("name", PARTS)
def test_kind_of_the_parts(name, bad, said):
    with pytest.raises(TypeError, match=rf"^{name} must .*{said}"):
        try_to_compress(**{name: bad})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (PARTS["keys"][0], "dimensions"),
        (PARTS["keys"][:0], "empty"),
        (PARTS["keys"][:, :0], "empty"),
    ],
)
@pytest.mark.parametrize("name", PARTS)
def test_shape_of_the_parts(name, bad, said):
    with pytest.raises(ValueError, match=rf"^{name} must .*{said}"):
        try_to_compress(**{name: bad})


@pytest.mark.parametrize("name", PARTS)
def test_dtypes_of_the_parts_differ(name):
    with pytest.raises(TypeError, match=r"must share .*dtype.*float(32|64).*float(32|64)"):
        try_to_compress(**{name: PARTS[name].float()})


@pytest.mark.parametrize("name", PARTS)
def test_leading_axes_of_the_parts_differ(name):
    for extra in ((1,), (2,), (1, 1)):
        with pytest.raises(ValueError, match=r"must share .*leading axes"):
            try_to_compress(**{name: PARTS[name].expand(*extra, *PARTS[name].shape)})


def test_widths_of_queries_and_keys_differ():
    with pytest.raises(ValueError, match="^queries and keys must have the same width, not 3 and 4"):
        try_to_compress(queries=PARTS["queries"][:, :3])


@pytest.mark.parametrize("rows", [1, 5])
def test_values_without_a_row_per_key(rows):
    with pytest.raises(ValueError, match=f"^values must have one row per key, not {rows}"):
        try_to_compress(values=PARTS["values"][:rows])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["queries", "keys"])
def test_zero_rows(method, name):
    tensor = PARTS[name].clone()
    tensor[2] = 0
    tensor[4] = -0.0
    with pytest.raises(ValueError, match=f"^{name} must have no zero row, but 2 are zero"):
        try_to_compress(method, **{name: tensor})
    batch = {part: torch.stack([value, value]) for part, value in PARTS.items()}
    batch[name][1, 3] = 0
    with pytest.raises(ValueError, match=f"^{name} must have no zero row, but 1 are zero"):
        try_to_compress(method, **batch)


def test_a_zero_row_of_values_and_single_zeros_anywhere_are_fine():
    parts = {name: with_entry(name, 0) for name in PARTS}
    parts["values"][3] = 0
    assert try_to_compress(**parts).attend(parts["queries"]).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("scale", bad) for bad in (0, -1, float("nan"), float("inf"), "1", True)),
        *(("seed", bad) for bad in (-1, 0.5, "1", None, True)),
    ],
)
def test_scale_and_seed_of_a_compression(method, name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        try_to_compress(method, options={name: bad})


@pytest.mark.parametrize("method", LANDMARKS)
def test_landmarks_serve_no_mask(method):
    mask = torch.ones(9, 6, dtype=torch.bool)
    with pytest.raises(ValueError, match=f"^mask must be None for '{method}'; only .*truncated"):
        try_to_compress(method, options={"mask": mask})


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize(
    ("mask", "error"),
    [
        (torch.ones(9, 6), TypeError),
        ([[True]], TypeError),
        (torch.ones(6, 9, dtype=torch.bool), ValueError),
        (torch.zeros(9, 6, dtype=torch.bool), ValueError),
    ],
)
def test_mask_of_an_oracle(method, mask, error):
    with pytest.raises(error, match="^mask must"):
        try_to_compress(method, options={"mask": mask})


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("steps", bad) for bad in (0, -1, 2.0, None, True)),
        *(("batch", bad) for bad in (0, -1, 2.0, None, True)),
        *(("learning_rate", bad) for bad in (0, -0.1, float("nan"), float("inf"), "1", None)),
    ],
)
def test_options_of_learned(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        try_to_compress("learned", options={name: bad})


@pytest.mark.parametrize("method", METHODS)
def test_unknown_option_of_a_method(method):
    with pytest.raises(TypeError, match="stepz"):
        try_to_compress(method, options={"stepz": 3})


@pytest.mark.parametrize("method", LANDMARKS)
@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        (PARTS["queries"][:, :3], ValueError, "have width 4, not 3"),
        (PARTS["queries"][0], ValueError, "dimensions"),
        (PARTS["queries"][:0], ValueError, "empty"),
        (with_entry("queries", float("nan")), ValueError, "finite"),
        (PARTS["queries"].long(), TypeError, "int64"),
        (PARTS["queries"].numpy(), TypeError, "ndarray"),
        (None, TypeError, "NoneType"),
    ],
)
def test_queries_to_attend(method, bad, error, said):
    options = {"steps": 1} if method == "learned" else {}
    result = try_to_compress(method, options=options)
    with pytest.raises(error, match=f"^queries must .*{said}"):
        result.attend(bad)


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize(
    "bad", [PARTS["queries"][:, :3], PARTS["queries"][0], PARTS["queries"].float(), NAN]
)
def test_queries_an_oracle_cannot_serve(method, bad):
    with pytest.raises(ValueError, match="^queries must be those"):
        try_to_compress(method).attend(bad)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (PARTS["queries"].float(), TypeError),
        (PARTS["queries"].expand(3, 9, 4), ValueError),
    ],
)
def test_queries_to_attend_of_another_dtype_or_batch(bad, error):
    batch = {part: torch.stack([value, value]) for part, value in PARTS.items()}
    with pytest.raises(error, match="^queries must"):
        try_to_compress(**batch).attend(bad)


# Butterfly products

NO_POWERS_OF_TWO = [0, 1, 3, 6, 12, -8, 8.0, "8", None, True]
TARGET = torch.fft.fft(torch.eye(8, dtype=torch.complex128), norm="ortho")


@pytest.mark.parametrize("bad", NO_POWERS_OF_TWO)
@pytest.mark.parametrize(
    "call",
    [
        Butterfly,
        bit_reversal,
        cooley_tukey,
    ],
    ids=["Butterfly", "bit_reversal", "cooley_tukey"],
)
def test_no_power_of_two(call, bad):
    with pytest.raises((ValueError, TypeError), match=f"^n must be .*{bad}"):
        call(bad)


@pytest.mark.parametrize("n", [0, 1, 6])
def test_bound_of_a_size_that_is_no_power_of_two(n):
    with pytest.raises(ValueError, match=f"^n must be .*{n}"):
        rank_one_bound(torch.eye(n), torch.arange(n))


@pytest.mark.parametrize("strides", [(), (3,), (0,), (-1,), (8,), (1, 2, 16), ("1",), "12"])
def test_strides(strides):
    with pytest.raises(ValueError, match=r"^strides must be taken from \(1, 2, 4\), not \("):
        Butterfly(8, strides=strides)


@pytest.mark.parametrize("name", ["input_order", "output_order"])
@pytest.mark.parametrize(
    "order",
    [
        torch.zeros(8, dtype=torch.int64),
        torch.arange(8) + 1,
        torch.arange(8) - 1,
        torch.arange(4),
        torch.arange(16),
        torch.arange(8)[None],
        torch.tensor(0),
        [0, 1, 2, 3, 4, 5, 6, 6],
        torch.arange(8) / 2,
    ],
)
def test_no_permutation(name, order):
    with pytest.raises(ValueError, match=f"^{name} must be a permutation of 0 … 7"):
        Butterfly(8, **{name: order})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.int64, "complex128", None])
def test_dtype_of_a_butterfly(dtype):
    with pytest.raises(ValueError, match=f"^dtype must be complex64 or complex128, not {dtype}"):
        Butterfly(8, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("copies", bad) for bad in (0, -1, 2.0, "2", True)),
        *(("seed", bad) for bad in (-1, 0.5, None, True)),
    ],
)
def test_copies_and_seed_of_a_butterfly(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        Butterfly(8, **{name: bad})


@pytest.mark.parametrize("rows", [4, 7, 16])
def test_rows_of_an_input_of_a_butterfly(rows):
    with pytest.raises(ValueError, match=f"^x must have 8 rows, not {rows}"):
        Butterfly(8)(torch.ones(rows, 2))


@pytest.mark.parametrize("target", [TARGET[:4], TARGET[:, :4], TARGET[0], TARGET[None]])
def test_target_of_a_butterfly(target):
    with pytest.raises(ValueError, match=r"^target must have shape \(8, 8\), not \("):
        butterfly.fit(Butterfly(8), target)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("steps", bad) for bad in (0, -1, 2.0, None, True)),
        *(("learning_rate", bad) for bad in (0, -0.1, float("nan"), float("inf"), "1", None)),
        *(("columns", bad) for bad in (0, -1, 9, 4.0, "4", True)),
        *(("seed", bad) for bad in (-1, 0.5, None)),
    ],
)
def test_options_of_a_butterflys_training(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        butterfly.fit(Butterfly(8), TARGET, **{name: bad})


# The universal layer


@pytest.mark.parametrize(
    "classes", [(), "attention", ("Fourier",), ("low rank", "fft"), ("low rank", 3), None]
)
def test_unknown_class(classes):
    with pytest.raises(ValueError, match="^classes must be some of .*'low rank', .*'butterfly'.*"):
        UniversalLayer(8, 6, classes=classes)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("price", bad) for bad in (-1, -1e-9, float("nan"), float("inf"), "1", None, True)),
        *(("rank", bad) for bad in (0, -1, 9, 2.0, "2", None, True)),
        *(("taps", bad) for bad in (0, -1, 3.0, None, True)),
        *(("heads", bad) for bad in (0, -1, 2.0, None, True)),
        *(("seed", bad) for bad in (-1, 0.5, None, True)),
    ],
)
def test_numbers_of_a_universal_layer(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        UniversalLayer(8, 6, **{name: bad})


@pytest.mark.parametrize("taps", [2, 4, 17, 21])
def test_taps_are_odd_and_fit(taps):
    with pytest.raises(ValueError, match=f"^taps must be odd and at most 2n − 1 = 15, not {taps}"):
        UniversalLayer(8, 6, taps=taps)
    assert UniversalLayer(8, 6, taps=15).parameters_of["convolution"] == 15


@pytest.mark.parametrize("heads", [4, 5, 7, 12])
def test_heads_divide_the_width(heads):
    with pytest.raises(ValueError, match=f"^heads must divide width = 6, not {heads}"):
        UniversalLayer(8, 6, heads=heads)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("n", bad) for bad in (0, 1, -8, 8.0, "8", None, True)),
        *(("width", bad) for bad in (0, -6, 6.0, "6", None, True)),
    ],
)
def test_sizes_of_a_universal_layer(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        UniversalLayer(**{"n": 8, "width": 6, name: bad})


@pytest.mark.parametrize("n", [3, 6, 12])
def test_a_butterfly_class_needs_a_power_of_two(n):
    for classes in (CLASSES, ("butterfly",)):
        with pytest.raises(ValueError, match=f"^n must be a power of two, not {n}"):
            UniversalLayer(n, 6, classes=classes, taps=3, rank=2)


SAMPLES = gaussian(4, 8, 6, seed=0)


def hole_in(tensor, value):
    tensor = tensor.clone()
    tensor[1, 2, 3] = value
    return tensor


@pytest.mark.parametrize("name", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("bad", "error", "said"),
    [
        (hole_in(SAMPLES, float("nan")), ValueError, "finite, but 1 of its 192"),
        (hole_in(SAMPLES, float("inf")), ValueError, "finite, but 1 of its 192"),
        (SAMPLES[:0], ValueError, "empty"),
        (SAMPLES[0, 0], ValueError, "dimensions"),
        (SAMPLES.long(), TypeError, "int64"),
        (SAMPLES.half(), TypeError, "float16"),
        (SAMPLES.numpy(), TypeError, "ndarray"),
        (None, TypeError, "NoneType"),
    ],
)
def test_samples_of_a_universal_layer(name, bad, error, said):
    parts = {"inputs": SAMPLES, "outputs": SAMPLES, name: bad}
    with pytest.raises(error, match=f"^{name} must .*{said}"):
        universal.fit(UniversalLayer(8, 6), **parts)


@pytest.mark.parametrize("outputs", [SAMPLES[:2], SAMPLES[:, :4], SAMPLES[..., :3], SAMPLES[None]])
def test_samples_of_two_shapes(outputs):
    with pytest.raises(ValueError, match=r"^inputs and outputs must .*\(4, 8, 6\) and \("):
        universal.fit(UniversalLayer(8, 6), SAMPLES, outputs)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("steps", bad) for bad in (0, -1, 2.0, None, True)),
        *(
            (name, bad)
            for name in ("learning_rate", "gate_rate")
            for bad in (0, -0.1, float("nan"), float("inf"), "1", None)
        ),
    ],
)
def test_options_of_a_universal_layers_training(name, bad):
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*{bad}"):
        universal.fit(UniversalLayer(8, 6), SAMPLES, SAMPLES, **{name: bad})


@pytest.mark.parametrize("dtype", [torch.float16, torch.complex128, torch.int64, "float64", None])
def test_dtype_of_a_universal_layer(dtype):
    with pytest.raises(ValueError, match=f"^dtype must be one of .*float32.*, not {dtype!r}"):
        UniversalLayer(8, 6, dtype=dtype)


# The smallest values that are allowed

ONE = torch.ones(1, 1, dtype=torch.float64)
LEAST = {
    "truncate": lambda: truncate(GOOD, 1),
    "causal_mask": lambda: causal_mask(1),
    "gaussian": lambda: gaussian(1, seed=0),
    "random_attention": lambda: random_attention(1, 1, samples=1, seed=0),
    "shuffle_within_rows": lambda: shuffle_within_rows(ONE, seed=0),
    "FactorizationLayer": lambda: FactorizationLayer(1, 1, 1, seed=0)(),
    "NoteRecipe": lambda: NoteRecipe(1, 1, 1, seed=0)(),
    "gauss_newton": lambda: gauss_newton(FactorizationLayer(3, 3), GOOD, steps=1),
    "descend": lambda: descend(FactorizationLayer(3, 3), GOOD, steps=1),
    "FactorizationOperator": lambda: FactorizationOperator(1, seed=0)(GOOD),
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
    "compress": lambda: try_to_compress("learned", 1, options={"seed": 0, "steps": 1, "batch": 1}),
    "Butterfly": lambda: Butterfly(2, copies=1, seed=0),
    "butterfly.fit": lambda: butterfly.fit(Butterfly(8), TARGET, steps=1, columns=1, seed=0),
    "every column": lambda: butterfly.fit(Butterfly(8), TARGET, steps=1, columns=8),
    "UniversalLayer": lambda: UniversalLayer(2, 1, rank=1, taps=1, heads=1, price=0, seed=0),
    "largest sizes": lambda: UniversalLayer(8, 6, rank=8, taps=15, heads=6),
    "universal.fit": lambda: universal.fit(UniversalLayer(8, 6), SAMPLES, SAMPLES, steps=1),
}


@pytest.mark.parametrize("call", LEAST.values(), ids=LEAST)
def test_the_smallest_values_are_welcome(call):
    call()
