"""The stored ablation is complete, and is what training gives."""

import math

import geotorch
import pytest
import torch
from torch.nn.utils.parametrizations import orthogonal

from experiments import recipe_ablation as ablation
from experiments.recipe_ablation import (
    FASTER,
    RESULTS,
    ROWS,
    SEEDS,
    PeerLayer,
    flips,
    load_ablation,
    load_recipe,
    overlap,
    run_recipe,
)
from helpers.data import NOTE_CASES, note_targets
from helpers.layers import FactorizationLayer, Factors, NoteRecipe, descend, fit
from helpers.maths import gaussian, signed_qr

PEERS = {
    "torch parametrization": orthogonal,
    "geotorch": lambda linear: geotorch.orthogonal(linear, "weight"),
}
every_peer = pytest.mark.parametrize("peer", PEERS)


def test_it_covers_every_row_target_and_seed():
    results = load_ablation()
    assert tuple(results) == tuple(ROWS)
    for row in results.values():
        assert tuple(row) == NOTE_CASES
        for measured in row.values():
            assert set(measured) == {"errors", "sigma", "seconds"}
            for name, numbers in measured.items():
                assert len(numbers) == SEEDS == 10
                assert all(math.isfinite(number) and number >= 0 for number in numbers)
                assert name == "sigma" or min(numbers) > 0


def test_the_file_says_how_it_was_made():
    assert '"command": "python -m helpers.ablation"' in RESULTS.read_text(encoding="utf-8")


@pytest.mark.parametrize("row", ["note's recipe", "only faster"])
def test_a_row_measured_again(row):
    stored = load_ablation()[row]["low rank"]["errors"][0]
    again = ROWS[row](note_targets(0)["low rank"], 0).relative_error
    # Three stored digits; a change of the start by 1e-12 changes the end by 1e-4 at most.
    assert again == pytest.approx(stored, rel=0.02)


@pytest.mark.parametrize("case", NOTE_CASES)
def test_the_default_measured_again(case):
    stored = load_ablation()["Gauss–Newton (default)"][case]["errors"]
    for seed in range(3):
        again = ROWS["Gauss–Newton (default)"](note_targets(seed)[case], seed).relative_error
        # The first error below the tolerance of 1e-10; far below it is rounding.
        assert again == pytest.approx(stored[seed], rel=0.1, abs=1e-12)


@pytest.mark.parametrize("case", NOTE_CASES)
def test_the_default_fits_where_the_recipe_does_not_in_no_more_time(case):
    results = load_ablation()
    default, recipe = (results[row][case] for row in ("Gauss–Newton (default)", "note's recipe"))
    assert max(default["errors"]) <= 1e-6
    assert min(recipe["errors"]) > 0.5
    assert all(
        fast <= slow for fast, slow in zip(default["seconds"], recipe["seconds"], strict=True)
    )


# Peers


@every_peer
@pytest.mark.parametrize("shape", [(8, 8), (7, 7), (9, 5), (5, 9)])
def test_a_peer_starts_from_the_layers_own_matrices(peer, shape):
    plain = FactorizationLayer(*shape, seed=3)
    for state in (0, 1):
        torch.manual_seed(state)
        layer = PeerLayer(*shape, PEERS[peer], seed=3)
        for weight, raw in zip(layer.orthonormal(), (plain.left, plain.right), strict=True):
            torch.testing.assert_close(weight, torch.linalg.qr(raw).Q, atol=1e-14, rtol=0)
        assert torch.equal(layer().S, plain().S)


@every_peer
def test_a_peer_learns_with_orthonormal_factors(peer):
    layer, target = PeerLayer(6, 5, PEERS[peer], seed=0), note_targets(0, 6)["attention"][:, :5]
    result = descend(layer, target, steps=60, scale=True, **FASTER)
    assert result.relative_error < 0.5 * float(result.history[0])
    factors = layer()
    assert factors.relative_error(target).item() == result.relative_error
    for Q in (factors.U, factors.V):
        torch.testing.assert_close(Q.T @ Q, torch.eye(5, dtype=Q.dtype), atol=1e-12, rtol=0)


