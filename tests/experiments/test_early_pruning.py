"""Pruning of singular values: what is kept, that it is trained on, and the stored losses."""

import numpy as np
import pytest
import torch

from experiments import early_pruning
from experiments.decoder import Decoder
from experiments.decoder_measures import bits_per_byte
from experiments.early_pruning import (
    ARMS,
    EVERY,
    PRUNE_AT,
    SEEDS,
    SHAPE,
    STEPS,
    Product,
    load_results,
    prune,
    run,
    texts,
)
from helpers.maths import gaussian

TINY = {"width": 8, "layers": 2, "heads": 2, "context": 16}


@pytest.mark.parametrize("shape", [(9, 6), (6, 9), (7, 7)])
def test_a_product_is_the_truncated_svd(shape):
    matrix, x = gaussian(*shape, seed=0), gaussian(2, 4, shape[0], seed=1)
    U, S, Vh = np.linalg.svd(matrix.numpy(), full_matrices=False)
    for places in ([0, 1, 2], [5], [4, 1], list(range(min(shape)))):
        product = Product(matrix, lambda S, kept=places: torch.tensor(kept))
        expected = torch.from_numpy(U[:, places] * S[places] @ Vh[places])
        torch.testing.assert_close(x @ product, x @ expected, atol=1e-12, rtol=0)
        assert sum(p.numel() for p in product.parameters()) == len(places) * sum(shape)


def test_what_is_kept():
    S = torch.arange(20.0).flip(0)
    assert early_pruning.largest(S).tolist() == list(range(12))
    assert early_pruning.smallest(S).tolist() == list(range(8, 20))
    keep, same, other = (early_pruning.at_random(seed) for seed in (0, 0, 1))
    first, second = keep(S), keep(S)
    assert len(set(first.tolist()) & set(range(20))) == 12
    assert torch.equal(first, same(S))
    assert not torch.equal(first, other(S))
    assert not torch.equal(first, second)


def test_pruning_cuts_every_matrix_of_every_block():
    decoder, plain = (Decoder(seed=0, **TINY).double() for _ in range(2))
    tokens = torch.arange(27).view(3, 9)
    prune(decoder, early_pruning.leading(8))
    torch.testing.assert_close(decoder(tokens), plain(tokens), atol=1e-10, rtol=0)
    decoder = Decoder(seed=0, **TINY).double()
    prune(decoder, early_pruning.leading(2))
    sizes = [sum(p.numel() for p in d.parameters()) for d in (plain, decoder)]
    assert sizes[0] - sizes[1] == 2 * (4 * (64 - 2 * 16) + 2 * (256 - 2 * 40))
    # All that is left is trained.
    decoder(tokens).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in decoder.parameters())


def parameters(arm):
    shape, prune_at, keep = ARMS[arm]
    decoder = Decoder(seed=0, **shape)
    if prune_at is not None and keep is not None:
        prune(decoder, keep(0))
    return sum(p.numel() for p in decoder.parameters())


def test_the_narrow_decoder_is_as_large_as_the_pruned_ones():
    sizes = {arm: parameters(arm) for arm in ARMS}
    assert sizes["full"] == sizes["full, new optimizer"]
    pruned = {sizes[arm] for arm in ARMS if "σ pruned" in arm} | {sizes["low rank from the start"]}
    assert len(pruned) == 1
    assert sizes["narrower"] == pytest.approx(pruned.pop(), rel=0.02)
    kept = [sizes[f"{rank} of 48 kept"] for rank in (24, 36, 44)] + [sizes["all 48 kept"]]
    assert kept == sorted(kept)


def test_a_short_run_of_each_arm(monkeypatch):
    few = texts()[0], texts()[1][:20]
    early = {arm: (shape, at and 2, keep) for arm, (shape, at, keep) in ARMS.items()}
    for name, value in {"PRUNE_AT": 2, "EVERY": 1, "ARMS": early, "texts": lambda: few}.items():
        monkeypatch.setattr(early_pruning, name, value)
    runs = {arm: run(arm, 0, steps=3) for arm in ARMS}
    losses = {arm: found["losses"] for arm, found in runs.items()}
    assert {arm: found["parameters"] for arm, found in runs.items()} == {
        arm: parameters(arm) for arm in ARMS
    }
    # The same decoder on the same batches until it is pruned.
    pruned = [losses[arm] for arm in ("small σ pruned", "random σ pruned", "large σ pruned")]
    assert all(path[:2] == losses["full"][:2] for path in pruned)
    assert len({path[2] for path in (losses["full"], *pruned)}) == 4
    # What is left is trained on.
    assert all(path[3] != path[2] for path in pruned)
    # A new optimizer forgets its moments, not the weights.
    assert losses["full, new optimizer"][:3] == losses["full"][:3]
    assert losses["full, new optimizer"][3] != losses["full"][3]
    start = Decoder(seed=0, **SHAPE)
    prune(start, early_pruning.largest)
    first = losses["low rank from the start"][0]
    assert first == pytest.approx(bits_per_byte(start, few[1]), rel=1e-5)


def test_the_texts_to_train_on_and_to_test_on_are_apart():
    stream, held_out = texts()
    text = bytes(stream.tolist())
    # But for the rules of tables, which all look alike.
    assert sum(bytes(window.tolist()) in text for window in held_out) <= 2


def test_stored_arms_of_a_seed_are_one_training_until_the_pruning():
    results = load_results()
    assert tuple(results) == tuple(ARMS)
    before = PRUNE_AT // EVERY
    for arm, runs in results.items():
        assert len({found["losses"][-1] for found in runs}) > SEEDS // 2
        for seed, found in enumerate(runs):
            assert found["parameters"] == parameters(arm)
            assert len(found["losses"]) == STEPS // EVERY + 1
            assert found["losses"][-1] < found["losses"][0] - 2
            if ARMS[arm][0] == SHAPE and ARMS[arm][1] != 0:
                assert found["losses"][:before] == results["full"][seed]["losses"][:before]


@pytest.mark.parametrize("arm", ["full", "narrower", "low rank from the start"])
def test_a_stored_start_measured_again(arm):
    stored = load_results()[arm][3]["losses"][0]
    assert run(arm, 3, steps=1)["losses"][0] == pytest.approx(stored, rel=1e-3)
