"""The small decoder: its architecture, replaced attention, and its committed checkpoint."""

import copy
from math import cos, sin

import pytest
import torch

from experiments.decoder import DECODER_FILE, Decoder, encode, load_decoder, rotate, windows
from experiments.decoder_measures import bits_per_byte
from helpers.data import heldout_text
from helpers.maths import attention_weights, causal_mask, gaussian, truncate
from helpers.models import ModelFileError

BATCH = windows(heldout_text(), 24, 2)  # (2, 25): 24 inputs, and the last target
TOKENS = BATCH[:, :-1]


def small(seed: int = 0) -> Decoder:
    return Decoder(seed=seed, width=16, layers=2, heads=2, context=32).double().eval()


def test_a_byte_changes_no_output_before_it():
    decoder = small()
    before = decoder(TOKENS)
    for place in (0, 11, 23):
        changed = TOKENS.clone()
        changed[:, place] = (changed[:, place] + 1) % 256
        after = decoder(changed)
        torch.testing.assert_close(after[:, :place], before[:, :place])
        assert (after[:, place:] - before[:, place:]).abs().amax((0, 2)).min() > 1e-6


def test_attention_is_the_books_formula_of_queries_and_keys():
    decoder = small()
    weights, (queries, keys, values) = decoder.attention(TOKENS), decoder.heads(TOKENS)
    assert weights.shape == (2, 2, 2, 24, 24)
    assert queries.shape == values.shape == (2, 2, 2, 24, 8)
    expected = attention_weights(queries, keys, mask=causal_mask(24))
    torch.testing.assert_close(weights, expected)


