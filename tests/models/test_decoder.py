"""The small decoder: its architecture, its measurements, its training, its committed checkpoint."""

import copy
import hashlib
import json
import platform
from functools import partial
from math import cos, log2, sin
from pathlib import Path

import pytest
import safetensors.torch
import torch

from experiments import decoder_seeds as training
from experiments.decoder_measures import (
    ablate,
    ablation_costs,
    measure_heads,
    truncate_all,
    truncate_energy,
    truncation_costs,
    update_ranks,
)
from helpers.data import DATA, encode, heldout_text, windows
from helpers.maths import attention_weights, causal_mask, spectrum
from helpers.models import (
    DECODER_FILE,
    Decoder,
    ModelFileError,
    bits_per_byte,
    load_decoder,
    rotate,
)

BATCH = windows(heldout_text(), 24, 2)  # (2, 25): 24 inputs, and the last target
TOKENS = BATCH[:, :-1]


def small(seed: int = 0) -> Decoder:
    return Decoder(seed=seed, width=16, layers=2, heads=2, context=32).double().eval()


@pytest.fixture(scope="module")
def trained() -> Decoder:
    return load_decoder()


@pytest.fixture(scope="module")
def committed() -> dict:
    return json.loads((DATA / "decoder_seeds.json").read_text(encoding="utf-8"))


# Architecture


def test_a_byte_changes_no_output_before_it():
    decoder = small()
    before = decoder(TOKENS)
    for place in (0, 11, 23):
        changed = TOKENS.clone()
        changed[:, place] = (changed[:, place] + 1) % 256
        after = decoder(changed)
        assert torch.equal(after[:, :place], before[:, :place])
        assert (after[:, place:] - before[:, place:]).abs().amax((0, 2)).min() > 1e-6


def test_attention_is_the_books_formula_of_queries_and_keys():
    decoder = small()
    weights = decoder.attention(TOKENS)
    assert weights.shape == (2, 2, 2, 24, 24)
    assert torch.equal(weights, weights.tril())
    queries, keys = decoder.queries_keys(TOKENS)
    assert queries.shape == (2, 2, 2, 24, 8)
    assert torch.equal(weights, attention_weights(queries, keys, mask=causal_mask(24)))


def test_heads_are_queries_keys_and_the_values_of_each_block():
    decoder = small()
    queries, keys, values = decoder.heads(TOKENS)
    for found, expected in zip((queries, keys), decoder.queries_keys(TOKENS), strict=True):
        assert torch.equal(found, expected)
    stream = decoder.embedding(TOKENS)
    assert torch.equal(values[:, 0], decoder.blocks[0].values(stream))
    mixed = decoder.blocks[0](stream, decoder.attention(TOKENS)[:, 0])
    assert torch.equal(values[:, 1], decoder.blocks[1].values(mixed))


def test_one_layer_by_hand():
    decoder = Decoder(seed=1, width=8, layers=1, heads=1, context=32).double()
    block, tokens = decoder.blocks[0], TOKENS[:1, :5]
    x = decoder.embedding.weight[tokens[0]]
    normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    queries, keys = rotate(normal @ block.W_Q), rotate(normal @ block.W_K)
    logits = (queries @ keys.T / 8**0.5).masked_fill(~causal_mask(5), float("-inf"))
    x = x + logits.exp() / logits.exp().sum(-1, keepdim=True) @ normal @ block.W_V @ block.W_O
    x = x + block.mlp(block.mlp_norm(x))
    torch.testing.assert_close(decoder(tokens)[0], decoder.norm(x) @ decoder.embedding.weight.T)


