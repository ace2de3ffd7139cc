"""The note's recipe as the note writes it, and first-order training that puts one thing right at a time."""

import math

import numpy as np
import pytest
import torch

from experiments.note_recipe import (
    MAPS,
    SIGMAS,
    NoteRecipe,
    VariedLayer,
    cayley,
    descend,
    lapack_qr,
)
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import DivergenceError, FactorizationLayer, fit
from helpers.maths import gaussian


def defect(Q):
    """max |QᵀQ − I|."""
    return float((Q.mT @ Q - torch.eye(Q.shape[-1], dtype=Q.dtype)).detach().abs().max())


def test_without_options_it_is_the_layer_and_with_them_it_is_not_fitted():
    plain, varied = FactorizationLayer(6, 4, 3, seed=2), VariedLayer(6, 4, 3, seed=2)
    assert torch.equal(plain().matrix(), varied().matrix())
    with pytest.raises(ValueError, match="^layer must"):
        fit(varied, gaussian(6, 4, seed=0))


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("orthogonal", MAPS)
@pytest.mark.parametrize(("rows", "columns", "rank"), [(6, 6, None), (7, 4, 3), (4, 7, 2)])
def test_factors_of_every_variant_are_orthonormal_and_not_negative(
    rows, columns, rank, orthogonal, sigma
):
    layer = VariedLayer(rows, columns, rank, orthogonal=orthogonal, sigma=sigma, seed=1)
    factors, r = layer(), rank or min(rows, columns)
    assert (factors.U.shape, factors.S.shape, factors.V.shape) == ((rows, r), (r,), (columns, r))
    assert max(defect(factors.U), defect(factors.V)) < 1e-12
    assert (factors.S >= 0).all()


@pytest.mark.parametrize(("n", "sign"), [(31, 1), (32, -1), (2, -1), (3, 1)])
def test_lapacks_determinant_has_the_sign_of_n_minus_one_reflections(n, sign):
    determinants = torch.linalg.det(lapack_qr(gaussian(50, n, n, seed=n)))
    torch.testing.assert_close(determinants, torch.full((50,), float(sign)).double())


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, 2.0])
def test_the_cayley_map_turns_the_plane(angle):
    # It turns by −2 arctan a for A = [[0, −a], [a, 0]], whatever symmetric matrix is added.
    raw = math.tan(angle / 2) * torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    torch.testing.assert_close(cayley(raw + 3), rotation, atol=1e-14, rtol=0)


@pytest.mark.parametrize("case", NOTE_CASES)
def test_the_notes_recipe_does_not_fit(case):
    result = descend(NoteRecipe(32), note_targets(0)[case])
    assert 0.6 < result.relative_error < 1.2
    assert result.history.shape == (801,)
    assert not result.converged


def test_the_notes_recipe_is_what_the_note_writes():
    """The note's own script, in double precision; more steps than these amplify rounding."""
    target, start = note_targets(0)["low rank"], NoteRecipe(32)
    assert all(0.6 < parameter.std() < 1.4 for parameter in start.parameters())
    left, middle, right = (p.detach().clone().requires_grad_() for p in start.parameters())
    optimizer = torch.optim.Adam([left, middle, right], lr=3e-3)
    errors = []
    for _ in range(41):
        U, V = torch.linalg.qr(left)[0], torch.linalg.qr(right)[0]
        difference = target - U @ torch.diag(torch.nn.functional.softplus(middle)) @ V.T
        errors.append(float(difference.detach().norm() / target.norm()))
        optimizer.zero_grad()
        torch.mean(difference**2).backward()
        optimizer.step()
    np.testing.assert_allclose(descend(start, target, steps=40).history, errors, rtol=1e-9)


def test_a_cycle_and_a_scale_halve_the_error():
    options = [{}, {"scale": True, "learning_rate": 0.1, "one_cycle": True}]
    targets = [note_targets(seed, 8)["attention"] for seed in range(3)]
    slow, faster = (
        np.median(
            [descend(VariedLayer(8, 8), X, steps=200, **each).relative_error for X in targets]
        )
        for each in options
    )
    assert faster < slow / 2


def test_scaling_lifts_the_speed_limit_of_singular_values():
    """Adam moves a parameter by at most about 0.1 in a step, which is nothing beside σ₁ ≈ 3000."""
    options = {"steps": 100, "learning_rate": 0.1, "one_cycle": True}
    target = 1000 * gaussian(5, 4, seed=0)
    slow, fast = (
        descend(VariedLayer(5, 4), target, scale=scale, **options).relative_error
        for scale in (False, True)
    )
    assert slow > 0.95
    assert fast < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": True},
        {"scale": True, "one_cycle": True, "learning_rate": 0.1},
    ],
)
@pytest.mark.parametrize("zero", [False, True])
def test_history_and_what_is_watched(options, zero):
    target = (0 if zero else 7) * gaussian(5, 4, seed=0)
    layer, seen = VariedLayer(5, 4, seed=1), []
    result = descend(layer, target, steps=6, watch=seen.append, **options)
    assert result.history.shape == (7,)
    assert result.singular_values.shape == (7, 4)
    assert result.history.isfinite().all()
    assert result.history[-1] == result.relative_error <= result.history[0]
    torch.testing.assert_close(layer().S, result.singular_values[-1])
    assert len(seen) == 6
    # What is watched are the factors of the same times in the same units.
    for factors, error, S in zip(seen, result.history, result.singular_values, strict=False):
        measured = factors.matrix().norm() if zero else factors.relative_error(target)
        torch.testing.assert_close(measured, error)
        torch.testing.assert_close(factors.S, S)
        assert not factors.U.requires_grad


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e200])
def test_scaled_training_is_the_same_at_every_scale(sigma, scale):
    one, other = (
        descend(
            VariedLayer(5, 4, sigma=sigma),
            size * gaussian(5, 4, seed=0),
            steps=20,
            scale=True,
        )
        for size in (1.0, scale)
    )
    torch.testing.assert_close(other.history, one.history, rtol=1e-8, atol=0)


@pytest.mark.parametrize("orthogonal", MAPS)
def test_every_map_learns(orthogonal):
    layer = VariedLayer(5, 4, orthogonal=orthogonal, seed=1)
    result = descend(layer, gaussian(5, 4, seed=0), steps=100, scale=True, learning_rate=0.05)
    assert result.history.min() < 0.8 * result.history[0]  # LAPACK's QR does not stay there


@pytest.mark.parametrize("orthogonal", ["qr", "cayley"])
@pytest.mark.parametrize("learning_rate", [1e5, 1e300])
def test_divergence_is_reported(orthogonal, learning_rate):
    layer = VariedLayer(4, 4, orthogonal=orthogonal)
    with pytest.raises(DivergenceError, match=r"training diverged.*from [\d.]+ to "):
        descend(layer, gaussian(4, 4, seed=0), steps=20, learning_rate=learning_rate)
