"""A stack of universal layers, pruning of singular values, and what the layer chooses."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from experiments import class_choice as choosing
from experiments import early_pruning as pruning
from experiments import layer_stacks as stacks
from experiments.early_pruning import ARMS, Product, ProductLinear, prune
from experiments.layer_stacks import (
    LAYERS,
    TASKS,
    TOKENS,
    Stack,
    characters,
    digits,
    loss_of,
    measure,
    task_of,
    train,
)
from helpers.data import cases, encode, heldout_text, training_text
from helpers.layers import CLASSES, SETTLED
from helpers.maths import gaussian
from helpers.models import BYTES, Decoder, bits_per_byte


def generator(seed):
    return torch.Generator().manual_seed(seed)


def torch_is_left_alone(call):
    state = torch.get_rng_state()
    result = call()
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    return result


# Tasks


def test_digits_are_all_of_scikit_learns_each_once():
    task = torch_is_left_alone(lambda: digits(3))
    assert task.tokens.shape == (1397, 64)
    assert task.test_tokens.shape == (400, 64)
    assert (task.symbols, task.classes) == (17, 10)
    # Train and test together are the data set, so no image is in both.
    images, labels = load_digits(return_X_y=True)
    ours = torch.cat([task.tokens, task.test_tokens])
    our_labels = torch.cat([task.labels, task.test_labels])
    pairs = torch.cat([ours, our_labels[:, None]], 1).tolist()
    assert sorted(pairs) == sorted(np.column_stack([images, labels]).astype(int).tolist())
    assert ours.min() == 0
    assert ours.max() == 16
    counts = task.test_labels.bincount(minlength=10)
    assert counts.min() > 20  # a random split, not the file's order of writers


def test_characters_hide_ten_bytes_of_windows_of_the_texts():
    task = torch_is_left_alone(lambda: characters(3))
    assert task.tokens.shape == task.labels.shape == (4000, 64)
    assert task.test_tokens.shape == task.test_labels.shape == (500, 64)
    assert (task.symbols, task.classes) == (257, 256)
    texts = (training_text(), heldout_text())
    parts = ((task.tokens, task.labels), (task.test_tokens, task.test_labels))
    for text, (tokens, labels) in zip(texts, parts, strict=True):
        hidden = tokens == BYTES
        assert (hidden.sum(1) == 10).all()
        assert torch.equal(labels >= 0, hidden)
        assert (labels[~hidden] == -1).all()
        whole = torch.where(hidden, labels, tokens)
        stream = bytes(encode(text).tolist())
        assert all(bytes(window.tolist()) in stream for window in whole[:200])
        # Every place is hidden about equally often.
        share = hidden.double().mean(0)
        assert (share - 10 / 64).abs().max() < 5 * (10 / 64 / len(hidden)) ** 0.5


def test_the_controls_labels_are_a_fourier_transform():
    task = stacks.transform(3)
    tokens = torch.cat([task.test_tokens, task.tokens]).double() - 8
    spectrum = torch.fft.fft(tokens)
    sign = (spectrum.real - spectrum.imag) / 8  # Hartley's transform, orthonormal
    labels = torch.cat([task.test_labels, task.labels])
    clear = sign.abs() > 1e-3
    assert clear.float().mean() > 0.99
    assert torch.equal(labels[clear], (sign > 0)[clear].long())
    assert (task.tokens.shape, task.test_tokens.shape) == ((4000, 64), (500, 64))
    assert torch.equal(task_of("transform", 3).tokens, task.tokens)


@pytest.mark.parametrize("make", [*TASKS.values(), stacks.transform], ids=[*TASKS, "transform"])
def test_tasks_are_functions_of_the_seed(make):
    first, again, other = make(0), make(0), make(1)
    for part in ("tokens", "labels", "test_tokens", "test_labels"):
        assert torch.equal(getattr(first, part), getattr(again, part))
        assert not torch.equal(getattr(first, part), getattr(other, part))


@pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)
def test_permuted_moves_all_tokens_in_one_order_and_keeps_the_labels(make):
    task = make(0)
    null = torch_is_left_alone(lambda: task.permuted(5))
    order = torch.randperm(64, generator=generator(5))
    assert null.name == f"{task.name}, permuted"
    assert (null.symbols, null.classes) == (task.symbols, task.classes)
    assert torch.equal(null.tokens, task.tokens[:, order])
    assert torch.equal(null.test_tokens, task.test_tokens[:, order])
    for labels, moved in ((task.labels, null.labels), (task.test_labels, null.test_labels)):
        assert torch.equal(moved, labels if labels.ndim == 1 else labels[:, order])
    assert not torch.equal(order, torch.arange(64))
    assert not torch.equal(task.permuted(6).tokens, null.tokens)


def test_tasks_by_name():
    for name in TASKS:
        assert torch.equal(task_of(name, 1).tokens, TASKS[name](1).tokens)
        null = task_of(f"{name}, permuted", 1)
        assert torch.equal(null.tokens, TASKS[name](1).permuted(1).tokens)
        assert null.name == f"{name}, permuted"


# Stacks


def settled(stack, *open_classes):
    for mixer in stack.mixers:
        for k, name in enumerate(mixer.classes):
            mixer.gate_logits.data[k] = SETTLED if name in open_classes else -SETTLED
    return stack.eval()


def test_a_stack_is_a_function_of_the_seed():
    task = digits(0)
    first, again, other = (
        torch_is_left_alone(lambda s=seed: Stack(task, seed=s)) for seed in (0, 0, 1)
    )
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    logits = [settled(stack, *CLASSES)(task.tokens[:3]) for stack in (first, again, other)]
    assert logits[0].shape == (3, TOKENS, 10)
    assert logits[0].dtype == torch.float32
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    # Every layer has a start of its own.
    starts = [mixer.members["convolution"].kernel for mixer in first.mixers]
    assert not any(torch.equal(starts[i], starts[j]) for i in range(4) for j in range(i))


def test_the_classes_have_about_a_thousand_free_parameters_each():
    stack = Stack(digits(0))
    assert len(stack.mixers) == LAYERS
    for mixer in stack.mixers:
        assert mixer.classes == CLASSES
        assert all(890 <= count <= 1030 for count in mixer.parameters_of.values())


def test_the_blocks_of_a_stack_one_by_one():
    task = digits(0)
    stack, tokens = settled(Stack(task, layers=2), *CLASSES), task.tokens[:2]
    for without in (None, 0, 1):
        x = stack.symbols(tokens) + stack.places
        for k in range(2):
            if k != without:
                x = x + stack.mixers[k](stack.norms[2 * k](x))
            x = x + stack.mlps[k](stack.norms[2 * k + 1](x))
        torch.testing.assert_close(stack(tokens, without=without), stack.readout(x))


def test_without_a_layer_its_gates_do_not_matter():
    task = digits(0)
    stack, tokens = settled(Stack(task), *CLASSES), task.tokens[:5]
    for k in range(LAYERS):
        intact, removed = stack(tokens), stack(tokens, without=k)
        assert (intact - removed).abs().max() > 1e-3
        gates = stack.mixers[k].gate_logits.data.clone()
        stack.mixers[k].gate_logits.data.fill_(-SETTLED)
        assert torch.equal(stack(tokens), removed)
        assert torch.equal(stack(tokens, without=k), removed)
        stack.mixers[k].gate_logits.data.copy_(gates)


@pytest.mark.parametrize("name", TASKS)
def test_attention_alone_knows_places_only_by_their_embeddings(name):
    task, order = task_of(name, 0), torch.randperm(TOKENS, generator=generator(0))
    for classes, same in ((("attention",), True), (("convolution",), False)):
        stack = settled(Stack(task, classes=classes), *classes)
        loss, right = measure(stack, task)
        moved = measure(stack, task.permuted(0))[0]
        stack.places.data = stack.places.data[order]
        both = measure(stack, task.permuted(0))
        if same:
            assert both == pytest.approx((loss, right), abs=1e-5)
        else:
            assert abs(both[0] - loss) > 1e-4
        assert abs(moved - loss) > 1e-4


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
def test_measure_is_the_loss_and_the_share_of_right_guesses(name):
    task = task_of(name, 0)
    stack = settled(Stack(task), "convolution")
    with torch.no_grad():
        logits = stack(task.test_tokens)
    loss, right = measure(stack, task)
    assert loss == pytest.approx(loss_of(logits, task.test_labels).item(), rel=1e-5)
    labels = task.test_labels.flatten()
    guesses = (logits.mean(1) if task.labels.ndim == 1 else logits.flatten(0, 1)).argmax(-1)
    asked = labels >= 0
    assert right == pytest.approx(float((guesses == labels)[asked].double().mean()), abs=1e-6)
    constant = settled(Stack(task), "convolution")
    constant.readout[1].weight.data.zero_()
    constant.readout[1].bias.data.zero_()
    assert measure(constant, task)[0] == pytest.approx(math.log2(task.classes), rel=1e-5)


def test_twenty_steps_lower_the_loss():
    task = characters(0)
    stack = Stack(task, layers=2)
    before = measure(stack.eval(), task)[0]
    torch_is_left_alone(lambda: train(stack, task, steps=20, progress=False))
    assert not stack.training
    assert measure(stack, task)[0] < before - 1


def test_training_is_a_function_of_the_seeds():
    def trained(seed):
        stack = Stack(task, layers=1)
        train(stack, task, steps=2, seed=seed)
        return torch.cat([p.detach().abs().flatten() for p in stack.parameters()])

    task = digits(0)
    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


def test_a_price_closes_gates():
    task = digits(0)
    gates = []
    for price in (0.0, 100.0):
        stack = Stack(task, layers=1)
        train(stack, task, price=price, steps=30)
        gates.append(stack.mixers[0].probabilities.detach())
    assert (gates[1] < gates[0]).all()
    assert gates[1].max() < 0.4


@pytest.mark.parametrize("classes", [CLASSES, ("convolution",)])
def test_a_run_reports_gates_losses_and_ablations(classes, monkeypatch):
    task, prices = task_of("digits, permuted", 2), []

    def briefly(stack, task, *, price, **options):
        prices.append(price)
        train(stack, task, price=price, steps=3, **options)

    monkeypatch.setattr(stacks, "train", briefly)
    found = stacks.run(("digits, permuted", classes, 2))
    assert set(found) == {"gates", "loss", "right", "ablation"}
    assert np.shape(found["gates"]) == (LAYERS, len(classes))
    assert len(found["ablation"]) == LAYERS
    stack = Stack(task, classes=classes, seed=2)
    if len(classes) == 1:  # always open, and free of charge
        assert prices == [0]
        assert np.min(found["gates"]) > 0.9999
        settled(stack, *classes)
        for mixer in stack.mixers:
            mixer.gate_logits.requires_grad_(False)
    else:
        assert prices == [stacks.PRICE]
    train(stack, task, price=prices[0], steps=3, seed=2)
    loss, right = measure(stack, task)
    assert (found["loss"], found["right"]) == (loss, right)
    assert found["ablation"][1] == measure(stack, task, without=1)[0] - loss


def test_the_stored_stacks_are_complete():
    head = json.loads(stacks.RESULTS.read_text(encoding="utf-8"))
    assert head["command"] == "python -m helpers.stack"
    results = stacks.load_results()
    everything = {f"{task}{null}/all" for task in TASKS for null in ("", ", permuted")}
    alone = {f"{task}/{name}" for task in TASKS for name in CLASSES}
    controls = {"transform/all", "transform/butterfly"}
    assert set(results) == everything | alone | controls
    everything.add("transform/all")
    for label, runs in results.items():
        assert len(runs) == stacks.SEEDS == 10
        classes = 4 if label in everything else 1
        for run in runs:
            assert np.shape(run["gates"]) == (LAYERS, classes)
            assert np.min(run["gates"]) >= 0 if classes == 4 else np.min(run["gates"]) == 1
            assert np.max(run["gates"]) <= 1
            assert len(run["ablation"]) == LAYERS
            assert np.isfinite(run["ablation"]).all()
            assert 0 < run["loss"] < 9
            assert 0 <= run["right"] <= 1
        assert len({run["loss"] for run in runs}) > 1


# Pruning


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
def test_a_product_is_the_truncated_svd(shape):
    matrix, x = gaussian(*shape, seed=0), gaussian(2, 4, shape[0], seed=1)
    U, S, Vh = np.linalg.svd(matrix.numpy(), full_matrices=False)
    for places in ([0, 1, 2], [5], [4, 1], list(range(min(shape)))):
        product = Product(matrix, lambda S, kept=places: torch.tensor(kept))
        expected = torch.from_numpy(U[:, places] * S[places] @ Vh[places])
        torch.testing.assert_close(product.left @ product.right, expected, atol=1e-12, rtol=0)
        torch.testing.assert_close(x @ product, x @ expected, atol=1e-12, rtol=0)
        assert sum(p.numel() for p in product.parameters()) == len(places) * sum(shape)
        # Both sides carry the root of σ.
        for Q in (product.left, product.right.T):
            gram = torch.diag(torch.from_numpy(S[places]))
            torch.testing.assert_close(Q.T @ Q, gram, atol=1e-12, rtol=0)


def test_a_linear_layer_keeps_its_bias():
    linear, x = torch.nn.Linear(5, 3), torch.ones(2, 5)
    pruned = ProductLinear(linear, lambda S: torch.arange(len(S)))
    torch.testing.assert_close(pruned(x), linear(x), atol=1e-6, rtol=0)
    assert pruned.bias is linear.bias


def test_what_is_kept(monkeypatch):
    S = torch.arange(20.0).flip(0)
    assert pruning.largest(S).tolist() == list(range(12))
    assert pruning.smallest(S).tolist() == list(range(8, 20))
    keep, same, other = (pruning.at_random(seed) for seed in (0, 0, 1))
    first, second = torch_is_left_alone(lambda: (keep(S), keep(S)))
    assert len(set(first.tolist())) == 12
    assert set(first.tolist()) <= set(range(20))
    assert torch.equal(first, same(S))
    assert not torch.equal(first, other(S))
    assert not torch.equal(first, second)
    monkeypatch.setattr(pruning, "RANK", 3)
    assert [len(keep(S)) for keep in (pruning.largest, pruning.smallest, same)] == [3, 3, 3]


TINY_DECODER = {"width": 8, "layers": 2, "heads": 2, "context": 16}


def tiny_batch():
    return torch.randint(BYTES, (3, 9), generator=generator(1))


def test_pruning_at_full_rank_leaves_the_function_alone(monkeypatch):
    decoder, batch = Decoder(seed=0, **TINY_DECODER).double(), tiny_batch()
    before = decoder(batch).detach()
    monkeypatch.setattr(pruning, "RANK", 8)
    prune(decoder, pruning.largest)
    torch.testing.assert_close(decoder(batch), before, atol=1e-10, rtol=0)


def test_pruning_cuts_every_matrix_of_every_block(monkeypatch):
    monkeypatch.setattr(pruning, "RANK", 2)
    decoder, plain = Decoder(seed=0, **TINY_DECODER), Decoder(seed=0, **TINY_DECODER)
    prune(decoder, pruning.largest)
    inputs = torch.eye(8), torch.eye(32)
    for block, intact in zip(decoder.blocks, plain.blocks, strict=True):
        pairs = [(getattr(block, W), getattr(intact, W)) for W in ("W_Q", "W_K", "W_V", "W_O")]
        pairs += [(block.mlp[k].product, intact.mlp[k].weight.T) for k in (0, 2)]
        for product, matrix in pairs:
            kept = (inputs[matrix.shape[0] == 32] @ product).detach()
            sigma = torch.linalg.svdvals(matrix.detach())
            torch.testing.assert_close(torch.linalg.svdvals(kept)[:2], sigma[:2])
            assert torch.linalg.matrix_rank(kept, rtol=1e-4) == 2
    sizes = [sum(p.numel() for p in d.parameters()) for d in (plain, decoder)]
    assert sizes[0] - sizes[1] == 2 * (4 * (64 - 2 * 16) + 2 * (256 - 2 * 40))
    # All that is left is trained.
    decoder(tiny_batch()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in decoder.parameters())


def numel_of(arm):
    shape, prune_at, keep = ARMS[arm]
    decoder = Decoder(seed=0, **shape)
    if prune_at is not None and keep is not None:
        prune(decoder, keep(0))
    return sum(p.numel() for p in decoder.parameters())


KEPT = {24: "24 of 48 kept", 36: "36 of 48 kept", 44: "44 of 48 kept", 48: "all 48 kept"}


@pytest.mark.parametrize("rank", KEPT)
def test_so_many_of_the_largest_are_kept(rank):
    decoder, plain = (Decoder(seed=0, **pruning.SHAPE) for _ in range(2))
    prune(decoder, ARMS[KEPT[rank]][2](0))
    product, matrix = decoder.blocks[1].W_V, plain.blocks[1].W_V.detach()
    kept = (torch.eye(48) @ product).detach()
    U, S, Vh = torch.linalg.svd(matrix)
    torch.testing.assert_close(kept, U[:, :rank] * S[:rank] @ Vh[:rank], atol=1e-5, rtol=0)


def test_arms_have_nearly_equal_parameters():
    sizes = {arm: numel_of(arm) for arm in ARMS}
    full, narrower = sizes.pop("full"), sizes.pop("narrower")
    assert sizes.pop("full, new optimizer") == full
    kept = {rank: sizes.pop(name) for rank, name in KEPT.items()}
    assert len(set(sizes.values())) == 1
    pruned = sizes["small σ pruned"]
    assert pruned < kept[24] < kept[36] < kept[44] < kept[48]
    assert (kept[48] - kept[24]) / 24 == (kept[36] - pruned) / 24
    assert narrower == pytest.approx(pruned, rel=0.02)
    assert pruned < 0.5 * full


def test_a_short_run_of_each_arm(monkeypatch):
    for name, value in {"PRUNE_AT": 2, "EVERY": 1}.items():
        monkeypatch.setattr(pruning, name, value)
    few = pruning.texts()[0], pruning.texts()[1][:20]
    monkeypatch.setattr(pruning, "texts", lambda: few)
    early = {arm: (shape, at and 2, keep) for arm, (shape, at, keep) in ARMS.items()}
    monkeypatch.setattr(pruning, "ARMS", early)
    runs = {arm: torch_is_left_alone(lambda a=arm: pruning.run((a, 0), steps=3)) for arm in ARMS}
    for arm, run in runs.items():
        assert run["parameters"] == numel_of(arm)
        assert len(run["losses"]) == 4
    # The same decoder on the same batches until it is pruned.
    names = ("full", "small σ pruned", "random σ pruned", "large σ pruned")
    full, small, random, large = (runs[name]["losses"] for name in names)
    assert full[:2] == small[:2] == random[:2] == large[:2]
    assert len({path[2] for path in (full, small, random, large)}) == 4
    # A new optimizer forgets its moments, not the weights.
    renewed = runs["full, new optimizer"]["losses"]
    assert renewed[:3] == full[:3]
    assert renewed[3] != full[3]
    start = Decoder(seed=0, **pruning.SHAPE)
    assert full[0] == pytest.approx(bits_per_byte(start, few[1]))
    prune(start, pruning.largest)
    from_the_start = runs["low rank from the start"]["losses"]
    assert from_the_start[0] == pytest.approx(bits_per_byte(start, few[1]), rel=1e-5)
    again = pruning.run(("small σ pruned", 0), steps=3)
    assert again["losses"] == small
    assert pruning.run(("small σ pruned", 1), steps=1)["losses"][0] != small[0]


def test_what_is_left_after_pruning_is_trained_on(monkeypatch):
    left = []

    def noting(decoder, keep):
        prune(decoder, keep)
        left.append((decoder, [p.detach().clone() for p in decoder.parameters()]))

    few = pruning.texts()[0], pruning.texts()[1][:2]
    monkeypatch.setattr(pruning, "texts", lambda: few)
    monkeypatch.setattr(pruning, "prune", noting)
    monkeypatch.setattr(pruning, "ARMS", {"early": (pruning.SHAPE, 1, ARMS["small σ pruned"][2])})
    pruning.run(("early", 0), steps=3)
    [(decoder, before)] = left
    for old, new in zip(before, decoder.parameters(), strict=True):
        assert not torch.equal(old, new)


def test_steps_are_timed_in_turn_and_train(monkeypatch):
    turns = []

    def noting(decoder, optimizer, stream, generator):
        turns.append((id(decoder), sum(p.numel() for p in decoder.parameters())))
        before = [p.detach().clone() for p in decoder.parameters()]
        train_step(decoder, optimizer, stream, generator)
        pairs = zip(before, decoder.parameters(), strict=True)
        assert any(not torch.equal(old, new) for old, new in pairs)

    train_step = pruning.train_step
    monkeypatch.setattr(pruning, "train_step", noting)
    seconds = pruning.step_times(rounds=2, steps=3)
    assert {arm: len(times) for arm, times in seconds.items()} == dict.fromkeys(ARMS, 2)
    assert all(0 < time < 10 for times in seconds.values() for time in times)
    sizes = [size for arm in ARMS for size in [numel_of(arm)] * 3]
    assert [size for _, size in turns] == 3 * sizes  # one round to warm up
    assert len({decoder for decoder, _ in turns}) == len(ARMS)


def test_the_stored_step_times():
    seconds = pruning.load_step_times()
    assert tuple(seconds) == tuple(ARMS)
    assert all(len(times) == 40 and min(times) > 0 for times in seconds.values())
    # The same step twice: what the timing can't tell apart.
    middle = {arm: torch.tensor(times).median() for arm, times in seconds.items()}
    assert abs(middle["full, new optimizer"] / middle["full"] - 1) < 0.1


def test_the_texts_to_train_on_and_to_test_on_are_apart():
    stream, held_out = pruning.texts()
    assert held_out.shape == (200, 65)
    text = bytes(stream.tolist())
    # But for the rules of tables, which all look alike.
    assert sum(bytes(window.tolist()) in text for window in held_out) <= 2


def test_the_stored_losses_are_complete():
    head = json.loads(pruning.RESULTS.read_text(encoding="utf-8"))
    assert head["command"] == "python -m helpers.pruning"
    results = pruning.load_results()
    assert tuple(results) == tuple(ARMS)
    for arm, runs in results.items():
        assert len(runs) == pruning.SEEDS == 10
        for run in runs:
            assert set(run) == {"losses", "parameters"}
            assert len(run["losses"]) == pruning.STEPS // pruning.EVERY + 1 == 17
            assert all(0 < loss < 12 for loss in run["losses"])
            assert run["losses"][-1] < run["losses"][0]
            assert run["parameters"] == numel_of(arm)
        assert len({run["losses"][-1] for run in runs}) > 1
    # Until the pruning the arms of a seed are one training.
    before = pruning.PRUNE_AT // pruning.EVERY
    for seed in range(10):
        paths = [
            results[arm][seed]["losses"][:before]
            for arm, (shape, at, _) in ARMS.items()
            if shape == pruning.SHAPE and at != 0
        ]
        assert all(path == paths[0] for path in paths)


def test_stored_starts_measured_again():
    for arm, seed in (("full", 0), ("narrower", 3), ("low rank from the start", 9)):
        stored = pruning.load_results()[arm][seed]["losses"][0]
        again = pruning.run((arm, seed), steps=1)["losses"][0]
        assert again == pytest.approx(stored, rel=1e-3)  # four digits are stored


# Choosing

MAKE = {
    "low rank": cases.low_rank,
    "convolution": cases.convolution,
    "circular": lambda **options: cases.convolution(circular=True, **options),
    "Fourier": cases.fourier,
    "attention": cases.attention,
    "control": cases.random_operator,
}
SIZES = {"n": 32, "width": 8, "samples": 64}


@pytest.mark.parametrize("case", choosing.RIGHT)
def test_pairs_are_sums_of_cases_of_equal_size(case):
    (inputs, outputs), (tests, clean_tests) = torch_is_left_alone(lambda: choosing.draw(case, 3))
    for part in (inputs, outputs, tests, clean_tests):
        assert part.shape == (32, 32, 8)
    parts = [MAKE[name](seed=3, **SIZES) for name in case.split(" + ")]
    clean = sum(part.clean / part.clean.square().mean().sqrt() for part in parts)
    for part in parts:
        assert torch.equal(torch.cat([inputs, tests]), part.inputs)
    torch.testing.assert_close(clean_tests, clean[32:])
    noise = outputs - clean[:32]
    level = float(noise.std() / clean.square().mean().sqrt())
    assert level == pytest.approx(0.1, rel=0.03)
    for other in (inputs, clean[:32], *(part.outputs[:32] - part.clean[:32] for part in parts)):
        assert abs(np.corrcoef(noise.flatten(), other.flatten())[0, 1]) < 0.05


def test_pairs_are_functions_of_the_seed():
    draws = [choosing.draw("Fourier", seed)[0] for seed in (0, 0, 1)]
    first, again, other = (
        outputs - cases.hartley(32) @ inputs / (cases.hartley(32) @ inputs).square().mean().sqrt()
        for inputs, outputs in draws
    )
    # Nearly the noise alone: only the size of the clean outputs is a little off.
    assert torch.equal(first, again)
    assert abs(np.corrcoef(first.flatten(), other.flatten())[0, 1]) < 0.05


@pytest.mark.parametrize("case", choosing.RIGHT)
def test_no_layer_starts_at_the_answer(case, monkeypatch):
    """The layer's random start must not come from the stream that made the operator."""
    alignments = {}

    def at_the_start(layer, inputs, outputs, **_):
        for name, part in zip(layer.classes, layer.parts(inputs).detach(), strict=True):
            alignments[name] = float((part * outputs).sum() / part.norm() / outputs.norm())
        raise StopIteration

    monkeypatch.setattr(choosing, "fit", at_the_start)
    for seed in range(3):
        with pytest.raises(StopIteration):
            choosing.run((case, 32.0, seed))
        # A convolution and attention may start a little aligned: both know a token's own place.
        assert abs(alignments["low rank"]) < 0.25
        assert abs(alignments["butterfly"]) < 0.25


