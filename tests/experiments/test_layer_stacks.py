"""Stacks of universal layers: their tasks, their blocks, their training, and what is stored of them."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from experiments import layer_stacks
from experiments.layer_stacks import (
    CONTROLS,
    LAYERS,
    SEEDS,
    TASKS,
    NoisyLayer,
    Stack,
    load_results,
    loss_of,
    measure,
    run,
    task_of,
    train,
)
from helpers.data import encode, heldout_text, training_text
from helpers.layers import CLASSES, SETTLED
from helpers.maths import gaussian, generator
from helpers.models import BYTES

# Tasks


def test_digits_are_all_of_scikit_learns_each_once():
    task = task_of("digits", 3)
    images, labels = load_digits(return_X_y=True)
    ours = torch.cat([task.tokens, task.test_tokens])
    our_labels = torch.cat([task.labels, task.test_labels])
    pairs = torch.cat([ours, our_labels[:, None]], 1).tolist()
    assert sorted(pairs) == sorted(np.column_stack([images, labels]).astype(int).tolist())
    assert len(task.test_tokens) == 400
    # A random split, not the file's order of writers.
    assert task.test_labels.bincount(minlength=10).min() > 20


def test_characters_hide_ten_bytes_of_windows_of_the_texts():
    task = task_of("characters", 3)
    parts = ((task.tokens, task.labels), (task.test_tokens, task.test_labels))
    for text, (tokens, labels) in zip((training_text(), heldout_text()), parts, strict=True):
        hidden = tokens == BYTES
        assert (hidden.sum(1) == 10).all()
        assert torch.equal(labels >= 0, hidden)
        whole = torch.where(hidden, labels, tokens)
        stream = bytes(encode(text).tolist())
        assert all(bytes(window.tolist()) in stream for window in whole[:100])
        # Every place is hidden about equally often.
        share = hidden.double().mean(0)
        assert (share - 10 / 64).abs().max() < 5 * (10 / 64 / len(hidden)) ** 0.5


def test_the_controls_labels_are_a_fourier_transform():
    task = task_of("transform", 3)
    spectrum = torch.fft.fft(task.tokens.double() - 8)
    sign = (spectrum.real - spectrum.imag) / 8  # Hartley's transform, orthonormal
    clear = sign.abs() > 1e-3
    assert clear.float().mean() > 0.99
    assert torch.equal(task.labels[clear], (sign > 0)[clear].long())


@pytest.mark.parametrize("name", [*TASKS, *CONTROLS])
def test_tasks_are_functions_of_the_seed(name):
    make = {**TASKS, **CONTROLS}[name]
    first, again, other = make(0), make(0), make(1)
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.test_labels, again.test_labels)
    assert not torch.equal(first.tokens, other.tokens)


@pytest.mark.parametrize("name", TASKS)
def test_a_permuted_task_has_its_tokens_in_one_order(name):
    task, null = task_of(name, 1), task_of(f"{name}, permuted", 1)
    columns = task.tokens.T.tolist()
    order = [columns.index(column) for column in null.tokens.T.tolist()]
    assert not torch.equal(null.tokens, task.tokens)
    assert torch.equal(null.test_tokens.sort(1).values, task.test_tokens.sort(1).values)
    if task.labels.ndim == 1:
        assert torch.equal(null.labels, task.labels)
    else:
        assert torch.equal(null.labels, task.labels[:, order])
        assert torch.equal(null.test_tokens, task.test_tokens[:, order])


# Stacks


N = 8


def with_gates(layer, *probabilities):
    layer.gate_logits.data = torch.tensor(probabilities, dtype=torch.float64).logit()
    return layer.requires_grad_(False)


def test_the_noise_has_the_mean_and_variance_of_tossed_coins():
    layer = with_gates(NoisyLayer(N, 2), 0.1, 0.4, 0.75, 0.9)
    x, draws = gaussian(N, 2, seed=1), 20_000
    coins = torch.from_numpy(generator(0, "coins").random((draws, 4))) < layer.probabilities
    tossed = torch.tensordot(coins.double(), layer.parts(x), 1)
    many = x.expand(draws, N, 2)
    noisy = layer(many, generator(1, "noise"))
    p = layer.probabilities
    mean = torch.tensordot(p, layer.parts(x), 1)
    variance = torch.tensordot(p * (1 - p), layer.parts(x).square(), 1)
    for sample in (tossed, noisy):
        assert ((sample.mean(0) - mean).abs() < 5 * (variance / draws).sqrt()).all()
        assert (sample.std(0) / variance.sqrt()).sub(1).abs().max() < 0.03
    # Gaussian and independent from place to place, from the stream alone.
    unit = (noisy - mean) / variance.sqrt()
    assert abs(float(unit.pow(4).mean()) - 3) < 0.05
    correlations = torch.corrcoef(unit.flatten(1).T) - torch.eye(2 * N, dtype=torch.float64)
    assert correlations.abs().max() < 0.05
    assert torch.equal(
        layer(many[:3], generator(1, "noise")), layer(many[:3], generator(1, "noise"))
    )
    # A decided gate is no noise.
    decided = with_gates(layer, *[1e-9, 1 - 1e-9] * 2)
    torch.testing.assert_close(decided(x, generator(1, "noise")), decided(x), atol=1e-3, rtol=0)
    # In evaluation there is none.
    assert torch.equal(layer.eval()(x, generator(1, "noise")), layer(x))


def settled(stack, *open_classes):
    for mixer in stack.mixers:
        for k, name in enumerate(mixer.classes):
            mixer.gate_logits.data[k] = SETTLED if name in open_classes else -SETTLED
    return stack.eval()


def test_the_classes_of_every_layer_are_of_about_one_size_and_start_apart():
    stack = Stack(task_of("digits", 0))
    for mixer in stack.mixers:
        assert mixer.classes == CLASSES
        assert all(890 <= count <= 1030 for count in mixer.parameters_of.values())
    starts = [mixer.members["convolution"].kernel for mixer in stack.mixers]
    assert not any(torch.equal(starts[i], starts[j]) for i in range(4) for j in range(i))


def test_the_blocks_of_a_stack_one_by_one():
    task = task_of("digits", 0)
    state = torch.get_rng_state()
    stack, tokens = settled(Stack(task, layers=2), *CLASSES), task.tokens[:2]
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for without in (None, 0, 1):
        x = stack.symbols(tokens) + stack.places
        for k in range(2):
            if k != without:
                x = x + stack.mixers[k](stack.norms[2 * k](x))
            x = x + stack.mlps[k](stack.norms[2 * k + 1](x))
        torch.testing.assert_close(stack(tokens, without=without), stack.readout(x))


def test_attention_alone_knows_places_only_by_their_embeddings():
    task, null = task_of("characters", 0), task_of("characters, permuted", 0)
    columns = task.tokens.T.tolist()
    order = [columns.index(column) for column in null.tokens.T.tolist()]
    for classes, same in ((("attention",), True), (("convolution",), False)):
        stack = settled(Stack(task, classes=classes), *classes)
        loss, _ = measure(stack, task)
        stack.places.data = stack.places.data[order]
        assert (abs(measure(stack, null)[0] - loss) < 1e-4) == same


def test_loss_in_bits():
    logits = gaussian(3, 5, 4, seed=0)
    by_token = torch.log_softmax(logits, -1) / math.log(2)
    labels = torch.tensor([[0, 1, -1, 2, -1], [-1] * 5, [3, 3, 3, -1, 0]])
    asked = [(i, j) for i in range(3) for j in range(5) if labels[i, j] >= 0]
    expected = -np.mean([float(by_token[i, j, labels[i, j]]) for i, j in asked])
    assert loss_of(logits, labels).item() == pytest.approx(expected)
    per_sequence = torch.log_softmax(logits.mean(1), -1) / math.log(2)
    expected = -np.mean([float(per_sequence[i, label]) for i, label in enumerate((1, 0, 3))])
    assert loss_of(logits, torch.tensor([1, 0, 3])).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", TASKS)
def test_a_stack_that_knows_nothing_guesses(name):
    task = task_of(name, 0)
    stack = settled(Stack(task), "convolution")
    stack.readout[1].weight.data.zero_()
    stack.readout[1].bias.data.zero_()
    stack.readout[1].bias.data[1] = 1e-3
    loss, right = measure(stack, task)
    assert loss == pytest.approx(math.log2(task.classes), rel=1e-3)
    asked = task.test_labels[task.test_labels >= 0]
    assert right == pytest.approx(float((asked == 1).float().mean()), abs=1e-6)


def test_twenty_steps_lower_the_loss():
    task = task_of("characters", 0)
    stack = Stack(task, layers=2)
    before = measure(stack.eval(), task)[0]
    train(stack, task, steps=20, progress=False)
    assert not stack.training
    assert measure(stack, task)[0] < before - 1


def test_a_price_closes_gates():
    task, gates = task_of("digits", 0), []
    for price in (0.0, 100.0):
        stack = Stack(task, layers=1)
        train(stack, task, price=price, steps=30, progress=False)
        gates.append(stack.mixers[0].probabilities.detach())
    assert (gates[1] < gates[0]).all()
    assert gates[1].max() < 0.4


@pytest.mark.parametrize("classes", [CLASSES, ("convolution",)])
def test_a_run_reports_gates_losses_and_ablations(classes, monkeypatch):
    trained = []

    def briefly(stack, task, *, price, **options):
        train(stack, task, price=price, steps=3, **options)
        trained.append((stack, price))

    monkeypatch.setattr(layer_stacks, "train", briefly)
    found = run("digits, permuted", classes, 2)
    [(stack, price)] = trained
    assert np.shape(found["gates"]) == (LAYERS, len(classes))
    if len(classes) == 1:  # always open, and free of charge
        assert price == 0
        assert np.min(found["gates"]) > 0.9999
    task = task_of("digits, permuted", 2)
    assert (found["loss"], found["right"]) == measure(stack, task)
    assert found["ablation"][1] == measure(stack, task, without=1)[0] - found["loss"]


def test_stored_stacks_know_more_than_a_guess():
    results = load_results()
    permuted = {f"{task}, permuted/all" for task in TASKS}
    alone = {f"{task}/{name}" for task in TASKS for name in CLASSES}
    controls = {"transform/all", "transform/butterfly"}
    assert set(results) == {f"{task}/all" for task in TASKS} | permuted | alone | controls
    guess = {"digits": math.log2(10), "characters": 8, "transform": 1.1}
    for label, runs in results.items():
        classes = len(CLASSES) if label.endswith("/all") else 1
        gates = np.array([found["gates"] for found in runs])
        assert gates.shape == (SEEDS, LAYERS, classes)
        assert ((gates >= 0) & (gates <= 1)).all()
        assert classes > 1 or gates.min() > 0.999
        assert (
            np.median([found["loss"] for found in runs]) < guess[label.split("/")[0].split(",")[0]]
        )
        assert np.shape([found["ablation"] for found in runs]) == (SEEDS, LAYERS)
        assert len({found["loss"] for found in runs}) > SEEDS // 2
