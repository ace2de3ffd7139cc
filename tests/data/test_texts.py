"""The committed texts: what they are, that they fill the window, and what is kept from training."""

import gzip
import json
import platform

import pytest
import torch

from experiments import make_texts
from helpers.data import (
    DATA,
    FIRST_WORD_PIECE,
    LONG_KINDS,
    TEXT_KINDS,
    TEXTS_PER_KIND,
    VOCABULARY_SIZE,
    first_sentence,
    heldout_text,
    long_ids,
    random_word_pieces,
    text,
    training_text,
)
from helpers.models import MINILM_WINDOW, minilm_tokens, smollm


@pytest.mark.parametrize("kind", TEXT_KINDS)
def test_every_text_fills_the_window_and_none_is_like_another(kind):
    tokens = [minilm_tokens(text(kind, index), MINILM_WINDOW) for index in range(TEXTS_PER_KIND)]
    assert all(len(row) == MINILM_WINDOW for row in tokens)
    assert len({tuple(row.tolist()) for row in tokens}) == TEXTS_PER_KIND


def test_prose_has_no_tables_and_code_starts_at_a_definition():
    for index in range(TEXTS_PER_KIND):
        assert not {"|", "+-", "==="} & set(text("prose", index).split())
        assert "|" not in text("prose", index)
        assert text("code", index).startswith(("class ", "def "))


@pytest.mark.parametrize("index", range(TEXTS_PER_KIND))
def test_repeated_is_one_sentence_of_the_prose(index):
    sentence = first_sentence(text("prose", index))
    assert sentence in " ".join(text("prose", index).split())
    assert text("repeated", index).replace(sentence, "").strip() == ""


def test_random_word_pieces_are_uniform_and_seeded():
    pieces = random_word_pieces(100_000, seed=3)
    assert torch.equal(pieces, random_word_pieces(100_000, seed=3))
    assert not torch.equal(pieces, random_word_pieces(100_000, seed=4))
    assert pieces.min() >= FIRST_WORD_PIECE
    assert pieces.max() < VOCABULARY_SIZE
    # Mean and standard deviation of a uniform draw, within five standard errors.
    width = VOCABULARY_SIZE - FIRST_WORD_PIECE
    middle = (VOCABULARY_SIZE + FIRST_WORD_PIECE - 1) / 2
    assert abs(pieces.double().mean() - middle) < 5 * width / (12 * 100_000) ** 0.5
    assert abs(pieces.double().std() - width / 12**0.5) < 0.01 * width


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: text("Prose", 0), "kind must be one of 'prose', .*, not 'Prose'"),
        (lambda: text("code", -1), "index must be between 0 and 9, not -1"),
        (lambda: text("code", 10), "index must be between 0 and 9, not 10"),
        (lambda: text("code", 1.0), "index must be an integer"),
        (lambda: random_word_pieces(0, seed=0), "count must be at least 1"),
        (lambda: first_sentence("too short. and no capital"), "prose must hold a sentence"),
        (lambda: first_sentence(b"bytes"), "prose must be a string, not bytes"),
    ],
)
def test_wrong_arguments_are_named(call, said):
    with pytest.raises((ValueError, TypeError), match=f"^{said}"):
        call()


def test_nothing_held_out_is_trained_on():
    held_out = heldout_text()
    training = make_texts.squeezed(training_text())
    prose = [text("prose", index) for index in range(TEXTS_PER_KIND)]
    long = [
        make_texts.squeezed(part)
        for part in make_texts.paragraphs("\n\n".join([held_out, *prose]))
        if len(part) > 100
    ]
    assert len(long) > 100
    leaked = [part for part in long if part in training]
    assert not leaked, leaked[:3]
    # Phrases do recur; stretches of 60 characters hardly ever (0.5 % when this was written).
    text_ = make_texts.squeezed(held_out)
    stretches = [text_[start : start + 60] for start in range(0, len(text_) - 60, 37)]
    assert sum(stretch in training for stretch in stretches) < 0.01 * len(stretches)


@pytest.mark.skipif(
    platform.python_version() != "3.11.7", reason="the texts were cut from Python 3.11.7"
)
def test_the_committed_texts_are_what_the_script_makes():
    assert heldout_text() == make_texts.held_out()
    long = json.loads(gzip.decompress((DATA / "long.json.gz").read_bytes()))
    assert long == make_texts.long_texts()
    assert training_text() == make_texts.training_text(make_texts.held_out())
    for index in range(TEXTS_PER_KIND):
        assert text("prose", index) == make_texts.prose(make_texts.PROSE_TOPICS[index])
        assert text("code", index) == make_texts.code(make_texts.CODE_MODULES[index])


@pytest.mark.parametrize("kind", LONG_KINDS)
def test_long_texts_are_different_and_long_enough(kind):
    tokenizer = smollm().tokenizer
    found = [long_ids(kind, index, 2048, tokenizer) for index in range(TEXTS_PER_KIND)]
    assert {len(ids) for ids in found} == {2048}
    assert len({tuple(ids[:64].tolist()) for ids in found}) == TEXTS_PER_KIND
    assert torch.equal(long_ids(kind, 3, 64, tokenizer), found[3][:64])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("kind must be one of", ("poems", 0, 64)),
        ("index must be between 0 and 9, not 10", ("prose", 10, 64)),
        ("n must be at most [0-9]+, the tokens of code 0, not 4096", ("code", 0, 4096)),
    ],
)
def test_wrong_long_texts_are_named(said, arguments):
    with pytest.raises(ValueError, match=f"^{said}"):
        long_ids(*arguments, smollm().tokenizer)
