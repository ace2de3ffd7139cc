"""The learned factorization: the layer, the note's recipe, and what training reaches."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.recipe_ablation import overlap
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import (
    SIGMAS,
    DivergenceError,
    FactorizationLayer,
    Factors,
    NoteRecipe,
    descend,
    factorization,
    fit,
    gauss_newton_step,
)
from helpers.maths import MAPS, signed_qr

F64 = torch.float64
SEEDS = range(3)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def orthonormal(rows, columns, seed=0):
    return signed_qr(gaussian(rows, columns, seed=seed))


def with_singular_values(values, seed=0, rows=None):
    n = len(values)
    left = orthonormal(rows or n, n, seed=seed)
    return left * torch.as_tensor(values, dtype=F64) @ orthonormal(n, n, seed=seed + 1).T


def powers_of_ten(n, exponent):
    """n numbers from 1 down to 10^−exponent, evenly in the logarithm."""
    return torch.logspace(0, -exponent, n, dtype=F64)


def defect(Q):
    """max |QᵀQ − I|."""
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).detach().abs().max())


def negative(matrix):
    """``matrix`` of odd size, times −1 if its determinant is positive."""
    return -torch.linalg.det(matrix).sign() * matrix


def numpys_singular_values(matrix):
    """From a matrix of largest entry 1, so that extreme scales lose no digits."""
    largest = float(matrix.abs().max()) or 1.0
    return largest * np.linalg.svd((matrix / largest).double().numpy(), compute_uv=False)


# Factors


def test_matrix_and_error_by_hand():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=F64)
    factors = Factors(torch.eye(2, dtype=F64), torch.tensor([3.0, 1.0], dtype=F64), swap)
    product = torch.tensor([[0.0, 3.0], [1.0, 0.0]], dtype=F64)  # rows of Vᵀ, scaled
    assert torch.equal(factors.matrix(), product)
    assert factors.relative_error(product) == 0
    target = product + torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=F64)
    assert float(factors.relative_error(target)) == pytest.approx(5 / 35**0.5, abs=1e-15)


def test_factors_of_a_batch():
    U, S, V = orthonormal(5, 2), gaussian(3, 4, 2).abs(), orthonormal(6, 2, seed=1)
    batch = Factors(U.expand(3, 4, 5, 2), S, V.expand(3, 4, 6, 2))
    one = Factors(U, S[1, 2], V)
    assert batch.matrix().shape == (3, 4, 5, 6)
    torch.testing.assert_close(batch.matrix()[1, 2], U @ torch.diag(S[1, 2]) @ V.T)
    target = gaussian(3, 4, 5, 6, seed=2)
    errors = batch.relative_error(target)
    assert errors.shape == (3, 4)
    torch.testing.assert_close(errors[1, 2], one.relative_error(target[1, 2]))


def test_error_of_a_zero_matrix():
    U, zero = orthonormal(3, 2), torch.zeros(3, 2, dtype=F64)
    nothing = Factors(U, torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    something = Factors(U, torch.ones(2, dtype=F64), torch.eye(2, dtype=F64))
    assert nothing.relative_error(zero) == 0
    assert something.relative_error(zero) == float("inf")
    assert nothing.relative_error(U) == 1


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_relative_error_ignores_scale(scale):
    target, U, V = gaussian(4, 3), orthonormal(4, 3), orthonormal(3, 3, seed=1)
    S = torch.tensor([3.0, 2.0, 1.0], dtype=F64)
    scaled = Factors(U, scale * S, V).relative_error(scale * target)
    expected = Factors(U, S, V).relative_error(target)
    torch.testing.assert_close(scaled, expected, atol=0, rtol=1e-12)


# The layer


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("orthogonal", MAPS)
@pytest.mark.parametrize(("rows", "columns", "rank"), [(6, 6, 6), (7, 4, 4), (4, 7, 2), (5, 1, 1)])
def test_factors_are_orthonormal_and_not_negative(rows, columns, rank, orthogonal, sigma):
    for seed in SEEDS:
        layer = FactorizationLayer(
            rows, columns, rank, orthogonal=orthogonal, sigma=sigma, seed=seed
        )
        factors = layer()
        assert factors.U.shape == (rows, rank)
        assert factors.S.shape == (rank,)
        assert factors.V.shape == (columns, rank)
        assert max(defect(factors.U), defect(factors.V)) < 1e-12
        assert (factors.S >= 0).all()


def test_rank_is_as_large_as_it_can_be_by_default():
    assert FactorizationLayer(7, 4).rank == FactorizationLayer(4, 7).rank == 4


@pytest.mark.parametrize(
    ("sigma", "positive"),
    [
        ("free", lambda s: s.abs()),
        ("absolute", lambda s: s.abs()),
        ("softplus", lambda s: s.exp().log1p()),
    ],
)
def test_singular_values_by_definition(sigma, positive):
    layer = FactorizationLayer(6, 5, sigma=sigma, seed=2)
    assert (layer.middle < 0).any()
    torch.testing.assert_close(layer().S, positive(layer.middle))


def test_a_free_sign_moves_into_u_and_an_absolute_one_is_lost():
    free, absolute = (FactorizationLayer(6, 5, sigma=sigma) for sigma in ("free", "absolute"))
    U, V = free.orthonormal()
    torch.testing.assert_close(free().matrix(), U @ torch.diag(free.middle) @ V.T)
    torch.testing.assert_close(absolute().matrix(), U @ torch.diag(free.middle.abs()) @ V.T)


@pytest.mark.parametrize("layer_class", [FactorizationLayer, NoteRecipe])
def test_start_is_a_function_of_the_seed_alone(layer_class):
    state = torch.get_rng_state()
    first = layer_class(5, 4, seed=3)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    torch.rand(7)  # another global state
    again, other = layer_class(5, 4, seed=3), layer_class(5, 4, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])


def test_training_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    fit(FactorizationLayer(4, 4), gaussian(4, 4))
    descend(FactorizationLayer(4, 4), gaussian(4, 4), steps=2, scale=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("orthogonal", MAPS)
@pytest.mark.parametrize(("rows", "columns", "rank"), [(3, 3, 3), (4, 3, 2), (2, 4, 1)])
def test_gradients_flow(rows, columns, rank, orthogonal, sigma):
    layer = FactorizationLayer(rows, columns, rank, orthogonal=orthogonal, sigma=sigma, seed=1)
    names, values = zip(*layer.named_parameters(), strict=True)

    def factors(*values):
        result = functional_call(layer, dict(zip(names, values, strict=True)), ())
        return result.U, result.S, result.V, result.matrix()

    assert torch.autograd.gradcheck(factors, values)


@pytest.mark.parametrize("train", [None, fit])
@pytest.mark.parametrize("layer_class", [FactorizationLayer, NoteRecipe])
def test_state_goes_through_a_file_into_another_layer(layer_class, train):
    layer, other = layer_class(5, 4, 3, seed=1), layer_class(5, 4, 3, seed=2)
    if train:
        train(layer, gaussian(5, 4), steps=5)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for name in ("U", "S", "V"):
        assert torch.equal(getattr(layer(), name), getattr(other(), name))


@pytest.mark.parametrize("orthogonal", MAPS)
def test_precision_and_device_follow_the_parameters(orthogonal):
    layer = FactorizationLayer(5, 4, orthogonal=orthogonal, dtype=torch.float32)
    assert {value.dtype for value in vars(layer()).values()} == {torch.float32}
    assert {value.dtype for value in vars(layer.double()()).values()} == {F64}
    # "meta" is the device that every machine has: a constant made on the CPU would raise.
    assert {value.device.type for value in vars(layer.to("meta")()).values()} == {"meta"}


COMPILED_EQUALS_EAGER = """
import torch
from helpers.factorization import FactorizationLayer
for orthogonal in ("signed qr", "cayley", "householder"):
    torch.compiler.reset()
    layer = FactorizationLayer(3, 2, orthogonal=orthogonal)
    eager, compiled = layer(), torch.compile(layer, fullgraph=True, backend="aot_eager")()
    gradients = []
    for factors in (eager, compiled):
        layer.zero_grad()
        factors.matrix().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in layer.parameters()]))
    torch.testing.assert_close(compiled.matrix(), eager.matrix(), atol=1e-14, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-13, rtol=0)