def test_rotation_keeps_lengths_and_sees_only_distances():
    queries, keys = torch.randn(
        2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    turned_queries, turned_keys = rotate(queries.expand(20, 8)), rotate(keys.expand(20, 8))
    torch.testing.assert_close(turned_queries.norm(dim=-1), queries.norm().expand(20))
    products = turned_queries @ turned_keys.T
    for distance in range(1, 19):
        diagonal = products.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[:, 0].std() > 0.1
    # Coordinates k and k + d/2 form a plane; the first plane turns by one radian per place.
    first = torch.eye(8, dtype=torch.float64)[0].expand(3, 8)
    turned = rotate(first)[2, [0, 4]]
    assert turned.tolist() == pytest.approx([cos(2), sin(2)])


def test_weights_are_a_function_of_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = small(3), small(3), small(4)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for (name, weight), (_, same), (_, new) in zip(
        *(d.named_parameters() for d in (first, again, other)), strict=True
    ):
        assert torch.equal(weight, same)
        assert weight.ndim == 1 or not torch.equal(weight, new), name


def test_scale_of_the_initial_weights():
    decoder = Decoder(seed=0)
    for name, fan_in, share in (
        ("W_Q", 96, 1),
        ("W_O", 96, 8),
        ("mlp.0.weight", 96, 1),
        ("mlp.2.weight", 384, 8),
    ):
        weight = decoder.blocks[1].get_parameter(name)
        assert weight.std().item() == pytest.approx((fan_in * share) ** -0.5, rel=0.05)


# Replaced attention


def test_transforms_that_change_nothing():
    decoder = small()
    expected = decoder(TOKENS)
    assert torch.equal(decoder(TOKENS, lambda _, A: A), expected)
    full = decoder(TOKENS, truncate_all(24))
    torch.testing.assert_close(full, expected, rtol=0, atol=1e-12)
    # All energy up to rounding of σ², which is 1e-8 in σ.
    energy = decoder(TOKENS, truncate_energy(1.0))
    torch.testing.assert_close(energy, expected, rtol=0, atol=1e-5)


def test_ablating_a_head_is_cutting_its_rows_of_the_output_matrix():
    decoder = small()
    cut = copy.deepcopy(decoder)
    with torch.no_grad():
        cut.blocks[1].W_O[:8] = 0  # head 0 of width 8
    torch.testing.assert_close(decoder(TOKENS, ablate(decoder, 1, 0)), cut(TOKENS))
    costs = ablation_costs(decoder, BATCH)
    assert costs.shape == (2, 2)
    assert costs[1, 0].item() == pytest.approx(
        bits_per_byte(cut, BATCH) - bits_per_byte(decoder, BATCH)
    )


def test_truncated_attention_has_that_rank_and_the_eckart_young_error():
    weights = small().attention(TOKENS)[:, 0]
    low_rank = truncate_all(3)(0, weights)
    assert (torch.linalg.matrix_rank(low_rank) == 3).all()
    tail = spectrum(weights).singular_values[..., 3:]
    torch.testing.assert_close((weights - low_rank).square().sum((-1, -2)), tail.square().sum(-1))
    cut = truncate_all(3, causal=True)(0, weights)
    assert torch.equal(cut, low_rank.tril())
    assert not torch.equal(cut, low_rank)


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.99])
def test_truncation_by_energy_keeps_each_matrixs_own_rank(fraction):
    weights = small().attention(TOKENS)[:, 0]
    low_rank = truncate_energy(fraction)(0, weights)
    ranks = spectrum(weights).energy_rank(fraction)
    assert torch.equal(torch.linalg.matrix_rank(low_rank, rtol=1e-10), ranks)
    kept = low_rank.square().sum((-1, -2)) / weights.square().sum((-1, -2))
    assert (kept >= fraction - 1e-12).all()


def test_truncation_costs_name_their_ranks():
    decoder = small()
    costs = truncation_costs(decoder, BATCH, (2, 24))
    assert list(costs) == ["2", "24", "k99"]
    assert abs(costs["24"]) < 1e-12
    intact = bits_per_byte(decoder, BATCH)
    assert costs["2"] == pytest.approx(bits_per_byte(decoder, BATCH, truncate_all(2)) - intact)


# Measurements


def test_loss_of_a_decoder_that_knows_nothing_is_eight_bits():
    decoder = small()
    with torch.no_grad():
        decoder.embedding.weight.zero_()
    assert bits_per_byte(decoder, BATCH) == pytest.approx(8)


def test_measures_of_uniform_attention():
    decoder = small()
    with torch.no_grad():
        for block in decoder.blocks:
            block.W_Q.zero_()
    uniform = torch.ones(24, 24, dtype=torch.float64).tril()
    uniform = spectrum(uniform / uniform.sum(-1, keepdim=True))
    measures = measure_heads(decoder, TOKENS)
    torch.testing.assert_close(measures.row_entropy, torch.ones(2, 2, dtype=torch.float64))
    assert torch.equal(measures.k99_unmasked, torch.ones(2, 2, dtype=torch.float64))
    assert (measures.k99 == uniform.energy_rank(0.99)).all()
    expected = uniform.effective_rank.expand(2, 2)
    torch.testing.assert_close(measures.effective_rank, expected)
    torch.testing.assert_close(measures.stable_rank, uniform.stable_rank.expand(2, 2))
    assert (measures.numerical_rank == 24).all()  # σ₂₄ is about 1/24


