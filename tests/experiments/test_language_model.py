"""The experiments on SmolLM2: what is cut, shuffled or rounded is what is said, and stored rows are measured ones."""

import pytest
import torch

from experiments import attention_truncation, cache_bits, smollm_causes, smollm_census
from experiments.attention_truncation import (
    at_energy,
    first_column,
    first_column_zero,
    loss,
    without_first_column,
)
from experiments.cache_bits import METHODS, bytes_of, kept, projected, quantised
from experiments.smollm_census import LENGTHS, k99, without_first
from helpers.data import LONG_KINDS, long_ids
from helpers.maths import gaussian, random_attention, spectrum
from helpers.models import attention_maps, smollm

HEADS = random_attention(24, 8, causal=True, samples=6, seed=0).reshape(2, 3, 24, 24)


@pytest.fixture(scope="module")
def ids():
    return long_ids("prose", 3, 64, smollm().tokenizer)


# --- Census -----------------------------------------------------------------------------------------


def test_both_ways_to_count_agree(monkeypatch):
    exact = k99(HEADS)
    assert torch.equal(exact, spectrum(HEADS).energy_rank(0.99))
    monkeypatch.setattr(smollm_census, "DOUBLE_TO", 8)
    assert (k99(HEADS.float()) - exact).abs().max() <= 1


def test_without_the_first_token_rows_sum_to_one_and_a_sink_is_gone():
    sunk = 0.9 * first_column(torch.ones_like(HEADS)) + 0.1 * HEADS
    rest = without_first(sunk)
    assert rest.shape == (2, 3, 23, 23)
    torch.testing.assert_close(rest, without_first(HEADS))
    torch.testing.assert_close(rest.sum(-1), torch.ones_like(rest.sum(-1)))


def test_stored_census_measured_again():
    table = smollm_census.load_census()
    assert set(table["k99"]) == {(kind, n) for kind in LONG_KINDS for n in LENGTHS}
    again = smollm_census.run("code", 4, 64)
    for name in ("k99", "k99 without first"):
        moved = (again[name] - table[name]["code", 64][4]).abs()
        assert moved.max() <= 1
        assert (moved == 0).double().mean() > 0.95
    assert (again["sink"] - table["sink"]["code", 64][4]).abs().max() <= 1


# --- Causes -----------------------------------------------------------------------------------------


def test_versions_are_what_their_names_say(ids):
    versions = smollm_causes.versions(3, ids)
    trained = versions["trained"]
    torch.testing.assert_close(trained, attention_maps(smollm().model, ids), rtol=0, atol=1e-4)
    shuffled = versions["rows shuffled"]
    torch.testing.assert_close(shuffled.sort(-1).values, trained.sort(-1).values)
    assert torch.equal(shuffled, shuffled.tril())
    untrained = versions["untrained"]
    spread = {name: smollm_causes.spread(versions[name].clamp(min=1e-9).log()) for name in versions}
    assert spread["untrained"].median() < 0.5 * spread["trained"].median()
    # log A is the logits up to a constant for each row, which the spread ignores.
    torch.testing.assert_close(
        spread["untrained, logits as spread"].median(), spread["trained"].median(), rtol=0.2, atol=0
    )
    assert (untrained - versions["before RoPE"]).abs().max() > 0.1


def test_without_rotation_equal_tokens_look_alike():
    """RoPE is all that tells places apart in the first layer."""
    ids = torch.full((8,), 504)
    queries, keys = smollm_causes.before_rotation(ids)
    weights = smollm_causes.causal_softmax(smollm_causes.logits_of(queries[:1], keys[:1]))
    uniform = torch.ones(8, 8).tril() / torch.arange(1, 9)[:, None]
    torch.testing.assert_close(weights[0], uniform.expand(9, 8, 8), rtol=0, atol=1e-5)


def test_stored_causes_measured_again():
    stored = smollm_causes.load_causes()
    ids = long_ids("prose", 2, smollm_causes.N, smollm().tokenizer)
    ranks = k99(without_first(attention_maps(smollm().model, ids)))
    assert (ranks - stored["k99"]["without the first token"][2]).abs().max() <= 2
    shares = smollm_causes.habits(ids, 2)["induction"]
    assert (1000 * shares - stored["habits"]["induction"][2]).abs().max() <= 2


