"""A prefix kept in less, on small random models that rotate by position."""

import pytest
import torch
import transformers
from random_models import KEY_HEADS, LAYERS, TEXT, WIDTH, N, random_model
from transformers import DynamicCache

from helpers.models import compact_prefix, read_prefix
from helpers.models.prefix import BITS, METHODS

FAMILIES = {"llama": transformers.LlamaConfig(**TEXT), "qwen3": transformers.Qwen3Config(**TEXT)}
QUICK = {"landmarks": {"steps": 5}, "landmarks without mass": {"steps": 5}}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return random_model(FAMILIES[request.param])


@pytest.fixture(scope="module")
def ids():
    return torch.randint(50, (N + 12,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def reading(model, ids):
    return read_prefix(model, ids[:N])


@torch.no_grad()
def own_logits(model, ids):
    return model(ids[None]).logits[0]


def test_full_is_the_model_itself(model, ids, reading):
    full = reading.compact(method="full")
    own = own_logits(model, ids)
    torch.testing.assert_close(full.logits(ids[N:]), own[N:], atol=0.02, rtol=0.02)  # float16
    loss = torch.nn.functional.cross_entropy(own[N - 1 : -1], ids[N:])
    assert full.loss(ids[N:]) == pytest.approx(float(loss), abs=0.02)
    start = {"input_ids": ids[None, :N], "attention_mask": torch.ones(1, N)}
    greedy = model.generate(**start, max_new_tokens=8, do_sample=False)
    assert full.generate(8).tolist() == greedy[0, N:].tolist()
    assert full.tokens == N
    assert full.bytes == LAYERS * KEY_HEADS * N * 2 * WIDTH * 2


def test_none_reads_on_as_if_nothing_had_been(model, ids, reading):
    alone = own_logits(model, ids[N:])  # RoPE sees differences of positions only
    nothing = reading.compact(method="none")
    torch.testing.assert_close(nothing.logits(ids[N:]), alone, atol=1e-3, rtol=1e-3)
    assert nothing.bytes == nothing.tokens == 0


@pytest.mark.parametrize("method", ["heavy keys", "landmarks"])
def test_as_many_tokens_as_there_are_lose_nothing(method, ids, reading):
    """Landmarks start from all keys, and keep what fits best."""
    whole = reading.compact(N, method=method, progress=False, **QUICK.get(method, {}))
    full = reading.compact(method="full").logits(ids[N:]).softmax(-1)
    assert (whole.logits(ids[N:]).softmax(-1) - full).abs().max() < 0.02


@pytest.mark.parametrize("method", METHODS)
def test_what_is_kept(method, ids, reading):
    options = QUICK.get(method, {})
    kept = reading.compact(7, method=method, progress=False, **options)
    again = reading.compact(7, method=method, progress=False, **options)
    assert torch.equal(kept.logits(ids[N:]), again.logits(ids[N:]))
    assert 1 <= kept.tokens <= 7
    rows = LAYERS * KEY_HEADS * 7
    assert kept.bytes in (rows * 2 * WIDTH * 2, rows * (2 * WIDTH + 1) * 2)
    assert kept.bytes == sum(
        part.nbytes
        for layer in kept.layers
        for stored in (layer.keys, layer.values, layer.bias)
        if stored
        for part in vars(stored).values()
        if isinstance(part, torch.Tensor)
    )
    assert kept.logits(ids[N:]).isfinite().all()


def test_block_by_block_is_at_once(ids, reading):
    kept = reading.compact(9, method="heavy keys", progress=False)
    cache = DynamicCache()
    blocks = torch.cat([kept.logits(block, cache) for block in ids[N:].split(5)])
    torch.testing.assert_close(blocks, kept.logits(ids[N:]), atol=1e-3, rtol=1e-3)


def difference(kept, reading, ids):
    """KL from the full model to what is kept, in nats a token."""
    full = reading.compact(method="full").logits(ids).log_softmax(-1)
    return float((full.exp() * (full - kept.logits(ids).log_softmax(-1))).sum(-1).mean())


def test_landmarks_lose_less_than_the_heaviest_keys(ids, reading):
    """On a passage of the prefix: what they are fitted for. The mass is part of it."""
    passage = ids[10:22]
    lost = {
        method: difference(reading.compact(8, method=method, progress=False), reading, passage)
        for method in METHODS
    }
    assert lost["landmarks"] < lost["heavy keys"]
    assert lost["landmarks"] < lost["landmarks without mass"]


def test_fewer_bits_lose_more_and_take_less(ids, reading):
    kept = [reading.compact(method=method) for method in BITS]
    full = reading.compact(method="full")
    lost = [difference(prefix, reading, ids[N:]) for prefix in kept]
    assert lost[0] < lost[1] < lost[2]
    # 8, 4 or 2 bits for 16, and two half floats for every 32 numbers.
    assert [prefix.bytes / full.bytes for prefix in kept] == [9 / 16, 5 / 16, 3 / 16]
    rows = reading.compact(8, method="heavy keys", progress=False)
    assert rows.stored_in(4).bytes == rows.bytes * 5 / 16
    small = reading.compact(8, steps=5, progress=False).stored_in(4)
    assert small.bytes < rows.bytes / 2


def test_budgets_by_layer(reading):
    budgets = torch.tensor([3, 9])
    kept = reading.compact(6, method="heavy keys", budgets=budgets, progress=False)
    assert [layer.landmarks.keys.shape[-2] for layer in kept.layers] == [3, 9]
    assert kept.tokens == 6
    for wrong in (torch.tensor([3]), torch.tensor([0, 9]), torch.tensor([3, N + 1])):
        with pytest.raises(ValueError, match="budgets"):
            reading.compact(6, budgets=wrong)


def test_what_the_model_writes_is_likely(model, ids, reading):
    """Drawn from its own probabilities: as likely as these say, token by token."""
    writing = read_prefix(model, ids[:N], written=30, seed=3)
    rows, blind = writing.passages
    texts = rows[-30:]
    assert torch.equal(rows[:-30], reading.passages[0])
    assert not blind[-30:].any()
    full = reading.compact(method="full")
    surprise = torch.tensor([full.loss(text[:10]) for text in texts])
    first = torch.cat([reading.next_logits[None], full.logits(texts[0][:9])]).log_softmax(-1)
    entropy = float(-(first.exp() * first).sum(-1).mean())
    assert float(surprise.mean()) == pytest.approx(entropy, rel=0.3)
    again = read_prefix(model, ids[:N], written=30, seed=3)
    assert torch.equal(again.passages[0], rows)
    kept = writing.compact(8, steps=5, progress=False)
    assert kept.logits(ids[N:]).isfinite().all()


def test_the_model_is_left_as_it_was(ids):
    model = random_model(FAMILIES["llama"]).train()
    before, own = model.config._attn_implementation, own_logits(model, ids)
    compact_prefix(model, ids[:N], 5, steps=2, progress=False).generate(2)
    assert model.training
    assert model.config._attn_implementation == before
    assert torch.equal(own_logits(model, ids), own)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("A text.", 4), {}, TypeError, "prefix_ids must be token ids"),
        ((torch.arange(N), 0), {}, ValueError, "tokens"),
        ((torch.arange(N), N + 1), {}, ValueError, "tokens"),
        ((torch.arange(N),), {}, TypeError, "tokens"),
        ((torch.full((N,), 50), 4), {}, ValueError, "prefix_ids"),
        ((torch.arange(2 * N).view(2, N) % 50, 4), {}, ValueError, "prefix_ids"),
        ((torch.arange(90) % 50, 4), {}, ValueError, "100 positions"),
        ((torch.arange(N), 4), {"method": "note"}, ValueError, "method"),
        (
            (torch.arange(N), 4),
            {"method": "heavy keys", "steps": 3},
            TypeError,
            "no option 'steps'",
        ),
        ((torch.arange(N), 4), {"method": "int4", "budgets": 2}, TypeError, "no option 'budgets'"),
        ((torch.arange(N), 4), {"step": 3}, TypeError, "no option 'step'"),
    ],
)
def test_refusals(model, arguments, options, error, message):
    with pytest.raises(error, match=message):
        compact_prefix(model, *arguments, progress=False, **options)


