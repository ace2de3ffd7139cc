"""The survey of MiniLM's heads: what the nulls keep and lose, and that the stored ranks are measured ones."""

import pytest
import torch

from experiments import minilm_survey
from experiments.minilm_survey import (
    LENGTHS,
    SOURCES,
    energy_ranks,
    load_survey,
    minilm_reinitialised,
    run,
)
from helpers.data import TEXT_KINDS, TEXTS_PER_KIND, text
from helpers.maths import gaussian
from helpers.models import attention_maps, minilm, minilm_tokens


def test_a_run_asks_for_every_length_and_counts_singular_values(monkeypatch):
    def diagonal(kind, index, n):
        """A matrix of which k singular values of one size hold everything, k = index + 1."""
        values = torch.cat([torch.ones(index + 1), torch.zeros(n - index - 1)]).double()
        return torch.diag(values).expand(2, 3, n, n)

    monkeypatch.setattr(minilm_survey, "SOURCES", {"diagonal": diagonal})
    found = run("diagonal", "prose", 4)
    assert found.shape == (len(LENGTHS), 2, 3)
    assert (found == 5).all()


def test_rescaled_heads_have_logits_of_deviation_one(monkeypatch):
    queries, keys = gaussian(2, 2, 3, 8, 4, seed=0)
    monkeypatch.setattr(minilm_survey, "minilm_reinitialised", lambda seed: f"drawn {seed}")
    asked = []

    def rows(model, ids):
        asked.append((model, ids.tolist()))
        return queries, 7 * keys, None

    monkeypatch.setattr(minilm_survey, "queries_keys_values", rows)
    weights = minilm_survey.rescaled("prose", 4, 8)
    assert asked == [("drawn 4", minilm_tokens(text("prose", 4), 8).tolist())]
    logits = queries @ keys.mT
    logits = logits / logits.std(dim=(-2, -1), keepdim=True)
    torch.testing.assert_close(weights, logits.softmax(-1))


def test_shuffled_rows_keep_their_entries(monkeypatch):
    weights = gaussian(2, 3, 6, 6, seed=0).softmax(-1)
    monkeypatch.setattr(minilm_survey, "trained", lambda kind, index, n: weights)
    shuffled = minilm_survey.shuffled("prose", 4, 6)
    torch.testing.assert_close(shuffled.sort(-1).values, weights.sort(-1).values)
    assert not torch.equal(shuffled, weights)


def test_stored_ranks_cover_every_text_at_every_length():
    tables = load_survey()
    assert set(tables) == {f"{source}/{kind}" for source in SOURCES for kind in TEXT_KINDS}
    for table in tables.values():
        assert table.shape == (TEXTS_PER_KIND, len(LENGTHS), 6, 12)
        assert (table >= 1).all()
        assert (table <= torch.tensor(LENGTHS)[:, None, None]).all()
    # Shuffling destroys what rows share, so it needs more singular values.
    longest = {source: tables[f"{source}/prose"][:, -1].double().mean() for source in SOURCES}
    assert longest["trained"] < longest["shuffled"]


@pytest.mark.parametrize("source", SOURCES)
def test_stored_ranks_measured_again(source):
    measured = energy_ranks(SOURCES[source]("code", 3, LENGTHS[0]))
    stored = load_survey()[f"{source}/code"][3, 0]
    # A rank may move by one where a rounding error decides at the threshold.
    assert (measured - stored).abs().max() <= 1
    assert (measured == stored).double().mean() > 0.95


def test_training_changed_the_attention():
    tokens = minilm_tokens("Attention is all you need.")
    untrained = attention_maps(minilm_reinitialised(0), tokens)
    assert (untrained - attention_maps(minilm(), tokens)).abs().max() > 0.1


def test_reinitialised_weights():
    state = torch.get_rng_state()
    first, again, other = (minilm_reinitialised(seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    trained = dict(minilm().named_parameters())
    for (name, weight), (_, same), (_, new) in zip(
        first.named_parameters(), again.named_parameters(), other.named_parameters(), strict=True
    ):
        assert weight.shape == trained[name].shape
        assert torch.equal(weight, same)
        if weight.ndim == 2:
            assert not torch.equal(weight, new)
            # 768 numbers in the smallest matrix: the sd is within 3 of 0.02 by five sigma.
            assert abs(weight.std() - 0.02) < 0.003, name
        else:
            assert torch.equal(weight, torch.full_like(weight, float(name.endswith("Norm.weight"))))