"""


def test_compiles_without_graph_breaks():
    # In a process of its own: the shape checks of the test run can't be traced.
    run = subprocess.run(
        [sys.executable, "-c", COMPILED_EQUALS_EAGER], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


# Training to an SVD

TARGETS = {
    "tall": lambda seed: gaussian(20, 8, seed=seed),
    "wide": lambda seed: gaussian(8, 20, seed=seed),
    "rank deficient": lambda seed: gaussian(12, 3, seed=seed) @ gaussian(3, 10, seed=seed + 1),
    "condition 1e6": lambda seed: with_singular_values(powers_of_ten(16, 6), seed),
    "condition 1e10": lambda seed: with_singular_values(powers_of_ten(16, 10), seed, rows=20),
    "repeated": lambda seed: with_singular_values([3.0] * 5 + [2.0] * 6 + [1.0] * 5, seed),
    "orthogonal": lambda seed: orthonormal(16, 16, seed=seed),
    "orthogonal, det < 0": lambda seed: negative(orthonormal(15, 15, seed=seed)),
    "det < 0": lambda seed: negative(gaussian(9, 9, seed=seed)),
    "permutation": lambda seed: torch.eye(12, dtype=F64)[gaussian(12, seed=seed).argsort()],
    "skew-symmetric": lambda seed: gaussian(9, 9, seed=seed) - gaussian(9, 9, seed=seed).T,
    "symmetric": lambda seed: gaussian(9, 9, seed=seed) + gaussian(9, 9, seed=seed).T,
    "nilpotent": lambda seed: torch.ones(9, dtype=F64).diag(1),
    "all ones": lambda seed: torch.ones(9, 7, dtype=F64),
    "causal attention": lambda seed: gaussian(16, 16, seed=seed).exp().tril(),
    "one by one": lambda seed: gaussian(1, 1, seed=seed),
    "one row": lambda seed: gaussian(1, 9, seed=seed),
    "one column": lambda seed: gaussian(9, 1, seed=seed),
    "scale 1e200": lambda seed: 1e200 * gaussian(8, 6, seed=seed),
    "scale 1e-200": lambda seed: 1e-200 * gaussian(8, 6, seed=seed),
}


def check_svd(layer, target, result):
    """The fit says what the layer holds, and that is an SVD of the target."""
    factors, sigma = layer(), numpys_singular_values(target)
    assert result.converged
    assert result.relative_error <= 1e-6
    own_error = factors.relative_error(target).item()
    assert own_error == pytest.approx(result.relative_error, abs=1e-14)
    assert max(defect(factors.U), defect(factors.V)) < 1e-12
    assert (factors.S >= 0).all()
    assert (factors.S.diff() <= 0).all()
    np.testing.assert_allclose(factors.S.detach() / sigma[0], sigma / sigma[0], atol=1e-8)


@pytest.mark.parametrize("case", NOTE_CASES)
def test_the_notes_targets_are_fitted(case):
    for seed in SEEDS:
        target, layer = note_targets(seed)[case], FactorizationLayer(32, 32, seed=seed)
        check_svd(layer, target, fit(layer, target))


@pytest.mark.parametrize("case", TARGETS)
def test_other_targets_are_fitted(case):
    for seed in SEEDS:
        target = TARGETS[case](seed)
        layer = FactorizationLayer(*target.shape, seed=seed)
        check_svd(layer, target, fit(layer, target))


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("n", [2, 6, 16, 64])
def test_the_identity_is_fitted_from_every_start(n, sign):
    # All singular values are equal: near a saddle the steps must be damped again to get away.
    target = sign * torch.eye(n, dtype=F64)
    errors = [fit(FactorizationLayer(n, n, seed=seed), target).relative_error for seed in range(10)]
    assert max(errors) <= 1e-6


def test_large_orthogonal_targets_are_fitted():
    for seed in SEEDS:
        target, layer = orthonormal(64, 64, seed=seed), FactorizationLayer(64, 64, seed=seed)
        check_svd(layer, target, fit(layer, target))


def test_zero_matrix():
    layer = FactorizationLayer(4, 3)
    result = fit(layer, torch.zeros(4, 3, dtype=F64))
    assert result.relative_error == 0
    assert result.converged
    assert torch.equal(layer().S, torch.zeros(3, dtype=F64))
    assert max(defect(layer().U), defect(layer().V)) < 1e-12


@pytest.mark.parametrize("options", [{}, {"scale": True}, {"scale": True, "eliminate": True}])
def test_first_order_training_on_a_zero_matrix_is_no_divergence(options):
    result = descend(FactorizationLayer(4, 3), torch.zeros(4, 3, dtype=F64), steps=20, **options)
    assert result.history.isfinite().all()
    assert result.history[-1] <= result.history[0]


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("shape", [(32, 32), (20, 12), (12, 20)])
def test_float32_targets(shape, dtype):
    target = gaussian(*shape).float()
    layer = FactorizationLayer(*shape, dtype=dtype)
    result = fit(layer, target)
    assert result.relative_error <= (1e-6 if dtype == torch.float32 else 1e-9)
    assert result.history.dtype == layer().S.dtype == dtype


SPECTRA = {
    "Gaussian": lambda seed: gaussian(16, 12, seed=seed),
    "power law": lambda seed: with_singular_values(torch.arange(1.0, 17.0) ** -0.5, seed),
    "exponential": lambda seed: with_singular_values(powers_of_ten(16, 12), seed),
    "flat": lambda seed: orthonormal(16, 16, seed=seed),
    "flat steps": lambda seed: with_singular_values([3.0] * 5 + [2.0] * 6 + [1.0] * 5, seed),
    "flat with zeros": lambda seed: with_singular_values([1.0] * 8 + [0.0] * 8, seed),
}


@pytest.mark.parametrize("rank", [1, 4, 7])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_lower_rank_reaches_the_eckart_young_optimum(spectrum, rank):
    for seed in SEEDS:
        target = SPECTRA[spectrum](seed)
        sigma = numpys_singular_values(target)
        best = np.linalg.norm(sigma[rank:]) / np.linalg.norm(sigma)
        layer = FactorizationLayer(*target.shape, rank, seed=seed)
        result = fit(layer, target)
        assert result.converged
        assert -1e-12 < result.relative_error - best < 1e-8
        assert (result.history.diff() <= 0).all()  # near the optimum, steps are refused
        # An error is flat at its minimum, so singular values have half as many digits.
        np.testing.assert_allclose(layer().S.detach(), sigma[:rank], atol=1e-5 * sigma[0])


def test_slow_progress_is_not_called_convergence():
    target = with_singular_values(1 + 1e-3 * torch.linspace(1, 0, 16, dtype=F64))
    result = fit(FactorizationLayer(16, 16, 5), target, steps=100)
    assert not result.converged
    assert len(result.history) == 101


def test_a_fit_is_reproducible():
    target = gaussian(8, 6)
    first, again = (fit(FactorizationLayer(8, 6, seed=2), target) for _ in range(2))
    assert torch.equal(first.history, again.history)


def test_a_second_fit_starts_where_the_first_ended():
    target, layer = gaussian(8, 6), FactorizationLayer(8, 6)
    first = fit(layer, target)
    second = fit(layer, target)
    assert float(second.history[0]) == pytest.approx(first.relative_error, abs=1e-14)


@pytest.mark.parametrize("rank", [None, 3])
def test_history_of_a_fit(rank):
    target, layer = gaussian(10, 8), FactorizationLayer(10, 8, rank, seed=1)
    U, V = layer.orthonormal()
    S = (U.T @ target @ V).diagonal()  # eliminated: the best S for the first U and V
    result = fit(layer, target)
    torch.testing.assert_close(result.singular_values[0], S.abs().detach())
    start = Factors(U, S, V).relative_error(target)
    torch.testing.assert_close(result.history[0], start.detach())
    assert (result.history.diff() <= 0).all()
    assert result.history[-1] == result.relative_error
    assert result.singular_values.shape == (len(result.history), layer.rank)
    ends = result.singular_values[-1].sort(descending=True).values
    torch.testing.assert_close(ends, layer().S.detach())
    assert 0 < result.seconds < 10


def test_steps_and_tolerance_end_a_fit():
    target = gaussian(10, 8)
    few = fit(FactorizationLayer(10, 8), target, steps=3)
    assert len(few.history) == 4
    assert not few.converged
    loose = fit(FactorizationLayer(10, 8), target, tolerance=0.1)
    assert loose.converged
    assert loose.history[-1] <= 0.1 < loose.history[-2]


class NoDecomposition(TorchDispatchMode):
    """Raises at every kernel of torch that gives singular or eigenvalues, whoever calls it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in ("svd", "eig", "pinv", "lstsq")):
            raise AssertionError(f"{func} was called")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "forbidden",
    [
        torch.svd,
        torch.linalg.svd,
        torch.linalg.svdvals,
        torch.linalg.eig,
        torch.linalg.eigvals,
        torch.linalg.eigh,
        torch.linalg.eigvalsh,
        torch.linalg.matrix_rank,
        torch.linalg.pinv,
        torch.linalg.cond,
        lambda matrix: torch.linalg.matrix_norm(matrix, ord=2),
        lambda matrix: torch.linalg.lstsq(matrix, matrix),
        torch.svd_lowrank,
        torch.lobpcg,
    ],
)
def test_decompositions_would_be_noticed(forbidden):
    with NoDecomposition(), pytest.raises(AssertionError, match="was called"):
        forbidden(gaussian(9, 9) @ gaussian(9, 9).T)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("case", NOTE_CASES)
