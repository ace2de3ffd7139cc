"""Landmarks and oracles: where they are exact, what they minimise, and the peers' own numbers."""

import itertools
import math
import re

import numpy as np
import pytest
import torch

from experiments.rivals import METHODS, ORACLES, Seen, compress
from helpers.layers import Landmarks
from helpers.maths import attention, attention_weights, gaussian

LANDMARKS = [method for method in METHODS if method not in ORACLES]
SEEDED = ("k-means", "linformer", "performer", "fitted values", "learned", "landmarks")
EXACT_WITH_ALL_KEYS = ("heavy keys", "segment means", "k-means", "nystrom, exact", "fitted values")
F64 = torch.float64


def problem(*batch, m=40, n=12, d=6, w=5, seed=0):
    """Standard normal queries, keys and values."""
    sizes = {"queries": (m, d), "keys": (n, d), "values": (n, w)}
    return [gaussian(*batch, *size, seed=seed, stream=name) for name, size in sizes.items()]


def quick(method, *args, **options):
    """``compress`` with few steps: enough wherever the quality of the fit is not the question."""
    return compress(
        method, *args, **({"steps": 5} if method in ("learned", "landmarks") else {}), **options
    )


def error(result, expected):
    """Relative Frobenius error, head by head."""
    norm = torch.linalg.matrix_norm
    return norm(result - expected) / norm(expected)


def close(result, expected, tolerance=1e-10):
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)


# What every method does


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("method", METHODS)
def test_heads_are_independent_and_keep_their_precision_under_autocast(method, dtype):
    parts = problem(2, 3)
    parts[1][1, 2] *= 3  # a head unlike the others
    parts = [part.to(dtype) for part in parts]
    state, before = torch.get_rng_state(), [part.clone() for part in parts]
    result = quick(method, *parts, 4)
    outputs = result.attend(parts[0]).outputs
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    assert all(torch.equal(part, fresh) for part, fresh in zip(parts, before, strict=True))
    assert outputs.shape == (2, 3, 40, 5)
    assert outputs.dtype == dtype
    assert outputs.isfinite().all()
    assert not outputs.requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quick(method, *parts, 4).attend(parts[0]).outputs, outputs)
    for head in ((0, 0), (1, 2)):
        single = quick(method, *(part[head] for part in parts), 4)
        close(outputs[head], single.attend(parts[0][head]).outputs, 1e-9 if dtype == F64 else 1e-3)
    assert isinstance(result, Seen if method in ORACLES else Landmarks)
    if method in LANDMARKS:
        assert result.attend(parts[0][..., :7, :] + 1).outputs.shape == (2, 3, 7, 5)
        assert result.keys.shape == (2, 3, 1 if method == "constant" else 4, 6)


@pytest.mark.parametrize("rank", [1, "n"])
@pytest.mark.parametrize(("m", "n"), [(5, 12), (40, 12), (1, 4), (9, 2)])
@pytest.mark.parametrize("method", METHODS)
def test_any_sizes(method, m, n, rank):
    queries, keys, values = problem(m=m, n=n)
    outputs = (
        quick(method, queries, keys, values, n if rank == "n" else rank).attend(queries).outputs
    )
    assert outputs.shape == (m, 5)
    assert outputs.isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_random_numbers_come_from_the_seed_alone(method):
    args = problem()
    np.random.seed(1)
    first = quick(method, *args, 4, seed=3).attend(args[0]).outputs
    np.random.seed(2)
    assert torch.equal(quick(method, *args, 4, seed=3).attend(args[0]).outputs, first)
    others = [quick(method, *args, 4, seed=seed).attend(args[0]).outputs for seed in range(4, 8)]
    assert any(not torch.equal(other, first) for other in others) == (method in SEEDED)


@pytest.mark.parametrize("method", METHODS)
def test_scales_of_attention_and_of_values(method):
    """A scale s is the scale 1 of queries and keys that are √s times as long; values come out as they went in."""
    queries, keys, values = problem()
    scaled = [math.sqrt(0.3) * part for part in (queries, keys)]
    result = quick(method, queries, keys, values, 4, scale=0.3).attend(queries).outputs
    # Adam works in units of the keys, so even the learned landmarks agree, to rounding.
    close(quick(method, *scaled, values, 4, scale=1.0).attend(scaled[0]).outputs, result, 1e-8)
    default = quick(method, queries, keys, values, 4).attend(queries).outputs
    again = quick(method, queries, keys, values, 4, scale=1 / math.sqrt(6)).attend(queries).outputs
    close(again, default, 1e-12)
    for size in (1e-200, 1e200):
        close(
            quick(method, queries, keys, size * values, 4).attend(queries).outputs / size,
            default,
            1e-9,
        )


