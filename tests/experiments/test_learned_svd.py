"""The operator fθ(X) = (U, Σ, V): its factors, its polynomial, its cost, and what it loses against the best."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.learned_svd import BLOCKS, DEGREE, FactorizationOperator, excess_error
from experiments.svd_training import known_matrices
from helpers.maths import gaussian, signed_qr, uniform

F64 = torch.float64


def some_roots(blocks=BLOCKS, degree=DEGREE, seed=0):
    return uniform(blocks, degree, seed=seed)


def defect(Q):
    """max |QᵀQ − I|."""
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).detach().abs().max())


def distance(one, other):
    """‖PPᵀ − QQᵀ‖₂ of two orthonormal bases: the sine of the largest angle between their spans."""
    return float(torch.linalg.matrix_norm(one @ one.mT - other @ other.mT, ord=2).detach().max())


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("shape", [(4, 4), (7, 4), (4, 7), (3, 5, 6), (2, 3, 6, 5)])
def test_factors_are_orthonormal_descending_and_not_negative(shape, rank):
    *batch, m, n = shape
    for roots in (None, some_roots()):
        factors = FactorizationOperator(rank, roots=roots)(gaussian(*shape, seed=0))
        assert factors.U.shape == (*batch, m, rank)
        assert factors.S.shape == (*batch, rank)
        assert factors.V.shape == (*batch, n, rank)
        assert max(defect(factors.U), defect(factors.V)) < 1e-12
        assert (factors.S >= 0).all()
        assert (factors.S.diff(dim=-1) <= 0).all()


@pytest.mark.parametrize(("m", "n"), [(16, 16), (32, 32), (24, 9), (9, 24), (1, 6), (6, 1)])
def test_full_rank_is_numpys_svd(m, n):
    """A fixed number of steps has no guarantee: at 32×32 about one matrix in 300 needs more."""
    X = known_matrices(60, n, seed=12345)[0] if m == n else gaussian(20, m, n, seed=n)
    factors = FactorizationOperator(roots=some_roots())(X)
    sigma = torch.from_numpy(np.linalg.svd(X.numpy(), compute_uv=False))
    wrong = (factors.S - sigma).abs().amax(-1) > 1e-8 * sigma[:, 0]
    wrong |= factors.relative_error(X) > 1e-8
    assert wrong.sum() <= (m == n)


SPECIAL = {
    "identity": torch.eye(16, dtype=F64),
    "orthogonal": signed_qr(gaussian(16, 16, seed=0)),
    "skew-symmetric": gaussian(9, 9, seed=0) - gaussian(9, 9, seed=0).T,
    "rank 1": torch.outer(gaussian(12, seed=0), gaussian(8, seed=1)),
    "all ones": torch.ones(8, 8, dtype=F64),
    "condition 1e10": signed_qr(gaussian(12, 12, seed=0)) * torch.logspace(0, -10, 12, dtype=F64),
    "one by one": torch.tensor([[-3.0]], dtype=F64),
    "zeros": torch.zeros(5, 4, dtype=F64),
}


@pytest.mark.parametrize("case", SPECIAL)
def test_special_matrices_alone_and_in_a_batch(case):
    X = SPECIAL[case]
    batch = torch.stack([gaussian(*X.shape, seed=7), X])
    operator = FactorizationOperator()
    for factors in (operator(X), operator(batch)):
        assert max(defect(factors.U), defect(factors.V)) < 1e-12
    assert (operator(batch).relative_error(batch) < 1e-8).all()
    torch.testing.assert_close(operator(batch).S[1], operator(X).S, atol=1e-10, rtol=0)


@pytest.mark.parametrize("scale", [2.0**-700, 1e-200, 1e-3, 1e200])
def test_scale_goes_into_the_singular_values_alone(scale):
    X = gaussian(6, 5, seed=0)
    operator = FactorizationOperator(3, roots=some_roots()).requires_grad_(False)
    one, other = operator(X), operator(scale * X)
    torch.testing.assert_close(other.S / scale, one.S, atol=0, rtol=1e-10)
    torch.testing.assert_close(other.U, one.U, atol=1e-10, rtol=0)
    torch.testing.assert_close(other.V, one.V, atol=1e-10, rtol=0)
    S = torch.linalg.svdvals(X)
    lost = excess_error(operator, X, S)
    torch.testing.assert_close(excess_error(operator, scale * X, scale * S), lost)
    assert excess_error(operator, 0 * X, 0 * S) == pytest.approx(1e-15)


def test_precision_is_that_of_the_input_under_autocast_too():
    operator, X = FactorizationOperator(4, roots=some_roots()), gaussian(4, 12, 10, seed=0)
    for x in (X, X.float()):
        factors = operator(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            again = operator(x)
            product = again.matrix()
        assert {value.dtype for value in vars(again).values()} == {x.dtype}
        assert torch.equal(product, factors.matrix())
    full = FactorizationOperator()(X.float())
    assert full.relative_error(X.float()).max() < 2e-6


# The iteration and its cost


def test_roots_zero_are_the_classical_subspace_iteration():
    X = gaussian(9, 7, seed=0)
    start = FactorizationOperator(3, roots=torch.zeros(1, 1)).basis(X, 3)  # span of XᵀXV₀
    expected = torch.linalg.qr(torch.linalg.matrix_power(X.T @ X, 8) @ start).Q
    after = FactorizationOperator(3, roots=torch.zeros(3, 3)).basis(X, 3)
    assert distance(after, expected) < 1e-10
    assert distance(after, start) > 0.01
    more = FactorizationOperator(3, roots=torch.zeros(60, 3)).basis(X, 3)
    leading = torch.linalg.svd(X).Vh[:3].T
    assert distance(more, leading) < distance(after, leading) / 10


def test_a_block_applies_the_polynomial_with_the_given_roots():
    X, roots = gaussian(9, 7, seed=0), torch.tensor([0.3, 0.7, 1.5], dtype=F64)
    # The second block works on what the first has made of the unknown V₀.
    first = torch.zeros(1, 3, dtype=F64)
    V = FactorizationOperator(3, roots=first).basis(X, 3)
    unit = (X @ V).square().sum(0).min()
    shifted = [X.T @ X - root * unit * torch.eye(7, dtype=F64) for root in roots]
    expected = signed_qr(shifted[2] @ shifted[1] @ shifted[0] @ V)
    after = FactorizationOperator(3, roots=torch.stack([first[0], roots])).basis(X, 3)
    torch.testing.assert_close(after, expected, atol=1e-10, rtol=0)


class CountProducts(TorchDispatchMode):
    """Counts the matrix products that have a matrix of X's shape, or of Xᵀ's, on their left."""

    def __init__(self, m, n):
        super().__init__()
        self.shapes, self.count = {(m, n), (n, m)}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            self.count += tuple(args[0].shape[-2:]) in self.shapes
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("batch", [(), (4,)])
@pytest.mark.parametrize(("blocks", "degree"), [(1, 1), (3, 3), (2, 5)])
def test_number_of_products(blocks, degree, batch):
    operator = FactorizationOperator(3, roots=torch.zeros(blocks, degree))
    with CountProducts(11, 7) as counter:
        operator(gaussian(*batch, 11, 7, seed=0))
    assert counter.count == operator.products()


# As a module


@pytest.mark.parametrize(("shape", "rank"), [((3, 2), None), ((2, 2, 3), 1)])
def test_gradients_flow(shape, rank):
    operator = FactorizationOperator(rank, roots=some_roots(2, 2))

    def factors(X, roots):
        result = torch.func.functional_call(operator, {"roots": roots}, (X,))
        return result.U, result.S, result.V

    inputs = gaussian(*shape, seed=3).requires_grad_(), some_roots(2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(factors, inputs, atol=1e-4)


def test_the_start_comes_from_the_seed_and_the_roots_are_ones_own():
    X, state, roots = gaussian(6, 5, seed=0), torch.get_rng_state(), some_roots()
    first, again, other = (FactorizationOperator(2, roots=roots, seed=s) for s in (1, 1, 2))
    assert torch.equal(first(X).V, again(X).V)
    assert not torch.equal(first(X).V, other(X).V)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    roots.zero_()
    assert (first.roots > 0).all()
    empty = FactorizationOperator(2, seed=1)
    empty.load_state_dict(first.state_dict())
    assert torch.equal(empty(X).matrix(), first(X).matrix())


# What is lost


@pytest.mark.parametrize("options", [{}, {"rank": 5, "seed": 4}])
def test_excess_error_is_numpys_and_what_the_factors_lose(options):
    X, S = known_matrices(20, 12, seed=12345)
    operator = FactorizationOperator(3, roots=some_roots(1, 2))
    same = FactorizationOperator(
        options.get("rank", 3), roots=operator.roots, seed=options.get("seed", 0)
    )
    V = same.basis(X, same.rank).detach().numpy()
    lost = np.linalg.norm(X.numpy() - X.numpy() @ V @ V.transpose(0, 2, 1), axis=(1, 2)) ** 2
    sigma = np.linalg.svd(X.numpy(), compute_uv=False)
    best = (sigma[:, same.rank :] ** 2).sum(1)
    expected = (lost - best) / (sigma**2).sum(1)
    measured = excess_error(operator, X, S, **options).detach()
    np.testing.assert_allclose(measured, expected, atol=1e-14)
    np.testing.assert_allclose(
        excess_error(operator, X[0], S[0], **options).detach(), expected[0], atol=1e-14
    )
    from_factors = same(X).relative_error(X).detach().numpy() ** 2 - best / (sigma**2).sum(1)
    np.testing.assert_allclose(from_factors, expected, atol=1e-8)


def test_more_blocks_lose_less_down_to_rounding():
    X, S = known_matrices(20, 8, seed=12345)
    medians = [
        excess_error(FactorizationOperator(2, roots=torch.zeros(blocks, 3)), X, S).median().item()
        for blocks in (1, 3, 9, 200)
    ]
    assert medians == sorted(medians, reverse=True)
    assert 1e-15 <= medians[-1] <= 1e-14 < medians[0]


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "name", "values"),
    [
        (FactorizationOperator, "rank", (0, -1, 2.5, "3", True)),
        (lambda seed: FactorizationOperator(seed=seed), "seed", (-1, 0.5, None, True)),
        (lambda rank: FactorizationOperator(rank)(torch.eye(3)), "rank", (4,)),
        (
            lambda rank: excess_error(
                FactorizationOperator(), torch.eye(3), torch.ones(3), rank=rank
            ),
            "rank",
            (None, 4),
        ),
        (
            lambda roots: FactorizationOperator(roots=roots),
            "roots",
            (torch.ones(3), torch.ones(1, 3, 3), [[0.0]], torch.eye(3).long()),
        ),
        (
            lambda X: FactorizationOperator()(X),
            "X",
            (
                torch.full((3, 3), float("nan")),
                torch.full((3, 3), float("inf")),
                torch.ones(0, 3),
                torch.ones(3),
                torch.eye(3).long(),
                torch.eye(3).half(),
                torch.eye(3).to(torch.complex128),
                torch.eye(3).numpy(),
                None,
            ),
        ),
    ],
)
def test_wrong_arguments_are_named(call, name, values):
    for bad in values:
        with pytest.raises((ValueError, TypeError), match=f"^{name} must"):
            call(**{name: bad})
