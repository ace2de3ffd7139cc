"""Longer runs of the note's recipe: side by side they are single runs, and the stored ones get where the page says."""

import pytest
import torch

from experiments.note_recipe import NoteRecipe, descend
from experiments.recipe_longer import SEEDS, STEPS, load_longer, run
from helpers.data import NOTE_CASES, note_targets


@pytest.mark.parametrize("case", NOTE_CASES)
def test_seeds_side_by_side_are_single_runs(case):
    found = run(case, steps=(0, 7, 30), n=8)
    histories = torch.stack(
        [
            descend(NoteRecipe(8, seed=seed), note_targets(seed, 8)[case], steps=30).history
            for seed in range(SEEDS)
        ],
        dim=1,
    )
    torch.testing.assert_close(found["last"], histories[[0, 7, 30]], rtol=1e-6, atol=0)
    torch.testing.assert_close(
        found["least"], histories.cummin(0).values[[0, 7, 30]], rtol=1e-6, atol=0
    )


def test_stored_runs_reach_two_targets_and_not_attention():
    longer = load_longer()
    assert tuple(longer) == NOTE_CASES
    for found in longer.values():
        assert found["last"].shape == found["least"].shape == (len(STEPS), SEEDS)
        assert (found["least"] <= found["last"]).all()
        assert (found["least"].diff(dim=0) <= 0).all()
        assert found["least"][STEPS.index(800)].min() > 0.5
    for case in ("convolution", "Fourier"):
        assert longer[case]["least"][-1].median() < 0.01
    assert longer["attention"]["least"][-1].median() > 0.5