def test_two_layers_by_hand():
    decoder = small(1)
    tokens = TOKENS[:1, :5]
    attended, (queries, keys, values) = decoder.attention(tokens)[0], decoder.heads(tokens)

    def normal(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()

    x = decoder.embedding.weight[tokens[0]]
    for layer, block in enumerate(decoder.blocks):
        outputs = []
        for head, own in enumerate((slice(0, 8), slice(8, 16))):
            Q, K = (rotate(normal(x) @ W[:, own]) for W in (block.W_Q, block.W_K))
            V = normal(x) @ block.W_V[:, own]
            logits = (Q @ K.T / 8**0.5).masked_fill(~causal_mask(5), float("-inf"))
            A = logits.exp() / logits.exp().sum(-1, keepdim=True)
            outputs.append(A @ V)
            for part, expected in ((attended, A), (queries[0], Q), (keys[0], K), (values[0], V)):
                torch.testing.assert_close(part[layer, head], expected)
        x = x + torch.cat(outputs, -1) @ block.W_O
        x = x + block.mlp(block.mlp_norm(x))
    torch.testing.assert_close(decoder(tokens)[0], decoder.norm(x) @ decoder.embedding.weight.T)


def test_rotation_keeps_lengths_and_sees_only_distances():
    queries, keys = gaussian(2, 8, seed=0)
    turned_queries, turned_keys = rotate(queries.expand(20, 8)), rotate(keys.expand(20, 8))
    torch.testing.assert_close(turned_queries.norm(dim=-1), queries.norm().expand(20))
    products = turned_queries @ turned_keys.T
    for distance in range(1, 19):
        diagonal = products.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products[:, 0].std() > 0.1
    # Coordinates k and k + d/2 form a plane; the first plane turns by one radian per place.
    first = torch.eye(8, dtype=torch.float64)[0].expand(3, 8)
    assert rotate(first)[2, [0, 4]].tolist() == pytest.approx([cos(2), sin(2)])


def test_weights_follow_the_seed_alone_and_have_their_scales():
    state = torch.get_rng_state()
    first, again, other = (dict(Decoder(seed=seed).named_parameters()) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert weight.ndim == 1 or not torch.equal(weight, other[name]), name
    variances = {
        "W_Q": 1 / 96,
        "W_O": 1 / 96 / 8,
        "mlp.0.weight": 1 / 96,
        "mlp.2.weight": 1 / 384 / 8,
    }
    for name, variance in variances.items():
        # 9,216 numbers in the smallest matrix: the deviation is within 4 % by five sigma.
        assert first[f"blocks.1.{name}"].std().item() == pytest.approx(variance**0.5, rel=0.04)


def test_a_replaced_attention_is_what_mixes_the_values():
    decoder = small()
    expected = decoder(TOKENS)
    torch.testing.assert_close(decoder(TOKENS, lambda _, A: truncate(A, 24)), expected)
    cut = copy.deepcopy(decoder)
    with torch.no_grad():
        cut.blocks[1].W_O[:8] = 0  # head 0 of width 8
    kept = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
    ablated = decoder(TOKENS, lambda layer, A: A * kept if layer == 1 else A)
    torch.testing.assert_close(ablated, cut(TOKENS))
    assert not torch.allclose(ablated, expected)


def test_a_decoder_that_knows_nothing_needs_eight_bits_for_a_byte():
    decoder = small()
    with torch.no_grad():
        decoder.embedding.weight.zero_()
    assert bits_per_byte(decoder, BATCH) == pytest.approx(8)


def test_autocast_does_not_lower_the_precision():
    decoder = small().float()
    logits, queries = decoder(TOKENS), decoder.heads(TOKENS)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(decoder(TOKENS), logits)
        assert torch.equal(decoder.heads(TOKENS)[0], queries)


# The committed checkpoint


def test_the_checkpoint_is_small_and_was_trained():
    assert DECODER_FILE.stat().st_size <= 4_000_000
    trained = load_decoder(str(DECODER_FILE))  # a path may be a string
    assert not trained.training
    batch = windows(heldout_text(), trained.context, 3)
    assert bits_per_byte(trained, batch) < 3 < bits_per_byte(Decoder(seed=0), batch)


@pytest.mark.parametrize("kind", ["missing", "changed by a bit", "a pickle"])
def test_no_other_file_is_read(tmp_path, kind):
    path = tmp_path / "decoder.safetensors"
    if kind == "changed by a bit":
        content = bytearray(DECODER_FILE.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif kind == "a pickle":
        torch.save(small().state_dict(), path)
    said = "cannot be read.*SHA-256" if kind == "missing" else "SHA-256 is .*, allowed is "
    with pytest.raises(ModelFileError, match=rf"decoder\.safetensors.*{said}"):
        load_decoder(path)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (TOKENS.double(), "float64"),
        (TOKENS.int(), "int32"),
        (TOKENS.tolist(), "list"),
        (TOKENS[0], r"\(24,\)"),
        (TOKENS[:, :0], r"\(2, 0\)"),
        (TOKENS.repeat(1, 2), "at most 32 .*48"),
        (TOKENS + 200, "0 … 255"),
        (TOKENS - 100, "0 … 255"),
    ],
)
def test_wrong_tokens_are_named(bad, said):
    decoder = small()
    for call in (decoder, decoder.attention, decoder.heads):
        with pytest.raises((ValueError, TypeError), match=rf"^tokens must .*{said}"):
            call(bad)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        *(("width", bad) for bad in (15, 18, 0)),
        *(("heads", 0), ("layers", 1.5), ("context", -1), ("seed", -1), ("seed", None)),
    ],
)
def test_wrong_sizes_are_named(name, bad):
    sizes = {"seed": 0, "width": 16, "layers": 1, "heads": 2, "context": 8}
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be .*not {bad}"):
        Decoder(**{**sizes, name: bad})


def test_text_is_its_bytes_and_windows_cut_it_without_overlap():
    assert encode("né").tolist() == [110, 195, 169]
    letters = "".join(chr(33 + i) for i in range(90))
    rows = windows(letters, 9, 7)
    assert rows.shape == (7, 10)
    assert len(set(rows.flatten().tolist())) == 70
    assert bytes(rows[1].tolist()).decode() in letters


def test_texts_that_cannot_be_cut_into_windows_are_named():
    for arguments, said in (
        (("abcdefghijklmn", 4, 3), "text must hold count = 3 windows .*not 14"),
        (("abc", 0, 1), "context must be at least 1"),
        (("abc", 1, 0), "count must be at least 1"),
        (("caf\udce9", 1, 1), r"text must be Unicode text, .* 3, '\\udce9'"),
    ):
        with pytest.raises(ValueError, match=f"^{said}"):
            windows(*arguments)
