"""Landmarks and oracles: where they are exact, what they minimise, and the peers' own numbers."""

import math
import re

import numpy as np
import pytest
import torch

from helpers.layers import METHODS, ORACLES, Landmarks, Seen, compress
from helpers.maths import attention, attention_weights, causal_mask, gaussian

LANDMARKS = [method for method in METHODS if method not in ORACLES]
SEEDED = ("k-means", "linformer", "performer", "fitted values", "learned")
EXACT_WITH_ALL_KEYS = ("heavy keys", "segment means", "k-means", "nystrom, exact", "fitted values")
F64 = torch.float64


def problem(*batch, m=40, n=12, d=6, w=5, seed=0):
    """Standard normal queries, keys and values."""
    sizes = ((m, d), (n, d), (n, w))
    return [gaussian(*batch, *size, seed=3 * seed + i) for i, size in enumerate(sizes)]


def quick(method, *args, **options):
    """``compress`` with few steps: enough wherever the quality of the fit is not the question."""
    return compress(method, *args, **({"steps": 5} if method == "learned" else {}), **options)


def error(result, expected):
    """Relative Frobenius error, head by head."""
    norm = torch.linalg.matrix_norm
    return norm(result - expected) / norm(expected)


def close(result, expected, tolerance=1e-10):
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)


# What every method does


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
@pytest.mark.parametrize("method", METHODS)
def test_name_shape_precision_and_count(method, batch, dtype):
    queries, keys, values = (part.to(dtype) for part in problem(*batch))
    result = quick(method, queries, keys, values, 4)
    outputs = result.attend(queries)
    assert result.name == method
    assert outputs.shape == (*batch, 40, 5)
    assert outputs.dtype == dtype
    assert outputs.isfinite().all()
    assert not outputs.requires_grad
    assert isinstance(result, Seen if method in ORACLES else Landmarks)
    if method in LANDMARKS:
        assert result.attend(queries[..., :7, :] + 1).shape == (*batch, 7, 5)
        assert result.keys.shape == (*batch, 1 if method == "constant" else 4, 6)
        stored = sum(part.numel() for part in (result.keys, result.values, result.bias))
        assert result.parameters == stored / math.prod(batch)


def test_count_of_the_oracles():
    args = problem()  # 40 queries, 12 keys, 5 columns of values
    assert compress("truncated svd", *args, 4).parameters == 4 * (40 + 5)
    assert compress("output rank", *args, 4).parameters == 4 * (40 + 5)
    assert compress("output rank", *args, 9).parameters == 5 * (40 + 5)
    # Two ranks' worth of entries, and two ranks.
    assert compress("sparse + low rank", *args, 4).parameters == 2 * (40 + 12) + 2 * (40 + 12)


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_one_by_one(method):
    queries, keys, values = problem(2, 3)
    keys[1, 2] *= 3  # a head unlike the others
    batch = quick(method, queries, keys, values, 4)
    for head in np.ndindex(2, 3):
        single = quick(method, queries[head], keys[head], values[head], 4)
        close(batch.attend(queries)[head], single.attend(queries[head]), 1e-9)
        assert batch.parameters == single.parameters


