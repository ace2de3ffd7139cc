"""Landmarks: the door to every method, and the two methods that the helpers have (tests of experiments.rivals try them, too)."""

import pytest
import torch

from helpers.layers import METHODS, Landmarks, compress
from helpers.maths import Part, attention, attention_part, attention_weights, combine, gaussian


def problem(*batch, m=40, n=12, d=6, w=5):
    """Standard normal queries, keys and values."""
    sizes = {"queries": (m, d), "keys": (n, d), "values": (n, w)}
    return [gaussian(*batch, *size, seed=0, stream=name) for name, size in sizes.items()]


def close(result, expected, tolerance=1e-10):
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("method", METHODS)
def test_heads_are_independent_and_serve_any_queries(method):
    parts, new = problem(2, 3), gaussian(7, 6, seed=9)
    result = compress(method, *parts, 4, progress=False)
    assert isinstance(result, Landmarks)
    assert result.keys.shape == (2, 3, 4, 6)
    single = compress(method, *(part[1, 2] for part in parts), 4, progress=False)
    close(result.attend(new).outputs[1, 2], single.attend(new).outputs, 1e-7)


def test_heavy_keys_are_those_with_the_largest_total_weight():
    queries, keys, values = problem()
    heaviest = attention_weights(queries, keys).sum(0).argsort()[-4:].sort().values
    result = compress("heavy keys", queries, keys, values, 4)
    close(
        result.attend(queries),
        attention_part(queries, keys[heaviest], values[heaviest], scale=6**-0.5),
    )


def test_a_function_is_a_method_too():
    """It gets what was checked, and its answer comes back."""

    def first(problem, *, skipped=0):
        rows = slice(skipped, skipped + problem.rank)
        return problem.landmarks(problem.keys[rows], problem.values[rows])

    queries, keys, values = problem()
    result = compress(first, queries, keys, values, 4, skipped=2)
    close(result.attend(queries).outputs, attention(queries, keys[2:6], values[2:6]))


def test_landmarks_answer_with_the_mass_beside_other_keys():
    """Better than the heaviest keys, and better with the mass than without."""
    queries, keys, values = problem(m=400, n=32)
    beside = gaussian(20, 6, seed=3), gaussian(20, 5, seed=4)
    later = attention_part(queries, *beside, scale=6**-0.5)
    exact = combine(attention_part(queries, keys, values, scale=6**-0.5), later).outputs

    def error(method, **options):
        kept = compress(method, queries, keys, values, 6, progress=False, **options)
        return float((combine(kept.attend(queries), later).outputs - exact).norm())

    fitted = error("landmarks", later=later)
    assert fitted < 0.7 * error("landmarks", later=later, mass=False)
    assert fitted < 0.5 * error("heavy keys")
    assert fitted < error("landmarks", later=later, steps=0)
    assert isinstance(later, Part)
