"""Planted tasks, what the recipe found in them, and one found again."""

import json

import pytest
import torch

from experiments.planted import (
    FEW_KEYS,
    KEYS,
    LAYERS,
    MIXED,
    SEEDS,
    TASKS,
    N,
    confusion,
    found_at,
    found_in,
    load_results,
    main,
    measure,
    operator,
    planted_mask,
    task_of,
)
from experiments.stacks import CLASSES, mask_of, names_of
from helpers.maths import hartley

KEYED = [name for name in TASKS if "attention" in name]


@pytest.mark.parametrize("name", TASKS)
def test_labels_are_balanced_and_drawn_from_the_seed(name):
    task = task_of(name, [0, 1])
    assert torch.equal(task.labels[0], task_of(name, [0]).labels[0])
    assert not torch.equal(task.labels[0], task.labels[1])
    assert not torch.equal(task.tokens[0], task.tokens[1])
    assert (task.labels.double().mean(1) - 0.5).abs().max() < 0.3
    keys = FEW_KEYS if name == "convolution > attention" else KEYS
    assert task.symbols == (2 * keys if name in KEYED else 9)
    assert int(task.tokens.max()) == task.symbols - 1


def test_operators_are_of_their_class():
    assert int(torch.linalg.matrix_rank(operator("low rank", 0))) == 3
    matrix = operator("convolution", 0)
    assert torch.equal(matrix[1:, 1:], matrix[:-1, :-1])
    assert set(matrix.nonzero().diff(dim=1).flatten().tolist()) == {-1, 0, 1}
    gain = operator("spectral", 0) @ hartley(N)  # Hartley's matrix is its own inverse
    torch.testing.assert_close(gain, torch.diag(gain.diag()))
    assert gain.diag().abs().min() > 0.49


def test_a_composition_by_hand():
    tokens = task_of("convolution > attention", [5]).tokens[0]
    keys, values = tokens[7] // 2, tokens[7] % 2 - 0.5
    inner = (operator("convolution", 5) @ values.double()).clamp(min=0)
    means = torch.stack([inner[keys == keys[i]].mean() for i in range(N)])
    labels = task_of("convolution > attention", [5]).labels[0, 7]
    # Labels compare with the median of each place, which is about the same everywhere.
    assert means[labels == 1].min() > means[labels == 0].max() - 0.1


def test_what_was_found_in_a_word():
    assert found_in([["convolution"], [], ["convolution"], ["attention"]]) == (
        "convolution > attention"
    )
    assert found_in([["convolution", "spectral"], ["spectral"]]) == (
        "convolution + spectral > spectral"
    )
    assert found_in([[], []]) == "nothing"
    for name in TASKS:
        assert found_in(names_of(planted_mask(name)[0])) == ("nothing" if name == "noise" else name)


@pytest.mark.bad_input
def test_an_unknown_task_is_refused(capsys):
    with pytest.raises(ValueError, match="no task 'wavelet'; there are 'low rank', "):
        task_of("wavelet", [0])
    with pytest.raises(SystemExit):
        main(["--task", "wavelet", "--seed", "0"])
    assert "invalid choice: 'wavelet'" in capsys.readouterr().err


def right_answers(edge):
    table = confusion(edge)
    assert all(sum(found.values()) == len(SEEDS) for found in table.values())
    assert table["noise"] == {"nothing": len(SEEDS)}
    for name in MIXED:
        assert " > ".join(name[::-1]) not in table[" > ".join(name)]
    return {
        name: found.get("nothing" if name == "noise" else name, 0) for name, found in table.items()
    }


def test_the_recipe_finds_what_was_planted():
    """In nine of ten, but for two tasks; above .12 bits, but for one; never an order's reverse."""
    right = right_answers(0)
    few = {name: count for name, count in right.items() if count < 9}
    assert few == {"low rank": 8, "attention > convolution": 8}
    few = {name: count for name, count in right_answers(0.15).items() if count < 9}
    assert few == {"attention > convolution": 8}


def test_rows_agree_with_themselves_and_their_oracles_learn():
    results = load_results()
    assert tuple(results) == tuple(TASKS)
    for name, rows in results.items():
        for row in rows:
            assert mask_of(row["open"]).shape == (LAYERS, len(CLASSES))
            assert row["found"] == found_in(row["open"]) == found_at(row, 0)
            kept = [[layer, part] for layer, names in enumerate(row["open"]) for part in names]
            assert sorted([layer, part] for layer, part, _ in row["worth"]) == sorted(kept)
            assert (row["oracle"] > 0.99) == (name == "noise")
            if " > " in name and row["found"] == name:
                assert row["reversed"] > row["afresh"] + 0.05


def test_a_stored_stack_found_again(capsys):
    """The same classes; the losses differ by rounding, which many steps amplify."""
    stored = load_results()["convolution > spectral"][0]
    main(["--task", "convolution > spectral", "--seed", str(SEEDS[0])])
    again = json.loads(capsys.readouterr().out)
    assert again["planted"] == again["found"] == stored["found"]
    assert again["test"] == pytest.approx(stored["test"], abs=0.03)
    [new] = measure("convolution > spectral", [123])
    assert new["found"] == "convolution > spectral"
    assert new["reversed"] > new["afresh"] + 0.1
