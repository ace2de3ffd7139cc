"""The small decoder: what is measured of its heads, how it is trained, and what is stored of ten seeds."""

import copy
from functools import partial
from math import log2

import pytest
import torch

from experiments import decoder_seeds
from experiments.byte_counts import load_counts, ngram_bits
from experiments.decoder import Decoder, encode, load_decoder, windows
from experiments.decoder_measures import (
    ablate,
    ablation_costs,
    bits_per_byte,
    measure_heads,
    truncate_all,
    truncate_energy,
    truncation_costs,
    update_ranks,
)
from experiments.decoder_seeds import LOSS_WINDOWS, SEEDS, load_results, run, train
from helpers.data import heldout_text
from helpers.maths import spectrum

BATCH = windows(heldout_text(), 24, 2)  # (2, 25): 24 inputs, and the last target
TOKENS = BATCH[:, :-1]


def small(seed: int = 0) -> Decoder:
    return Decoder(seed=seed, width=16, layers=2, heads=2, context=32).double().eval()


# Measures


def test_at_full_rank_nothing_changes():
    decoder = small()
    expected = decoder(TOKENS)
    torch.testing.assert_close(decoder(TOKENS, truncate_all(24)), expected, rtol=0, atol=1e-12)
    # All energy up to rounding of σ², which is 1e-8 in σ.
    torch.testing.assert_close(decoder(TOKENS, truncate_energy(1.0)), expected, rtol=0, atol=1e-5)


def test_ablating_a_head_is_cutting_its_rows_of_the_output_matrix():
    decoder = small()
    cut = copy.deepcopy(decoder)
    with torch.no_grad():
        cut.blocks[1].W_O[:8] = 0  # head 0 of width 8
    torch.testing.assert_close(decoder(TOKENS, ablate(decoder, 1, 0)), cut(TOKENS))
    cost = bits_per_byte(cut, BATCH) - bits_per_byte(decoder, BATCH)
    assert ablation_costs(decoder, BATCH)[1, 0].item() == pytest.approx(cost)


@pytest.mark.bad_input
@pytest.mark.parametrize(("layer", "head"), [(2, 0), (-1, 0), (0, 2), (0, -1)])
def test_there_is_no_such_head(layer, head):
    with pytest.raises(ValueError, match="must be between"):
        ablate(small(), layer, head)


def test_truncated_attention_has_that_rank_and_the_eckart_young_error():
    weights = small().attention(TOKENS)[:, 0]
    low_rank = truncate_all(3)(0, weights)
    assert (torch.linalg.matrix_rank(low_rank) == 3).all()
    tail = spectrum(weights).singular_values[..., 3:]
    torch.testing.assert_close((weights - low_rank).square().sum((-1, -2)), tail.square().sum(-1))
    assert torch.equal(truncate_all(3, causal=True)(0, weights), low_rank.tril())
    by_energy = truncate_energy(0.9)(0, weights)
    ranks = spectrum(weights).energy_rank(0.9)
    assert torch.equal(torch.linalg.matrix_rank(by_energy, rtol=1e-10), ranks)


def test_truncation_costs_name_their_ranks():
    decoder = small()
    costs = truncation_costs(decoder, BATCH, (2, 24))
    assert list(costs) == ["2", "24", "k99"]
    assert abs(costs["24"]) < 1e-12
    truncated = bits_per_byte(decoder, BATCH, truncate_all(2))
    assert costs["2"] == pytest.approx(truncated - bits_per_byte(decoder, BATCH))


def test_measures_of_uniform_attention():
    decoder = small()
    with torch.no_grad():
        for block in decoder.blocks:
            block.W_Q.zero_()
    uniform = torch.ones(24, 24, dtype=torch.float64).tril()
    uniform = spectrum(uniform / uniform.sum(-1, keepdim=True))
    measures = measure_heads(decoder, TOKENS)
    ones = torch.ones(2, 2, dtype=torch.float64)
    torch.testing.assert_close(measures.row_entropy, ones)
    assert torch.equal(measures.k99_unmasked, ones)
    assert (measures.k99 == uniform.energy_rank(0.99)).all()
    torch.testing.assert_close(measures.effective_rank, uniform.effective_rank * ones)
    torch.testing.assert_close(measures.stable_rank, uniform.stable_rank * ones)
    assert (measures.numerical_rank == 24).all()  # σ₂₄ is about 1/24