def test_no_decomposition_is_called(case, rank):
    with NoDecomposition():
        layer = FactorizationLayer(12, 12, rank)
        fit(layer, note_targets(0, 12)[case])
        descend(layer, note_targets(0, 12)[case], steps=2, scale=True, eliminate=True)


# One step


def residual(B, turns):
    """Off-diagonal part of exp(−Ω) B exp(Γ); ``turns`` are Ω and Γ above their diagonals."""
    n = len(B)
    above = torch.triu_indices(n, n, 1)
    skew = []
    for half in turns.chunk(2):
        upper = torch.zeros(n, n, dtype=B.dtype).index_put(tuple(above), half)
        skew.append(upper - upper.T)
    turned = torch.linalg.matrix_exp(-skew[0]) @ B @ torch.linalg.matrix_exp(skew[1])
    return turned[~torch.eye(n, dtype=torch.bool)], skew


@pytest.mark.parametrize("damping", [1e-6, 0.01, 3.0])
def test_a_step_is_the_damped_least_squares_solution(damping):
    X, U, V = gaussian(4, 4), orthonormal(4, 4, seed=1), orthonormal(4, 4, seed=2)
    B, none = U.T @ X @ V, torch.zeros(12, dtype=F64)
    # Gauss–Newton: the residual is B's, its derivative is taken where B would be diagonal.
    J = torch.autograd.functional.jacobian(
        lambda turns: residual(B.diagonal().diag(), turns)[0], none
    )
    normal = J.T @ J + damping * torch.eye(12, dtype=F64)
    turns = torch.linalg.solve(normal, -J.T @ residual(B, none)[0])
    omega, gamma = residual(B, turns)[1]
    new_U, new_V = gauss_newton_step(X, U, V, damping)
    torch.testing.assert_close(new_U, signed_qr(U + U @ omega), atol=1e-12, rtol=0)
    torch.testing.assert_close(new_V, signed_qr(V + V @ gamma), atol=1e-12, rtol=0)