@pytest.mark.bad_input
def test_what_takes_long_is_refused_before_it_begins(model, monkeypatch):
    def read(*_, **__):
        raise AssertionError("the prefix was read")

    monkeypatch.setattr("helpers.models.prefix.read_prefix", read)
    for tokens, options in ((0, {}), (4, {"method": "all"}), (4, {"step": 1})):
        with pytest.raises((ValueError, TypeError), match="tokens|method"):
            compact_prefix(model, torch.arange(N), tokens, **options)


def test_a_prefix_may_fill_the_positions_if_no_passage_is_read(model):
    ids = torch.arange(90) % 50
    assert compact_prefix(model, ids, method="int8").logits(ids[:10]).isfinite().all()
    with pytest.raises(ValueError, match="a passage that is read behind them"):
        compact_prefix(model, ids, 4)


def test_bits_that_there_are_not(reading):
    with pytest.raises(ValueError, match="bits"):
        reading.compact(method="full").stored_in(3)


def test_continuations_end_within_the_positions(reading):
    full = reading.compact(method="full")
    with pytest.raises(
        ValueError, match="continuation_ids must end within the model's 100 positions"
    ):
        full.logits(torch.zeros(61).long())
    with pytest.raises(ValueError, match="count"):
        full.generate(61)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("config", "auto", "message"),
    [
        (transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50), None, "RoPE"),
        (transformers.LlamaConfig(**TEXT), transformers.AutoModel, "predict tokens"),
        (transformers.MistralConfig(**TEXT, sliding_window=8), None, "sliding"),
    ],
)
def test_models_that_can_not_be_served(config, auto, message):
    model = random_model(config, auto or transformers.AutoModelForCausalLM)
    with pytest.raises(ValueError, match=message):
        compact_prefix(model, torch.arange(N), 4)
    with pytest.raises(TypeError, match="transformers model"):
        compact_prefix("SmolLM2", torch.arange(N), 4)
