"""Every training loop against the one that its docstring describes, a few steps by hand."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from helpers import butterfly, low_rank, operator, pruning, stack, training, universal
from helpers.butterfly import GOALS, Butterfly, SoftPermutation
from helpers.decoder import Decoder, bits_per_byte, encode, heldout_text
from helpers.nulls import gaussian
from helpers.operator import FactorizationOperator, excess_error, known_matrices
from helpers.stack import Stack, Task
from helpers.universal import UniversalLayer


def generator(seed):
    return torch.Generator().manual_seed(seed)


def assert_same_parameters(one, other, **tolerance):
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    for (name, ours), (_, by_hand) in pairs:
        torch.testing.assert_close(
            ours, by_hand, msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


def one_cycle(groups, rates, steps):
    """Adam and its schedule; the rates of the groups rise to ``rates`` and fall again."""
    optimizer = torch.optim.Adam(
        [{"params": group, "lr": rate} for group, rate in zip(groups, rates, strict=True)]
    )
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)


def test_training_of_the_decoder():
    tokens = encode(heldout_text()[:3000])
    ours, by_hand = (Decoder(seed=1, width=8, layers=1, heads=1, context=96) for _ in range(2))
    losses = training.train(ours, tokens, seed=4, steps=20)
    optimizer = torch.optim.Adam(by_hand.parameters(), betas=(0.9, 0.95))
    draws, expected, norms = generator(4), [], []
    for step in range(20):
        # Three steps of warm-up; four fifths of the steps see windows of 64 bytes, 512 in all.
        optimizer.param_groups[0]["lr"] = 4e-3 * min((step + 1) / 3, 1) * (1 - step / 20)
        length, count = (64, 8) if step < 16 else (96, 5)
        starts = torch.randint(len(tokens) - length, (count, 1), generator=draws)
        batch = tokens[starts + torch.arange(length + 1)]
        loss = cross_entropy(by_hand(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(clip_grad_norm_(by_hand.parameters(), 1.0)))
        optimizer.step()
        expected.append(loss.item() / torch.log(torch.tensor(2.0)).item())
    assert max(norms) > 1  # so that clipping shows
    torch.testing.assert_close(losses, torch.tensor(expected), atol=1e-5, rtol=0)
    assert_same_parameters(ours, by_hand, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("arm", "pruned_at"), [("full", None), ("early", 2)])
def test_training_of_a_decoder_to_be_pruned(arm, pruned_at, monkeypatch):
    stream, held_out = encode(heldout_text()[:2000]), pruning.texts()[1][:4]
    monkeypatch.setattr(pruning, "texts", lambda: (stream, held_out))
    monkeypatch.setattr(pruning, "EVERY", 2)
    early = (pruning.SHAPE, 2, lambda seed: pruning.smallest)
    monkeypatch.setattr(pruning, "ARMS", {**pruning.ARMS, "early": early})
    found = pruning.run((arm, 3), steps=6)

    decoder, draws, losses = Decoder(seed=3, **pruning.SHAPE), generator(3), []
    for step in range(6):
        if step == pruned_at:
            pruning.prune(decoder, pruning.smallest)
        if step in (0, pruned_at):
            optimizer = torch.optim.Adam(decoder.parameters(), betas=(0.9, 0.95))
        if step % 2 == 0:
            with torch.no_grad():
                losses.append(bits_per_byte(decoder, held_out))
        optimizer.param_groups[0]["lr"] = 4e-3 * min((step + 1) / 50, 1) * (1 - step / 6)
        starts = torch.randint(len(stream) - 64, (8, 1), generator=draws)
        batch = stream[starts + torch.arange(65)]
        optimizer.zero_grad()
        cross_entropy(decoder(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()).backward()
        assert clip_grad_norm_(decoder.parameters(), 1.0) > 1  # so that clipping shows
        optimizer.step()
    with torch.no_grad():
        losses.append(bits_per_byte(decoder, held_out))
    assert found["losses"] == pytest.approx(losses, abs=2e-6)
    assert found["parameters"] == sum(p.numel() for p in decoder.parameters())


def test_training_of_a_stack():
    tokens, labels = torch.arange(6 * 64).reshape(6, 64) % 5, torch.tensor([0, 1, 2, 0, 1, 2])
    task = Task("cycles", tokens, labels, tokens, labels, 5, 3)
    ours, by_hand = (Stack(task, layers=2, seed=1) for _ in range(2))
    stack.train(ours, task, price=3.0, steps=8, batch=4, learning_rate=0.02, gate_rate=0.3, seed=5)
    assert not ours.training

    gates = [mixer.gate_logits for mixer in by_hand.mixers]
    others = [p for p in by_hand.parameters() if not any(p is gate for gate in gates)]
    optimizer, schedule = one_cycle((others, gates), [0.02, 0.3], 8)
    draws = generator(5)
    for step in range(8):
        rows = torch.randint(6, (4,), generator=draws)
        logits = by_hand(tokens[rows], draws).mean(1)
        bits = cross_entropy(logits, labels[rows]) / torch.log(torch.tensor(2.0))
        # A thousand parameters behind an open gate cost the price; its full height comes half-way.
        free = sum(
            (
                mixer.probabilities
                * torch.tensor([float(mixer.parameters_of[name]) for name in mixer.classes])
            ).sum()
            for mixer in by_hand.mixers
        )
        optimizer.zero_grad()
        (bits + 3.0 * (0.25 * step if step < 4 else 1.0) * free / 1000).backward()
        clip_grad_norm_(others, 1.0)
        optimizer.step()
        schedule.step()
    assert_same_parameters(ours, by_hand, atol=1e-4, rtol=1e-3)


def test_defaults_of_a_stacks_training():
    task = stack.digits(0)
    ours, by_hand = (Stack(task, layers=1, classes=("low rank",)) for _ in range(2))
    stack.train(ours, task, steps=2)
    stack.train(
        by_hand, task, price=0.02, steps=2, batch=32, learning_rate=0.01, gate_rate=0.05, seed=0
    )
    assert_same_parameters(ours, by_hand, atol=0, rtol=0)


def test_training_of_the_operator():
    ours = operator.train(3, steps=5)
    draws = generator(3)
    start = 0.5 * torch.rand(3, 3, generator=draws, dtype=torch.float64)
    by_hand = FactorizationOperator(roots=start)
    optimizer = torch.optim.Adam(by_hand.parameters())
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.03 * (1 - (step / 5) * (1 - 1 / 5))
        n = (16, 32)[step % 2]
        X, S = known_matrices(64, n, generator=draws)
        basis = int(torch.randint(2**31, (), generator=draws))
        optimizer.zero_grad()
        excess_error(by_hand, X, S, rank=n // 4, seed=basis).log().mean().backward()
        clip_grad_norm_(by_hand.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(ours.roots, by_hand.roots, atol=1e-6, rtol=0)


def test_fit_of_a_universal_layer():
    inputs, outputs = gaussian(5, 8, 4, seed=0), 3 * gaussian(5, 8, 4, seed=1)
    ours, by_hand = (UniversalLayer(8, 4, rank=2, taps=3, price=2.0, seed=1) for _ in range(2))
    choice = universal.fit(ours, inputs, outputs, steps=6, learning_rate=0.1, gate_rate=0.4)

    by_hand.scale.copy_(outputs.square().mean().sqrt())
    optimizer, schedule = one_cycle(
        (list(by_hand.members.parameters()), [by_hand.gate_logits]), [0.1, 0.4], 6
    )
    path = [by_hand.probabilities.detach()]
    for step in range(6):
        optimizer.zero_grad()
        share = min(1.0, step / 3)
        (by_hand.description_length(inputs, outputs, share) / outputs.numel()).backward()
        optimizer.step()
        schedule.step()
        path.append(by_hand.probabilities.detach())
    torch.testing.assert_close(choice.probabilities, torch.stack(path), atol=1e-8, rtol=0)
    assert choice.by_gradient == by_hand.chosen
    assert choice.saved == pytest.approx(by_hand.settle(inputs, outputs), rel=1e-8)
    assert choice.chosen == by_hand.chosen == ours.chosen
    assert not ours.training
    with torch.no_grad():
        error = (by_hand.eval()(inputs) - outputs).norm() / outputs.norm()
    assert choice.relative_error == pytest.approx(float(error), rel=1e-8)


def test_fit_of_a_butterfly_on_some_columns_after_a_permutation():
    target = GOALS["DFT"](8, 0).matrix
    ours, by_hand = (Butterfly(8, copies=2, seed=1) for _ in range(2))
    soft, soft_by_hand = (SoftPermutation(8, copies=2, seed=2) for _ in range(2))
    history = butterfly.fit(
        ours, target, steps=5, learning_rate=0.2, columns=3, permutation=soft, seed=4
    )
    optimizer, schedule = one_cycle(([by_hand.blocks], [soft_by_hand.logits]), [0.2, 0.1], 5)
    draws, expected = generator(4), []
    for _ in range(5):
        chosen = torch.randperm(8, generator=draws)[:3]
        x = torch.eye(8, dtype=torch.float64)[:, chosen]
        error = by_hand(soft_by_hand(x)) - target[:, chosen]
        mean_square = error.abs().square().mean((-2, -1))
        optimizer.zero_grad()
        (8 * mean_square.sum()).backward()
        optimizer.step()
        schedule.step()
        expected.append(mean_square.detach().sqrt())
    torch.testing.assert_close(history, torch.stack(expected), atol=1e-10, rtol=0)
    torch.testing.assert_close(ours.blocks, by_hand.blocks, atol=1e-10, rtol=0)
    torch.testing.assert_close(soft.logits, soft_by_hand.logits, atol=1e-10, rtol=0)


def test_landmarks_are_learned_from_their_start(monkeypatch):
    compared, better = [], low_rank._better

    def noting(problem, first, second):
        compared.append((first, second, better(problem, first, second)))
        return compared[-1][-1]

    monkeypatch.setattr(low_rank, "_better", noting)
    shapes = {"queries": (2, 20, 4), "keys": (2, 9, 4), "values": (2, 9, 3)}
    parts = {name: 2 * gaussian(*shape, seed=k) for k, (name, shape) in enumerate(shapes.items())}
    answer = low_rank.compress(
        "learned", **parts, rank=3, seed=6, steps=5, batch=7, learning_rate=0.3
    )
    (_, _, start), (kept, fitted, chosen) = compared
    assert kept is start
    assert answer is chosen

    outputs = torch.softmax(parts["queries"] @ parts["keys"].mT / 2, -1) @ parts["values"]
    size = outputs.square().mean((-2, -1))
    units = [
        part.square().mean((-2, -1), keepdim=True).sqrt() for part in (start.keys, start.values)
    ]
    keys, values = start.keys / units[0], start.values / units[1]
    state = [part.clone().requires_grad_() for part in (keys, values, start.bias.clamp(min=-5))]
    optimizer, schedule = one_cycle([state], [0.3], 5)
    draws = generator(6)
    for _ in range(5):
        rows = torch.randint(20, (7,), generator=draws)
        logits = parts["queries"][:, rows] @ (state[0] * units[0]).mT / 2 + state[2][:, None]
        error = torch.softmax(logits, -1) @ (state[1] * units[1]) - outputs[:, rows]
        optimizer.zero_grad()
        (error.square().mean((-2, -1)) / size).sum().backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(fitted.keys, (state[0] * units[0]).detach(), atol=1e-8, rtol=0)
    torch.testing.assert_close(fitted.bias, state[2].detach(), atol=1e-8, rtol=0)
    # The values are fitted anew, by least squares with a very small ridge.
    weights = fitted.weights(parts["queries"])
    best = torch.linalg.lstsq(weights, outputs).solution
    torch.testing.assert_close(fitted.values, best, atol=1e-3, rtol=1e-3)