def test_steps_converge_quadratically():
    target = with_singular_values([4.0, 3.0, 2.0, 1.0])
    U, V = orthonormal(4, 4), orthonormal(4, 4, seed=1)
    U, V = signed_qr(U + 0.01 * gaussian(4, 4, seed=2)), signed_qr(V + 0.01 * gaussian(4, 4))
    errors = []
    for _ in range(3):
        B = U.T @ target @ V
        errors.append(float((B - B.diagonal().diag()).norm()))
        U, V = gauss_newton_step(target, U, V, 1e-20)
    assert errors[1] < 10 * errors[0] ** 2
    assert errors[2] < 10 * errors[1] ** 2


@pytest.mark.parametrize(("rows", "columns", "rank"), [(5, 5, 5), (7, 4, 4), (4, 7, 2)])
def test_steps_of_a_batch(rows, columns, rank):
    X = gaussian(3, rows, columns)
    U, V = orthonormal(rows, rank), orthonormal(columns, rank, seed=1)
    damping = torch.tensor([0.1, 1.0, 10.0], dtype=F64)[:, None, None]
    batch = gauss_newton_step(X, U.expand(3, -1, -1), V.expand(3, -1, -1), damping)
    for i in range(3):
        for one, many in zip(gauss_newton_step(X[i], U, V, float(damping[i])), batch, strict=True):
            torch.testing.assert_close(many[i], one, atol=1e-13, rtol=0)
            assert defect(one) < 1e-13