@every_peer
@pytest.mark.bad_input
def test_gauss_newton_refuses_a_peer_whose_weights_it_cannot_write(peer):
    with pytest.raises(ValueError, match="layer must"):
        fit(PeerLayer(4, 4, PEERS[peer], seed=0), note_targets(0, 4)["attention"])


# What the note's recipe does on the way


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
    random = [signed_qr(gaussian(32, 32, seed=seed)) for seed in range(1, 101)]
    mean = sum(overlap(Factors(Q, S, V), target) for Q in random) / 100
    assert mean == pytest.approx(4 / 32, abs=0.02)


def test_what_the_recipe_does_measured_again():
    stored = load_recipe()
    assert tuple(stored) == NOTE_CASES
    assert all(len(numbers) == SEEDS for seen in stored.values() for numbers in seen.values())
    result, seen = run_recipe(note_targets(3)["Fourier"], seed=3)
    assert result.relative_error > 0.5
    for name, value in seen.items():
        assert value == pytest.approx(stored["Fourier"][name][3], rel=0.05), name


# The rows

START = {"orthogonal": "qr", "sigma": "softplus"}  # the note's maps
OURS = {"orthogonal": "signed qr", "sigma": "free"}
SPEED = {"learning_rate": 0.1, "one_cycle": True}
SCALED = {"scale": True}
WANTED = {
    "note's recipe": (NoteRecipe, START, {}),
    "only faster": (NoteRecipe, START, SPEED),
    "only scaled": (NoteRecipe, START, SCALED),
    "only signed QR": (NoteRecipe, START | {"orthogonal": "signed qr"}, {}),
    "only free Σ": (NoteRecipe, START | {"sigma": "free"}, {}),
    "all four": (NoteRecipe, OURS, SCALED | SPEED),
    "all but faster": (NoteRecipe, OURS, SCALED),
    "all but scaled": (NoteRecipe, OURS, SPEED),
    "all but signed QR": (NoteRecipe, OURS | {"orthogonal": "qr"}, SCALED | SPEED),
    "all but free Σ": (NoteRecipe, OURS | {"sigma": "softplus"}, SCALED | SPEED),
    "… with |Σ|": (NoteRecipe, OURS | {"sigma": "absolute"}, SCALED),
    "… small start": (FactorizationLayer, OURS, SCALED),
    "… Cayley map": (FactorizationLayer, OURS | {"orthogonal": "cayley"}, SCALED),
    "… matrix exponential": (FactorizationLayer, OURS | {"orthogonal": "exponential"}, SCALED),
    "… Householder": (FactorizationLayer, OURS | {"orthogonal": "householder"}, SCALED),
    "one-cycle QR": (FactorizationLayer, OURS, SCALED | SPEED),
    "one-cycle Cayley": (FactorizationLayer, OURS | {"orthogonal": "cayley"}, SCALED | SPEED),
    "one-cycle exponential": (
        FactorizationLayer,
        OURS | {"orthogonal": "exponential"},
        SCALED | SPEED,
    ),
    "one-cycle Householder": (
        FactorizationLayer,
        OURS | {"orthogonal": "householder"},
        SCALED | SPEED,
    ),
    "torch parametrization": (PeerLayer, OURS | {"orthogonal": "peer"}, SCALED | SPEED),
    "torch, higher rate": (
        PeerLayer,
        OURS | {"orthogonal": "peer"},
        SCALED | SPEED | {"learning_rate": 0.3},
    ),
    "geotorch": (PeerLayer, OURS | {"orthogonal": "peer"}, SCALED | SPEED),
    "Cayley, Σ eliminated": (
        FactorizationLayer,
        OURS | {"orthogonal": "cayley"},
        SCALED | SPEED | {"eliminate": True},
    ),
    "L-BFGS, Σ eliminated": (
        FactorizationLayer,
        OURS,
        SCALED | {"optimizer": "lbfgs", "steps": 40, "eliminate": True},
    ),
    "L-BFGS Cayley, Σ eliminated": (
        FactorizationLayer,
        OURS | {"orthogonal": "cayley"},
        SCALED | {"optimizer": "lbfgs", "steps": 40, "eliminate": True},
    ),
    "Gauss–Newton (default)": (FactorizationLayer, OURS, {}),
}


