"""Trained models, and their attention."""

# fmt: off
from helpers.models.files import ModelFileError, read_verified
from helpers.models.minilm import (
    MINILM_PACKAGE, MINILM_SHA256, MINILM_WINDOW, minilm, minilm_attention, minilm_folder,
    minilm_heads, minilm_queries_keys, minilm_reinitialised, minilm_tokens,
)
from helpers.models.decoder import (
    BYTES, Block, DECODER_FILE, DECODER_SHA256, Decoder, ROTATION_BASE, Transform,
    bits_per_byte, check_tokens, load_decoder, rotate,
)