def test_a_large_damping_leaves_the_factors_where_they_are():
    U, V = orthonormal(5, 2), orthonormal(4, 2, seed=1)
    new_U, new_V = gauss_newton_step(gaussian(5, 4), U, V, 1e12)
    torch.testing.assert_close(new_U, U, atol=1e-10, rtol=0)
    torch.testing.assert_close(new_V, V, atol=1e-10, rtol=0)


# The note's recipe and first-order training


@pytest.fixture(scope="module")
def recipe() -> dict:
    """The note's recipe, in full length on its four targets."""
    return {case: fit(NoteRecipe(32), target) for case, target in note_targets(0).items()}


@pytest.mark.parametrize("case", NOTE_CASES)
def test_the_notes_recipe_does_not_fit(recipe, case):
    assert 0.6 < recipe[case].relative_error < 1.2
    assert recipe[case].history.shape == (801,)
    assert not recipe[case].converged


def test_the_notes_recipe_is_what_the_note_writes(recipe):
    target, start = note_targets(0)["low rank"], NoteRecipe(32)
    left, middle, right = (p.detach().clone().requires_grad_() for p in start.parameters())
    optimizer = torch.optim.Adam([left, middle, right], lr=3e-3)
    errors = []
    for _ in range(801):
        U, V = torch.linalg.qr(left)[0], torch.linalg.qr(right)[0]
        difference = target - U @ torch.diag(torch.nn.functional.softplus(middle)) @ V.T
        errors.append(float(difference.detach().norm() / target.norm()))
        optimizer.zero_grad()
        torch.mean(difference**2).backward()
        optimizer.step()
    np.testing.assert_allclose(recipe["low rank"].history, errors, rtol=1e-6)


