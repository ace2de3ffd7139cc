"""The learned factorization: its factors, the layer, one Gauss–Newton step, and the SVDs that fits end with."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.data import NOTE_CASES, note_targets
from helpers.layers import FactorizationLayer, Factors, fit, gauss_newton_step
from helpers.maths import gaussian, signed_qr

F64 = torch.float64
SEEDS = range(3)


def orthonormal(rows, columns, seed=0):
    return signed_qr(gaussian(rows, columns, seed=seed, stream="orthonormal"))


def with_singular_values(values, seed=0, rows=None):
    values = torch.as_tensor(values, dtype=F64)
    left = orthonormal(rows or len(values), len(values), seed)
    return left * values @ orthonormal(len(values), len(values), seed + 1).T


def powers_of_ten(n, exponent):
    """n numbers from 1 down to 10^−exponent, evenly in the logarithm."""
    return torch.logspace(0, -exponent, n, dtype=F64)


def defect(Q):
    """max |QᵀQ − I|."""
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).detach().abs().max())


# Factors


def test_matrix_and_error_by_hand():
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=F64)
    factors = Factors(torch.eye(2, dtype=F64), torch.tensor([3.0, 1.0], dtype=F64), swap)
    product = torch.tensor([[0.0, 3.0], [1.0, 0.0]], dtype=F64)  # rows of Vᵀ, scaled
    assert torch.equal(factors.matrix(), product)
    assert factors.relative_error(product) == 0
    target = product + torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=F64)
    assert float(factors.relative_error(target)) == pytest.approx(5 / 35**0.5, abs=1e-15)


def test_factors_of_a_batch_are_numpys():
    X = gaussian(3, 4, 5, 6, seed=2)
    U, S, Vh = np.linalg.svd(X.numpy(), full_matrices=False)
    parts = U[..., :2].copy(), S[..., :2].copy(), np.swapaxes(Vh, -1, -2)[..., :2].copy()
    errors = Factors(*map(torch.from_numpy, parts)).relative_error(X)
    expected = np.sqrt((S[..., 2:] ** 2).sum(-1) / (S**2).sum(-1))
    np.testing.assert_allclose(errors, expected, rtol=1e-12)


def test_signs_move_into_u():
    U, V, d = orthonormal(5, 3), orthonormal(4, 3), torch.tensor([2.0, -3.0, -0.0], dtype=F64)
    factors = Factors.signed(U, d, V)
    torch.testing.assert_close(factors.matrix(), U @ d.diag() @ V.T)
    assert factors.S.tolist() == [2, 3, 0]


@pytest.mark.parametrize("scale", [0.0, 1e-300, 1e-200, 1e200, 1e300])
def test_relative_error_ignores_scale_and_a_zero_matrix_is_met_exactly(scale):
    target, S = gaussian(4, 3, seed=0), torch.tensor([3.0, 2.0, 1.0], dtype=F64)
    factors, scaled = (Factors(orthonormal(4, 3), c * S, orthonormal(3, 3)) for c in (1.0, scale))
    expected = factors.relative_error(target) if scale else torch.zeros((), dtype=F64)
    torch.testing.assert_close(scaled.relative_error(scale * target), expected, atol=0, rtol=1e-12)
    assert factors.relative_error(0 * target) == float("inf")


# The layer


@pytest.mark.parametrize(
    ("rows", "columns", "rank"), [(6, 6, None), (7, 4, 3), (4, 7, 2), (5, 1, 1)]
)
def test_factors_are_orthonormal_not_negative_and_differentiable(rows, columns, rank):
    layer = FactorizationLayer(rows, columns, rank, seed=1)
    factors, r = layer(), rank or min(rows, columns)
    assert (factors.U.shape, factors.S.shape, factors.V.shape) == ((rows, r), (r,), (columns, r))
    assert max(defect(factors.U), defect(factors.V)) < 1e-12
    assert (factors.S >= 0).all()
    U, V = layer.orthonormal()
    product = U @ torch.diag(layer.middle) @ V.T
    torch.testing.assert_close(factors.matrix(), product)
    if rows * columns < 30:
        names, values = zip(*layer.named_parameters(), strict=True)

        def product(*values):
            parameters = dict(zip(names, values, strict=True))
            return functional_call(layer, parameters, ()).matrix()

        assert torch.autograd.gradcheck(product, values)


def test_a_start_comes_from_the_seed_and_goes_through_a_file():
    state = torch.get_rng_state()
    first, again, other = (FactorizationLayer(5, 4, rank=3, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    assert torch.equal(first().matrix(), again().matrix())
    assert not torch.equal(first().matrix(), other().matrix())
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(first().matrix(), other().matrix())


def test_a_layer_knows_nothing_of_the_target_of_its_seed():
    """Both are drawn from seeds, and with the same draws a layer would start at the answer."""
    cosines = []
    for seed in range(20):
        target, start = note_targets(seed)["low rank"], FactorizationLayer(32, 32, seed=seed)()
        spaces = start.U[:, :4].detach(), torch.linalg.svd(target).U[:, :4]
        cosines.append(float((spaces[0].T @ spaces[1]).square().sum()) / 4)
    assert max(cosines) < 0.5
    assert np.mean(cosines) == pytest.approx(4 / 32, abs=0.05)


def test_precision_and_device_follow_the_parameters():
    layer = FactorizationLayer(5, 4).float()
    assert {value.dtype for value in vars(layer()).values()} == {torch.float32}
    assert {value.dtype for value in vars(layer.double()()).values()} == {F64}
    # "meta" is the device that every machine has: a constant made on the CPU would raise.
    assert {value.device.type for value in vars(layer.to("meta")()).values()} == {"meta"}


COMPILED_EQUALS_EAGER = """
import torch
from helpers.layers import FactorizationLayer
layer, gradients = FactorizationLayer(3, 2), []
for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
    layer.zero_grad()
    call().matrix().square().sum().backward()
    gradients.append(torch.cat([p.grad.flatten() for p in layer.parameters()]))
