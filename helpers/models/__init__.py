"""Trained models, and their attention."""

from helpers.models.decoder import (
    BYTES,
    DECODER_FILE,
    DECODER_SHA256,
    ROTATION_BASE,
    Block,
    Decoder,
    Transform,
    bits_per_byte,
    check_tokens,
    load_decoder,
    rotate,
)
from helpers.models.files import ModelFileError, read_verified
from helpers.models.minilm import (
    MINILM_PACKAGE,
    MINILM_SHA256,
    MINILM_WINDOW,
    minilm,
    minilm_attention,
    minilm_folder,
    minilm_heads,
    minilm_queries_keys,
    minilm_reinitialised,
    minilm_tokens,
)

__all__ = [
    "BYTES",
    "DECODER_FILE",
    "DECODER_SHA256",
    "MINILM_PACKAGE",
    "MINILM_SHA256",
    "MINILM_WINDOW",
    "ROTATION_BASE",
    "Block",
    "Decoder",
    "ModelFileError",
    "Transform",
    "bits_per_byte",
    "check_tokens",
    "load_decoder",
    "minilm",
    "minilm_attention",
    "minilm_folder",
    "minilm_heads",
    "minilm_queries_keys",
    "minilm_reinitialised",
    "minilm_tokens",
    "read_verified",
    "rotate",
]
