"""Texts and matrices that the chapters measure on."""

from helpers.data.cases import NOTE_CASES, note_targets
from helpers.data.texts import (
    DATA,
    FIRST_WORD_PIECE,
    TEXT_KINDS,
    TEXTS_PER_KIND,
    VOCABULARY_SIZE,
    encode,
    first_sentence,
    heldout_text,
    random_word_pieces,
    text,
    training_text,
    windows,
)

__all__ = [
    "DATA",
    "FIRST_WORD_PIECE",
    "NOTE_CASES",
    "TEXTS_PER_KIND",
    "TEXT_KINDS",
    "VOCABULARY_SIZE",
    "encode",
    "first_sentence",
    "heldout_text",
    "note_targets",
    "random_word_pieces",
    "text",
    "training_text",
    "windows",
]