def test_ranks_of_a_known_update():
    before = small()
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.blocks[0].W_Q += torch.outer(torch.arange(1.0, 17), torch.ones(16)).double()
        after.blocks[1].W_O += torch.eye(16).double()
    ranks = update_ranks(before, after)
    assert ranks["W_Q k99"].tolist() == [1 / 16, 0]
    assert ranks["W_O effective"].tolist() == pytest.approx([0, 1])
    assert ranks["W_K k99"].tolist() == [0, 0]
    # ΔW_QK = ΔW_Q W_Kᵀ is of rank 1 for both heads; two heads of width 8 could reach 16.
    assert ranks["W_QK k99"].tolist() == [[1 / 16, 1 / 16], [0, 0]]


# Counts of bytes, training


def test_ngram_probabilities():
    text = encode("aab")
    # Unigram: N = 3, two kinds, so P(a) = (2 + 2/256) / 5.
    unigram = ngram_bits(text, encode("xa")[None], 1)
    assert unigram == pytest.approx(-log2((2 + 2 / 256) / 5))
    # After a: one a and one b, so P(a|a) = (1 + 2·P(a)) / 4.
    bigram = ngram_bits(text, encode("aa")[None], 2)
    assert bigram == pytest.approx(-log2((1 + 2 * 2**-unigram) / 4))
    for history in "abz":
        pairs = [torch.tensor([[ord(history), byte]]) for byte in range(256)]
        assert sum(2 ** -ngram_bits(text, pair, 3) for pair in pairs) == pytest.approx(1)


def test_training_lowers_the_loss_and_repeats_itself():
    tokens = encode("the quick brown fox jumps over the lazy dog. " * 40)
    losses, weights = [], []
    for _ in range(2):
        decoder = Decoder(seed=2, width=16, layers=1, heads=2, context=32)
        losses.append(train(decoder, tokens, seed=2, steps=60, progress=False))
        weights.append(torch.cat([p.detach().flatten() for p in decoder.parameters()]))
    assert losses[0][-10:].mean() < 0.6 * losses[0][:10].mean()
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(*weights)


def test_a_run_measures_before_and_after_training(monkeypatch):
    tiny = partial(Decoder, width=16, layers=1, heads=2, context=64)
    after = tiny(seed=1)
    monkeypatch.setattr(decoder_seeds, "Decoder", tiny)
    monkeypatch.setattr(decoder_seeds, "trained", lambda seed: after)
    monkeypatch.setattr(decoder_seeds, "LOSS_WINDOWS", 4)
    monkeypatch.setattr(decoder_seeds, "HEAD_WINDOWS", 2)
    found = run(0)
    few, batch = (windows(heldout_text(), 64, count) for count in (4, 2))
    for name, decoder in (("before", tiny(seed=0).double()), ("after", after)):
        assert found[name]["heldout_loss"] == pytest.approx(bits_per_byte(decoder, few))
        heads = measure_heads(decoder, batch[:, :-1])
        torch.testing.assert_close(found[name]["k99"], heads.k99)
    torch.testing.assert_close(found["ablation"], ablation_costs(after, batch))
    assert found["truncation"] == truncation_costs(after, batch)
    assert found["truncation_causal"] == truncation_costs(after, batch, causal=True)
    updates = update_ranks(tiny(seed=0), after)
    torch.testing.assert_close(found["updates"]["W_O k99"], updates["W_O k99"])


# What is stored


def test_every_seed_learned_more_than_counts_of_bytes_know():
    counts, rows = load_counts(), load_results()
    losses = [counts[order] for order in sorted(counts)]
    assert losses[0] > losses[1] > min(losses[2:])
    assert len(rows) == SEEDS
    for row in rows:
        assert row["after"]["heldout_loss"] < min(losses) < row["before"]["heldout_loss"]
        for when in ("before", "after"):
            k99 = torch.tensor(row[when]["k99"])
            assert ((k99 >= 1) & (k99 <= 256)).all()
        assert row["truncation"]["4"] > row["truncation"]["64"]
    assert len({row["after"]["heldout_loss"] for row in rows}) == SEEDS


def test_the_committed_decoder_is_that_of_seed_0():
    decoder, stored = load_decoder().double(), load_results()[0]["after"]
    loss = bits_per_byte(decoder, windows(heldout_text(), decoder.context, LOSS_WINDOWS))
    assert loss == pytest.approx(stored["heldout_loss"], rel=1e-4)