@pytest.mark.parametrize("method", [method for method in METHODS if method != "sparse + low rank"])
@pytest.mark.parametrize("rank", [1, 3, 8])
def test_no_method_of_rank_e_beats_the_bounds(method, rank):
    """With V = I the outputs are the approximation of A itself, of rank at most e."""
    queries, keys, values = problem(2)
    identity = torch.eye(12, dtype=F64).expand(2, 12, 12)
    A = attention_weights(queries, keys)
    approximation = quick(method, queries, keys, identity, rank).attend(queries).outputs
    assert (torch.linalg.matrix_rank(approximation, rtol=1e-9) <= rank).all()
    bound = error(
        compress("truncated svd", queries, keys, identity, rank).attend(queries).outputs, A
    )
    assert (error(approximation, A) >= bound - 1e-12).all()
    outputs = quick(method, queries, keys, values, rank).attend(queries).outputs
    least = error(
        compress("output rank", queries, keys, values, rank).attend(queries).outputs, A @ values
    )
    assert (error(outputs, A @ values) >= least - 1e-12).all()


# Methods without a fit


@pytest.mark.parametrize("method", EXACT_WITH_ALL_KEYS)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_all_keys_are_exact(method, batch):
    queries, keys, values = problem(*batch)
    result = compress(method, queries, keys, values, 12)
    # The ridge of the fitted values keeps them a little off.
    tolerance = 1e-6 if method == "fitted values" else 1e-9
    for x in (queries, gaussian(*batch, 50, 6, seed=9)):
        close(result.attend(x).outputs, attention(x, keys, values), tolerance)