# --- Truncation -------------------------------------------------------------------------------------


def test_at_energy_keeps_the_least_rank_that_holds_the_share():
    near, ranks = at_energy(HEADS, 0.9)
    assert torch.equal(ranks, spectrum(HEADS).energy_rank(0.9))
    values = spectrum(near).singular_values
    whole = spectrum(HEADS).singular_values
    for at, rank in enumerate(ranks.flatten().tolist()):
        got, had = values.flatten(0, 1)[at], whole.flatten(0, 1)[at]
        torch.testing.assert_close(got[:rank], had[:rank])
        assert got[rank:].max() < 1e-10
    torch.testing.assert_close(at_energy(HEADS, 1.0)[0], HEADS)


def test_columns():
    torch.testing.assert_close(first_column(HEADS)[..., 0], HEADS[..., 0])
    assert first_column(HEADS)[..., 1:].abs().max() == 0
    zero = first_column_zero(HEADS)
    torch.testing.assert_close(zero[..., 1:], HEADS[..., 1:])
    assert zero[..., 1:, 0].abs().max() == 0
    without = without_first_column(HEADS)
    torch.testing.assert_close(without.sum(-1), torch.ones(2, 3, 24).double())
    assert without[..., 1:, 0].abs().max() == 0


def test_loss_is_the_models_own_and_the_future_is_worth_something(ids):
    with torch.no_grad():
        own = smollm().model(ids[None], labels=ids[None]).loss
    assert loss(ids) == pytest.approx(float(own), abs=1e-4)
    blind = loss(ids, lambda _, weights: at_energy(weights, 0.95)[0].tril())
    leaking = loss(ids, lambda _, weights: at_energy(weights, 0.95)[0])
    assert leaking < blind


def test_stored_losses_measured_again():
    stored = attention_truncation.load_truncation()
    ids = long_ids("prose", 1, attention_truncation.N, smollm().tokenizer)
    assert loss(ids) == pytest.approx(float(stored["full"][1]), abs=2e-3)
    cut = loss(ids, lambda _, weights: at_energy(weights, 0.99)[0].tril())
    assert cut == pytest.approx(float(stored["cut"][1, 4]), abs=0.02)
    few = ids[: attention_truncation.N_HEADS]
    assert loss(few) == pytest.approx(float(stored["full, heads"][1]), abs=2e-3)


# --- Cache ------------------------------------------------------------------------------------------


def test_what_is_kept_of_a_cache():
    rows = gaussian(1, 3, 40, 64, seed=0).float()
    near = projected(rows, 16)
    assert torch.linalg.matrix_rank(near, rtol=1e-4).unique().tolist() == [16]
    torch.testing.assert_close(projected(rows, 64), rows, rtol=0, atol=1e-4)
    groups = rows.unflatten(-1, (-1, 32))
    step = (groups.amax(-1) - groups.amin(-1)) / 15
    assert (
        (quantised(rows, 4) - rows).unflatten(-1, (-1, 32)).abs().amax(-1) <= step / 2 + 1e-6
    ).all()
    levels = quantised(rows, 2).unflatten(-1, (-1, 32))[0, 0, 0, 0].unique()
    assert len(levels) <= 4
    for method in METHODS:
        assert torch.equal(kept(rows, method)[..., 0, :], rows[..., 0, :])
        assert not torch.equal(kept(rows, method), rows)


def test_bytes():
    whole = bytes_of(512, 64)
    assert whole == 512 * 64 * 2
    assert bytes_of(512, 64, bits=8) == whole / 2 + 512 * 2 * 4  # two scales of two bytes a row
    assert bytes_of(512, 64, rank=32) == whole / 2 + 64 * 32 * 2


def test_stored_cache_losses_measured_again(monkeypatch):
    stored, some = cache_bits.load_cache(), ("32 of 64 dimensions", "8 bits", "3 bits")
    monkeypatch.setattr(cache_bits, "METHODS", {name: METHODS[name] for name in some})
    again = cache_bits.run(4)
    for name, value in again.items():
        assert value == pytest.approx(float(stored[name][4]), abs=0.02)
    assert again["8 bits"] - again["full"] < 0.01 < again["none"] - again["full"]