@pytest.mark.parametrize("rank", [1, 2, "n"])
@pytest.mark.parametrize(("m", "n"), [(5, 12), (40, 12), (12, 12), (1, 4), (9, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_any_sizes(method, m, n, rank):
    queries, keys, values = problem(m=m, n=n)
    result = quick(method, queries, keys, values, n if rank == "n" else rank)
    outputs = result.attend(queries)
    assert outputs.shape == (m, 5)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_random_numbers_come_from_the_seed_alone(method):
    args = problem()
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()
    first = quick(method, *args, 4, seed=3).attend(args[0])
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_equal(np.random.get_state(), states[1])
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(quick(method, *args, 4, seed=3).attend(args[0]), first)
    others = [quick(method, *args, 4, seed=seed).attend(args[0]) for seed in range(4, 8)]
    assert any(not torch.equal(other, first) for other in others) == (method in SEEDED)


def test_batches_of_the_learned_method_come_from_the_seed():
    """Tight clusters give k-means one answer up to order, so what differs is the queries drawn."""
    queries, keys, values = problem()
    keys = (3 * torch.eye(4, 6, dtype=F64)).repeat(3, 1) + 0.3 * keys
    args = queries, keys, values, 4

    def outputs(seed, batch):
        result = compress("learned", *args, steps=100, batch=batch, seed=seed)
        return result.attend(queries)

    assert torch.equal(outputs(1, 8), outputs(1, 8))
    assert (outputs(1, 8) - outputs(2, 8)).abs().max() > 1e-4
    # Two starts that differ in order alone, then the same steps.
    starts = [compress("k-means", *args, seed=seed).attend(queries) for seed in (1, 2)]
    close(*starts, 1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_inputs_stay_as_they_are(method):
    args = problem()
    quick(method, *args, 4)
    assert all(torch.equal(part, fresh) for part, fresh in zip(args, problem(), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_scale_is_that_of_attention(method):
    """A scale s is the scale 1 of queries and keys that are √s times as long."""
    queries, keys, values = problem()
    scaled = [math.sqrt(0.3) * part for part in (queries, keys)]
    result = quick(method, queries, keys, values, 4, scale=0.3).attend(queries)
    # Adam works in units of the keys, so even the learned landmarks agree, to rounding.
    close(quick(method, *scaled, values, 4, scale=1.0).attend(scaled[0]), result, 1e-8)
    default = quick(method, queries, keys, values, 4)
    close(
        quick(method, queries, keys, values, 4, scale=1 / math.sqrt(6)).attend(queries),
        default.attend(queries),
        1e-12,
    )


@pytest.mark.parametrize("method", [method for method in METHODS if method != "sparse + low rank"])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_no_method_of_rank_e_beats_the_bounds(method, rank):
    """With V = I the outputs are the approximation of A itself, of rank at most e."""
    queries, keys, values = problem(2)
    identity = torch.eye(12, dtype=F64).expand(2, 12, 12)
    A = attention_weights(queries, keys)
    approximation = compress(method, queries, keys, identity, rank).attend(queries)
    assert (torch.linalg.matrix_rank(approximation, rtol=1e-9) <= rank).all()
    bound = error(compress("truncated svd", queries, keys, identity, rank).attend(queries), A)
    assert (error(approximation, A) >= bound - 1e-12).all()
    outputs = compress(method, queries, keys, values, rank).attend(queries)
    least = error(compress("output rank", queries, keys, values, rank).attend(queries), A @ values)
    assert (error(outputs, A @ values) >= least - 1e-12).all()


# Methods without a fit


@pytest.mark.parametrize("method", EXACT_WITH_ALL_KEYS)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_all_keys_are_exact(method, batch):
    queries, keys, values = problem(*batch)
    new = gaussian(*batch, 50, 6, seed=9)
    result = compress(method, queries, keys, values, 12)
    # The ridge of the fitted values keeps them a little off.
    tolerance = 1e-6 if method == "fitted values" else 1e-9
    close(result.attend(queries), attention(queries, keys, values), tolerance)
    close(result.attend(new), attention(new, keys, values), tolerance)


@pytest.mark.parametrize("method", ["segment means", "k-means", "fitted values"])
def test_repeated_keys_count_as_often_as_they_occur(method):
    """Four distinct keys, 5, 5, 5 and 4 times: the bias makes four landmarks exact."""
    queries, keys, values = problem(n=19)
    kinds = torch.arange(19) * 4 // 19
    keys = keys[kinds]
    result = compress(method, queries, keys, values, 4)
    close(result.attend(queries), attention(queries, keys, values), 1e-7)
    if method != "fitted values":
        assert sorted(result.bias.exp().round().tolist()) == [4, 5, 5, 5]


def test_segments_are_as_equal_as_possible():
    queries, keys, values = problem(n=7)
    result = compress("segment means", queries, keys, values, 3)
    parts = keys.split([3, 2, 2]), values.split([3, 2, 2])
    close(result.keys, torch.stack([part.mean(0) for part in parts[0]]))
    close(result.values, torch.stack([part.mean(0) for part in parts[1]]))
    close(result.bias, torch.tensor([3.0, 2.0, 2.0], dtype=F64).log())


@pytest.mark.parametrize("seed", range(6))
def test_k_means_finds_clusters_and_every_key_is_at_its_nearest_centre(seed):
    queries, keys, values = problem(n=60)
    kinds = torch.arange(60) % 4
    keys = 10 * gaussian(4, 6, seed=8)[kinds] + 0.01 * keys
    result = compress("k-means", queries, keys, values, 4, seed=seed)
    nearest = torch.cdist(keys, result.keys).argmin(-1)
    for label in range(4):
        members = nearest == label
        assert kinds[members].unique().numel() == 1
        close(result.keys[label], keys[members].mean(0))
        close(result.values[label], values[members].mean(0))
        assert result.bias[label].exp().item() == pytest.approx(15)


def test_empty_clusters_weigh_nothing():
    _, keys, values = problem()
    keys = keys[:1].repeat(12, 1) / keys[0].norm()  # one distinct key, so three clusters are empty
    queries = -150 * keys[:1]
    result = compress("k-means", queries, keys, values, 4, scale=1.0)
    close(result.attend(queries), attention(queries, keys, values))


def test_heavy_keys_are_those_of_the_largest_column_sums():
    queries, keys, values = problem(m=100)
    sums = attention_weights(queries, keys).numpy().sum(0)
    chosen = np.sort(np.argsort(sums)[-4:])
    result = compress("heavy keys", queries, keys, values, 4)
    new = gaussian(30, 6, seed=9)
    close(result.attend(new), attention(new, keys[chosen], values[chosen]))


def test_constant_is_the_mean_row():
    queries, keys, values = problem(2)
    mean = attention(queries, keys, values).mean(-2, keepdim=True)
    result = compress("constant", queries, keys, values, 4)
    close(result.attend(queries), mean.expand(2, 40, 5))
    close(result.attend(gaussian(2, 9, 6, seed=9)), mean.expand(2, 9, 5))


def test_linformer_projects_keys_and_values_alike_with_variance_one_over_e():
    queries, keys, values = problem(n=50)
    identity = torch.eye(50, dtype=F64)
    draws = []
    for seed in range(40):
        projection = compress("linformer", identity, identity, identity, 20, seed=seed).keys
        draws.append(projection)
        result = compress("linformer", queries, keys, values, 20, seed=seed)
        close(result.keys, projection @ keys)
        close(result.values, projection @ values)
    draws = torch.stack(draws)  # 40,000 numbers: the variance is known to 0.7 %
    assert abs(draws.mean()) < 4 / math.sqrt(20 * 40_000)
    assert draws.var().item() == pytest.approx(1 / 20, rel=0.03)


# Performer


def omega(result):
    """The projections ω = √s·k̂ of a "performer"."""
    return math.sqrt(result.scale) * result.keys


def features(x, projections, scale):
    """exp(ω·x − ‖x‖²/2) of √s·x."""
    x = math.sqrt(scale) * x
    return (x @ projections.mT - x.square().sum(-1, keepdim=True) / 2).exp()


@pytest.mark.parametrize("scale", [None, 0.2])
@pytest.mark.parametrize("rank", [1, 5, 12])
def test_performer_equals_its_feature_maps(rank, scale):
    queries, keys, values = problem(2)
    result = compress("performer", queries, keys, values, rank, scale=scale)
    phi_q, phi_k = (features(x, omega(result), result.scale) for x in (queries, keys))
    expected = phi_q @ (phi_k.mT @ values) / (phi_q @ phi_k.sum(-2)[..., None])
    close(result.attend(queries), expected, 1e-11)


def test_projections_are_orthogonal_within_blocks_and_as_long_as_gaussian_rows():
    queries, keys, values = problem(n=20)
    squares = []
    for seed in range(200):
        projections = omega(compress("performer", queries, keys, values, 20, seed=seed))
        for block in projections.split(6):
            gram = block @ block.mT
            close(gram, gram.diagonal().diag())
        squares.append(projections.square().sum(-1))
    squares = torch.stack(squares)
    # χ² with 6 degrees of freedom: mean 6, variance 12. 4000 draws, though not quite independent.
    assert squares.mean().item() == pytest.approx(6, abs=0.3)
    assert squares.var().item() == pytest.approx(12, rel=0.2)


def test_performer_is_unbiased_before_it_is_normalised():
    """E of φ(q)·φ(k)/e is exp(s·q·k), so sums over keys, with and without values, come out."""
    queries, keys, values = problem(m=5, n=8, d=4, w=3)
    queries, keys = 0.4 * queries, 0.4 * keys
    estimates = []
    for seed in range(1200):
        result = compress("performer", queries, keys, values, 8, seed=seed)
        logits = result.scale * queries @ result.keys.mT + result.bias
        shrink = (-result.scale * queries.square().sum(-1, keepdim=True) / 2).exp()
        sums = torch.cat([result.values, torch.ones(8, 1, dtype=F64)], -1)
        estimates.append(shrink * logits.exp() @ sums / 8)
    estimates = torch.stack(estimates)
    kernel = (queries @ keys.mT / 2).exp()
    expected = torch.cat([kernel @ values, kernel.sum(-1, keepdim=True)], -1)
    spread = estimates.std(0) / math.sqrt(len(estimates))
    assert ((estimates.mean(0) - expected).abs() < 4.5 * spread).all()
    assert (spread[:, -1] < 0.02 * expected[:, -1]).all()  # so the test above has some power


# The note


def note_parts(queries, keys, rank):
    """US, D and c of the truncated SVD of A, the first singular vectors positive."""
    U, S, Vh = torch.linalg.svd(attention_weights(queries, keys), full_matrices=False)
    if U[0, 0] < 0:
        U[:, 0], Vh[0] = -U[:, 0], -Vh[0]
    factors = (U * S)[:, :rank]
    return factors, Vh[:rank], 1 - factors.min()


@pytest.mark.parametrize(("m", "n"), [(9, 7), (40, 12), (5, 12)])
def test_note_undoes_the_offset_at_full_rank(m, n):
    queries, keys, _ = problem(m=m, n=n)
    rank = min(m, n)
    factors, D, c = note_parts(queries, keys, rank)
    values = torch.eye(n, dtype=F64)
    MD = compress("note", queries, keys, values, rank).values
    close((factors + c) @ (MD @ D.mT), factors)  # D has orthonormal rows, so MDDᵀ = M
    close((factors + c) @ MD, attention_weights(queries, keys))


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_notes_values_and_keys_by_the_book(rank):
    queries, keys, values = problem()
    factors, D, c = note_parts(queries, keys, rank)
    result = compress("note", queries, keys, values, rank)
    cutoff = len(factors) * torch.finfo(torch.float32).eps  # that of lstsq in single precision
    M = torch.linalg.lstsq(factors + c, factors, rcond=cutoff, driver="gelsd").solution
    close(result.values, M @ D @ values)
    target = (factors + c).log()
    assert target.min().abs() < 1e-12  # c leaves the smallest entry at 1
    solution = torch.linalg.lstsq(result.scale * queries, target).solution
    close(result.keys.mT, solution)
    residual = target - result.scale * queries @ result.keys.mT
    close(queries.mT @ residual, torch.zeros(6, rank, dtype=F64))
    # No normalisation: a plain exponential.
    new = gaussian(7, 6, seed=9)
    close(result.attend(new), (result.scale * new @ result.keys.mT).exp() @ result.values)


@pytest.mark.parametrize("flipped", [False, True])
def test_the_notes_first_singular_vectors_are_positive(flipped, monkeypatch):
    """Whatever sign LAPACK gives them: c depends on it."""
    queries, keys, values = problem(2)
    expected = compress("note", queries, keys, values, 4)
    svd, sign = torch.linalg.svd, -1 if flipped else 1

    def other(matrix, **options):
        U, S, Vh = svd(matrix, **options)
        U, Vh = U.clone(), Vh.clone()
        U[..., 0] = sign * U[..., 0].abs()
        Vh[..., 0, :] = sign * Vh[..., 0, :].abs()
        return U, S, Vh

    monkeypatch.setattr(torch.linalg, "svd", other)
    result = compress("note", queries, keys, values, 4)
    close(result.keys, expected.keys)
    close(result.values, expected.values)


@pytest.mark.parametrize("cutoff", [0, -1.0, float("nan"), float("inf")])
def test_cutoff_of_the_note(cutoff):
    with pytest.raises((ValueError, TypeError), match="^cutoff must be "):
        compress("note", *problem(), 4, cutoff=cutoff)


def test_notes_least_squares_has_the_cutoff_of_single_precision():
    """Above the numerical rank of A the note's own code, in single precision, gives the same values."""
    queries, keys, values = problem(m=40, n=30, d=2)
    queries, keys = 0.3 * queries, 0.3 * keys
    factors, D, c = note_parts(queries.float(), keys.float(), 20)
    M = torch.linalg.lstsq(factors + c, factors, driver="gelsd").solution
    assert torch.linalg.matrix_rank(factors.double(), rtol=1e-9) == 20
    assert torch.linalg.matrix_rank(factors, rtol=1e-6) < 20
    result = compress("note", queries, keys, values, 20)
    close(result.values, (M @ D).double() @ values, 1e-3)
    tighter = compress("note", queries, keys, values, 20, cutoff=1e-15)
    assert error(tighter.values, result.values) > 1


@pytest.mark.parametrize("copies", [1, 4])
def test_note_is_exact_where_the_logarithm_is_linear_in_the_queries(copies):
    """No more distinct queries than their width, so any function of theirs is linear on them."""
    queries, keys, values = problem(m=5, d=8)
    queries = queries.repeat(copies, 1)
    result = compress("note", queries, keys, values, 5)
    close(result.attend(queries), attention(queries, keys, values), 1e-9)


# Fitted methods


def gaussian_heads():
    return problem(4, m=1536, n=48, d=8, w=6, seed=5)


def sharp():
    queries, keys, values = gaussian_heads()
    return [2.5 * queries, keys, values]


def clustered():
    """Keys about ten centres, queries that look for them."""
    queries, keys, values = gaussian_heads()
    centres = 2 * gaussian(4, 10, 8, seed=77)
    keys = centres[:, torch.arange(48) % 10] + 0.5 * keys
    return [centres[:, torch.arange(1536) % 10] + queries, keys, values]


def low_dimensional():
    """Queries and keys close to one plane; the logits' standard deviation is about 3."""
    queries, keys, values = gaussian_heads()
    plane = gaussian(4, 8, 8, seed=78) * torch.tensor([0.7, 0.7, *[0.1] * 6], dtype=F64)
    return [queries @ plane.mT, keys @ plane.mT, values]


DATA = (gaussian_heads, sharp, clustered, low_dimensional)


def errors_on_given_and_held_out(methods, queries, keys, values):
    """(2, heads) relative errors per method, fitted to half of the queries, at e = 8."""
    given, held_out = queries.split(queries.shape[-2] // 2, dim=-2)
    errors = {}
    for method in methods:
        result = compress(method, given, keys, values, 8)
        errors[method] = torch.stack(
            [error(result.attend(x), attention(x, keys, values)) for x in (given, held_out)]
        )
    return errors


@pytest.mark.parametrize("data", DATA)
def test_learned_landmarks_win_on_given_and_on_held_out_queries(data):
    methods = ("heavy keys", "segment means", "k-means", "fitted values", "learned")
    errors = errors_on_given_and_held_out(methods, *data())
    assert (errors["fitted values"][0] <= errors["k-means"][0]).all()
    for method in methods[:-1]:
        assert (errors["learned"] < errors[method]).all(), method
    # With 768 queries for 8 landmarks the fit is no memory of the given queries.
    assert (errors["learned"][1] < 1.5 * errors["learned"][0]).all()


def test_learned_landmarks_win_where_a_few_keys_take_all_the_weight():
    """Near one plane and with long rows, the keys at its rim win every query's attention."""
    queries, keys, values = low_dimensional()
    args = 3 * queries, 3 * keys, values
    assert (attention_weights(*args[:2]).sum(-2).topk(8).values.sum(-1) > 0.89 * 1536).all()
    errors = errors_on_given_and_held_out(("heavy keys", "learned"), *args)
    assert (errors["learned"] < errors["heavy keys"]).all()


@pytest.mark.parametrize("method", ["fitted values", "learned"])
def test_values_are_the_least_squares_optimum(method):
    queries, keys, values = (part[:, :200] for part in gaussian_heads())
    outputs = attention(queries, keys, values)
    result = quick(method, queries, keys, values, 8)
    weights = result.weights(queries)
    best = weights @ torch.linalg.lstsq(weights, outputs).solution
    least = error(best, outputs)
    assert (error(result.attend(queries), outputs) <= least * (1 + 1e-6)).all()
    assert (least > 0.01).all()  # not an exact fit, where any values would do
    slope = weights.mT @ (result.attend(queries) - outputs)
    assert slope.abs().max() < 1e-5 * (weights.mT @ outputs).abs().max()


def test_fitted_values_keep_the_keys_of_k_means():
    args = problem()
    fitted, start = compress("fitted values", *args, 4), compress("k-means", *args, 4)
    assert torch.equal(fitted.keys, start.keys)
    assert torch.equal(fitted.bias, start.bias)


def test_more_steps_help():
    queries, keys, values = (part[:, :400] for part in gaussian_heads())
    outputs = attention(queries, keys, values)
    errors = [
        error(compress("learned", queries, keys, values, 8, steps=steps).attend(queries), outputs)
        for steps in (3, 30, 300)
    ]
    assert (errors[0] > errors[1]).all()
    assert (errors[1] > errors[2]).all()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_do(steps):
    args = problem()
    assert compress("learned", *args, 4, steps=steps, batch=1).attend(args[0]).isfinite().all()


def test_batch_size_and_learning_rate_matter_and_a_batch_is_at_most_all_queries():
    args = problem()
    default = compress("learned", *args, 4, steps=5)
    for option in ({"batch": 3}, {"learning_rate": 0.01}, {"steps": 6}):
        other = compress("learned", *args, 4, **{"steps": 5, **option})
        assert not torch.equal(other.keys, default.keys)
    whole = compress("learned", *args, 4, steps=5, batch=40)
    assert torch.equal(whole.keys, default.keys)


@pytest.mark.parametrize("method", METHODS)
def test_short_fits_print_nothing(method, capfd):
    compress(method, *problem(), 4)
    printed = capfd.readouterr()
    assert not printed.out
    assert not printed.err


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_fits_without_gradients_switched_on(context):
    args = problem()
    with context():
        outputs = quick("learned", *args, 4).attend(args[0])
    close(outputs, quick("learned", *args, 4).attend(args[0]), 1e-12)


def test_zero_values_are_fitted_by_zero():
    queries, keys, values = problem(2)
    values[1] = 0
    result = quick("learned", queries, keys, values, 4)
    assert (result.attend(queries)[1] == 0).all()
    assert result.attend(queries)[0].isfinite().all()


def test_learning_never_ends_above_its_start():
    queries, keys, values = problem()
    outputs = attention(queries, keys, values)
    errors = [
        error(compress(method, queries, keys, values, 12).attend(queries), outputs)
        for method in ("fitted values", "learned")
    ]
    assert errors[1] <= errors[0] + 1e-9


# Oracles


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_truncated_svd_is_numpys_and_errs_by_the_tail(rank):
    queries, keys, values = problem()
    identity = torch.eye(12, dtype=F64)
    A = attention_weights(queries, keys)
    U, S, Vh = np.linalg.svd(A.numpy(), full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    approximation = compress("truncated svd", queries, keys, identity, rank).attend(queries)
    np.testing.assert_allclose(approximation, best, atol=1e-12)
    tail = math.sqrt(float((S[rank:] ** 2).sum()))
    assert float((A - approximation).norm()) == pytest.approx(tail, abs=1e-12)
    outputs = compress("truncated svd", queries, keys, values, rank).attend(queries)
    np.testing.assert_allclose(outputs, best @ values.numpy(), atol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 5, 6, 12])
def test_output_rank_errs_by_the_tail_and_is_exact_from_the_width_of_the_values_on(rank):
    queries, keys, values = problem()
    outputs = attention(queries, keys, values)
    S = np.linalg.svd(outputs.numpy(), compute_uv=False)
    result = compress("output rank", queries, keys, values, rank).attend(queries)
    tail = math.sqrt(float((S[rank:] ** 2).sum()))
    assert float((outputs - result).norm()) == pytest.approx(tail, abs=1e-12)
    assert (tail == 0) == (rank >= 5)


@pytest.mark.parametrize("rank", [1, 2, 5, 8])
def test_sparse_plus_low_rank_by_hand(rank):
    """The largest entries, then the best rank of the rest: never worse than the entries alone."""
    queries, keys, _ = problem()
    A = attention_weights(queries, keys).numpy()
    half = max(1, rank // 2)
    kept = min(A.size, half * (40 + 12))
    order = np.argsort(A, axis=None)
    sparse = A.copy()
    sparse.flat[order[: A.size - kept]] = 0
    U, S, Vh = np.linalg.svd(A - sparse, full_matrices=False)
    rest = (U[:, :half] * S[:half]) @ Vh[:half]
    identity = torch.eye(12, dtype=F64)
    result = compress("sparse + low rank", queries, keys, identity, rank).attend(queries)
    np.testing.assert_allclose(result, sparse + rest, atol=1e-12)
    assert np.linalg.norm(A - result.numpy()) <= np.linalg.norm(A - sparse) + 1e-12


def test_sparse_plus_low_rank_beats_the_low_rank_alone_on_peaked_rows():
    """Not always: on a smooth A of low rank, taking entries out raises the rank of the rest."""
    queries, keys, _ = problem()
    identity = torch.eye(12, dtype=F64)
    errors = []
    for size in (3.0, 0.1):
        args = (size * queries, keys, identity)
        A = attention_weights(*args[:2])
        both = compress("sparse + low rank", *args, 4).attend(args[0])
        low = compress("truncated svd", *args, 2).attend(args[0])  # its low-rank part's rank
        errors.append((error(both, A), error(low, A)))
    assert errors[0][0] < 0.5 * errors[0][1]
    assert errors[1][0] > errors[1][1]


@pytest.mark.parametrize("method", ORACLES)
def test_oracles_refuse_other_queries(method):
    queries, keys, values = problem()
    result = compress(method, queries, keys, values, 4)
    close(result.attend(queries.clone()), result.attend(queries), 0)  # the same numbers will do
    for other in (queries + 1e-9, queries[:7], queries.flip(0), queries[None]):
        said = re.escape(f"queries must be those that '{method}' was given")
        with pytest.raises(ValueError, match=said):
            result.attend(other)


@pytest.mark.parametrize("method", ORACLES)
@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_oracles_serve_a_causal_mask(method, batch):
    queries, keys, values = problem(*batch, m=12)
    mask = causal_mask(12)
    A = attention_weights(queries, keys, mask=mask)
    exact = compress(method, queries, keys, values, 12, mask=mask).attend(queries)
    if method != "sparse + low rank":  # of rank e/2 and some entries, which need not be all
        close(exact, A @ values, 1e-12)
    U, S, Vh = torch.linalg.svd(A if method == "truncated svd" else A @ values, full_matrices=False)
    best = (U * S[..., None, :])[..., :3] @ Vh[..., :3, :]
    result = compress(method, queries, keys, values, 3, mask=mask).attend(queries)
    if method == "sparse + low rank":
        unmasked = compress(method, queries, keys, values, 3).attend(queries)
        assert (error(result, A @ values) < error(unmasked, A @ values)).all()
    else:
        close(result, best @ values if method == "truncated svd" else best, 1e-11)


# Peers

PERFORMER_EPS = 1e-4
"""What performer-pytorch adds to every feature, in units of the largest one."""


@pytest.mark.parametrize(("eps", "tolerance"), [(0.0, 1e-12), (PERFORMER_EPS, 0.02)])
def test_performer_is_that_of_performer_pytorch(eps, tolerance):
    """Same projections: to rounding without their eps, and to 2 % with it."""
    from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel

    queries, keys, values = problem(1, 3, m=50, n=24)
    queries, keys = 0.7 * queries, 0.7 * keys
    result = compress("performer", queries, keys, values, 20)
    projections = omega(result)[0, 0]
    phi_q = softmax_kernel(queries, projection_matrix=projections, is_query=True, eps=eps)
    phi_k = softmax_kernel(keys, projection_matrix=projections, is_query=False, eps=eps)
    theirs = linear_attention(phi_q, phi_k, values)
    assert (error(result.attend(queries), theirs) < tolerance).all()


@pytest.mark.parametrize(("method", "steps"), [("nystrom", 6), ("nystrom, exact", 60)])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_nystrom_is_that_of_nystrom_attention(method, steps, scale):
    """Their module, with identity weights and without the convolution: as published, and run to convergence.

    With one head, as theirs scales the start of the iteration by the largest of all heads. Landmarks agree only where n is a multiple of e: elsewhere theirs pads with zero tokens.
    """
    from nystrom_attention import NystromAttention

    heads, n, d = 1, 24, 8
    queries, keys, values = problem(1, heads, m=n, n=n, d=d, w=d)
    queries = scale * queries
    peer = NystromAttention(
        3 * heads * d,
        dim_head=d,
        heads=heads,
        num_landmarks=6,
        pinv_iterations=steps,
        residual=False,
    ).double()
    peer.to_qkv.weight.data = torch.eye(3 * heads * d, dtype=F64)
    peer.to_out = torch.nn.Identity()
    tokens = torch.cat([part.transpose(1, 2).flatten(2) for part in (queries, keys, values)], -1)
    with torch.no_grad():
        theirs = peer(tokens).unflatten(-1, (heads, d)).transpose(1, 2)
    ours = compress(method, queries, keys, values, 6).attend(queries)
    assert (error(ours, theirs) < 1e-9).all()


def test_the_iterated_inverse_is_one_only_after_more_steps():
    queries, keys, values = problem(3)
    six, exact = (
        compress(name, queries, keys, values, 6) for name in ("nystrom", "nystrom, exact")
    )
    assert (error(six.attend(queries), exact.attend(queries)) > 1e-3).all()
    # Head by head: the scale of one head's start doesn't touch the others.
    alone = compress("nystrom", queries[1], keys[1], values[1], 6)
    close(six.values[1], alone.values)


def test_linformer_is_that_of_the_package():
    """Their module with our projection, and weights that pick queries, keys and values."""
    from linformer import LinformerSelfAttention

    queries, keys, values = problem(2, m=30, n=24, d=8, w=8)
    identity = torch.eye(24, dtype=F64)
    projection = compress("linformer", identity, identity, identity, 6, seed=3).keys
    peer = LinformerSelfAttention(16, 24, k=6, heads=1, dim_head=8).double()
    first, second = torch.eye(16, dtype=F64).split(8)
    peer.to_q.weight.data, peer.to_k.weight.data, peer.to_v.weight.data = first, first, second
    peer.proj_k.data = peer.proj_v.data = projection.mT
    peer.to_out = torch.nn.Identity()
    with torch.no_grad():
        theirs = peer(torch.cat([queries, 0 * queries], -1), torch.cat([keys, values], -1))
    ours = compress("linformer", queries, keys, values, 6, seed=3).attend(queries)
    close(ours, theirs, 1e-12)