@pytest.mark.parametrize("method", ["segment means", "k-means", "fitted values"])
def test_repeated_keys_count_as_often_as_they_occur(method):
    """Four distinct keys, 5, 5, 5 and 4 times: the bias makes four landmarks exact."""
    queries, keys, values = problem(n=19)
    keys = keys[torch.arange(19) * 4 // 19]
    result = compress(method, queries, keys, values, 4)
    close(result.attend(queries).outputs, attention(queries, keys, values), 1e-7)
    assert sorted(result.bias.exp().round().tolist()) == [4, 5, 5, 5]


def test_segments_are_as_equal_as_possible():
    queries, keys, values = problem(n=7)
    result = compress("segment means", queries, keys, values, 3)
    for found, rows in ((result.keys, keys), (result.values, values)):
        close(found, torch.stack([part.mean(0) for part in rows.split([3, 2, 2])]))
    close(result.bias, torch.tensor([3.0, 2.0, 2.0], dtype=F64).log())


@pytest.mark.parametrize("seed", range(4))
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
    close(result.attend(queries).outputs, attention(queries, keys, values))


def test_heavy_keys_and_the_constant_are_what_their_names_say():
    queries, keys, values = problem(m=100)
    sums = attention_weights(queries, keys).numpy().sum(0)
    chosen = np.sort(np.argsort(sums)[-4:])
    new = gaussian(30, 6, seed=9)
    result = compress("heavy keys", queries, keys, values, 4)
    close(result.attend(new).outputs, attention(new, keys[chosen], values[chosen]))
    mean = attention(queries, keys, values).mean(-2, keepdim=True)
    close(compress("constant", queries, keys, values, 4).attend(new).outputs, mean.expand(30, 5))


def test_linformer_projects_keys_and_values_alike_with_variance_one_over_e():
    queries, keys, values = problem(n=50)
    identity, draws = torch.eye(50, dtype=F64), []
    for seed in range(40):
        projection = compress("linformer", identity, identity, identity, 20, seed=seed).keys
        result = compress("linformer", queries, keys, values, 20, seed=seed)
        close(result.keys, projection @ keys)
        close(result.values, projection @ values)
        draws.append(projection)
    draws = torch.stack(draws)  # 40,000 numbers: the variance is known to 0.7 %
    assert abs(draws.mean()) < 4 / math.sqrt(20 * 40_000)
    assert draws.var().item() == pytest.approx(1 / 20, rel=0.03)


# Performer


def omega(result):
    """The projections ω = √s·k̂ of a "performer"."""
    return math.sqrt(result.scale) * result.keys


def test_projections_are_orthogonal_within_blocks_and_as_long_as_gaussian_rows():
    squares = []
    for seed in range(200):
        projections = omega(compress("performer", *problem(n=20), 20, seed=seed))
        for block in projections.split(6):
            gram = block @ block.mT
            close(gram, gram.diagonal().diag())
        squares.append(projections.square().sum(-1))
    squares = torch.stack(squares)
    # χ² with 6 degrees of freedom: mean 6, variance 12. 4000 draws, though not quite independent.
    assert squares.mean().item() == pytest.approx(6, abs=0.3)
    assert squares.var().item() == pytest.approx(12, rel=0.2)


# The note


def note_parts(queries, keys, rank):
    """US, D and c of numpy's truncated SVD of A, the largest entry of each column of U positive."""
    U, S, Vh = np.linalg.svd(attention_weights(queries, keys).numpy(), full_matrices=False)
    U, S, Vh = U[:, :rank], S[:rank], Vh[:rank]
    signs = np.sign(U[np.abs(U).argmax(0), range(rank)])
    factors = torch.from_numpy(U * S * signs)
    return factors, torch.from_numpy(Vh * signs[:, None]), 1 - factors.min()


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_notes_values_and_keys_by_the_book(rank):
    queries, keys, values = problem()
    factors, D, c = note_parts(queries, keys, rank)
    assert (factors[:, 0] > 0).all()
    result = compress("note", queries, keys, values, rank)
    cutoff = len(factors) * torch.finfo(torch.float32).eps  # that of lstsq in single precision
    M = torch.linalg.lstsq(factors + c, factors, rcond=cutoff, driver="gelsd").solution
    close(result.values, M @ D @ values)
    target = (factors + c).log()
    assert target.min().abs() < 1e-12  # c leaves the smallest entry at 1
    close(result.keys.mT, torch.linalg.lstsq(result.scale * queries, target).solution)
    # No normalisation: a plain exponential.
    new = gaussian(7, 6, seed=9)
    close(result.attend(new).outputs, (result.scale * new @ result.keys.mT).exp() @ result.values)


@pytest.mark.parametrize("seed", range(3))
def test_the_note_does_not_hang_on_the_signs_that_lapack_chooses(seed, monkeypatch):
    args, svd = problem(2), torch.linalg.svd
    expected = compress("note", *args, 4)

    def flipped(matrix, **options):
        U, S, Vh = svd(matrix, **options)
        signs = gaussian(*S.shape, seed=seed).sign()
        return U * signs[..., None, :], S, Vh * signs[..., None]

    monkeypatch.setattr(torch.linalg, "svd", flipped)
    result = compress("note", *args, 4)
    close(result.keys, expected.keys)
    close(result.values, expected.values)


def test_notes_least_squares_has_the_cutoff_of_single_precision():
    """Above the numerical rank of A the note's own code, in single precision, gives the same values."""
    queries, keys, values = problem(m=40, n=30, d=2)
    queries, keys = 0.3 * queries, 0.3 * keys
    factors, D, c = note_parts(queries, keys, 20)
    assert torch.linalg.matrix_rank(factors, rtol=1e-9) == 20
    assert torch.linalg.matrix_rank(factors, rtol=1e-6) < 20
    single = (factors + c).float(), factors.float()
    M = torch.linalg.lstsq(*single, driver="gelsd").solution
    result = compress("note", queries, keys, values, 20)
    assert error(result.values, M.double() @ D @ values) < 0.01
    tighter = compress("note", queries, keys, values, 20, cutoff=1e-15)
    assert error(tighter.values, result.values) > 1


@pytest.mark.parametrize("copies", [1, 4])
def test_note_is_exact_where_the_logarithm_is_linear_in_the_queries(copies):
    """No more distinct queries than their width, so any function of theirs is linear on them."""
    queries, keys, values = problem(m=5, d=8)
    queries = queries.repeat(copies, 1)
    result = compress("note", queries, keys, values, 5)
    close(result.attend(queries).outputs, attention(queries, keys, values), 1e-9)


# Fitted methods


def gaussian_heads():
    return problem(4, m=1536, n=48, d=8, w=6, seed=5)


def sharp():
    queries, keys, values = gaussian_heads()
    return [2.5 * queries, keys, values]


def rim():
    """Near one plane and with long rows: the keys at its rim win every query's attention."""
    queries, keys, values = gaussian_heads()
    plane = 3 * gaussian(4, 8, 8, seed=78) * torch.tensor([0.7, 0.7, *[0.1] * 6], dtype=F64)
    return [queries @ plane.mT, keys @ plane.mT, values]


@pytest.mark.parametrize("data", [gaussian_heads, sharp, rim])
def test_learned_landmarks_win_on_given_and_on_held_out_queries(data):
    queries, keys, values = data()
    given, held_out = queries.split(768, dim=-2)
    errors = {}
    for method in ("heavy keys", "segment means", "k-means", "fitted values", "learned"):
        result = compress(method, given, keys, values, 8)
        errors[method] = torch.stack(
            [error(result.attend(x).outputs, attention(x, keys, values)) for x in (given, held_out)]
        )
    assert (errors["fitted values"][0] <= errors["k-means"][0]).all()
    for method in ("heavy keys", "segment means", "k-means", "fitted values"):
        assert (errors["learned"] < errors[method]).all(), method
    # With 768 queries for 8 landmarks the fit is no memory of the given queries.
    if data is not rim:
        assert (errors["learned"][1] < 1.5 * errors["learned"][0]).all()


@pytest.mark.parametrize("method", ["fitted values", "learned"])
def test_values_are_the_least_squares_optimum(method):
    queries, keys, values = (part[:, :200] for part in gaussian_heads())
    outputs = attention(queries, keys, values)
    result = quick(method, queries, keys, values, 8)
    weights = result.weights(queries)
    best = weights @ torch.linalg.lstsq(weights, outputs).solution
    assert (
        error(result.attend(queries).outputs, outputs) <= error(best, outputs) * (1 + 1e-6)
    ).all()
    assert (error(best, outputs) > 0.01).all()  # not an exact fit, where any values would do
    slope = weights.mT @ (result.attend(queries).outputs - outputs)
    assert slope.abs().max() < 1e-5 * (weights.mT @ outputs).abs().max()
    if method == "fitted values":
        start = compress("k-means", queries, keys, values, 8)
        assert torch.equal(result.keys, start.keys)
        assert torch.equal(result.bias, start.bias)


def test_more_steps_help_and_options_matter():
    queries, keys, values = (part[:, :400] for part in gaussian_heads())
    outputs = attention(queries, keys, values)
    found = {
        steps: compress("learned", queries, keys, values, 8, steps=steps)
        for steps in (1, 5, 30, 200)
    }
    errors = [error(result.attend(queries).outputs, outputs) for result in found.values()]
    assert all((more < less).all() for less, more in itertools.pairwise(errors[1:]))
    other = compress("learned", queries, keys, values, 8, steps=5, learning_rate=0.01)
    assert not torch.equal(other.keys, found[5].keys)


@pytest.mark.parametrize("learning_rate", [0.1, 30.0, 1e30, 1e200])
def test_learning_never_ends_above_its_start(learning_rate):
    queries, keys, values = problem(3)
    outputs = attention(queries, keys, values)
    start, end = (
        error(
            compress(method, queries, keys, values, 12, **options).attend(queries).outputs, outputs
        )
        for method, options in (
            ("fitted values", {}),
            ("learned", {"learning_rate": learning_rate}),
        )
    )
    assert (end <= start + 1e-9).all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_learning_works_in_every_mode_of_the_caller(mode, capfd):
    args = problem(2)
    args[2][1] = 0  # a head without values
    expected = quick("learned", *args, 4).attend(args[0]).outputs
    assert (expected[1] == 0).all()
    with mode():
        parts = [part.clone().requires_grad_(mode is torch.enable_grad) for part in args]
        outputs = quick("learned", *parts, 4).attend(args[0]).outputs
    assert torch.equal(outputs, expected)
    assert not outputs.requires_grad
    assert all(part.grad is None for part in parts)
    assert capfd.readouterr() == ("", "")


# Oracles


@pytest.mark.parametrize("rank", [1, 4, 12])
def test_oracles_are_numpys_and_err_by_the_tail(rank):
    queries, keys, values = problem()
    identity, A = torch.eye(12, dtype=F64), attention_weights(queries, keys)
    U, S, Vh = np.linalg.svd(A.numpy(), full_matrices=False)
    best = (U[:, :rank] * S[:rank]) @ Vh[:rank]
    found = compress("truncated svd", queries, keys, identity, rank).attend(queries).outputs
    np.testing.assert_allclose(found, best, atol=1e-12)
    outputs = compress("truncated svd", queries, keys, values, rank).attend(queries).outputs
    np.testing.assert_allclose(outputs, best @ values.numpy(), atol=1e-12)
    sigma = np.linalg.svd((A @ values).numpy(), compute_uv=False)
    lost = A @ values - compress("output rank", queries, keys, values, rank).attend(queries).outputs
    assert float(lost.norm()) == pytest.approx(np.linalg.norm(sigma[rank:]), abs=1e-12)


@pytest.mark.parametrize("rank", [1, 2, 5, 8])
def test_sparse_plus_low_rank_by_hand(rank):
    """The largest entries, then the best rank of the rest: never worse than the entries alone."""
    queries, keys, _ = problem()
    A, half = attention_weights(queries, keys).numpy(), max(1, rank // 2)
    sparse = A.copy()
    sparse.flat[np.argsort(A, axis=None)[: A.size - min(A.size, half * (40 + 12))]] = 0
    U, S, Vh = np.linalg.svd(A - sparse, full_matrices=False)
    rest = (U[:, :half] * S[:half]) @ Vh[:half]
    identity = torch.eye(12, dtype=F64)
    result = compress("sparse + low rank", queries, keys, identity, rank).attend(queries).outputs
    np.testing.assert_allclose(result, sparse + rest, atol=1e-12)
    assert np.linalg.norm(A - result.numpy()) <= np.linalg.norm(A - sparse) + 1e-12


# Refusals


@pytest.mark.bad_input
@pytest.mark.parametrize("method", METHODS)
def test_queries_that_cannot_be_served(method):
    parts = problem(2, m=9)
    result = quick(method, *parts, 2)
    same = result.attend(parts[0].clone())  # the same numbers will do
    assert torch.equal(same.outputs, result.attend(parts[0]).outputs)
    others = [parts[0].float(), parts[0][..., :3]]
    if method in ORACLES:
        others += [parts[0] + 1e-9, parts[0][:, :7], parts[0].flip(1)]
    for other in others:
        with pytest.raises(ValueError, match="^queries must be"):
            result.attend(other)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("method", "name", "values"),
    [
        *((method, "rank", (0, -1, 2.5, "3", True, 13)) for method in METHODS),
        ("learned", "steps", (0, -1, 2.5, "3", True, None)),
        ("learned", "learning_rate", (0, -0.1, float("nan"), float("inf"), "1", None)),
        ("note", "cutoff", (0, -0.1, float("nan"), float("inf"), "1", None)),
        ("k-means", "method", ("kmeans", "", None, 3)),
    ],
)
def test_arguments_that_do_not_fit(method, name, values):
    arguments = dict(zip(("queries", "keys", "values"), problem(), strict=True))
    for bad in values:
        with pytest.raises((ValueError, TypeError), match=f"^{name} must .*{re.escape(str(bad))}"):
            compress(**{"method": method, "rank": 4, **arguments, name: bad})


# Peers


@pytest.mark.parametrize("scale", [None, 0.2])
@pytest.mark.parametrize(("eps", "tolerance"), [(0.0, 1e-12), (1e-4, 0.02)])
def test_performer_is_that_of_performer_pytorch(eps, tolerance, scale):
    """Same projections: to rounding without what they add to every feature, and to 2 % with it."""
    from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel

    queries, keys, values = problem(1, 3, m=50, n=24)
    queries, keys = 0.7 * queries, 0.7 * keys
    result = compress("performer", queries, keys, values, 20, scale=scale)
    longer = 1.0 if scale is None else math.sqrt(scale * math.sqrt(6))  # theirs divides by √d
    phi_q, phi_k = (
        softmax_kernel(
            longer * x, projection_matrix=omega(result)[0, 0], is_query=is_query, eps=eps
        )
        for x, is_query in ((queries, True), (keys, False))
    )
    theirs = linear_attention(phi_q, phi_k, values)
    assert (error(result.attend(queries).outputs, theirs) < tolerance).all()


@pytest.mark.parametrize(("method", "steps"), [("nystrom", 6), ("nystrom, exact", 60)])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_nystrom_is_that_of_nystrom_attention(method, steps, scale):
    """Their module, with identity weights and without the convolution: as published, and run to convergence.

    With one head, as theirs scales the start of the iteration by the largest of all heads. Landmarks
    agree only where n is a multiple of e: elsewhere theirs pads with zero tokens.
    """
    from nystrom_attention import NystromAttention

    queries, keys, values = problem(1, 1, m=24, n=24, d=8, w=8)
    queries = scale * queries
    sizes = {"dim_head": 8, "heads": 1, "num_landmarks": 6, "pinv_iterations": steps}
    peer = NystromAttention(24, residual=False, **sizes).double()
    peer.to_qkv.weight.data = torch.eye(24, dtype=F64)
    peer.to_out = torch.nn.Identity()
    with torch.no_grad():
        theirs = peer(torch.cat([queries, keys, values], -1)[0])[None]
    result = compress(method, queries, keys, values, 6)
    assert (error(result.attend(queries).outputs, theirs) < 1e-9).all()
    if steps == 6:
        exact = compress("nystrom, exact", queries, keys, values, 6)
        assert (error(result.attend(queries).outputs, exact.attend(queries).outputs) > 1e-4).all()


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
    ours = compress("linformer", queries, keys, values, 6, seed=3).attend(queries).outputs
    close(ours, theirs, 1e-12)
