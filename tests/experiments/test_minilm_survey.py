"""The stored survey of MiniLM's heads is what measuring gives."""

import pytest
import torch

from experiments import minilm_survey as survey
from experiments.minilm_survey import LENGTHS, SOURCES, energy_ranks, load_survey
from helpers.data import TEXT_KINDS, TEXTS_PER_KIND, text
from helpers.maths import shuffle_within_rows, spectrum


def test_it_covers_every_source_kind_text_length_and_head():
    tables = load_survey()
    assert set(tables) == {f"{source}/{kind}" for source in SOURCES for kind in TEXT_KINDS}
    for table in tables.values():
        assert table.shape == (TEXTS_PER_KIND, len(LENGTHS), 6, 12)
        assert (table >= 1).all()
        assert all((table[:, i] <= n).all() for i, n in enumerate(LENGTHS))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("kind", "index", "length"), [("code", 3, 0), ("random tokens", 7, 1)])
def test_a_row_measured_again(source, kind, index, length):
    measured = energy_ranks(SOURCES[source](kind, index, LENGTHS[length]))
    stored = load_survey()[f"{source}/{kind}"][index, length]
    # A rank may move by one where a rounding error decides at the threshold.
    assert (measured - stored).abs().max() <= 1
    assert (measured == stored).double().mean() > 0.95
    assert measured.dtype == torch.int16


def test_the_survey_measures_every_text_at_every_length(monkeypatch):
    asked = []

    def source(kind, index, n):
        asked.append((kind, index, n))
        sizes = torch.arange(1.0, 7.0, dtype=torch.float64) ** (index + 1)
        return torch.diag(sizes).expand(2, 3, 6, 6) + n / 1000

    monkeypatch.setattr(survey, "SOURCES", {"one": source, "two": source})
    tables = survey.survey(("prose", "code"), texts=2)
    assert list(tables) == ["one/prose", "one/code", "two/prose", "two/code"]
    order = [(kind, i, n) for kind in ("prose", "code") for i in (0, 1) for n in LENGTHS]
    assert asked == order * 2
    for table in tables.values():
        assert table.shape == (2, len(LENGTHS), 2, 3)
        assert table.dtype == torch.int16
        for i in (0, 1):
            for j, n in enumerate(LENGTHS):
                expected = spectrum(source("prose", i, n)).energy_rank(0.99)
                assert torch.equal(table[i, j].long(), expected)


def test_nulls_of_a_text(monkeypatch):
    torch.manual_seed(0)
    queries, keys = torch.randn(2, 2, 3, 8, 4, dtype=torch.float64)
    monkeypatch.setattr(survey, "minilm_reinitialised", lambda seed: f"drawn {seed}")
    given = []

    def pairs(words, n, model):
        given.append((words, n, model))
        return queries, keys

    monkeypatch.setattr(survey, "minilm_queries_keys", pairs)
    weights = survey.rescaled("prose", 4, 8)
    assert given == [(text("prose", 4), 8, "drawn 4")]
    logits = weights.log()
    unscaled = queries @ keys.mT
    for layer in range(2):
        for head in range(3):
            gaps = logits[layer, head] - logits[layer, head][:, :1]
            raw = unscaled[layer, head] / unscaled[layer, head].std()
            torch.testing.assert_close(gaps, raw - raw[:, :1], atol=1e-10, rtol=0)
    monkeypatch.setattr(survey, "trained", lambda kind, index, n: weights)
    assert torch.equal(survey.shuffled("prose", 4, 8), shuffle_within_rows(weights, seed=4))


def test_attention_of_a_text_cut_to_its_tokens(monkeypatch):
    asked = []
    monkeypatch.setattr(survey, "minilm_reinitialised", lambda seed: f"drawn {seed}")

    def weights(*given, model=None):
        asked.append((*given, model))
        return torch.zeros(6, 12, 2, 2, dtype=torch.float64)

    monkeypatch.setattr(survey, "minilm_attention", weights)
    survey.trained("code", 2, 64)
    survey.reinitialised("prose", 5, 128)
    assert asked == [(text("code", 2), 64, None), (text("prose", 5), 128, "drawn 5")]