def test_every_row_trains_what_its_name_says(monkeypatch):
    trained = []

    def note_down(layer, target, **options):
        trained.append((layer, target, options))

    monkeypatch.setattr(ablation, "descend", note_down)
    monkeypatch.setattr(ablation, "fit", note_down)
    target = note_targets(0, 6)["attention"][:, :5]
    assert list(ROWS) == list(WANTED)
    for row, (kind, maps, options) in WANTED.items():
        shape = (6, 6) if kind is NoteRecipe else (6, 5)
        ROWS[row](target if shape == (6, 5) else target @ target.T, 7)
        layer, given, chosen = trained.pop()
        assert type(layer) is kind, row
        assert {"orthogonal": layer.orthogonal, "sigma": layer.sigma} == maps, row
        assert (chosen, tuple(given.shape)) == (options, shape), row
        same = (FactorizationLayer, {}) if kind is PeerLayer else (kind, maps)
        start = same[0](*shape, seed=7, **same[1])
        assert torch.equal(layer.left, start.left), row
        assert torch.equal(layer.middle, start.middle), row
    parametrized = PeerLayer(4, 4, PEERS["geotorch"], seed=0).U.parametrizations.weight
    assert type(parametrized[0]).__module__.startswith("geotorch")


def test_a_run_measures_every_row_on_every_target(monkeypatch):
    def train(target, seed):
        layer = FactorizationLayer(*target.shape, seed=seed)
        return fit(layer, target, steps=2)

    monkeypatch.setattr(
        ablation, "ROWS", {"few": train, "fewer": lambda X, seed: train(X, seed + 1)}
    )
    results = ablation.run(2)
    assert tuple(results) == NOTE_CASES
    for case, target in note_targets(2).items():
        assert list(results[case]) == ["few", "fewer"]
        for row, seed in (("few", 2), ("fewer", 3)):
            done, found = train(target, seed), results[case][row]
            assert found["errors"] == pytest.approx(done.relative_error)
            learned = done.singular_values[-1].sort(descending=True).values
            true = torch.linalg.svdvals(target)
            worst = float((learned - true).abs().max() / true[0])
            assert found["sigma"] == pytest.approx(worst)
            assert found["seconds"] > 0


def test_the_recipe_is_watched_on_every_target(monkeypatch):
    def seen(target, seed):
        return None, {"flips": seed, "sum": float(target.sum())}

    monkeypatch.setattr(ablation, "run_recipe", seen)
    watched = ablation.watch_recipe(2)
    assert tuple(watched) == NOTE_CASES
    for case in NOTE_CASES:
        assert watched[case]["flips"] == [0, 1]
        sums = [float(note_targets(seed)[case].sum()) for seed in (0, 1)]
        assert watched[case]["sum"] == pytest.approx(sums, rel=1e-3)
        assert all(value == float(f"{value:.4g}") for value in watched[case]["sum"])


def test_what_is_written_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "ablation.json")
    rows = {"… with |Σ|": {"low rank": {"errors": [0.5, 1.0]}}, "plain": {}}
    ablation.write({"command": "me", "recipe": {"Fourier": {"flips": [3]}}}, rows)
    assert load_ablation() == rows
    assert load_recipe() == {"Fourier": {"flips": [3]}}
    lines = (tmp_path / "ablation.json").read_text(encoding="utf-8").splitlines()
    assert [line[:5] for line in lines] == ['{"com', '  "… ', '  "pl', "}}"]
