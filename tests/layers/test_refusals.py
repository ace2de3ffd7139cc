"""Wrong arguments of the layers: an error that begins with the argument's name and says what came."""

import re

import pytest
import torch

from helpers.layers import (
    METHODS,
    Butterfly,
    FactorizationLayer,
    UniversalLayer,
    choose_classes,
    compress,
    cooley_tukey,
    factorize,
    fit,
    rank_one_bound,
)
from helpers.maths import gaussian

pytestmark = pytest.mark.bad_input

THREE, EIGHT = torch.eye(3, dtype=torch.float64), torch.eye(8, dtype=torch.float64)
SAMPLES = gaussian(4, 8, 6, seed=0)
PARTS = {
    "queries": gaussian(9, 4, seed=0),
    "keys": gaussian(6, 4, seed=1),
    "values": gaussian(6, 3, seed=2),
}


def with_entry(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[5] = value
    return tensor


def universal(**changed):
    return UniversalLayer(**{"n": 8, "width": 6, **changed})


def chosen(inputs=SAMPLES, outputs=SAMPLES, **options):
    return choose_classes(universal(), inputs, outputs, **options)


def landmarks(method="heavy keys", **changed):
    return compress(**{"method": method, "rank": 2, **PARTS, **changed})


def fitted(**changed):
    return landmarks("landmarks", **changed)


def refused(call, name, bad, error=(ValueError, TypeError), said=""):
    with pytest.raises(error, match=rf"(?s)^{name} (must|and .* must) .*{said}"):
        call(**{name: bad})


# Numbers: what to call, the argument, and values of it that are no whole or no positive number

NO_COUNT, NO_RATE = (0, -1, 2.5, "3", True), (0, -0.1, float("nan"), float("inf"), "1", None)
NO_SEED = (-1, 0.5, None, True)
NUMBERS = [
    (lambda rows: FactorizationLayer(rows, 3), "rows", (*NO_COUNT, None)),
    (lambda columns: FactorizationLayer(3, columns), "columns", (*NO_COUNT, None)),
    (lambda rank: FactorizationLayer(5, 3, rank), "rank", (*NO_COUNT, 4)),
    (lambda seed: FactorizationLayer(3, 3, seed=seed), "seed", NO_SEED),
    (lambda steps: fit(FactorizationLayer(3, 3), THREE, steps=steps), "steps", (*NO_COUNT, None)),
    (
        lambda tolerance: fit(FactorizationLayer(3, 3), THREE, tolerance=tolerance),
        "tolerance",
        NO_RATE,
    ),
    (Butterfly, "n", (0, 1, 3, 12, -8, 8.0, "8", None, True)),
    (cooley_tukey, "n", (0, 1, 3, 8.0, None)),
    (lambda n: rank_one_bound(torch.eye(n), torch.arange(n)), "n", (1, 6)),
    (lambda copies: Butterfly(8, copies=copies), "copies", NO_COUNT),
    (lambda seed: Butterfly(8, seed=seed), "seed", NO_SEED),
    (universal, "n", (0, 1, -8, 8.0, "8", None, True, 6)),
    (universal, "width", (*NO_COUNT, None)),
    (universal, "rank", (*NO_COUNT, None, 9)),
    (universal, "taps", (*NO_COUNT, None, 2, 17)),
    (universal, "heads", (*NO_COUNT, None, 4)),
    (universal, "price", (-1, float("nan"), float("inf"), "1", None, True)),
    (universal, "seed", NO_SEED),
    (chosen, "steps", (*NO_COUNT, None)),
    (chosen, "learning_rate", NO_RATE),
    (chosen, "gate_rate", NO_RATE),
    *(
        (lambda method=method, **o: landmarks(method, **o), "rank", (*NO_COUNT, 7))
        for method in METHODS
    ),
    (landmarks, "scale", NO_RATE[:-1]),
    (landmarks, "seed", NO_SEED),
    (fitted, "steps", (*NO_COUNT[1:], None)),
    (fitted, "learning_rate", NO_RATE),
]


@pytest.mark.parametrize(("call", "name", "values"), NUMBERS)
def test_numbers(call, name, values):
    for bad in values:
        refused(call, name, bad, said=re.escape(str(bad)))


# Tensors

KINDS = [
    (lambda good: with_entry(good, float("nan")), ValueError, "finite"),
    (lambda good: with_entry(good, float("inf")), ValueError, "finite"),
    (lambda good: good[:0], ValueError, "empty"),
    (lambda good: good.flatten(), ValueError, "dimensions|shape"),
    (lambda good: good[..., :-1], ValueError, "shape"),
    (lambda good: good.long(), TypeError, "int64"),
    (lambda good: good.half(), TypeError, "float16"),
    (lambda good: good.to(torch.complex128), TypeError, "complex128"),
    (lambda good: good.numpy(), TypeError, "ndarray"),
    (lambda good: good.tolist(), TypeError, "list"),
    (lambda good: None, TypeError, "NoneType"),
]
TENSORS = {
    "target of fit": (lambda target: fit(FactorizationLayer(3, 3), target), "target", THREE),
    "inputs": (chosen, "inputs", SAMPLES),
    "outputs": (chosen, "outputs", SAMPLES),
    "keys": (landmarks, "keys", PARTS["keys"]),
    "queries": (landmarks, "queries", PARTS["queries"]),
    "queries to attend": (lambda queries: landmarks().attend(queries), "queries", PARTS["queries"]),
}


@pytest.mark.parametrize(("spoil", "error", "said"), KINDS)
@pytest.mark.parametrize("case", TENSORS)
def test_tensors(case, spoil, error, said):
    call, name, good = TENSORS[case]
    if case == "keys" and said == "shape":
        name = "queries"  # of two widths that differ the queries' is named
    with pytest.raises(error, match=rf"(?s)^{name} must .*({said})"):
        call(**{TENSORS[case][1]: spoil(good)})


@pytest.mark.parametrize(("spoil", "error", "said"), [kind for kind in KINDS if kind[2] != "shape"])
def test_values_of_any_width(spoil, error, said):
    refused(landmarks, "values", spoil(PARTS["values"]), error, said)


SINGLE = {name: part.float() for name, part in PARTS.items()}
OTHERS = [
    # precision
    (lambda target: fit(FactorizationLayer(3, 3).float(), target), "target", THREE),
    (chosen, "inputs", SAMPLES.float()),
    (chosen, "outputs", SAMPLES.float()),
    (lambda x: universal()(x), "x", SAMPLES.float()),
    (lambda x: universal().eval()(x), "x", SAMPLES.float()),
    (landmarks, "queries", SINGLE["queries"]),
    (landmarks, "values", SINGLE["values"]),
    (lambda queries: landmarks().attend(queries), "queries", SINGLE["queries"]),
    # shapes
    (lambda target: fit(FactorizationLayer(3, 3), target), "target", THREE[None]),
    (
        lambda target: fit(FactorizationLayer(3, 3), target),
        "target",
        1e308 * torch.ones_like(THREE),
    ),
    (chosen, "inputs", SAMPLES[:, :4]),
    (chosen, "outputs", SAMPLES[:2]),
    (lambda x: universal()(x), "x", SAMPLES[..., :3]),
    (lambda x: universal().eval()(x), "x", SAMPLES[:, :4]),
    (landmarks, "values", PARTS["values"][:5]),
    (landmarks, "values", PARTS["values"][None]),
    (landmarks, "queries", PARTS["queries"][None]),
    (lambda x: Butterfly(8)(x), "x", torch.ones(7, 2)),
    (factorize, "matrix", EIGHT[:4]),
    (factorize, "matrix", EIGHT[None]),
    (factorize, "matrix", with_entry(EIGHT, float("nan"))),
    (factorize, "matrix", with_entry(EIGHT + 0j, complex(0, float("inf")))),
    (lambda columns: factorize(EIGHT, columns=columns), "columns", "sorted"),
    (lambda rows: factorize(EIGHT, rows=rows), "rows", None),
    # names and kinds
    *((landmarks, "method", bad) for bad in ("kmeans", "", None, 3)),
    *(
        (universal, "classes", bad)
        for bad in ((), "attention", ("low rank", "fft"), ("low rank", 3), None)
    ),
    *(
        (lambda strides: Butterfly(8, strides=strides), "strides", bad)
        for bad in ((), (3,), (8,), "12")
    ),
    *(
        (call, name, bad)
        for call, name in (
            (lambda input_order: Butterfly(8, input_order=input_order), "input_order"),
            (lambda output_order: Butterfly(8, output_order=output_order), "output_order"),
        )
        for bad in (
            torch.zeros(8).long(),
            torch.arange(8) + 1,
            torch.arange(4),
            [0] * 8,
            torch.arange(8) / 2,
        )
    ),
]


@pytest.mark.parametrize(("call", "name", "bad"), OTHERS)
def test_arguments_that_do_not_fit(call, name, bad):
    refused(call, name, bad)


def test_a_size_that_is_no_power_of_two():
    with pytest.raises(ValueError, match="the size of matrix must be a power of two, not 6"):
        factorize(torch.eye(6))


def test_options_that_there_are_not():
    for call in (lambda **o: fit(FactorizationLayer(3, 3), THREE, **o), landmarks, fitted):
        with pytest.raises(TypeError, match="stepz"):
            call(stepz=4)


@pytest.mark.parametrize("method", METHODS)
def test_queries_that_cannot_be_served(method):
    result = landmarks(method)
    for other in (PARTS["queries"].float(), PARTS["queries"][..., :3]):
        with pytest.raises(ValueError, match="^queries must be"):
            result.attend(other)


SMALLEST = {
    "FactorizationLayer": lambda: FactorizationLayer(1, 1, 1, seed=0)(),
    "fit": lambda: fit(FactorizationLayer(3, 3), THREE, steps=1),
    "compress": lambda: fitted(rank=1, seed=0, steps=0),
    "zero rows": lambda: landmarks(**{name: part.tril() for name, part in PARTS.items()}),
    "Butterfly": lambda: Butterfly(2, copies=1, seed=0),
    "factorize": lambda: factorize(torch.eye(2), columns="search", rows="search"),
    "UniversalLayer": lambda: UniversalLayer(2, 1, rank=1, taps=1, heads=1, price=0, seed=0),
    "largest sizes": lambda: universal(rank=8, taps=15, heads=6),
    "choose_classes": lambda: chosen(steps=1),
}


@pytest.mark.parametrize("call", SMALLEST.values(), ids=SMALLEST)
def test_the_smallest_values_are_welcome(call):
    call()
