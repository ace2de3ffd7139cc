"""Stacks side by side: their blocks, that none feels another, and when the recipe closes a class."""

import math

import numpy as np
import pytest
import torch

from experiments import stacks
from experiments.planted import planted_mask, task_of
from experiments.stacks import (
    CLASSES,
    PRICE,
    WIDTH,
    Search,
    Stacks,
    bits,
    losses,
    mask_of,
    names_of,
    train,
)
from helpers.maths import gaussian, hartley

N = 32


@pytest.fixture(scope="module")
def task():
    return task_of("convolution > spectral", [1000, 1001])


def every(count, *names, layers=1):
    return mask_of([names] * layers).expand(count, -1, -1).clone()


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_one_sequence_at_a_time(name, task):
    stack = Stacks(task, [3, 4], every(2, name))
    x = gaussian(2, WIDTH, N, 5, seed=0).float()
    p = {key.removesuffix(" 0"): value.detach()[1] for key, value in stack.numbers.items()}
    tokens = x[1, :, :, 2].T
    if name == "low rank":
        expected = p["left"] @ (p["right"].T @ tokens)
    elif name == "spectral":
        expected = p["gain"][..., 0].T * (hartley(N).float() @ tokens)
    elif name == "attention":
        weights = (tokens @ p["query key"] @ tokens.T).softmax(-1)
        expected = p["head gain"][:, 0, 0] * (weights @ tokens)
    else:
        columns = [np.convolve(tokens[:, c], p["kernel"][c])[4 : N + 4] for c in range(WIDTH)]
        expected = torch.tensor(np.stack(columns, 1))
    torch.testing.assert_close(
        stack._mix(x, 0)[1, :, :, 2].T.detach(), expected, atol=1e-5, rtol=1e-4
    )
    nothing = Stacks(task, [3, 4], every(2))
    assert not nothing._mix(x, 0).any()


def test_no_stack_feels_another(task):
    """Alone or beside one with other classes open, a stack learns the same."""
    masks = torch.cat([every(1, *CLASSES, layers=2), planted_mask("attention")])
    both, alone = Stacks(task, [5, 6], masks), Stacks(task[[1]], [6], masks[1:])
    train(both, task, [5, 6], steps=20, rate=1e-2)
    train(alone, task[[1]], [6], steps=20, rate=1e-2)
    together, apart = (bits(s, t, "test")[-1] for s, t in ((both, task), (alone, task[[1]])))
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=1e-3)
    picked = both.some([1])
    torch.testing.assert_close(bits(picked, task[[1]], "test")[0], together, atol=1e-5, rtol=1e-5)
    # A copy is a copy.
    train(picked, task[[1]], [6], steps=2, rate=1e-2)
    torch.testing.assert_close(bits(both, task, "test")[-1], together)


def test_loss_in_bits():
    logits = gaussian(1, 4, 5, 3, seed=0)
    labels = torch.tensor([[[0, 1, -1, 2, -1], [3, -1, -1, -1, -1], [3, 3, 3, -1, 0]]])
    of = torch.log_softmax(logits, 1) / math.log(2)
    asked = [(j, b) for b in range(3) for j in range(5) if labels[0, b, j] >= 0]
    per = [[float(of[0, labels[0, b, j], j, b]) for j, c in asked if c == b] for b in range(3)]
    torch.testing.assert_close(
        losses(logits, labels)[0], -torch.tensor([np.mean(p) for p in per], dtype=torch.float64)
    )
    mean = torch.log_softmax(logits.mean(2), 1) / math.log(2)
    expected = -torch.stack([mean[0, 1, 0], mean[0, 0, 1], mean[0, 3, 2]])
    torch.testing.assert_close(losses(logits, torch.tensor([[1, 0, 3]]))[0], expected)


def test_parts_of_a_task_share_no_sequence(task):
    sizes = {name: task.part(name)[0].shape[1] for name in ("train", "test", "validate")}
    assert sizes == {"train": 3000, "test": 1000, "validate": 1000}
    rows = torch.cat([task.part(name)[0] for name in sizes], 1)
    assert torch.equal(rows, task.tokens)
    assert task.chance().tolist() == pytest.approx([1, 1], abs=1e-3)


def test_a_class_is_closed_below_its_price_only():
    loss = torch.ones(400)
    search = Search(0, loss)
    spread = torch.tensor([-1.0, 1.0]).repeat(200)
    assert not search.judge([(0, 1)], loss + 1.1 * PRICE)
    assert search.worth == {(0, 1): pytest.approx(1.1 * PRICE, rel=1e-3)}
    # The same rise with a standard error of .05 says nothing.
    assert search.judge([(1, 1)], loss + 1.1 * PRICE + spread)
    # What was refused before is to be tried again.
    assert search.stale == {(0, 1)}
    assert search.judge([(0, 1)], search.loss + 0.5 * PRICE)
    assert search.worth == {}
    # A refused group says nothing of its members, but the next one is smaller.
    assert not search.judge([(0, 0), (0, 2), (0, 3), (1, 0)], search.loss + 1)
    assert search.worth == {}
    assert search.most == 2


def test_names_and_masks():
    names = [["convolution", "attention"], [], ["spectral"]]
    assert names_of(mask_of(names)) == names


def test_learning_goes_on_where_it_has_not_begun(task, monkeypatch):
    """Two cycles for a stack at chance, and every class is closed as nothing helps."""
    streams = []
    monkeypatch.setattr(stacks, "STEPS", 10)
    monkeypatch.setattr(stacks, "REFIT_STEPS", 2)

    def noted(*arguments, stream, **options):
        streams.append(stream)
        return train(*arguments, stream=stream, **options)

    monkeypatch.setattr(stacks, "train", noted)
    rows = stacks.find_classes(task, [0, 1])
    assert streams == ["cycle 0", "cycle 1", "refit 0", "afresh", "afresh"]
    assert [row["open"] for row in rows] == [[[], []]] * 2