def test_the_notes_recipe_is_square_and_gaussian_by_default():
    layer = NoteRecipe(40)
    assert layer.left.shape == layer.right.shape == (40, 40)
    for parameter in layer.parameters():
        assert 0.6 < parameter.std() < 1.4


def test_each_option_lowers_the_error():
    one_cycle = {"steps": 200, "scale": True, "learning_rate": 0.1, "one_cycle": True}
    options = [
        {"steps": 200},
        one_cycle,
        one_cycle | {"eliminate": True},
        {"steps": 10, "scale": True, "optimizer": "lbfgs", "eliminate": True},
    ]
    target = note_targets(0, 8)["attention"]
    errors = [descend(FactorizationLayer(8, 8), target, **each).relative_error for each in options]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_scaling_lifts_the_speed_limit_of_singular_values():
    # Adam moves a parameter by at most about 0.1 in a step, which is nothing beside σ₁ ≈ 3000.
    options = {"steps": 100, "learning_rate": 0.1, "one_cycle": True}
    fits = [
        descend(FactorizationLayer(5, 4), 1000 * gaussian(5, 4), scale=scale, **options)
        for scale in (False, True)
    ]
    assert fits[0].relative_error > 0.95
    assert fits[1].relative_error < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": True},
        {"eliminate": True},
        {"scale": True, "eliminate": True, "one_cycle": True, "learning_rate": 0.1},
        {"optimizer": "lbfgs"},
        {"scale": True, "optimizer": "lbfgs"},
    ],
)
def test_history_of_first_order_training(options):
    target, layer, seen = 7 * gaussian(5, 4), FactorizationLayer(5, 4, seed=1), []
    before = layer()
    result = descend(layer, target, steps=6, watch=seen.append, **options)
    assert result.history.shape == (7,)
    assert result.singular_values.shape == (7, 4)
    assert result.history[-1] == result.relative_error
    torch.testing.assert_close(layer().relative_error(target), result.history[-1])
    torch.testing.assert_close(layer().S, result.singular_values[-1])
    if not {"scale", "eliminate"} & set(options):
        torch.testing.assert_close(result.history[0], before.relative_error(target))
    # What is watched, are the factors of the same times in the same units.
    assert len(seen) == 6
    for factors, error, S in zip(seen, result.history, result.singular_values, strict=False):
        torch.testing.assert_close(factors.relative_error(target), error)
        torch.testing.assert_close(factors.S, S)
        assert not factors.U.requires_grad


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_scaled_training_is_the_same_at_every_scale(sigma, scale):
    target = gaussian(5, 4)
    errors = [
        descend(FactorizationLayer(5, 4, sigma=sigma), size * target, steps=20, scale=True)
        for size in (1.0, scale)
    ]
    torch.testing.assert_close(errors[1].history, errors[0].history, rtol=1e-8, atol=0)