torch.testing.assert_close(*gradients, atol=1e-13, rtol=0)
"""


def test_the_layer_compiles_without_graph_breaks():
    # In a process of its own: the shape checks of the test run can't be traced.
    run = subprocess.run(
        [sys.executable, "-c", COMPILED_EQUALS_EAGER], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


# One step


def residual(B, turns):
    """Off-diagonal part of exp(−Ω) B exp(Γ); ``turns`` are Ω and Γ above their diagonals."""
    n = len(B)
    skew = []
    for half in turns.chunk(2):
        upper = torch.zeros(n, n, dtype=B.dtype).index_put(tuple(torch.triu_indices(n, n, 1)), half)
        skew.append(upper - upper.T)
    turned = torch.linalg.matrix_exp(-skew[0]) @ B @ torch.linalg.matrix_exp(skew[1])
    return turned[~torch.eye(n, dtype=torch.bool)], skew


@pytest.mark.parametrize("damping", [1e-6, 0.01, 3.0])
def test_a_step_is_the_damped_least_squares_solution(damping):
    X, U, V = gaussian(4, 4, seed=0), orthonormal(4, 4, seed=1), orthonormal(4, 4, seed=2)
    B, none = U.T @ X @ V, torch.zeros(12, dtype=F64)
    # Gauss–Newton: the residual is B's, its derivative is taken where B would be diagonal.
    straight = lambda turns: residual(B.diagonal().diag(), turns)[0]  # noqa: E731
    J = torch.autograd.functional.jacobian(straight, none)
    normal = J.T @ J + damping * torch.eye(12, dtype=F64)
    omega, gamma = residual(B, torch.linalg.solve(normal, -J.T @ residual(B, none)[0]))[1]
    new_U, new_V = gauss_newton_step(X, U, V, damping)
    torch.testing.assert_close(new_U, signed_qr(U + U @ omega), atol=1e-11, rtol=0)
    torch.testing.assert_close(new_V, signed_qr(V + V @ gamma), atol=1e-11, rtol=0)


def test_steps_converge_quadratically():
    target = with_singular_values([4.0, 3.0, 2.0, 1.0])
    U, V = (
        signed_qr(orthonormal(4, 4, seed) + 0.01 * gaussian(4, 4, seed=seed)) for seed in (0, 1)
    )
    errors = []
    for _ in range(3):
        B = U.T @ target @ V
        errors.append(float((B - B.diagonal().diag()).norm()))
        U, V = gauss_newton_step(target, U, V, 1e-20)
    assert 0 < errors[1] < 10 * errors[0] ** 2
    assert errors[2] < 10 * errors[1] ** 2


@pytest.mark.parametrize(("rows", "columns", "rank"), [(5, 5, 5), (7, 4, 4), (4, 7, 2)])
def test_steps_of_a_batch_and_a_large_damping(rows, columns, rank):
    X, U, V = (
        gaussian(3, rows, columns, seed=0),
        orthonormal(rows, rank),
        orthonormal(columns, rank),
    )
    damping = torch.tensor([0.1, 1.0, 1e12], dtype=F64)[:, None, None]
    batch = gauss_newton_step(X, U.expand(3, -1, -1), V.expand(3, -1, -1), damping)
    for i in range(3):
        for one, many in zip(gauss_newton_step(X[i], U, V, float(damping[i])), batch, strict=True):
            torch.testing.assert_close(many[i], one, atol=1e-13, rtol=0)
            assert defect(one) < 1e-13
    torch.testing.assert_close(batch[0][2], U, atol=1e-10, rtol=0)


# Fits

TARGETS = {
    "tall": lambda seed: gaussian(20, 8, seed=seed),
    "wide": lambda seed: gaussian(8, 20, seed=seed),
    "rank deficient": lambda seed: gaussian(12, 3, seed=seed) @ gaussian(3, 10, seed=seed + 1),
    "condition 1e6": lambda seed: with_singular_values(powers_of_ten(16, 6), seed),
    "condition 1e10": lambda seed: with_singular_values(powers_of_ten(16, 10), seed, rows=20),
    "repeated": lambda seed: with_singular_values([3.0] * 5 + [2.0] * 6 + [1.0] * 5, seed),
    "orthogonal": lambda seed: orthonormal(16, 16, seed),
    "orthogonal, odd": lambda seed: -orthonormal(15, 15, seed),
    "large orthogonal": lambda seed: orthonormal(48, 48, seed),
    "minus identity": lambda seed: -torch.eye(6, dtype=F64),
    "permutation": lambda seed: torch.eye(12, dtype=F64)[gaussian(12, seed=seed).argsort()],
    "skew-symmetric": lambda seed: gaussian(9, 9, seed=seed) - gaussian(9, 9, seed=seed).T,
    "symmetric": lambda seed: gaussian(9, 9, seed=seed) + gaussian(9, 9, seed=seed).T,
    "nilpotent": lambda seed: torch.ones(9, dtype=F64).diag(1),
    "all ones": lambda seed: torch.ones(9, 7, dtype=F64),
    "zeros": lambda seed: torch.zeros(4, 3, dtype=F64),
    "causal attention": lambda seed: gaussian(16, 16, seed=seed).exp().tril(),
    "one by one": lambda seed: gaussian(1, 1, seed=seed),
    "one row": lambda seed: gaussian(1, 9, seed=seed),
    "one column": lambda seed: gaussian(9, 1, seed=seed),
    "scale 1e200": lambda seed: 1e200 * gaussian(8, 6, seed=seed),
    "scale 1e-200": lambda seed: 1e-200 * gaussian(8, 6, seed=seed),
    **{case: lambda seed, case=case: note_targets(seed)[case] for case in NOTE_CASES},
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_fit_ends_with_numpys_svd(case):
    for seed in SEEDS:
        target = TARGETS[case](seed)
        layer = FactorizationLayer(*target.shape, seed=seed)
        result, factors = fit(layer, target), layer()
        largest = float(target.abs().max()) or 1.0  # so that extreme scales lose no digits
        sigma = np.linalg.svd((target / largest).numpy(), compute_uv=False)
        assert result.converged
        assert result.relative_error <= 1e-6
        own_error = factors.relative_error(target).item()
        assert own_error == pytest.approx(result.relative_error, abs=1e-14)
        assert max(defect(factors.U), defect(factors.V)) < 1e-12
        assert (factors.S >= 0).all()
        assert (factors.S.diff() <= 0).all()
        found = factors.S.detach() / largest
        np.testing.assert_allclose(found, sigma, atol=1e-8 * max(sigma[0], 1e-300))


@pytest.mark.parametrize("n", [2, 6, 16, 32])
def test_the_identity_is_fitted_from_every_start(n):
    """All singular values are equal: near a saddle the steps must be damped again to get away."""
    target = torch.eye(n, dtype=F64)
    errors = [fit(FactorizationLayer(n, n, seed=seed), target).relative_error for seed in range(10)]
    assert max(errors) <= 1e-6


SPECTRA = {
    "Gaussian": lambda seed: gaussian(16, 12, seed=seed),
    "power law": lambda seed: with_singular_values(torch.arange(1.0, 17.0) ** -0.5, seed),
    "exponential": lambda seed: with_singular_values(powers_of_ten(16, 12), seed),
    "flat": lambda seed: orthonormal(16, 16, seed),
    "flat steps": TARGETS["repeated"],
    "flat with zeros": lambda seed: with_singular_values([1.0] * 8 + [0.0] * 8, seed),
}


@pytest.mark.parametrize("rank", [1, 4, 7])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_a_lower_rank_reaches_the_eckart_young_optimum(spectrum, rank):
    for seed in SEEDS:
        target = SPECTRA[spectrum](seed)
        sigma = np.linalg.svd(target.numpy(), compute_uv=False)
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


@pytest.mark.parametrize("rank", [None, 3])
def test_history_steps_and_tolerance_of_a_fit(rank):
    target, layer = gaussian(10, 8, seed=0), FactorizationLayer(10, 8, rank, seed=1)
    U, V = layer.orthonormal()
    S = (U.T @ target @ V).diagonal()  # eliminated: the best S for the first U and V
    first = fit(layer, target, steps=3)
    torch.testing.assert_close(first.singular_values[0], S.abs().detach())
    torch.testing.assert_close(first.history[0], Factors(U, S, V).relative_error(target).detach())
    assert first.history.shape == (4,)
    assert first.singular_values.shape == (4, layer.rank)
    assert not first.converged
    second = fit(layer, target, tolerance=0.9)  # starts where the first ended
    assert float(second.history[0]) == pytest.approx(first.relative_error, abs=1e-14)
    assert second.converged
    ends = second.singular_values[-1].sort(descending=True).values
    torch.testing.assert_close(ends, layer().S.detach())


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_fit_keeps_the_precision_of_its_input_in_every_mode_of_the_caller(dtype):
    target = gaussian(12, 9, seed=3).float()

    def trained():
        layer = FactorizationLayer(12, 9, seed=2).to(dtype)
        result = fit(layer, target, steps=30)
        return result.history, layer().matrix().detach()

    history, matrix = trained()
    assert history.dtype == matrix.dtype == dtype
    assert history[-1] < (1e-6 if dtype == torch.float32 else 1e-9)
    target.requires_grad_()
    for mode in (torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad(), torch.enable_grad()):
        with mode:
            again = trained()
        assert torch.equal(again[0], history)
        assert torch.equal(again[1], matrix)
    assert target.grad is None


class NoDecomposition(TorchDispatchMode):
    """Raises at every kernel of torch that gives singular or eigenvalues, whoever calls it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in str(func) for word in ("svd", "eig", "pinv", "lstsq")):
            raise AssertionError(f"{func} was called")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "forbidden",
    [
        torch.linalg.svd,
        torch.linalg.svdvals,
        torch.linalg.eig,
        torch.linalg.eigh,
        torch.linalg.pinv,
        lambda matrix: torch.linalg.matrix_norm(matrix, ord=2),
        lambda matrix: torch.linalg.lstsq(matrix, matrix),
        torch.svd_lowrank,
    ],
)
def test_decompositions_would_be_noticed(forbidden):
    with NoDecomposition(), pytest.raises(AssertionError, match="was called"):
        forbidden(gaussian(9, 9, seed=0) @ gaussian(9, 9, seed=0).T)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("case", NOTE_CASES)
def test_no_decomposition_is_called_and_no_global_randomness(case, rank):
    state = torch.get_rng_state()
    with NoDecomposition():
        layer = FactorizationLayer(12, 12, rank)
        fit(layer, note_targets(0, 12)[case])
    assert torch.equal(torch.get_rng_state(), state)