def test_two_tokens_are_enough_to_measure_a_head():
    weights = small().attention(TOKENS[:, :2])
    share = weights[..., 1, 0]  # the only row with a choice
    entropy = -(share * share.log2() + (1 - share) * (1 - share).log2())
    torch.testing.assert_close(
        measure_heads(small(), TOKENS[:, :2]).row_entropy, entropy.mean(0).detach()
    )


def test_ranks_of_a_known_update():
    before = small()
    after = copy.deepcopy(before)
    with torch.no_grad():
        after.blocks[0].W_Q += torch.outer(torch.arange(1.0, 17), torch.ones(16)).double()
        after.blocks[1].W_O += torch.eye(16).double()
    ranks = update_ranks(before, after)
    assert ranks["W_Q k99"].tolist() == [1 / 16, 0]
    assert ranks["W_Q effective"].tolist() == pytest.approx([1 / 16, 0])
    assert ranks["W_O effective"].tolist() == pytest.approx([0, 1])
    assert ranks["W_K k99"].tolist() == [0, 0]
    # ΔW_QK = ΔW_Q W_Kᵀ is of rank 1 for both heads; two heads of width 8 could reach 16.
    assert ranks["W_QK k99"].tolist() == [[1 / 16, 1 / 16], [0, 0]]


def test_windows_do_not_overlap():
    text = "".join(chr(33 + i) for i in range(90))
    rows = windows(text, 9, 7)
    assert rows.shape == (7, 10)
    assert len(set(rows.flatten().tolist())) == 70
    assert bytes(rows[1].tolist()).decode() in text


def test_ngram_probabilities():
    text = encode("aab")
    # Unigram: N = 3, two kinds, so P(a) = (2 + 2/256) / 5.
    unigram = training.ngram_bits(text, encode("xa")[None], 1)
    assert unigram == pytest.approx(-log2((2 + 2 / 256) / 5))
    # After a: one a and one b, so P(a|a) = (1 + 2·P(a)) / 4.
    bigram = training.ngram_bits(text, encode("aa")[None], 2)
    assert bigram == pytest.approx(-log2((1 + 2 * 2**-unigram) / 4))
    for history in ("a", "b", "z"):
        bits = [
            training.ngram_bits(text, torch.tensor([[ord(history), byte]]), 3)
            for byte in range(256)
        ]
        assert sum(2**-bit for bit in bits) == pytest.approx(1)


# Training


def test_training_lowers_the_loss_and_repeats_itself():
    tokens = encode("the quick brown fox jumps over the lazy dog. " * 40)
    losses, weights = [], []
    for _ in range(2):
        decoder = Decoder(seed=2, width=16, layers=1, heads=2, context=32)
        losses.append(training.train(decoder, tokens, seed=2, steps=60))
        weights.append(decoder.state_dict())
    assert losses[0][-10:].mean() < 0.6 * losses[0][:10].mean()
    assert torch.equal(losses[0], losses[1])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_text_must_be_longer_than_the_context():
    decoder = Decoder(seed=0, width=8, layers=1, heads=1, context=16)
    tokens = encode("a text of 17 byte")
    assert len(training.train(decoder, tokens, seed=0, steps=1)) == 1
    with pytest.raises(ValueError, match="^tokens must hold more than 16 bytes, not 16$"):
        training.train(decoder, tokens[:16], seed=0, steps=1)