@pytest.mark.parametrize("orthogonal", MAPS)
def test_every_map_learns(orthogonal):
    layer, target = FactorizationLayer(5, 4, orthogonal=orthogonal, seed=1), gaussian(5, 4)
    result = descend(layer, target, steps=100, scale=True, learning_rate=0.05)
    assert result.history.min() < 0.8 * result.history[0]  # LAPACK's QR does not stay there


@pytest.mark.parametrize("orthogonal", ["qr", "cayley", "exponential", "householder"])
@pytest.mark.parametrize("learning_rate", [1e5, 1e300])
def test_divergence_is_reported(orthogonal, learning_rate):
    layer = FactorizationLayer(4, 4, orthogonal=orthogonal)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with pytest.raises(DivergenceError, match=r"training diverged.*from [\d.]+ to "):
        descend(layer, gaussian(4, 4), steps=20, learning_rate=learning_rate)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


def test_short_training_shows_no_progress_bar(capsys):
    fit(FactorizationLayer(5, 4), gaussian(5, 4))
    descend(FactorizationLayer(5, 4), gaussian(5, 4), steps=5)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("train", [fit, descend])
@pytest.mark.parametrize("progress", [True, False])
def test_long_training_shows_one(train, progress, monkeypatch, capsys):
    def at_once(*args, **options):
        assert 0 < options.pop("delay") <= 10
        return tqdm(*args, **options)

    tqdm = factorization.tqdm
    monkeypatch.setattr(factorization, "tqdm", at_once)
    train(FactorizationLayer(5, 4), gaussian(5, 4), steps=5, progress=progress)
    assert ("0/5" in capsys.readouterr().err) == progress


@pytest.mark.parametrize("layer", [NoteRecipe, FactorizationLayer])
def test_a_layer_knows_nothing_of_the_target_of_its_seed(layer):
    """Both are drawn from seeds, and with the same draws a layer would start at the answer."""
    with torch.no_grad():
        starts = [layer(32, 32, seed=seed)() for seed in range(20)]
    targets = [note_targets(seed)["low rank"] for seed in range(20)]
    found = [overlap(*pair) for pair in zip(starts, targets, strict=True)]
    assert max(found) < 0.5
    assert sum(found) / 20 == pytest.approx(4 / 32, abs=0.05)
    raw = gaussian(32, 32, seed=3)
    start = layer(32, 32, seed=3).left
    cosine = (raw * start).sum() / raw.norm() / start.norm()
    assert abs(cosine) < 0.2
