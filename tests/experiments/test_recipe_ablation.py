"""The ablation of chapter 2: peers start where our layer does, every row trains, stored rows are trained ones."""

import pytest
import torch

from experiments import recipe_ablation
from experiments.note_recipe import NoteRecipe, VariedLayer, descend
from experiments.recipe_ablation import (
    FASTER,
    ROWS,
    SEEDS,
    PeerLayer,
    descend_eliminated,
    flips,
    load_ablation,
    load_recipe,
    overlap,
    run,
    run_recipe,
)
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import FactorizationLayer, Factors, fit
from helpers.maths import gaussian, signed_qr

DEFAULT, RECIPE = "Gauss–Newton (default)", "note's recipe"
ELIMINATED = [row for row in ROWS if row.endswith("Σ eliminated")]


@pytest.mark.parametrize("shape", [(7, 7), (9, 5), (5, 9)])
def test_a_peer_starts_from_the_layers_own_matrices_and_keeps_them_orthonormal(shape):
    layer = PeerLayer(*shape, torch.nn.utils.parametrizations.orthogonal, seed=3)
    plain = FactorizationLayer(*shape, seed=3)
    for weight, raw in zip(layer.orthonormal(), (plain.left, plain.right), strict=True):
        torch.testing.assert_close(weight, torch.linalg.qr(raw).Q, atol=1e-14, rtol=0)
    target = gaussian(*shape, seed=0)
    result = descend(layer, target, steps=60, scale=True, **FASTER)
    assert result.relative_error < 0.5 * float(result.history[0])
    for Q in (layer().U, layer().V):
        torch.testing.assert_close(Q.T @ Q, torch.eye(min(shape), dtype=Q.dtype))


@pytest.mark.bad_input
@pytest.mark.parametrize("row", ["torch parametrization", "geotorch"])
def test_gauss_newton_refuses_a_peer_whose_weights_it_cannot_write(row, monkeypatch):
    monkeypatch.setattr(recipe_ablation, "descend", lambda layer, X, **options: fit(layer, X))
    with pytest.raises(ValueError, match="layer must"):
        ROWS[row](gaussian(4, 4, seed=0), 0)


@pytest.mark.parametrize(("lbfgs", "steps"), [(False, 200), (True, 10)])
@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_an_eliminated_sigma_is_the_best_one_and_halves_the_error(lbfgs, steps, size):
    target = size * note_targets(0, 8)["attention"]
    layer = VariedLayer(8, 8, orthogonal="cayley")
    result = descend_eliminated(layer, target, lbfgs=lbfgs, steps=steps)
    slow = descend(VariedLayer(8, 8), target, steps=200).relative_error
    assert result.relative_error == float(result.history[-1]) < slow / 2
    U, V = layer.orthonormal()
    best = (U.T @ target @ V).diagonal().detach()
    torch.testing.assert_close(result.singular_values[-1], best.abs())
    left = torch.linalg.matrix_norm(target - (U * best) @ V.T) / torch.linalg.matrix_norm(target)
    assert result.relative_error == pytest.approx(left.item(), rel=1e-9)


def test_flips_counts_columns_that_turn_around():
    basis = torch.eye(5, 3, dtype=torch.float64)
    path = torch.stack([basis, basis, -basis, basis * torch.tensor([-1.0, 1.0, 1.0])])
    assert flips(path) == 3 + 2


def test_overlap_at_both_ends_and_at_random():
    U, V = signed_qr(gaussian(2, 32, 32, seed=0))
    S = torch.linspace(2, 1, 32, dtype=torch.float64)
    target = (U * S) @ V.mT
    assert overlap(Factors(U, S, V), target) == pytest.approx(1)
    assert overlap(Factors(U, S.flip(0), V), target) == pytest.approx(0, abs=1e-12)
    bases = signed_qr(gaussian(100, 32, 32, seed=1))
    mean = sum(overlap(Factors(Q, S, V), target) for Q in bases) / 100
    assert mean == pytest.approx(4 / 32, abs=0.02)


@pytest.fixture
def trained(monkeypatch):
    """(layer, options) of every fit, made with three steps each."""
    fits = []

    def briefly(layer, target, **options):
        fits.append((layer, options))
        return descend(layer, target, **{**options, "steps": 3})

    monkeypatch.setattr(recipe_ablation, "descend", briefly)
    return fits


def test_a_run_measures_every_row_on_one_target(trained, monkeypatch):
    small = note_targets(2, n=6)
    monkeypatch.setattr(recipe_ablation, "note_targets", lambda seed: small)
    found = run("attention", 2)
    assert list(found["rows"]) == list(ROWS)
    # All but the default and those with Σ eliminated, and the recipe once more, watched.
    assert len(trained) == len(ROWS) - len(ELIMINATED)
    sigma = torch.linalg.svdvals(small["attention"])
    layer = trained[0][0]
    assert type(layer) is NoteRecipe
    learned = layer().S.sort(descending=True).values
    row = found["rows"][RECIPE]
    assert row["error"] == pytest.approx(layer().relative_error(small["attention"]).item(), rel=0.1)
    assert row["sigma"] == pytest.approx(float((learned - sigma).abs().max() / sigma[0]), rel=0.1)
    assert found["rows"][DEFAULT]["error"] < 1e-9
    assert {"flips", "soft", "moved", "overlap", "top four"} == set(found["recipe"])


def test_one_change_changes_one_thing(trained):
    """The “only …” rows differ from the recipe in one map or one group of options."""

    def made(row):
        ROWS[row](gaussian(4, 4, seed=0), 0)
        layer, options = trained.pop()
        return {"orthogonal": layer.orthogonal, "sigma": layer.sigma, **options}

    recipe = made(RECIPE)
    changes = {row: made(row).items() - recipe.items() for row in ROWS if row.startswith("only")}
    all_four = set().union(*changes.values())
    assert made("all four").items() - recipe.items() == all_four
    for name, change in changes.items():
        rest = made(name.replace("only", "all but")).items() - recipe.items()
        assert rest == all_four - change
        assert change


def test_stored_rows_are_what_training_gives():
    results = load_ablation()
    assert tuple(results) == tuple(ROWS)
    for row in results.values():
        assert tuple(row) == NOTE_CASES
        for measured in row.values():
            assert [len(numbers) for numbers in measured.values()] == [SEEDS, SEEDS]
            assert min(measured["errors"]) > 0
    for case in NOTE_CASES:
        assert max(results[DEFAULT][case]["errors"]) <= 1e-6
        assert min(results[RECIPE][case]["errors"]) > 0.5
        for seed in range(2):
            again = ROWS[DEFAULT](note_targets(seed)[case], seed).relative_error
            assert again <= 1e-9
    again = ROWS[RECIPE](note_targets(0)["low rank"], 0).relative_error
    # A change of the start by 1e-12 changes the end by 1e-4 at most.
    assert again == pytest.approx(results[RECIPE]["low rank"]["errors"][0], rel=0.02)


def test_what_the_recipe_does_measured_again():
    stored = load_recipe()
    assert tuple(stored) == NOTE_CASES
    assert all(len(numbers) == SEEDS for seen in stored.values() for numbers in seen.values())
    _, seen = run_recipe(note_targets(3)["low rank"], seed=3)  # rank one leaves columns to rounding
    for name, value in seen.items():
        assert value == pytest.approx(stored["low rank"][name][3], rel=0.05), name
