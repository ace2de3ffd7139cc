"""Other ways to keep a prefix, on a small random model that rotates by position."""

import pytest
import torch
import transformers
from random_models import KEY_HEADS, LAYERS, TEXT, WIDTH, N, random_model

from experiments import prefix_rivals
from helpers.maths import truncate
from helpers.models import read_prefix
from helpers.models.prefix import heavy_keys

RIVALS = {
    "window": prefix_rivals.window,
    "expected attention": prefix_rivals.expected_attention,
    "k-means": prefix_rivals.k_means,
    "fewer dimensions": prefix_rivals.fewer_dimensions,
    "as the full model asks": prefix_rivals.as_the_full_model_asks,
    "from heavy keys": prefix_rivals.from_heavy_keys,
    "asked for passages only": prefix_rivals.asked_for_passages_only,
}


@pytest.fixture(scope="module")
def model():
    return random_model(transformers.LlamaConfig(**TEXT))


@pytest.fixture(scope="module")
def ids():
    return torch.randint(50, (N + 12,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def reading(model, ids):
    return read_prefix(model, ids[:N])


def difference(kept, reading, ids):
    """KL from the full model to what is kept, in nats a token."""
    full = reading.compact(method="full").logits(ids).log_softmax(-1)
    return float((full.exp() * (full - kept.logits(ids).log_softmax(-1))).sum(-1).mean())


@pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS)
def test_what_is_kept(rival, ids, reading):
    kept, again = rival(reading, 7), rival(reading, 7)
    assert torch.equal(kept.logits(ids[N:]), again.logits(ids[N:]))
    assert kept.logits(ids[N:]).isfinite().all()
    assert kept.bytes <= LAYERS * KEY_HEADS * 7 * (2 * WIDTH + 1) * 2
    assert kept.length == N
    if rival is not prefix_rivals.fewer_dimensions:
        assert 1 <= kept.tokens <= 7


@pytest.mark.parametrize("name", ["window", "expected attention", "from heavy keys"])
def test_as_many_tokens_as_there_are_lose_nothing(name, ids, reading):
    whole = RIVALS[name](reading, N).logits(ids[N:]).softmax(-1)
    full = reading.compact(method="full").logits(ids[N:]).softmax(-1)
    assert (whole - full).abs().max() < 0.02


def test_landmarks_lose_less_than_any_selection(ids, reading):
    """On a passage of the prefix: what they are fitted for."""
    passage = ids[10:22]
    selections = [RIVALS[name] for name in ("window", "expected attention", "k-means")]
    best = min(difference(rival(reading, 8), reading, passage) for rival in selections)
    assert difference(reading.compact(8, progress=False), reading, passage) < best


def test_fewer_dimensions_are_the_best_of_their_rank(reading):
    tokens, rank = 18, 8  # 8·(40 + 32) numbers take the place of 18·32
    kept = prefix_rivals.fewer_dimensions(reading, tokens)
    assert kept.bytes == LAYERS * KEY_HEADS * 2 * rank * (N + WIDTH) * 2
    for layer, (keys, values, _) in zip(kept.layers, reading.layers, strict=True):
        for rows, exact in ((layer.keys.rows(), keys), (layer.values.rows(), values)):
            torch.testing.assert_close(rows, truncate(exact, rank), atol=0.02, rtol=0.02)


def test_the_window_keeps_its_places(reading):
    keys = reading.layers[0][0].half().float()
    for sinks in (0, 4):
        kept = prefix_rivals.window(reading, 9, sinks=sinks)
        assert (kept.length, kept.tokens) == (N, 9)
        found = kept.layers[0].landmarks.keys
        assert torch.equal(found[:, :sinks], keys[:, :sinks])
        assert torch.equal(found[:, sinks:], keys[:, N - 9 + sinks :])


def test_expected_attention_looks_at_no_passage_read_again(model, ids):
    """What is asked behind the prefix doesn't matter."""
    reading, other = (read_prefix(model, ids[:N]) for _ in range(2))
    blind = reading.passages[1]
    for queries, _ in other.questions:
        queries[~blind] = 0
    kept = [prefix_rivals.expected_attention(read, 6).logits(ids[N:]) for read in (reading, other)]
    assert torch.equal(*kept)


def test_passages_again_are_asked_behind_the_prefix(reading):
    rows, blind = reading.passages
    again = prefix_rivals.AskedAgain(
        *(getattr(reading, name) for name in ("model", "ids", "layers", "next_logits"))
    )
    assert torch.equal(again.passages[0], rows[~blind])
    assert not again.passages[1].any()


def test_budgets_by_head(reading):
    """A head with fewer keys answers as it would alone, beside rows that no query sees."""
    budgets = torch.tensor([[3, 9], [6, 6]])
    kept = prefix_rivals.with_budgets(reading, budgets, heavy_keys)
    assert kept.tokens == 6
    assert kept.bytes == reading.compact(6, method="heavy keys", progress=False).bytes
    few = reading.compact(3, method="heavy keys", progress=False)
    queries = torch.randn(KEY_HEADS, 5, WIDTH, generator=torch.Generator().manual_seed(2))
    own, alone = (prefix.layers[0].landmarks.attend(queries) for prefix in (kept, few))
    torch.testing.assert_close(own.outputs[0], alone.outputs[0])
    torch.testing.assert_close(own.log_mass[0], alone.log_mass[0])