def test_a_run_reports_the_choice_and_the_error_on_clean_tests(monkeypatch):
    fitted = []

    def briefly(layer, inputs, outputs, *, progress):
        fitted.append((layer, choosing_fit(layer, inputs, outputs, steps=40, progress=progress)))
        return fitted[-1][1]

    choosing_fit = choosing.fit
    monkeypatch.setattr(choosing, "fit", briefly)
    found = torch_is_left_alone(lambda: choosing.run(("convolution", 8.0, 1)))
    layer, choice = fitted[0]
    assert layer.price == 8
    assert found["chosen"] == choice.chosen
    assert found["by gradient"] == choice.by_gradient
    assert found["saved"] == choice.saved
    tests, clean = choosing.draw("convolution", 1)[1]
    with torch.no_grad():
        error = float((layer(tests) - clean).norm() / clean.norm())
    assert found["error"] == error


def test_the_stored_choices_are_complete():
    head = json.loads(choosing.RESULTS.read_text(encoding="utf-8"))
    assert head["command"] == "python -m helpers.choosing"
    results = choosing.load_results()
    assert tuple(results) == tuple(choosing.RIGHT)
    for by_price in results.values():
        seeds = {price: len(runs) for price, runs in by_price.items()}
        assert seeds == {"32": 20, "2": 2, "8": 2, "128": 2, "512": 2}
        for runs in by_price.values():
            for run in runs:
                assert set(run) == {"chosen", "by gradient", "saved", "error"}
                assert set(run["chosen"]) | set(run["by gradient"]) <= set(CLASSES)
                assert (run["saved"] > 0) == bool(run["chosen"])
                assert run["error"] == 1 if not run["chosen"] else 0 < run["error"] < 1


def test_a_choice_made_again():
    stored = choosing.load_results()["convolution"]["32"][0]
    again = choosing.run(("convolution", 32.0, 0))
    assert list(again["chosen"]) == stored["chosen"]
    assert again["saved"] == pytest.approx(stored["saved"], rel=0.01)
    assert again["error"] == pytest.approx(stored["error"], rel=0.2)