def test_the_script_makes_a_checkpoint_and_its_measurements(tmp_path, monkeypatch, capsys):
    tiny = partial(Decoder, width=16, layers=1, heads=2, context=64)
    monkeypatch.setattr(training, "Decoder", tiny)
    monkeypatch.setattr(training, "LOSS_WINDOWS", 4)
    monkeypatch.setattr(training, "training_text", lambda: heldout_text()[30_000:40_000])
    threads = torch.get_num_threads()
    try:
        training.main(f"--seed 7 --steps 50 --windows 1 --out {tmp_path}".split())
    finally:
        torch.set_num_threads(threads)
    made = json.loads((tmp_path / "decoder_seeds.json").read_text(encoding="utf-8"))
    (result,) = made["seeds"]
    assert result["after"]["heldout_loss"] < result["before"]["heldout_loss"] - 0.5
    text = heldout_text()[30_000:40_000]
    assert made["meta"] == {
        "command": "python -m helpers.training --seed 7 --steps 50 --windows 1",
        "seeds": [7],
        "steps": 50,
        "tokens_per_step": 512,
        "parameters": sum(p.numel() for p in tiny(seed=0).parameters()),
        "width": 16,
        "layers": 1,
        "heads": 2,
        "context": 64,
        "loss_windows": 4,
        "head_windows": 1,
        "training_bytes": len(text.encode()),
        "training_text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
    }
    targets = windows(heldout_text(), 64, 4)
    for order in range(1, 6):
        bits = training.ngram_bits(encode(text), targets, order)
        assert made["ngram_heldout_loss"][str(order)] == pytest.approx(bits, abs=5e-5)
    assert len(made["ngram_heldout_loss"]) == 5

    content = (tmp_path / "decoder.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() in capsys.readouterr().out
    decoder = tiny(seed=0)
    decoder.load_state_dict(safetensors.torch.load(content))
    decoder.double()
    loss = bits_per_byte(decoder, windows(heldout_text(), 64, 4))
    assert loss == pytest.approx(result["after"]["heldout_loss"], abs=1e-3)
    costs = truncation_costs(decoder, windows(heldout_text(), 64, 1))
    assert costs == pytest.approx(result["truncation"], abs=1e-3)


def test_what_is_measured_of_a_seed():
    before, after = (Decoder(seed=seed, width=16, layers=1, heads=2, context=64) for seed in (0, 1))
    tokens = encode(heldout_text()[:7000])
    found = training.measure(before, after, tokens, 2)
    context = after.context
    batch = windows(heldout_text(), context, 2)
    # 64 windows, evenly spread over the training text.
    starts = torch.arange(64) * (len(tokens) // 64)
    seen = tokens[starts[:, None] + torch.arange(context + 1)]
    for name, decoder in (("before", before), ("after", after)):
        assert found[name]["train_loss"] == pytest.approx(bits_per_byte(decoder, seen))
        held_out = bits_per_byte(decoder, windows(heldout_text(), context, 64))
        assert found[name]["heldout_loss"] == pytest.approx(held_out)
        for measure, value in vars(measure_heads(decoder, batch[:, :-1])).items():
            torch.testing.assert_close(found[name][measure], value)
    torch.testing.assert_close(found["ablation"], ablation_costs(after, batch))
    assert found["truncation"] == truncation_costs(after, batch)
    assert found["truncation_causal"] == truncation_costs(after, batch, causal=True)
    assert found["truncation"] != found["truncation_causal"]
    for name, value in update_ranks(before, after).items():
        torch.testing.assert_close(found["updates"][name], value)


def test_results_are_rounded_and_written_one_seed_a_line(tmp_path):
    numbers = {"a": [1.23456789, 2e-9], "b": {"c": torch.tensor([1 / 3, 1e6 / 7])}}
    rounded = training.rounded(numbers)
    assert rounded == {"a": [1.2346, 2e-9], "b": {"c": [0.33333, 142860.0]}}
    results = {"meta": {"x": 1}, "seeds": [{"seed": 0, **rounded}, {"seed": 1}]}
    training.write_json(tmp_path / "results.json", results)
    written = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(written) == results
    assert sum(line.startswith('{"seed"') for line in written.splitlines()) == 2


@pytest.mark.parametrize(
    ("options", "arguments", "chosen"),
    [
        ("--all", (list(range(10)), training.STEPS, training.HEAD_WINDOWS, DATA), "--all"),
        ("--seed 3 --steps 7 --windows 2 --out x", ([3], 7, 2, Path("x")), "--seed 3"),
    ],
)
def test_options_of_the_script(options, arguments, chosen, monkeypatch):
    runs = []
    monkeypatch.setattr(training, "run", lambda *given: runs.append(given))
    training.main(options.split())
    [(*given, command)] = runs
    assert tuple(given) == arguments
    steps, head_windows = arguments[1:3]
    script = f"python -m helpers.training {chosen} --steps {steps} --windows {head_windows}"
    assert command == script


@pytest.mark.parametrize("options", ["", "--seed 0", "--all --seed 0 --out x"])
def test_the_script_refuses(options, capsys):
    with pytest.raises(SystemExit):
        training.main(options.split())
    assert "error" in capsys.readouterr().err


# The committed checkpoint and results


def test_checkpoint_is_small_and_was_trained(trained, committed):
    assert DECODER_FILE.stat().st_size <= 4_000_000
    assert sum(p.numel() for p in trained.parameters()) == committed["meta"]["parameters"]
    batch = windows(heldout_text(), trained.context, committed["meta"]["loss_windows"])
    loss = bits_per_byte(trained, batch)
    assert loss == pytest.approx(committed["seeds"][0]["after"]["heldout_loss"], abs=1e-4)
    assert loss < committed["ngram_heldout_loss"]["3"]


def test_checkpoint_measures_as_committed(trained, committed):
    count = committed["meta"]["head_windows"]
    batch = windows(heldout_text(), trained.context, count)[:, :-1]
    measures = measure_heads(trained, batch)
    for name, value in vars(measures).items():
        stored = torch.tensor(committed["seeds"][0]["after"][name], dtype=torch.float64)
        torch.testing.assert_close(value, stored, rtol=2e-4, atol=0.0)


def test_committed_results_are_complete(committed):
    assert [seed["seed"] for seed in committed["seeds"]] == list(range(10))
    assert committed["meta"]["steps"] == training.STEPS
    for seed in committed["seeds"]:
        assert seed["after"]["heldout_loss"] < committed["ngram_heldout_loss"]["3"]
        for measures in (seed["before"], seed["after"]):
            assert all(1 <= k <= 256 for row in measures["k99"] for k in row)


def test_missing_checkpoint(tmp_path):
    with pytest.raises(ModelFileError, match=r"decoder\.safetensors cannot be read.*SHA-256"):
        load_decoder(tmp_path / "decoder.safetensors")


def test_tampered_checkpoint(tmp_path):
    content = bytearray(DECODER_FILE.read_bytes())
    content[-1] ^= 1
    path = tmp_path / "decoder.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"decoder\.safetensors .* allowed is "):
        load_decoder(path)


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "decoder.safetensors"
    torch.save(small().state_dict(), path)
    with pytest.raises(ModelFileError):
        load_decoder(path)


@pytest.mark.bad_input
class TestBadInput:
    @pytest.mark.parametrize(
        ("bad", "error", "said"),
        [
            (TOKENS.double(), TypeError, "float64"),
            (TOKENS.int(), TypeError, "int32"),
            (TOKENS.tolist(), TypeError, "list"),
            (TOKENS[0], ValueError, r"\(24,\)"),
            (TOKENS[:, :0], ValueError, r"\(2, 0\)"),
            (TOKENS.repeat(1, 2), ValueError, "at most 32 .*48"),
            (TOKENS + 200, ValueError, "0 … 255"),
            (TOKENS - 100, ValueError, "0 … 255"),
        ],
    )
    def test_tokens(self, bad, error, said):
        decoder = small()
        for call in (decoder, decoder.attention, decoder.queries_keys):
            with pytest.raises(error, match=rf"^tokens must .*{said}"):
                call(bad)

    @pytest.mark.parametrize(
        ("name", "bad"),
        [
            ("width", 15),
            ("width", 18),
            ("width", 0),
            ("heads", 0),
            ("layers", 1.5),
            ("context", -1),
            ("seed", -1),
            ("seed", None),
        ],
    )
    def test_sizes(self, name, bad):
        sizes = {"seed": 0, "width": 16, "layers": 1, "heads": 2, "context": 8}
        with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*not {bad}"):
            Decoder(**{**sizes, name: bad})

    @pytest.mark.parametrize("rank", [0, 25, 2.0])
    def test_rank(self, rank):
        with pytest.raises((ValueError, TypeError), match=f"rank must be .*{rank}"):
            small()(TOKENS, truncate_all(rank))

    @pytest.mark.parametrize(("bad", "error"), [("", ValueError), (b"bytes", TypeError)])
    def test_text(self, bad, error):
        with pytest.raises(error, match=r"^text must"):
            encode(bad)

    def test_text_shorter_than_its_windows(self):
        with pytest.raises(
            ValueError, match=r"text must hold count = 3 windows of 5 bytes.*not 14"
        ):
            windows("abcdefghijklmn", 4, 3)

    @pytest.mark.parametrize(
        ("name", "layer", "head"),
        [("layer", 2, 0), ("layer", -1, 0), ("head", 0, 2), ("head", 1, -1)],
    )
    def test_no_such_head(self, name, layer, head):
        with pytest.raises(ValueError, match=f"^{name} must be between 0 and 1"):
            ablate(small(), layer, head)

    @pytest.mark.parametrize("steps", [0, 1.5])
    def test_steps(self, steps):
        with pytest.raises((ValueError, TypeError), match=f"steps must be .*not {steps}"):
            training.train(small(), TOKENS[0], seed=0, steps=steps)

    def test_one_column_has_no_row_entropy(self):
        with pytest.raises(ValueError, match="tokens must have at least 2 columns, not 1"):
            measure_heads(small(), TOKENS[:, :1])

    def test_order(self):
        with pytest.raises(ValueError, match="order must be at least 1, not 0"):
            training.ngram_bits(TOKENS[0], TOKENS, 0)

    def test_training_text_too_short(self):
        with pytest.raises(ValueError, match="tokens must hold more than 32 bytes, not 24"):
            training.train(small(), TOKENS[0], seed=0, steps=1)
