"""Real tasks for stacks, the contrasts that claims are judged by, and the power to see them."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from experiments import planted
from experiments.stack_classes import (
    HIDDEN,
    LETTERS,
    RUNS,
    SEEDS,
    TASKS,
    contrast,
    corrected,
    counts,
    detectable,
    load_results,
    task_of,
    trend,
)
from experiments.stacks import CLASSES, mask_of
from helpers.data import heldout_text, training_text

N = planted.N


def test_digits_are_all_of_scikit_learns_each_once():
    task = task_of("digits", [3])
    images, labels = load_digits(return_X_y=True)
    pairs = images.astype(int).reshape(-1, N, 2).sum(2) // 2
    ours = torch.cat([task.tokens[0], task.labels[0][:, None]], 1).tolist()
    assert sorted(ours) == sorted(np.column_stack([pairs, labels]).tolist())
    # A random split, not the file's order of writers.
    assert task.part("test")[1][0].bincount(minlength=10).min() > 15


def test_characters_hide_five_letters_of_windows_of_the_texts():
    task = task_of("characters", [3])
    tokens, labels = task.tokens[0], task.labels[0]
    hidden = tokens == len(LETTERS)
    assert (hidden.sum(1) == HIDDEN).all()
    assert torch.equal(labels >= 0, hidden)
    whole = torch.where(hidden, labels, tokens)
    for text, part in ((training_text(), whole[:6000]), (heldout_text(), whole[6000:])):
        kept = "".join(c if c in LETTERS else " " for c in text.lower())
        squeezed = " ".join(kept.split())
        assert all("".join(LETTERS[k] for k in window) in squeezed for window in part[::300])
    assert task.part("train")[0].shape[1] == 6000


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_functions_of_the_seed(name):
    both, second = task_of(name, [0, 1]), task_of(name, [1])
    assert torch.equal(both.tokens[1], second.tokens[0])
    assert torch.equal(both.labels[1], second.labels[0])
    assert not torch.equal(both.tokens[0], both.tokens[1])


@pytest.mark.parametrize("name", TASKS)
def test_a_shuffled_task_has_its_tokens_in_one_order_for_each_seed(name):
    task, null = task_of(name, [0, 1]), task_of(f"{name}, shuffled", [0, 1])
    orders = []
    for k in range(2):
        columns = task.tokens[k].T.tolist()
        orders.append([columns.index(column) for column in null.tokens[k].T.tolist()])
        assert sorted(orders[k]) == list(range(N)) != orders[k]
        labels = task.labels[k]
        moved = labels if labels.ndim == 1 else labels[:, orders[k]]
        assert torch.equal(null.labels[k], moved)
    assert orders[0] != orders[1]


def stack(*layers):
    return {"open": [list(layer) for layer in layers]}


EXPECTED = stack(["convolution"], ["attention"], ["attention"], ["spectral"])
REVERSED = {"open": EXPECTED["open"][::-1]}


def test_contrasts_by_hand():
    for name, value in (("convolution", 2 / 3), ("spectral", 2 / 3), ("attention", 1 / 3)):
        assert contrast(EXPECTED["open"], name) == pytest.approx(value)
    assert contrast(REVERSED["open"], "convolution") == pytest.approx(-2 / 3)
    assert contrast(REVERSED["open"], "spectral") == pytest.approx(-2 / 3)
    # A single class, or all in one layer, has no order.
    assert contrast([["convolution"], ["convolution"]], "convolution") is None
    assert contrast([["convolution", "spectral"], []], "convolution") is None
    assert contrast([["low rank"], ["spectral"]], "convolution") is None


def test_trends_and_their_correction():
    rows = [EXPECTED] * 9 + [REVERSED]
    found = trend(rows, "convolution")
    assert (found["stacks"], found["as claimed"], found["against"]) == (10, 9, 1)
    assert found["p"] == pytest.approx(11 / 1024)
    assert found["mean"] == pytest.approx(0.8 * 2 / 3)
    nothing = trend([stack([], [])], "convolution")
    assert (nothing["stacks"], nothing["p"]) == (0, 1)
    assert math.isnan(nothing["mean"])
    assert corrected([0.01, 0.5, 0.02]) == pytest.approx([0.03, 0.5, 0.04])
    assert corrected([0.04, 0.03]) == pytest.approx([0.06, 0.06])


def test_what_could_have_been_seen():
    many = detectable([EXPECTED] * 10, [REVERSED] * 10, "convolution", stacks=10, tests=1)
    # Of ten, nine must agree: with a share of .92 they do so four times in five.
    assert many == pytest.approx(0.92, abs=0.005)
    assert detectable([EXPECTED], [REVERSED], "convolution", stacks=10, tests=9) > many
    assert math.isnan(detectable([EXPECTED], [REVERSED], "convolution", stacks=4, tests=1))
    # A recipe that finds the planted order half of the time sees nothing.
    half = [EXPECTED, REVERSED]
    assert math.isnan(detectable(half, half, "convolution", stacks=10, tests=1))


def test_stored_stacks_are_of_these_tasks():
    results = load_results()
    assert set(results) == set(RUNS)
    for (task, layers), rows in results.items():
        assert len(rows) == SEEDS
        assert int(counts(rows).sum()) == sum(len(row["worth"]) for row in rows)
        for row in rows:
            assert mask_of(row["open"]).shape == (layers, len(CLASSES))
            assert np.shape(row["rises"]) == (layers, len(CLASSES))
            if not task.endswith("shuffled"):
                assert row["test"] < row["chance"]
