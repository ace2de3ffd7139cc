"""Texts and matrices that the chapters measure on."""

# fmt: off
from helpers.data.texts import (
    DATA, FIRST_WORD_PIECE, LONG_KINDS, TEXTS_PER_KIND, TEXT_KINDS, VOCABULARY_SIZE, dialogue,
    first_sentence, heldout_text, long_ids, random_word_pieces, text, training_text,
)
from helpers.data.cases import NOTE_CASES, note_targets
